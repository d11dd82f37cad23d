"""What traces cost: sagas without, with, and without again, by turns in one process, to a collector in another one."""

import argparse
import asyncio
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from aiohttp import web

from appointments import Orchestrator, Settings

WANTED = {
    "calendar": "main",
    "start": "2031-03-03T09:00:00Z",
    "end": "2031-03-03T09:30:00Z",
    "time_zone": "Europe/Berlin",
    "summary": "Check-up",
    "attendees": [{"email": "pat@example.org"}],
}
CLIENTS = 32


async def _collect() -> None:
    """A collector that takes everything and looks at nothing. Prints its address."""

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(content_type="application/x-protobuf")

    app = web.Application(client_max_size=2**26)
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


async def _run(file: Path, sagas: int, provider: str, traces_url: str | None) -> tuple[float, float]:
    """Wall and CPU seconds of so many sagas through the Python face."""
    settings = Settings(store=f"sqlite:///{file}", provider=provider, traces_url=traces_url, log_level="error")
    async with Orchestrator.open(settings) as desk:

        async def client(mine: range) -> None:
            for n in mine:
                booked = await desk.book(WANTED, key=f"key-{n}", wait=60)
                assert booked.state == "confirmed", booked

        used, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        await asyncio.gather(*(client(range(n, sagas, CLIENTS)) for n in range(CLIENTS)))
        wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)  # what closing still sends belongs to it
    return wall, after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime


def main() -> None:
    """Run by turns, and print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sagas", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--provider", default="local:", help="local: or an /api/v2 address")
    parser.add_argument("--collect", action="store_true", help="be the collector")
    asked = parser.parse_args()
    if asked.collect:
        asyncio.run(_collect())
        return
    command = [sys.executable, "-m", "benchmarks.tracing", "--collect"]
    with (
        TemporaryDirectory(prefix="appointments-tracing-") as folder,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as collector,
    ):
        assert collector.stdout is not None
        url = collector.stdout.readline().strip()
        took: dict[str, list[tuple[float, float]]] = {"off": [], "on": []}
        for n in range(asked.rounds + 1):
            for name, to in (("off", None), ("on", url)):
                one = asyncio.run(_run(Path(folder) / f"{name}-{n}.db", asked.sagas, asked.provider, to))
                if n:  # the first warms up
                    took[name].append(one)
        if collector.stdin is not None:
            collector.stdin.close()
    walls, cpus = ({name: statistics.median(v[i] for v in runs) for name, runs in took.items()} for i in (0, 1))
    print(f"{asked.sagas} sagas, median of {asked.rounds}: ", end="")
    print(f"off {walls['off']:.3f} s, on {walls['on']:.3f} s: {walls['on'] / walls['off'] - 1:+.1%}; ", end="")
    print(f"CPU {cpus['off']:.3f} s, {cpus['on']:.3f} s: {cpus['on'] / cpus['off'] - 1:+.1%}")


if __name__ == "__main__":
    main()
