"""A soak: clients book, move and cancel over HTTP for as long as is asked, while the provider fails and processes die.

`python -m tests.faults.soak --minutes 60` writes a report; the suite runs the same for some seconds. What was
acknowledged is held against the log, and the log against the provider's own ledger.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp

from appointments import Settings, bootstrap
from appointments.radicale import free_port
from domain.identity import appointment_id
from domain.lifecycle import State
from mocks.server import MockProvider
from projections.health import health
from projections.listing import appointments
from saga.clock import WallClock

ROOT = Path(__file__).resolve().parents[2]
BEGIN = datetime(2031, 3, 3, 8, tzinfo=UTC)
ENDS = (State.CONFIRMED, State.FAILED, State.CANCELLED)
FAULTS: list[dict[str, Any]] = [
    *([{"mode": "immediate"}] * 6),
    {"mode": "fail_then_succeed", "failures": 1, "status": 503},
    *([{"mode": "immediate"}] * 4),
    {"mode": "lost_response", "how": "rst"},
    {"mode": "delayed", "delay_ms": 60},
    {"mode": "pending", "settle_ms": 80, "via": "poll"},
    *([{"mode": "immediate"}] * 4),
    {"mode": "timeout", "applied": True},
    {"mode": "lost_response", "how": "500"},
    {"mode": "rate_limited", "status": 429, "retry_after": "number"},
]
SETTINGS = {
    "CALL_TIMEOUT_MS": 300,
    "BACKOFF_MS": 20,
    "SETTLE_MS": 500,
    "POLL_MS": 50,
    "BREAKER_OPEN_MS": 200,
    "BREAKER_FAILURES_MAX": 20,
    "ATTEMPTS_MAX": 6,
    "DEADLINE_MS": 20_000,
    "HTTP_DRAIN_MS": 0,
    "LOG_LEVEL": "error",
}
UP_WITHIN_S = 60.0
ANSWERED_WITHIN_S = 10.0
ENDED_WITHIN_S = 90.0
SAMPLE_EVERY_S = 5.0


@dataclass
class Report:
    """What came of it."""

    seed: int
    minutes: float
    processes: int
    acknowledged: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    """Requests that were not answered, and sent again under the same key."""
    kills: int = 0
    freezes: int = 0
    restart_s: list[float] = field(default_factory=list)
    """From a kill to the next answer of the process in its place."""
    answer_ms: list[float] = field(default_factory=list)
    samples: list[dict[str, float]] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The figures, times as points."""
        points = statistics.quantiles(self.answer_ms, n=100) if len(self.answer_ms) > 1 else [0.0] * 99
        return {
            "seed": self.seed,
            "minutes": self.minutes,
            "processes": self.processes,
            "acknowledged": self.acknowledged,
            "refused": dict(self.refused),
            "repeated": self.repeated,
            "kills": self.kills,
            "freezes": self.freezes,
            "restart_s_max": round(max(self.restart_s, default=0.0), 3),
            "answer_ms": {"p50": round(points[49], 2), "p99": round(points[98], 2)},
            "ends": dict(self.ends),
            "samples": self.samples,
            "violations": self.violations,
        }


class Process:
    """One `appointments serve`, on a port of its own; killed and started again at will."""

    def __init__(self, folder: Path, store: str, provider: str) -> None:
        self.port, self._folder = free_port(), folder
        self._words = ("serve", "--port", str(self.port), "--store", store, "--provider", provider)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process as it runs now."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it; it is up once it answers."""
        with (self._folder / f"serve-{self.port}.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "appointments.cli", *self._words),
                cwd=self._folder,
                env=environment(),
                stdout=log,
                stderr=log,
            )

    async def end(self, how: signal.Signals) -> None:
        """Send it a signal, and wait until it is gone."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
        await self._process.wait()

    def freeze(self) -> None:
        """Have it stand still."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Have it go on, where it lives."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)

    def rss_mb(self) -> float:
        """The memory that it holds."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return 0.0
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def environment() -> dict[str, str]:
    """Ours without settings of somebody else, and those of a soak."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("APPOINTMENTS_")}
    ours = {f"APPOINTMENTS_{name}": str(value) for name, value in SETTINGS.items()}
    return {**clean, **ours, "PYTHONPATH": str(ROOT)}


