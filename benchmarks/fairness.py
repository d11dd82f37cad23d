"""One tenant with a hundred thousand appointments, one provider that never answers: what the others feel of it.

Two worker processes on one PostgreSQL database, started for the run. `python -m benchmarks.fairness --help`.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.sagas import COMMAND, notify
from domain.appointment import Appointment
from domain.commands import Request
from domain.identity import appointment_id
from domain.lifecycle import State
from domain.provider import WriteOutcome
from providers.local import LocalProvider
from saga.clock import WallClock
from saga.definition import CalendarStep, Saga, Step
from saga.entry import entry
from saga.inputs import Asked, Hold
from saga.lanes import Lanes, LimitPolicy
from saga.runtime import Runtime
from saga.turn import turn
from store.port import Append
from store.postgres import PostgresStore
from tests.postgres.server import PostgresServer

CALL_S = 0.005
"""How long the provider takes for a call."""
PLACES, PLACES_OF_A_TENANT = 64, 16
QUEUED_MAX = 10_000
STUCK_APPOINTMENTS = 1_000


class Slow(LocalProvider):
    """A provider that takes its time; a stuck one answers nobody."""

    def __init__(self, name: str, takes_s: float) -> None:
        super().__init__(name)
        self._takes_s = takes_s

    async def create(self, *given: Any, **named: Any) -> WriteOutcome:
        """Book, after a while."""
        await asyncio.sleep(self._takes_s)
        return await super().create(*given, **named)


def _saga() -> Saga:
    calendar = CalendarStep(timeout_ms=1_000)
    return Saga("booking", 1, (calendar, Step("notify", action=notify)), deadline_ms=86_400_000)


def _runtime(store: PostgresStore, name: str) -> Runtime:
    providers = {"main": Slow("main", CALL_S), "stuck": Slow("stuck", 3_600)}
    limits = LimitPolicy(concurrency=PLACES, tenant_concurrency=PLACES_OF_A_TENANT)
    return Runtime(store, WallClock(), [_saga()], providers, Lanes({"*": limits}), name)


def _due(n: int, tenant: str, provider: str, now: datetime) -> Append:
    """One appointment as the runtime would have stored it: requested, and waiting for a place."""
    request, key = Request(key=f"{provider}-{n}", tenant=tenant), f"{provider}-{n}"
    new = Appointment(appointment_id(tenant, key))
    plan = _saga().plan(LocalProvider(provider))
    return entry(new, turn(new, Asked(COMMAND, request), now, plan, lambda _target: Hold("busy")))


async def _fill(url: str, tenant: str, provider: str, count: int, told: Callable[[int], None]) -> None:
    store, now = PostgresStore.open(url, "filler"), datetime.now(UTC)
    for first in range(0, count, QUEUED_MAX):
        numbers = range(first, min(first + QUEUED_MAX, count))
        await asyncio.gather(*(store.append(_due(n, tenant, provider, now)) for n in numbers))
        told(len(numbers))
    await store.close()


async def _work(url: str) -> None:
    store = PostgresStore.open(url, "worker")
    runtime = _runtime(store, "worker")
    await runtime.start()
    await asyncio.to_thread(sys.stdin.read)
    await runtime.stop()
    await store.close()


async def _small(url: str, bookings: int, name: str) -> dict[str, float]:
    """What a tenant with one booking after the other waits until each has its end; milliseconds."""
    store = PostgresStore.open(url, f"front-{name}")
    runtime = _runtime(store, f"front-{name}")
    await runtime.start()
    plan, took = _saga().plan(LocalProvider("main")), []
    for n in range(bookings):
        began, key = time.perf_counter(), f"{name}-{n}"
        await runtime.give(appointment_id("small", key), Asked(COMMAND, Request(key=key, tenant="small")), plan)
        state = await runtime.settled(appointment_id("small", key), 60)
        assert state.state is State.CONFIRMED, state
        took.append((time.perf_counter() - began) * 1_000)
    left = len([row for row in await store.open_work(limit=1_000_000) if row.tenant != "small"])
    await runtime.stop()
    await store.close()
    points = statistics.quantiles(took, n=100)
    return {"p50_ms": points[49], "p99_ms": points[98], "others_left": left}


def _beside(url: str, bookings: int, name: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.fairness", "--as-worker", url]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as other:
        found = asyncio.run(_small(url, bookings, name))
        assert other.stdin is not None
        other.stdin.close()
    return found


def main() -> None:
    """Run the measurements, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--appointments", type=int, default=100_000, help="of the large tenant")
    parser.add_argument("--bookings", type=int, default=300, help="of the small tenant, one after the other")
    parser.add_argument("--output", type=Path, default=Path("results/fairness.json"))
    parser.add_argument("--as-worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.as_worker:
        asyncio.run(_work(arguments.as_worker))
        return
    found: dict[str, dict[str, float]] = {}
    with PostgresServer(shared_buffers="128MB", max_wal_size="1GB") as server, Progress(transient=True) as progress:
        task = progress.add_task("measuring", total=arguments.appointments + STUCK_APPOINTMENTS)
        told = lambda count: progress.advance(task, count)  # noqa: E731
        url = server.new_database("fairness")
        found["nobody else"] = _beside(url, arguments.bookings, "quiet")
        asyncio.run(_fill(url, "unlucky", "stuck", STUCK_APPOINTMENTS, told))
        found[f"a provider that never answers, {STUCK_APPOINTMENTS:,} wait"] = _beside(url, arguments.bookings, "stuck")
        asyncio.run(_fill(url, "large", "main", arguments.appointments, told))
        found[f"and a tenant with {arguments.appointments:,} due"] = _beside(url, arguments.bookings, "large")
    table = Table("beside", "p50 ms", "p99 ms", "times p50", "of others left", title="What a small tenant waits")
    quiet = found["nobody else"]["p50_ms"]
    for beside, one in found.items():
        table.add_row(
            beside,
            f"{one['p50_ms']:.1f}",
            f"{one['p99_ms']:.1f}",
            f"{one['p50_ms'] / quiet:.1f}",
            f"{one['others_left']:,.0f}",
        )
    Console().print(table)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
