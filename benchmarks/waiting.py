"""A million waiting appointments: what they cost in memory and at the start, and how soon due ones begin."""

import asyncio
import json
import resource
import sqlite3
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from domain.appointment import Appointment
from domain.commands import Request
from domain.identity import appointment_id
from domain.lifecycle import State
from providers.local import LocalProvider
from saga.clock import WallClock
from saga.definition import CalendarStep, Saga, Step
from saga.entry import entry as entry_of
from saga.inputs import Asked, Hold
from saga.lanes import Lanes
from saga.runtime import Runtime
from saga.turn import turn
from store.log_writer import INSERT_EVENT, PUT_WORK
from store.sqlite import SqliteStore

DUE_SOON = 100
LATER = timedelta(days=1)


def _saga() -> Saga:
    from benchmarks.sagas import _notify

    return Saga("booking", 1, (CalendarStep(), Step("notify", action=_notify)), deadline_ms=86_400_000)


def _rows(count: int) -> Iterator[tuple[tuple[object, ...], list[tuple[object, ...]]]]:
    """Work rows and events as the runtime would have written them: requested, held back by an open breaker."""
    from benchmarks.sagas import COMMAND

    now = datetime.now(UTC)
    plan = _saga().plan(LocalProvider("main"))
    position = 1
    for n in range(count):
        due = now + (timedelta(seconds=15) if n < DUE_SOON else LATER)
        id = appointment_id("default", f"waiting-{n}")
        command = COMMAND
        asked = Asked(command, Request(key=f"waiting-{n}"))
        turned = turn(Appointment(id), asked, now, plan, lambda _target, due=due: Hold("circuit_open", due))
        entry = entry_of(Appointment(id), turned)
        assert entry.work is not None
        events = []
        for event in entry.events:
            position += 1
            events.append((position, id.bytes, event.version, event.type, event.body))
        yield (id, entry.work, due), events  # type: ignore[misc]


async def _fill(file: Path, count: int) -> None:
    from store.rows import work_row

    saga = _saga()
    store = SqliteStore.open(file, owner="filler")
    runtime = Runtime(store, WallClock(), [saga], {"main": LocalProvider("main")}, Lanes(), "filler")
    await runtime.start()
    await runtime.stop()
    await store.close()
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA synchronous=OFF")
    works: list[tuple[object, ...]] = []
    events: list[tuple[object, ...]] = []
    for (_id, work, _due), mine in _rows(count):
        works.append(work_row(work, "filler"))  # type: ignore[arg-type]
        events += mine
        if len(works) == 20_000:
            connection.executemany(INSERT_EVENT, events)
            connection.executemany(PUT_WORK, works)
            connection.commit()
            works, events = [], []
    connection.executemany(INSERT_EVENT, events)
    connection.executemany(PUT_WORK, works)
    connection.commit()
    connection.close()


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
