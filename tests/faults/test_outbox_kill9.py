"""kill -9 of the process that relays, between an event's delivery and the checkpoint: nothing is lost, ids stay."""

import asyncio
import json
import os
import random
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from appointments.changes import changed
from projections.following import fold
from tests.unit.outbox.world import Received, book, desk_on, receiver, told_at, until

pytestmark = pytest.mark.evidence(
    target="outbox",
    answers=("R2.8", "G4"),
    given="a process that relays a log to a receiver over HTTP",
    when="it is killed while the receiver answers, again and again, and started anew",
    then="every event arrives at least once, each appointment's in order; repeats are the same to the letter",
    seen_in="what was received",
)

SEED = 20261125
KILLS = 6
APPOINTMENTS = 40
CHILD = Path(__file__).with_name("outbox_child.py")
ROOT = Path(__file__).parents[2]


async def started(settings: dict[str, Any], *planted: str) -> asyncio.subprocess.Process:
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("APPOINTMENTS_")}
    return await asyncio.create_subprocess_exec(
        sys.executable, str(CHILD), json.dumps(settings), *planted, env={**quiet, "PYTHONPATH": str(ROOT)}
    )


async def killed_again_and_again(folder: Path, *planted: str) -> tuple[Received, dict[str, list[int]]]:
    """What was received over all kills and a last run that may finish; and what was to be told, by appointment."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    store = f"sqlite:///{folder / 'log.db'}"
    async with desk_on(store=store) as desk:
        await book(desk, *(f"key-{n}" for n in range(APPOINTMENTS)))
        there: dict[str, list[int]] = {}
        for change in fold(await desk.runtime.store.log(limit=10_000), {}).changes:
            if (public := changed(change)) is not None:
                there.setdefault(str(public.appointment), []).append(public.version)
    victim: asyncio.subprocess.Process | None = None
    left = 0

    async def answer(_: dict[str, Any]) -> int:
        nonlocal left
        left -= 1
        if left == 0 and victim is not None:
            with suppress(ProcessLookupError):
                victim.kill()
        return 204

    async with receiver(answer) as received:
        settings = {"store": store, "provider": "local:", **told_at(received)}
        for _ in range(1 if planted else KILLS):
            left = chance.randrange(5, 40) if not planted else 3 * APPOINTMENTS
            victim = await started(settings, *planted)
            async with asyncio.timeout(30):
                await victim.wait()
        victim = await started(settings, *planted)
        everything = sum(map(len, there.values()))
        with suppress(TimeoutError):
            await until(lambda: len(set(received.ids)) == everything, within_s=3 if planted else 20)
        victim.terminate()
        await victim.wait()
    return received, there


def in_order(told: list[int]) -> list[int]:
    """Each version where it came first."""
    return list(dict.fromkeys(told))


async def test_nothing_is_lost_and_what_comes_twice_has_the_same_id(tmp_path: Path) -> None:
    received, there = await killed_again_and_again(tmp_path)
    assert {id: in_order(versions) for id, versions in received.versions().items()} == there
    repeats = Counter(received.ids)
    print(f"{len(repeats)} events, {KILLS} kills, {len(received.ids) - len(repeats)} repeats")
    assert max(repeats.values()) > 1, "some were told again, or no kill fell between delivery and checkpoint"
    contents = {id: {str(event) for event in received.events if event["id"] == id} for id in repeats}
    assert {len(content) for content in contents.values()} == {1}


async def test_control_with_a_checkpoint_that_runs_ahead_events_are_lost(tmp_path: Path) -> None:
    received, there = await killed_again_and_again(tmp_path, "early")
    assert len(set(received.ids)) < sum(map(len, there.values()))
