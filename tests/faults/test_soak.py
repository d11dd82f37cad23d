"""The soak (`python -m tests.faults.soak --minutes 60`), for some seconds."""

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.faults import soak as of_soak
from tests.faults.soak import Report, judged, soak

SEED = 20_261_125
MINUTES = 0.15
EVERY_S = 2.0


@pytest.mark.evidence(
    target="soak",
    answers=("R7.1", "R7.2", "G1", "G2", "G3", "G6"),
    given="a process that serves over HTTP, clients that repeat what is not answered, a provider that fails",
    when="the process is killed, and stands still, again and again",
    then="what was acknowledged is in the log, what the log says is at the provider, and nothing is left to do",
    seen_in="ledger, check of the store, printed report",
)
async def test_for_some_seconds_nothing_is_lost_and_nothing_is_booked_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Any, ...]] = []

    async def judging(*given: Any) -> list[str]:
        seen.append(given)
        return await judged(*given)

    monkeypatch.setattr(of_soak, "judged", judging)
    report = await soak(tmp_path, MINUTES, seed=SEED, every_s=EVERY_S)
    print({name: value for name, value in report.as_json().items() if name != "samples"})
    assert not report.violations
    assert report.kills >= 1
    assert report.acknowledged > 200
    assert report.ends["confirmed"] > 100

    # Control: the same judge, of the same run, is told of one more acknowledgement and of one more booking.
    settings, acknowledged, ledger, _ = seen[0]
    more = copy.deepcopy(ledger)
    more["bookings"].append({**ledger["bookings"][0], "client_ref": "nobody-knows-me", "status": "accepted"})
    wrong = await judged(settings, acknowledged | {"never-stored"}, more, Report(SEED, MINUTES, 1))
    assert Counter(line[:2] for line in wrong) == {"G1": 1, "G2": 1}
