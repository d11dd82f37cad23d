"""A million waiting appointments: what they cost in memory and at the start, and how soon due ones begin."""

import asyncio
import json
import resource
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.sagas import COMMAND, notify
from domain.appointment import Appointment
from domain.commands import Request
from domain.definition import SagaPlan
from domain.identity import appointment_id
from domain.lifecycle import State
from providers.local import LocalProvider
from saga.clock import WallClock
from saga.definition import CalendarStep, Saga, Step
from saga.entry import entry
from saga.inputs import Asked, Hold
from saga.lanes import Lanes
from saga.runtime import Runtime
from saga.turn import turn
from store.port import Append
from store.sqlite import SqliteStore

DUE_SOON = 100
"""How many of them come due while they are served."""
DUE_SOON_IN = timedelta(seconds=15)
DUE_LATER_IN = timedelta(days=1)
QUEUED_MAX = 10_000


def _saga() -> Saga:
    return Saga("booking", 1, (CalendarStep(), Step("notify", action=notify)), deadline_ms=86_400_000)


def _waiting(n: int, now: datetime, plan: SagaPlan) -> Append:
    """One appointment as the runtime would have stored it: requested, held back by an open breaker."""
    new = Appointment(appointment_id("default", f"waiting-{n}"))
    hold = Hold("circuit_open", now + (DUE_SOON_IN if n < DUE_SOON else DUE_LATER_IN))
    return entry(new, turn(new, Asked(COMMAND, Request(key=f"waiting-{n}")), now, plan, lambda _target: hold))


async def _fill(file: Path, count: int) -> None:
    saga, provider, now = _saga(), LocalProvider("main"), datetime.now(UTC)
    store = SqliteStore.open(file, owner="filler")
    runtime = Runtime(store, WallClock(), [saga], {"main": provider}, Lanes(), "filler")
    await runtime.start()
    await runtime.stop()
    plan = saga.plan(provider)
    for first in range(0, count, QUEUED_MAX):
        numbers = range(first, min(first + QUEUED_MAX, count))
        await asyncio.gather(*(store.append(_waiting(n, now, plan)) for n in numbers))
    await store.close()


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


async def _serve(file: Path) -> dict[str, float]:
    saga = _saga()
    before = _rss_mb()
    began, opened_at = time.perf_counter(), datetime.now(UTC)
    store = SqliteStore.open(file, owner="server")
    runtime = Runtime(store, WallClock(), [saga], {"main": LocalProvider("main")}, Lanes(), "server")
    await runtime.start()
    started_s = time.perf_counter() - began
    ids = [appointment_id("default", f"waiting-{n}") for n in range(DUE_SOON)]
    due = [(await runtime.load(id)).deferred_until or opened_at for id in ids]
    late = []
    for id, due_at in zip(ids, due, strict=True):
        state = await runtime.settled(id, 60)
        assert state.state is State.CONFIRMED, state
        assert state.updated_at is not None
        late.append((state.updated_at - max(due_at, opened_at)).total_seconds())
    rss = _rss_mb() - before
    await runtime.stop()
    await store.close()
    return {"start_s": started_s, "rss_added_mb": rss, "due_begin_s_max": max(late)}


if __name__ == "__main__":
    task, path, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if task == "fill":
        asyncio.run(_fill(path, count))
    else:
        print(json.dumps(asyncio.run(_serve(path))))
