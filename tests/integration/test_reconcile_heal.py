"""Healing: ordinary commands, dry run first, twice is once; after it the calendar agrees, whatever the policy."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from appointments import Orchestrator, Settings, SyncOrchestrator
from appointments.reconciling import CHANGED
from appointments.views import Appointment
from domain.errors import InvalidFields
from domain.provider import BookingDetails, BookingStatus, Call, Unknown
from projections.reconciliation.model import Kind, Report
from providers.local import LocalProvider
from saga.clock import WallClock
from store.memory import MemoryStore

START = datetime(2031, 3, 3, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)
MOVED = BookingDetails(
    calendar="main", start=START + 5 * HOUR, end=START + 6 * HOUR, time_zone="UTC", summary="Check-up"
)


class Later:
    """The wall clock, put forward."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        return WallClock().now() + self.ahead


@dataclass
class Office:
    """A desk with a calendar in memory, and somebody who edits it by hand."""

    desk: Orchestrator
    provider: LocalProvider
    clock: Later
    store: MemoryStore

    async def book(self, key: str) -> Appointment:
        wanted = {"calendar": "main", "start": START, "end": START + HOUR, "time_zone": "UTC", "summary": "Check-up"}
        return await self.desk.book(wanted, key=key, wait=10)

    async def move_there(self, booked: Appointment) -> None:
        await self.provider.reschedule(self.call(booked), str(booked.provider_ref), None, MOVED)

    def forget_there(self, booked: Appointment) -> None:
        del self.provider._calendars["main"].records[str(booked.id)]
        kept = self.provider._calendars["main"].changes
        kept[:] = [change for change in kept if change[1] != str(booked.id)]

    def revive_there(self, booked: Appointment) -> None:
        record = self.provider._calendars["main"].records[str(booked.id)]
        record.booking = record.booking.model_copy(update={"status": BookingStatus.ACCEPTED})

    def call(self, booked: Appointment) -> Call:
        return Call(operation_id="by-hand", client_ref=str(booked.id), timeout_ms=1_000)

    async def heal(self, policy: str) -> tuple[Report, list[str]]:
        report = await self.desk.reconcile("main", policy=policy)
        healed = await self.desk.heal(report, dry_run=False, wait=10, actor="dana")
        return report, [f"{one.command} {one.outcome} {one.detail}" for one in healed]

    def standing(self) -> list[tuple[datetime | None, datetime | None]]:
        return [(booking.start, booking.end) for booking in self.provider.live("main")]


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    provider, clock, store = LocalProvider("main"), Later(), MemoryStore()
    settings = Settings(store="memory:", provider="local:", log_level="warning")
    async with AsyncExitStack() as stack:
        opened = Orchestrator.open(settings, providers=(provider,), clock=clock, store=store)
        yield Office(await stack.enter_async_context(opened), provider, clock, store)


NOW_HERE = (START, START + HOUR)
NOW_THERE = (MOVED.start, MOVED.end)


@pytest.mark.parametrize(
    ("policy", "state", "stands", "at"),
    [
        ("adopt", "confirmed", [NOW_THERE], NOW_THERE),
        ("restore", "confirmed", [NOW_HERE], NOW_HERE),
        ("park", "confirmed", [NOW_THERE], NOW_HERE),
    ],
)
async def test_a_booking_that_was_moved_is_healed_as_the_policy_says(
    office: Office, policy: str, state: str, stands: list[Any], at: Any
) -> None:
    booked = await office.book("first")
    await office.move_there(booked)
    report, healed = await office.heal(policy)
    assert [finding.kind for finding in report.findings] == [Kind.DRIFTED]
    assert [words.split()[:2] for words in healed] == [[policy, "given"]]
    after = await office.desk.show(booked.id, wait=10)
    assert (after.state, after.parked, (after.start, after.end)) == (state, policy == "park", at)
    assert office.standing() == stands
    again = await office.desk.reconcile("main", policy=policy)
    assert [finding.kind for finding in again.findings] == ([Kind.PARKED] if policy == "park" else [])


