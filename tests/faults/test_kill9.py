"""kill -9 in the middle, hundreds of times, against a provider that fails: nothing lost, nothing twice (G1 to G6)."""

import asyncio
import os
import random
import signal
import statistics
from pathlib import Path

import pytest

from mocks.server import MockProvider
from tests.faults.victims import FAULTS, FIRST_ACK_WITHIN_S, SECRET, Victim, victim, violations

KILLS = 200
CREATES = 3 * 8
"""Each of the faults has come up: a repeat under another id has then something to repeat."""


async def _kill_again_and_again(
    folder: Path, kills: int, planted: str = "", creates: int = 0
) -> tuple[list[str], Victim]:
    """Kill a run 20 to 120 ms after its first acknowledgement, and after so many creates have reached the provider."""
    seed = 20_261_124
    print(f"seed {seed}, {kills} kills")
    chance = random.Random(seed)
    store = f"sqlite:///{folder / 'store.db'}"
    async with MockProvider(secret=SECRET) as mock, victim(store, mock, planted) as killed:
        mock.load({"match": {"op": "create"}, "behaviors": FAULTS, "times": -1})
        for n in range(kills):
            before = mock.calls().get("create", 0)
            pid = await killed.run(seed + n)
            async with asyncio.timeout(FIRST_ACK_WITHIN_S):
                while mock.calls().get("create", 0) < before + creates:
                    await asyncio.sleep(0.002)
            # The wait is the fault itself: a moment of real work before the blow.
            await asyncio.sleep(chance.uniform(0.02, 0.12))
            os.kill(pid, signal.SIGKILL)
            await killed.hear_out()
        mock.clear_scripts()
        await killed.run(seed + kills, finish=True)
        return await violations(store, killed.acknowledged, mock.ledger()), killed


@pytest.mark.evidence(
    target="kill -9",
    answers=("R7.1", "R7.2", "G1", "G2", "G6"),
    given="200 appointments in flight at a provider that loses answers, fails and delays",
    when="the process is killed 200 times and started again",
    then="every acknowledged command is in the log, one live booking for each confirmed, none for others",
    seen_in="ledger, printed p95 from restart to first acknowledgement",
)
async def test_nothing_is_lost_and_nothing_is_booked_twice(tmp_path: Path) -> None:
    found, killed = await _kill_again_and_again(tmp_path, KILLS)
    p95 = statistics.quantiles(killed.first_ack_s[:-1], n=20)[18]
    print(f"{len(killed.acknowledged)} commands acknowledged; restart to first acknowledgement p95 {p95:.3f} s")
    assert not found
    assert len(killed.acknowledged) > KILLS
    assert p95 <= 2.0


@pytest.mark.parametrize(("planted", "guarantee"), [("acknowledge_early", "G1"), ("fresh_ids", "G2")])
async def test_control_a_planted_bug_is_found(tmp_path: Path, planted: str, guarantee: str) -> None:
    found, _ = await _kill_again_and_again(tmp_path, 8, planted, CREATES if planted == "fresh_ids" else 0)
    assert any(line.startswith(guarantee) for line in found), found[:5]
