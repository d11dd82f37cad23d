"""Measure the outbox: events a second to a function, a webhook and a JetStream; what subscribers cost who books.

Receiver and broker are processes of their own on this machine: they share its cores. Bookings without and with
subscribers are run by turns. `python -m benchmarks.outbox --help`.
"""

import argparse
import asyncio
import base64
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aiohttp import web
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from appointments import Orchestrator, Settings
from appointments.outbox.cloudevents import CloudEvent
from appointments.outbox.dead_letters import consumer
from appointments.outbox.sink import Answer, Away, Handler, Sink, Subscriber
from tests.contract.nats_server import SUBJECT, free_port, make_stream, nats_server

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
WANTED = {
    "calendar": "main",
    "start": "2031-03-03T09:00:00Z",
    "end": "2031-03-03T09:30:00Z",
    "time_zone": "Europe/Berlin",
    "summary": "Check-up",
}
CLIENTS = 32
BOOKINGS_MIN = 100
CONCURRENCIES = (8, 64)
DOWN_FOR_S = 3.0
MANY = 10
KINDS = {
    "nobody": "nobody",
    "function": "a function",
    "functions": f"{MANY} functions",
    "webhook": "a webhook",
    "slow": "one that takes 1 event/s",
}


async def _at_once(_: CloudEvent) -> None:
    """A subscriber that has nothing to do."""


async def _slowly(_: CloudEvent) -> None:
    """A subscriber that takes one event a second."""
    await asyncio.sleep(1)


class _Nobody(Sink):
    async def deliver(self, event: CloudEvent) -> Answer:
        return Away("no answer")

    async def close(self) -> None:
        """Nothing is kept open."""