class Clients:
    """So many clients, each with one request at a time, that repeat it under the same key until it is answered."""

    def __init__(self, processes: Sequence[Process], token: str, report: Report) -> None:
        self._processes, self._token, self._report = processes, token, report
        self.acknowledged: set[str] = set()
        self._numbers = 0

    async def run(self, clients: int, until: float, chance: random.Random) -> None:
        """Go on until then (by the loop's clock)."""
        timeout = aiohttp.ClientTimeout(total=ANSWERED_WITHIN_S)
        headers = {"Authorization": f"Bearer {self._token}"}
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session, asyncio.TaskGroup() as group:
            for n in range(clients):
                group.create_task(self._one(session, until, random.Random(chance.random() + n)))

    async def _one(self, session: aiohttp.ClientSession, until: float, chance: random.Random) -> None:
        while asyncio.get_running_loop().time() < until:
            self._numbers += 1
            number = self._numbers
            start = BEGIN + timedelta(minutes=15 * number)
            times = {"start": start.isoformat(), "end": (start + timedelta(minutes=15)).isoformat()}
            body = {"calendar": "main", **times, "time_zone": "UTC", "summary": f"Visit {number}"}
            path = "/v1/appointments"
            booked = await self._ask(session, chance, path, f"book-{number}", body)
            if booked is None:
                continue
            one, kind = f"{path}/{booked['id']}", chance.random()
            if kind < 0.2:
                await self._ask(session, chance, f"{one}/cancel", f"cancel-{number}", {"reason": "ill"})
            elif kind < 0.3:
                later = {name: datetime.fromisoformat(at) + timedelta(days=1_000) for name, at in times.items()}
                moved = {name: at.isoformat() for name, at in later.items()}
                await self._ask(session, chance, f"{one}/reschedule", f"move-{number}", moved)
            await asyncio.sleep(chance.random() * 0.05)

    async def _ask(
        self, session: aiohttp.ClientSession, chance: random.Random, path: str, key: str, body: dict[str, Any]
    ) -> dict[str, Any] | None:
        began = time.perf_counter()
        while True:
            url = chance.choice(self._processes).url + path
            try:
                async with session.post(url, json=body, headers={"Idempotency-Key": key}) as answer:
                    told = await answer.json(content_type=None)
                    if answer.status < 300:
                        self.acknowledged.add(key)
                        self._report.acknowledged += 1
                        self._report.answer_ms.append((time.perf_counter() - began) * 1_000)
                        return dict(told)
                    if answer.status not in (429, 503):
                        self._report.refused[f"{answer.status} {told.get('type', '').rpartition(':')[2]}"] += 1
                        return None
            except (aiohttp.ClientError, TimeoutError, json.JSONDecodeError):
                pass
            self._report.repeated += 1
            await asyncio.sleep(0.1)


@asynccontextmanager
async def _up(folder: Path, store: str, provider: str, count: int) -> AsyncIterator[list[Process]]:
    processes = [Process(folder, store, provider) for _ in range(count)]
    try:
        for process in processes:
            await process.start()
            await answers(process)
        yield processes
    finally:
        for process in processes:
            await process.end(signal.SIGKILL)


async def answers(process: Process) -> float:
    """Wait until it answers; how many seconds that took."""
    began = time.perf_counter()
    async with aiohttp.ClientSession() as session, asyncio.timeout(UP_WITHIN_S):
        while True:
            with suppress(aiohttp.ClientError):
                async with session.get(f"{process.url}/readyz") as answer:
                    if answer.status == 200:
                        return time.perf_counter() - began
            await asyncio.sleep(0.02)


async def _token(folder: Path, store: str) -> str:
    words = ("token", "create", "--name", "soak", "--role", "admin", "--json", "--store", store)
    made = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "appointments.cli", *words),
        cwd=folder,
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
    )
    found = re.search(r"appt_[\w-]+", (await made.communicate())[0].decode())
    assert found is not None
    return found[0]


async def _trouble(processes: Sequence[Process], report: Report, until: float, every_s: float, seed: int) -> None:
    """Kill one or another, or have it stand still for a while."""
    chance, loop = random.Random(seed), asyncio.get_running_loop()
    while loop.time() + 2 * every_s < until:
        await asyncio.sleep(every_s * chance.uniform(0.5, 1.5))
        one = chance.choice(processes)
        if chance.random() < 0.3:
            one.freeze()
            report.freezes += 1
            await asyncio.sleep(chance.uniform(0.2, 1.0) * min(every_s, 12.0))
            one.go_on()
        else:
            await one.end(signal.SIGKILL)
            report.kills += 1
            await one.start()
            report.restart_s.append(await answers(one))


