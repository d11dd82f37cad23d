"""Parked work: grouped by what went wrong, acted on one by one, each refusal its own."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from appointments.console import parked
from appointments.console.parked import Batches, groups
from appointments.views import Appointment, view
from domain import events as e
from domain.appointment import Appointment as State
from domain.errors import StaleVersion
from domain.evolve import evolve
from domain.provider import BookingDetails

START = datetime(2031, 3, 3, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)


def appointment(n: int, reason: str) -> Appointment:
    details = BookingDetails(
        calendar="main", start=START - n * HOUR, end=START + HOUR, time_zone="UTC", summary=f"Visit {n}"
    )
    asked = e.AppointmentRequested(
        at=START,
        key=f"k{n}",
        fingerprint="f",
        tenant="acme",
        definition="d",
        provider="p",
        details=details,
        deadline_at=START,
    )
    state = evolve(evolve(State(UUID(int=n)), asked), e.AppointmentParked(at=START, reason=reason))
    return view(replace(state))


def test_the_same_failure_is_one_group_whatever_numbers_and_ids_it_names() -> None:
    found = groups(
        [
            appointment(1, "calendar: 503 after 3 attempts"),
            appointment(2, "calendar: 502 after 12 attempts"),
            appointment(3, "notify: compensation was refused: 6f0c8a52-3b0e-5c8f-9a57-0d6d5c1f7e11"),
        ]
    )
    assert [len(group.items) for group in found] == [2, 1]
    assert [one.id.int for one in found[0].items] == [2, 1]  # what starts first comes first


def test_a_group_keeps_its_key_when_another_joins() -> None:
    (one,) = groups([appointment(1, "calendar: 503")])
    (two,) = groups([appointment(1, "calendar: 503"), appointment(2, "calendar: 503")])
    assert one.key == two.key
    assert groups([appointment(1, "calendar: timeout")])[0].key != one.key


async def test_each_is_asked_and_one_that_refuses_stops_no_other(monkeypatch) -> None:
    monkeypatch.setattr(parked, "PACE_S", 0)
    asked: list[int] = []

    async def act(one: Appointment) -> Appointment:
        asked.append(one.id.int)
        if one.id.int == 2:
            raise StaleVersion("the appointment is at version 3, not at 2")
        return one

    batches = Batches()
    batch = batches.begin("acme", "retry", [appointment(n, "x") for n in (1, 2, 3)], act)
    await batches.finished()
    assert asked == [1, 2, 3]
    assert [bool(result.refused) for result in batch.results] == [False, True, False]
    assert batch.done
    assert batches.get(batch.id, "acme") is batch
    assert batches.get(batch.id, "other") is None