@pytest.mark.parametrize(
    ("policy", "state", "stands"),
    [("adopt", "cancelled", []), ("restore", "confirmed", [NOW_HERE]), ("park", "confirmed", [])],
)
async def test_a_booking_that_is_gone_is_healed_as_the_policy_says(
    office: Office, policy: str, state: str, stands: list[Any]
) -> None:
    booked = await office.book("first")
    office.forget_there(booked)
    report, healed = await office.heal(policy)
    assert [finding.kind for finding in report.findings] == [Kind.MISSING]
    after = await office.desk.show(booked.id, wait=10)
    assert (after.state, after.parked, office.standing()) == (state, policy == "park", stands), healed
    again = await office.desk.reconcile("main", policy=policy)
    assert [finding.kind for finding in again.findings] == ([Kind.PARKED] if policy == "park" else [])


@pytest.mark.parametrize("policy", ["adopt", "restore", "park"])
async def test_a_leftover_is_taken_away_whatever_the_policy(office: Office, policy: str) -> None:
    booked = await office.book("first")
    await office.desk.cancel(booked.id, key="cancel", wait=10)
    office.revive_there(booked)
    _, healed = await office.heal(policy)
    assert [words.split()[:2] for words in healed] == [["remove", "given"]]
    assert (await office.desk.show(booked.id, wait=10)).state == "cancelled"
    assert office.standing() == []
    assert (await office.desk.reconcile("main")).agrees


async def test_a_strangers_entry_is_left_alone(office: Office) -> None:
    await office.provider.create(Call(operation_id="x", client_ref="theirs", timeout_ms=1_000), MOVED)
    for policy in ("adopt", "restore", "park"):
        report, healed = await office.heal(policy)
        assert ([finding.kind for finding in report.findings], healed) == ([Kind.ORPHANED], [])
    assert office.standing() == [NOW_THERE]


async def test_a_dry_run_changes_nothing(office: Office) -> None:
    booked = await office.book("first")
    await office.move_there(booked)
    report = await office.desk.reconcile("main", policy="restore")
    for _ in range(2):
        (planned,) = await office.desk.heal(report)
        assert (planned.command, planned.outcome, planned.appointment) == ("restore", "planned", booked.id)
    assert (await office.desk.show(booked.id)).version == booked.version
    assert office.standing() == [NOW_THERE]


@pytest.mark.evidence(
    target="healing",
    answers=("R3.3", "R8.5"),
    given="a plan for a moved and a missing booking",
    when="it is applied twice, under each policy",
    then="done once; the second time is told as repeated",
    seen_in="audit trail, calendar",
)
@pytest.mark.parametrize("policy", ["adopt", "restore", "park"])
async def test_applied_twice_it_is_done_once(office: Office, policy: str) -> None:
    moved, gone = await office.book("moved"), await office.book("gone")
    await office.move_there(moved)
    office.forget_there(gone)
    report = await office.desk.reconcile("main", policy=policy)
    first = await office.desk.heal(report, dry_run=False, wait=10)
    events = [await office.desk.events(id) for id in (moved.id, gone.id)]
    stands = office.standing()
    second = await office.desk.heal(report, dry_run=False, wait=10)
    assert {one.outcome for one in first} == {"given"}
    assert {one.outcome for one in second} == {"repeated"}
    assert [await office.desk.events(id) for id in (moved.id, gone.id)] == events
    assert office.standing() == stands


async def test_an_appointment_that_has_gone_on_since_refuses_what_was_planned_for_it(office: Office) -> None:
    booked = await office.book("first")
    await office.move_there(booked)
    report = await office.desk.reconcile("main", policy="restore")
    await office.desk.act(booked.id, "park", actor="dana", reason="wait")
    (healed,) = await office.desk.heal(report, dry_run=False, wait=10)
    assert (healed.outcome, healed.detail) == (
        "refused",
        f"the appointment is at version {booked.version + 1}, not at 6",
    )
    assert office.standing() == [NOW_THERE]


async def put_back(office: Office, booked: Appointment) -> None:
    await office.provider.create(office.call(booked), MOVED)