async def _receive() -> None:
    """A receiver that takes everything and looks at nothing. Prints its port."""

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=204)

    application = web.Application()
    application.router.add_post("/events", take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


def _settings(file: Path, subscription: dict[str, Any] | None, port: int) -> Settings:
    told = {} if subscription is None else {"it": {"since": "beginning", **subscription}}
    base = {"store": f"sqlite:///{file}", "provider": "local:", "log_level": "error", "concurrency": 10_000}
    opened = {"outbound_private": True, "outbound_ports": [port], "tenant_concurrency": 10_000}
    return Settings.model_validate({**base, **opened, "subscriptions": told})


@asynccontextmanager
async def _desk(file: Path, subscription: dict[str, Any] | None = None, port: int = 443) -> AsyncIterator[Orchestrator]:
    async with Orchestrator.open(_settings(file, subscription, port), listen=False) as desk:
        yield desk


async def _book(desk: Orchestrator, bookings: int) -> float:
    """Bookings a second, each acknowledged with its durable end."""

    async def client(mine: range) -> None:
        for n in mine:
            booked = await desk.book(WANTED, key=f"key-{n}", wait=60)
            assert booked.state == "confirmed", booked

    began = time.perf_counter()
    await asyncio.gather(*(client(range(n, bookings, CLIENTS)) for n in range(CLIENTS)))
    return bookings / (time.perf_counter() - began)


async def _booked(file: Path, bookings: int, port: int, *further: Subscriber, webhook: bool = False) -> float:
    async with _desk(file, _hook(port) if webhook else None, port) as desk, desk.outbox(*further):
        return await _book(desk, bookings)


async def _told(file: Path, port: int, subscription: dict[str, Any] | None, *further: Subscriber) -> dict[str, float]:
    """What one subscriber is told of a log from its beginning, as fast as it goes."""
    async with _desk(file, subscription, port) as desk:
        store = desk.runtime.store
        end = await store.position()
        cpu, began = time.process_time(), time.perf_counter()
        async with desk.outbox(*further):
            while await store.checkpoint(consumer("it")) != end:
                await asyncio.sleep(0.01)
            seconds = time.perf_counter() - began
        return {"events": end, "events_per_s": end / seconds, "cpu_ms_each": (time.process_time() - cpu) * 1_000 / end}


def _down(file: Path) -> dict[str, float]:
    """What is held in memory for a subscriber that takes nothing of a whole log; in a process that did nothing else."""
    with ProcessPoolExecutor(1, get_context("spawn")) as alone:
        return alone.submit(_alone, file).result()


def _alone(file: Path) -> dict[str, float]:
    return asyncio.run(_held(file))


async def _held(file: Path) -> dict[str, float]:
    async with _desk(file) as desk:
        behind, before = await desk.runtime.store.position(), _rss_mb()
        async with desk.outbox(Subscriber("it", "default", _Nobody(), from_beginning=True)):
            await asyncio.sleep(DOWN_FOR_S)
            return {"events_behind": behind, "rss_added_mb": _rss_mb() - before}


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _hook(port: int, concurrency: int = 8) -> dict[str, Any]:
    return {"url": f"http://127.0.0.1:{port}/events", "secret": SECRET, "concurrency": concurrency}


async def _deliveries(folder: Path, log: Path, port: int) -> dict[str, Any]:
    """Each kind of subscriber on a copy of the same log."""
    found: dict[str, Any] = {}
    copies = (Path(shutil.copy(log, folder / f"told-{n}.db")) for n in range(99))
    for n in CONCURRENCIES:
        function = Subscriber("it", "default", Handler(_at_once), from_beginning=True, concurrency=n)
        found[f"function_{n}"] = await _told(next(copies), port, None, function)
        found[f"webhook_{n}"] = await _told(next(copies), port, _hook(port, n))
        (broker := folder / f"nats-{n}").mkdir()
        async with nats_server(broker, free_port()) as url:
            await make_stream(url)
            bus = {"url": url, "subject": SUBJECT, "concurrency": n}
            found[f"jetstream_{n}"] = await _told(next(copies), port, bus)
    found["down"] = _down(next(copies))
    return found


def _by_turns(folder: Path, asked: argparse.Namespace, port: int) -> Iterator[tuple[str, float]]:
    """Bookings a second without and with subscribers; the first round warms up and is not told."""
    functions = [Subscriber(f"it-{n}", "default", Handler(_at_once)) for n in range(MANY)]
    slow = Subscriber("it", "default", Handler(_slowly), concurrency=1)
    told = {"nobody": [], "function": functions[:1], "functions": functions, "webhook": [], "slow": [slow]}
    for n in range(asked.rounds + 1):
        for kind, further in told.items():
            file = folder / f"{kind}-{n}.db"
            per_s = asyncio.run(_booked(file, asked.bookings, port, *further, webhook=kind == "webhook"))
            if n:
                yield kind, per_s


def _measure(folder: Path, asked: argparse.Namespace, port: int, progress: Progress) -> dict[str, Any]:
    task = progress.add_task("measuring", total=len(KINDS) * asked.rounds + 2)
    rates: dict[str, list[float]] = {}
    for kind, per_s in _by_turns(folder, asked, port):
        rates.setdefault(kind, []).append(per_s)
        progress.advance(task)
    log = folder / "log.db"
    asyncio.run(_booked(log, asked.log, port))
    progress.advance(task)
    found = {"deliveries": asyncio.run(_deliveries(folder, log, port)), "rounds": rates}
    progress.advance(task)
    shares = {
        kind: statistics.median(one / none for one, none in zip(some, rates["nobody"], strict=True))
        for kind, some in rates.items()
    }
    return {
        **found,
        "load_average": os.getloadavg()[0],
        "bookings_per_s": {kind: statistics.median(some) for kind, some in rates.items()},
        "share_of_nobody": shares,
    }


def _rows(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    told = found["deliveries"]
    for kind in ("function", "webhook", "jetstream"):
        for n in CONCURRENCIES:
            one = told[f"{kind}_{n}"]
            rate = f"{one['events_per_s']:,.0f} ({one['cpu_ms_each']:.2f} ms of CPU each)"
            yield f"events/s to a {kind}, {n} appointments at once", rate
    down = told["down"]
    yield f"memory for one that is down, {down['events_behind']:,} events behind, MB", f"{down['rss_added_mb']:.0f}"
    for kind, name in KINDS.items():
        rate, share = found["bookings_per_s"][kind], found["share_of_nobody"][kind]
        yield f"bookings/s, told is: {name}", f"{rate:,.0f} ({share:.2f})"


def main() -> None:
    """Run the measurements, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bookings", type=int, default=2_000, help="bookings a round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; medians are told, all are written")
    parser.add_argument("--log", type=int, default=2_000, help="bookings in the log that subscribers are told")
    parser.add_argument("--output", type=Path, default=Path("results/benchmark_outbox.json"))
    parser.add_argument("--receive", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.receive:
        asyncio.run(_receive())
        return
    if min(asked.bookings, asked.log) < BOOKINGS_MIN:
        parser.error(f"--bookings and --log must be at least {BOOKINGS_MIN}")
    command = [sys.executable, "-m", "benchmarks.outbox", "--receive"]
    with (
        TemporaryDirectory(prefix="appointments-benchmark-") as name,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as receiver,
        Progress(transient=True) as progress,
    ):
        assert receiver.stdout is not None
        assert receiver.stdin is not None
        try:
            found = _measure(Path(name), asked, int(receiver.stdout.readline()), progress)
        finally:
            receiver.stdin.close()
    table = Table("what", "measured", title=f"the outbox, {platform.python_version()}, {os.cpu_count()} cores")
    for row in _rows(found):
        table.add_row(*row)
    Console().print(table)
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
