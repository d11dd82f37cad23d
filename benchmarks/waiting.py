"""A million waiting appointments: what they cost in memory and at the start, and how soon due ones begin."""

import asyncio
import json
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.sagas import COMMAND, notify, open_store
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


async def _fill(place: Path | str, count: int) -> None:
    saga, provider, now = _saga(), LocalProvider("main"), datetime.now(UTC)
    store = open_store(place, "filler")
    runtime = Runtime(store, WallClock(), [saga], {"main": provider}, Lanes(), "filler")
    await runtime.start()
    await runtime.stop()
    await store.close()
    store = open_store(place, "filler")  # as nobody's worker: the one that it was has left
    plan = saga.plan(provider)
    for first in range(0, count, QUEUED_MAX):
        numbers = range(first, min(first + QUEUED_MAX, count))
        await asyncio.gather(*(store.append(_waiting(n, now, plan)) for n in numbers))
    await store.close()


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


async def _serve(place: Path | str) -> dict[str, float]:
    saga = _saga()
    before = _rss_mb()
    began, opened_at = time.perf_counter(), datetime.now(UTC)
    store = open_store(place, "server")
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


def measure(place: Path | str, count: int) -> dict[str, float]:
    """Fill the store with so many and serve them, each in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.waiting"]
    subprocess.run([*command, "fill", str(place), str(count)], check=True)
    served = subprocess.run([*command, "serve", str(place), str(count)], check=True, capture_output=True, text=True)
    return dict(json.loads(served.stdout))


def rows(found: dict[str, float]) -> list[tuple[str, str, str]]:
    """What was measured, beside the targets."""
    return [
        ("waiting appointments: memory added, MB", f"{found['rss_added_mb']:.0f}", "64"),
        ("… start, s", f"{found['start_s']:.2f}", "2"),
        ("… due ones begin after, s (slowest)", f"{found['due_begin_s_max']:.2f}", "1"),
    ]


if __name__ == "__main__":
    task, where, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    place = where if where.startswith("postgresql") else Path(where)
    if task == "fill":
        asyncio.run(_fill(place, count))
    else:
        print(json.dumps(asyncio.run(_serve(place))))