async def moved_again(office: Office, booked: Appointment) -> None:
    further = MOVED.model_copy(update={"start": START + 7 * HOUR, "end": START + 8 * HOUR})
    await office.provider.reschedule(office.call(booked), str(booked.provider_ref), None, further)


async def gone_by_now(office: Office, booked: Appointment) -> None:
    office.forget_there(booked)


@pytest.mark.parametrize("policy", ["adopt", "restore", "park"])
@pytest.mark.parametrize(
    ("before", "after"), [("forget", put_back), ("move", moved_again), ("move", gone_by_now)], ids=str
)
async def test_what_the_calendar_shows_otherwise_by_now_is_not_healed(
    office: Office, policy: str, before: str, after: Callable[[Office, Appointment], Awaitable[None]]
) -> None:
    booked = await office.book("first")
    if before == "forget":
        office.forget_there(booked)
    else:
        await office.move_there(booked)
    report = await office.desk.reconcile("main", policy=policy)
    await after(office, booked)
    stands = office.standing()
    (healed,) = await office.desk.heal(report, dry_run=False, wait=10)
    assert (healed.outcome, healed.detail) == ("refused", CHANGED)
    assert office.standing() == stands
    assert (await office.desk.show(booked.id)).version == booked.version


async def test_a_leftover_that_was_changed_meanwhile_is_looked_at_anew(office: Office) -> None:
    booked = await office.book("first")
    await office.desk.cancel(booked.id, key="cancel", wait=10)
    office.revive_there(booked)
    report = await office.desk.reconcile("main")
    await moved_again(office, booked)
    (healed,) = await office.desk.heal(report, dry_run=False, wait=10)
    assert (healed.outcome, len(office.standing())) == ("refused", 1)


async def test_a_calendar_that_cannot_be_read_is_not_healed(office: Office) -> None:
    booked = await office.book("first")
    await office.move_there(booked)
    report = await office.desk.reconcile("main", policy="restore")

    async def silent(*_: object) -> Unknown:
        return Unknown(reason="timeout")

    office.provider.get = silent  # type: ignore[method-assign]
    (healed,) = await office.desk.heal(report, dry_run=False, wait=10)
    assert (healed.outcome, healed.detail) == ("refused", "the calendar cannot be read now: unknown")
    assert (await office.desk.show(booked.id)).version == booked.version


async def test_a_report_of_another_provider_is_not_carried_out_here(office: Office) -> None:
    booked = await office.book("first")
    await office.move_there(booked)
    report = (await office.desk.reconcile("main", policy="restore")).model_copy(update={"provider": "another"})
    (healed,) = await office.desk.heal(report, dry_run=False, wait=10)
    assert (healed.outcome, "another" in healed.detail, office.standing()) == ("refused", True, [NOW_THERE])


async def test_who_healed_and_why_is_in_the_audit_trail(office: Office) -> None:
    booked = await office.book("first")
    await office.move_there(booked)
    await office.heal("adopt")
    told = next(e for e in await office.desk.events(booked.id) if e.type.startswith("booking-observed"))
    assert told.actor == "dana"
    assert told.data["reason"] == "reconciliation: drifted: edited in the calendar: end, start"


def test_the_synchronous_face_says_the_same() -> None:
    provider = LocalProvider("main")
    settings = Settings(store="memory:", provider="local:", log_level="warning")
    wanted = {"calendar": "main", "start": START, "end": START + HOUR, "time_zone": "UTC", "summary": "Check-up"}
    with SyncOrchestrator.open(settings, providers=(provider,)) as desk:
        booked = desk.book(wanted, key="first", wait=10)
        call = Call(operation_id="by-hand", client_ref=str(booked.id), timeout_ms=1_000)
        asyncio.run(provider.cancel(call, "main", str(booked.provider_ref)))
        report = desk.reconcile("main", policy="adopt")
        assert [one.outcome for one in desk.heal(report)] == ["planned"]
        assert [one.detail for one in desk.heal(report, dry_run=False, wait=10)] == ["cancelled"]
        assert desk.reconcile("main").agrees
        with pytest.raises(InvalidFields):
            desk.reconcile("MAIN")
