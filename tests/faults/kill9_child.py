"""The process that is killed: forked from a parent that has loaded everything, so that a start costs milliseconds.

Reads one JSON line for each run on standard input, answers `pid N`; the run itself writes `ack KEY` for every command
that was acknowledged, and `done` when it was told to finish.
"""

import asyncio
import itertools
import json
import os
import random
import sys
from typing import Any
from uuid import uuid4

from appointments import Orchestrator, Settings
from domain.errors import CommandRefused, StoreUnavailable
from store.port import Append
from store.sql import SqlStore

BOOKING = {
    "calendar": "main",
    "start": "2031-03-03T09:00:00Z",
    "end": "2031-03-03T09:30:00Z",
    "time_zone": "Europe/Berlin",
    "summary": "Check-up",
}
LATE_S = 0.05


def _say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


async def _one(desk: Orchestrator, key: str, chance: random.Random) -> None:
    try:
        booked = await desk.book(BOOKING, key=key)
    except StoreUnavailable:  # the database was not there, or took this worker for dead: nothing was acknowledged
        return
    _say(f"ack {key}")
    await asyncio.sleep(chance.random() * 0.1)
    try:
        if chance.random() < 0.2:
            await desk.cancel(booked.id, key=f"cancel-{key}")
            _say(f"ack cancel-{key}")
        elif chance.random() < 0.3:
            await desk.reschedule(
                booked.id, start="2031-03-04T09:00:00Z", end="2031-03-04T09:30:00Z", key=f"move-{key}"
            )
    except (CommandRefused, StoreUnavailable):
        return


async def _end_with(parent: int) -> None:
    """A run that nobody is left to kill ends by itself."""
    while os.getppid() == parent:
        await asyncio.sleep(0.05)
    os._exit(1)


async def _work(run: dict[str, Any]) -> None:
    watch = asyncio.get_running_loop().create_task(_end_with(os.getppid()))
    async with Orchestrator.open(Settings.model_validate(run["settings"])) as desk:
        if run["finish"]:
            while any(not row.parked for row in await desk.runtime.store.open_work()):
                await asyncio.sleep(0.05)
            _say("done")
            watch.cancel()
            return
        chance = random.Random(run["seed"])
        window = asyncio.Semaphore(run["in_flight"])
        async with asyncio.TaskGroup() as group:
            for n in itertools.count():
                await window.acquire()
                task = group.create_task(_one(desk, f"{run['seed']}-{n}", chance))
                task.add_done_callback(lambda _task: window.release())


def _acknowledge_early() -> None:
    """Planted: what is acknowledged becomes durable a moment later."""
    append, late = SqlStore.append, set[asyncio.Task[int]]()

    async def early(self: SqlStore, entry: Append) -> int:
        async def write() -> int:
            await asyncio.sleep(LATE_S)
            return await append(self, entry)

        if entry.expected_version:
            return await append(self, entry)
        late.add(asyncio.get_running_loop().create_task(write()))
        return 1

    SqlStore.append = early  # type: ignore[method-assign]


def _fresh_ids() -> None:
    """Planted: every attempt carries a new operation id and a new reference."""
    from saga import effects, process

    process.operation_id = lambda *_args: str(uuid4())  # type: ignore[assignment]
    effects.client_ref = lambda appointment: f"{appointment.hex}-{uuid4().hex[:8]}"


PLANTED = {"acknowledge_early": _acknowledge_early, "fresh_ids": _fresh_ids}


def main() -> None:
    """Fork a run for each line of standard input."""
    before = 0
    for line in sys.stdin:
        run = json.loads(line)
        if before:
            # Only when it is gone is its lock on the store gone too.
            os.waitpid(before, 0)
        pid = os.fork()
        if pid == 0:
            if run["planted"]:
                PLANTED[run["planted"]]()
            asyncio.run(_work(run))
            os._exit(0)
        before = pid
        _say(f"pid {pid}")


if __name__ == "__main__":
    main()
