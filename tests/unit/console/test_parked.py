"""Parked work: grouped by what went wrong, acted on one by one, each refusal its own."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import pytest

from appointments.access.roles import Permission
from appointments.console import parked
from appointments.console.jobs import Job, Jobs
from appointments.console.parked import ask_each, groups
from appointments.views import Appointment, view
from domain import events as e
from domain.appointment import Appointment as State
from domain.errors import ProviderUnavailable, StaleVersion
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


async def test_each_is_asked_and_one_that_refuses_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parked, "PACE_S", 0)
    asked: list[int] = []

    async def act(one: Appointment) -> Appointment:
        asked.append(one.id.int)
        if one.id.int == 2:
            raise StaleVersion("the appointment is at version 3, not at 2")
        return one.model_copy(update={"parked": one.id.int == 3})

    jobs, items = Jobs(), [appointment(n, "x") for n in (1, 2, 3)]
    job = jobs.begin(Job("acme", Permission.OPERATE, "Retry", "/"), partial(ask_each, items=items, act=act))
    await jobs.finished()
    assert asked == [1, 2, 3]
    assert [row.outcome for row in job.rows] == ["done", "refused", "still parked"]
    assert (job.ended, job.done, job.of, job.fault) == (True, 3, 3, "")
    assert jobs.get(job.id, "acme") is job
    assert jobs.get(job.id, "other") is None


async def test_a_job_that_fails_says_so_and_tells_no_secret() -> None:
    async def refused(_: Job) -> None:
        raise ProviderUnavailable("the provider does not answer")

    async def broken(_: Job) -> None:
        raise RuntimeError("a secret")

    logged: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: logged.append(about["exception"]))
    jobs = Jobs()
    told = [jobs.begin(Job("acme", Permission.HEAL, "Heal", "/"), work) for work in (refused, broken)]
    await jobs.finished()
    assert [job.ended for job in told] == [True, True]
    assert told[0].fault == "the provider does not answer"
    assert "secret" not in told[1].fault
    assert [str(fault) for fault in logged] == ["a secret"]
