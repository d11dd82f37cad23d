"""Sagas through the whole of the heart: request, create at a provider in this process, notify, confirmed."""

import asyncio
import resource
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from domain.commands import BookAppointment, Request
from domain.identity import appointment_id
from domain.lifecycle import State
from domain.provider import Confirmed, WriteOutcome
from providers.local import LocalProvider
from saga.clock import WallClock
from saga.definition import CalendarStep, Saga, Step, StepCall
from saga.inputs import Asked
from saga.lanes import Lanes, LimitPolicy
from saga.runtime import Runtime
from store.postgres import PostgresStore
from store.sql import SqlStore
from store.sqlite import SqliteStore

COMMAND = BookAppointment.model_validate(
    {
        "calendar": "main",
        "start": "2031-03-03T09:00:00Z",
        "end": "2031-03-03T09:30:00Z",
        "time_zone": "Europe/Berlin",
        "summary": "Check-up",
        "attendees": [{"email": "pat@example.org"}],
    }
)
ENDS_WITHIN_S = 60.0


@dataclass(frozen=True)
class Figures:
    """What a run came to; times in milliseconds."""

    sagas_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_s_per_1000: float
    bytes_per_saga: float


async def notify(_asked: StepCall) -> WriteOutcome:
    """A downstream that is told at once."""
    return Confirmed()


def open_store(place: Path | str, owner: str = "benchmark") -> SqlStore:
    """The store in a file, or at the address of a database."""
    return SqliteStore.open(place, owner) if isinstance(place, Path) else PostgresStore.open(place, owner)


async def book(place: Path | str, sagas: int, clients: int, first: int = 0, owner: str = "benchmark") -> Figures:
    """Run so many sagas with so many clients at once; each is acknowledged with its durable end.

    `first` numbers the keys, so that a further run on the same store has its own.
    """
    provider = LocalProvider("main")
    saga = Saga("booking", 1, (CalendarStep(), Step("notify", action=notify)))
    store = open_store(place, owner)
    lanes = Lanes({"*": LimitPolicy(concurrency=1_000, tenant_concurrency=1_000)})
    runtime = Runtime(store, WallClock(), [saga], {"main": provider}, lanes, owner)
    await runtime.start()
    plan = saga.plan(provider)
    took: list[float] = []

    async def client(mine: range) -> None:
        for n in mine:
            began = time.perf_counter()
            key = f"key-{n}"
            await runtime.give(appointment_id("default", key), Asked(COMMAND, Request(key=key)), plan)
            state = await runtime.settled(appointment_id("default", key), ENDS_WITHIN_S)
            assert state.state is State.CONFIRMED, state
            took.append((time.perf_counter() - began) * 1_000)

    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    await asyncio.gather(*(client(range(first + n, first + sagas, clients)) for n in range(clients)))
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    await runtime.stop()
    await store.close()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    points = statistics.quantiles(took, n=100)
    return Figures(
        sagas_per_s=sagas / seconds,
        p50_ms=points[49],
        p95_ms=points[94],
        p99_ms=points[98],
        cpu_s_per_1000=cpu / sagas * 1_000,
        bytes_per_saga=place.stat().st_size / sagas if isinstance(place, Path) else 0,
    )