async def _sample(processes: Sequence[Process], report: Report) -> None:
    began = time.perf_counter()
    while True:
        await asyncio.sleep(SAMPLE_EVERY_S)
        memory = [one.rss_mb() for one in processes]
        seen = {"s": time.perf_counter() - began, "acknowledged": report.acknowledged, "rss_mb_max": max(memory)}
        report.samples.append({name: round(value, 1) for name, value in seen.items()})


async def soak(
    folder: Path,
    minutes: float,
    *,
    seed: int,
    clients: int = 8,
    store: str = "",
    processes: int = 1,
    every_s: float = 10.0,
) -> Report:
    """Run it. `store`: a file in the folder, unless another is named; `every_s`: how often something happens."""
    report = Report(seed, minutes, processes)
    store = store or f"sqlite:///{folder / 'soak.db'}"
    async with AsyncExitStack() as stack:
        mock = await stack.enter_async_context(MockProvider())
        mock.load({"match": {"op": "create"}, "behaviors": FAULTS, "times": -1})
        token = await _token(folder, store)
        up = await stack.enter_async_context(_up(folder, store, mock.url, processes))
        until = asyncio.get_running_loop().time() + minutes * 60
        sampling = asyncio.create_task(_sample(up, report))
        asked = Clients(up, token, report)
        await asyncio.gather(
            asked.run(clients, until, random.Random(seed)), _trouble(up, report, until, every_s, seed + 1)
        )
        mock.clear_scripts()
        sampling.cancel()
        settings = Settings(store=store, provider=mock.url)
        await _ended(settings)
        for process in up:
            await process.end(signal.SIGTERM)
        report.violations = await judged(settings, asked.acknowledged, mock.ledger(), report)
    return report


async def _ended(settings: Settings) -> None:
    """Wait until nothing is under way but what is parked."""
    store = await bootstrap.open_store(settings, read_only=True)
    try:
        async with asyncio.timeout(ENDED_WITHIN_S):
            while any(not row.parked for row in await store.open_work()):
                await asyncio.sleep(0.2)
    except TimeoutError:
        return  # the judge says what is left
    finally:
        await store.close()


async def judged(settings: Settings, acknowledged: set[str], ledger: dict[str, Any], report: Report) -> list[str]:
    """What is wrong: G1 in the log, G2 at the provider, G3 and G6 by a check of the whole store."""
    store = await bootstrap.open_store(settings, read_only=True)
    try:
        states = {state.id: state async for state in appointments(store)}
        found = await health(store, WallClock().now(), {("booking", 1, settings.provider_name)})
    finally:
        await store.close()
    wrong = [f"health: {finding.kind} {finding.subject}: {finding.detail}" for finding in found.findings]
    known = {key for state in states.values() for _operation, key, _fingerprint in state.keys}
    wrong += [f"G1: {key} was acknowledged and is not in the log" for key in sorted(acknowledged - known)]
    live: Counter[str] = Counter()
    for booking in ledger["bookings"]:
        if booking["status"] in ("pending", "accepted"):
            live[booking["client_ref"].replace("-", "")[:32]] += 1
    for id, state in states.items():
        report.ends["parked" if state.parked else state.state.value] += 1
        there = live.pop(id.hex, 0)
        if state.parked:
            continue
        if state.state not in ENDS:
            wrong.append(f"G6: {id} is {state.state}")
        if there != (state.state is State.CONFIRMED):
            wrong.append(f"G2: {id} is {state.state}, and {there} bookings are live")
    wrong += [f"G2: nobody knows of {reference}" for reference in live]
    assert len(states) == len({appointment_id("default", state.key) for state in states.values()})
    return wrong


def main() -> None:
    """Run a soak, print what came of it, write the report; exit 1 where a guarantee was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=20_261_125)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--store", default="", help="unset: a SQLite file; many processes need postgresql://…")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two blows")
    parser.add_argument("--output", type=Path, default=Path("results/soak.json"))
    asked = parser.parse_args()
    with TemporaryDirectory(prefix="appointments-soak-") as name:
        report = asyncio.run(
            soak(
                Path(name),
                asked.minutes,
                seed=asked.seed,
                clients=asked.clients,
                store=asked.store,
                processes=asked.processes,
                every_s=asked.every,
            )
        )
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    shown = {name: value for name, value in report.as_json().items() if name != "samples"}
    print(json.dumps(shown, indent=2))
    sys.exit(1 if report.violations else 0)


if __name__ == "__main__":
    main()
