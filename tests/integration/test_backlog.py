"""After an outage the backlog drains in order of start time; what is too late by then is ended, and nobody is told."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from appointments import Orchestrator, Settings
from domain.commands import BookAppointment
from domain.events import EndReason
from domain.lifecycle import State
from domain.provider import BookingDetails, Call, Unknown, WriteOutcome
from providers.local import LocalProvider

WAITING = 20


class Outage(LocalProvider):
    """A provider that is down until it is told to be up; it remembers the order of the calls that reached it then."""

    def __init__(self) -> None:
        super().__init__("main")
        self.up = False
        self.booked: list[datetime] = []

    async def create(self, call: Call, details: BookingDetails) -> WriteOutcome:
        """Unknown while down."""
        if not self.up:
            return Unknown(reason="down")
        self.booked.append(details.start)
        return await super().create(call, details)


def _booking(start: datetime) -> BookAppointment:
    return BookAppointment(
        calendar="main", start=start, end=start + timedelta(minutes=30), time_zone="Europe/Berlin", summary="Check-up"
    )


def _settings(folder: Path, **more: object) -> Settings:
    return Settings.model_validate(
        {
            "store": f"sqlite:///{folder}/store.db",
            "breaker_open_ms": 150,
            "backoff_ms": 1,
            "attempts_max": 50,
            "concurrency": 1,
            **more,
        }
    )


@pytest.mark.evidence(
    target="recovery",
    answers=("R8.3",),
    given="an outage, and a backlog in any order",
    when="the provider is up again",
    then="the backlog drains in order of start",
    seen_in="order of the calls",
)
async def test_backlog_drains_in_order_of_start(tmp_path: Path) -> None:
    seed = 20_260_503
    print(f"seed {seed}")
    starts = [datetime(2031, 3, day, 9, tzinfo=UTC) for day in range(1, WAITING + 1)]
    random.Random(seed).shuffle(starts)
    provider = Outage()
    async with Orchestrator.open(_settings(tmp_path), providers=(provider,)) as desk:
        asked = [await desk.book(_booking(start), key=f"key-{n}") for n, start in enumerate(starts)]
        while not desk.runtime.lanes.breakers()["main"].opened:
            await asyncio.sleep(0.01)
        provider.up = True
        ends = [await desk.show(one.id, wait=20) for one in asked]
    assert {end.state for end in ends} == {State.CONFIRMED}
    # The probe goes to whichever came first while the provider was still down.
    assert provider.booked[1:] == sorted(provider.booked[1:])


@pytest.mark.parametrize("up", [False, True], ids=["still down", "control: up in time"])
async def test_what_can_no_longer_be_booked_in_time_is_ended(tmp_path: Path, up: bool) -> None:
    provider = Outage()
    async with Orchestrator.open(_settings(tmp_path, settle_ms=50), providers=(provider,)) as desk:
        start = datetime.now(UTC) + timedelta(seconds=1.5)
        asked = await desk.book(_booking(start), key="key")
        provider.up = up
        end = await desk.show(asked.id, wait=20)
        trail = await desk.events(asked.id)
    if up:
        assert end.state is State.CONFIRMED
        assert trail[-1].recorded_at < start
    else:
        assert (end.state, end.reason) == (State.FAILED, EndReason.DEADLINE_EXCEEDED)
        assert not any(line.data.get("step") == "notify" for line in trail)
        given_up = next(line for line in trail if line.type == "compensation-begun.v1")
        assert abs(given_up.recorded_at - start) < timedelta(seconds=1.1)
