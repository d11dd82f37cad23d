"""The process that serves during the rehearsal, and that is killed in the middle of it.

Reads one JSON line for each command on standard input and answers each, once it is durable, with one on standard
output. `finish` ends it when nothing is left to do.
"""

import asyncio
import json
import os
import sys
from itertools import cycle
from typing import Any
from uuid import UUID

from appointments import Orchestrator, Settings, orchestrator
from appointments.migration import split
from domain.errors import CommandRefused
from domain.identity import appointment_id

_leaders = cycle((split.Leader.OURS, split.Leader.LEGACY))
_sides = cycle(("a", "b"))


def _by_turns(_shares: split.Shares, _tenant: str, _key: str) -> split.Leader:
    return next(_leaders)


def _restless() -> None:
    """Planted: the split chooses anew at every request, whatever the key."""
    split.Shares.leads = _by_turns  # type: ignore[method-assign]


def _forgetful() -> None:
    """Planted: each side knows a key for itself alone, as two systems without one log would."""
    _restless()
    orchestrator.appointment_id = lambda tenant, key: appointment_id(tenant, f"{key}/{next(_sides)}")  # type: ignore


PLANTED = {"": lambda: None, "restless": _restless, "forgetful": _forgetful}


async def _done(desk: Orchestrator, asked: dict[str, Any]) -> UUID:
    kind, key = asked["kind"], asked["key"]
    if kind == "book":
        return (await desk.book(asked["booking"], key=key)).id
    if kind == "cancel":
        return (await desk.cancel(asked["id"], key=key)).id
    return (await desk.reschedule(asked["id"], **asked["times"], key=key)).id


async def _answer(desk: Orchestrator, line: str) -> None:
    asked = json.loads(line)
    try:
        told = {"n": asked["n"], "id": str(await _done(desk, asked))}
    except CommandRefused as refused:
        told = {"n": asked["n"], "refused": refused.detail}
    os.write(1, json.dumps(told).encode() + b"\n")


async def _serve(settings: dict[str, Any]) -> None:
    lines = asyncio.StreamReader(limit=1_000_000)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with Orchestrator.open(Settings.model_validate(settings)) as desk, asyncio.TaskGroup() as group:
        os.write(1, b"{}\n")
        while (line := (await lines.readline()).decode()) and "finish" not in line[:20]:
            group.create_task(_answer(desk, line))
        while line and any(not row.parked for row in await desk.runtime.store.open_work()):
            await asyncio.sleep(0.05)


if __name__ == "__main__":
    PLANTED[sys.argv[2]]()
    asyncio.run(_serve(json.loads(sys.argv[1])))
