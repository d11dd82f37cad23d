"""The two races that a reconciliation has to win, each at one exact moment: a calendar in memory, a log in memory."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from appointments import Orchestrator, Settings
from appointments.views import Appointment
from domain.errors import ProviderUnavailable
from domain.provider import BookingStatus, Call, Page, ProviderBooking, ReadOutcome, Retryable
from projections.reconciliation.bookmarks import Bookmarks
from projections.reconciliation.calendar import PAGES
from projections.reconciliation.model import Kind, Proposal, Report
from projections.reconciliation.run import ROUNDS_MAX, Wanted, reconcile
from projections.reconciliation.survey import Sides
from providers.local import LocalProvider
from store.memory import MemoryStore

START = datetime(2031, 3, 3, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Slow(LocalProvider):
    """Lists what was there when it was told to remember, and lets something happen before it answers a look."""

    def __init__(self) -> None:
        super().__init__("main")
        self.remembered: tuple[ProviderBooking, ...] | None = None
        self.meanwhile: Callable[[], Awaitable[Any]] | None = None
        self.looks = 0

    def remember(self) -> None:
        self.remembered = self.live("main")

    async def listing(self, call: Call, calendar: str, token: str | None = None, limit: int = 100) -> Page:
        if self.remembered is None:
            return await super().listing(call, calendar, token, limit)
        return Page(bookings=self.remembered)

    async def get(self, call: Call, calendar: str, provider_ref: str) -> ReadOutcome:
        self.looks += 1
        if self.meanwhile is not None:
            await self.meanwhile()
        return await super().get(call, calendar, provider_ref)


class Office:
    def __init__(self, desk: Orchestrator, store: MemoryStore, provider: Slow) -> None:
        self.desk, self.store, self.provider = desk, store, provider

    async def book(self, key: str = "first") -> Appointment:
        wanted = {"calendar": "main", "start": START, "end": START + HOUR, "time_zone": "UTC", "summary": "x"}
        return await self.desk.book(wanted, key=key, wait=10)

    async def move(self, id: object, days: int) -> None:
        start = START + timedelta(days=days)
        await self.desk.reschedule(str(id), start=start, end=start + HOUR, key=f"move-{days}", wait=10)

    async def compared(self, **wanted: Any) -> Report:
        return await reconcile(
            Sides(self.store, self.provider, lambda: datetime.now(UTC)), Wanted(calendar="main", **wanted)
        )


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    provider, store = Slow(), MemoryStore()
    settings = Settings(store="memory:", provider="local:", log_level="warning")
    async with Orchestrator.open(settings, providers=(provider,), store=store) as desk:
        yield Office(desk, store, provider)


@pytest.mark.evidence(
    target="reconciliation",
    answers=("R8.5",),
    given="a move of our own at the exact moment of the listing",
    when="the calendar is compared",
    then="the move is no edit",
    seen_in="report",
)
async def test_our_own_move_during_the_listing_is_no_edit(office: Office) -> None:
    booked = await office.book()
    office.provider.remember()
    await office.move(booked.id, 1)
    report = await office.compared()
    assert (report.agrees, report.checked_again, report.counts[Kind.MATCHED]) == (True, 1, 1)


async def test_our_own_move_during_the_look_is_no_edit(office: Office) -> None:
    booked = await office.book()
    office.provider.remember()
    await office.move(booked.id, 1)

    async def move_once_more() -> None:
        office.provider.meanwhile = None
        await office.move(booked.id, 2)

    office.provider.meanwhile = move_once_more
    report = await office.compared()
    assert (report.agrees, report.counts[Kind.MATCHED], office.provider.looks) == (True, 1, 2)


async def test_what_never_stands_still_is_in_progress(office: Office) -> None:
    booked = await office.book()
    office.provider.remember()
    await office.move(booked.id, 1)
    days = iter(range(2, 100))

    async def move_again() -> None:
        await office.move(booked.id, next(days))

    office.provider.meanwhile = move_again
    report = await office.compared()
    assert (report.agrees, report.in_progress, report.findings) == (True, 1, ())
    assert office.provider.looks == ROUNDS_MAX


async def test_a_booking_made_after_the_log_was_read_is_no_orphan(office: Office) -> None:
    await office.book()
    read = office.store.log

    async def log(after: int = 0, limit: int = 1_000) -> Any:
        events = await read(after, limit)
        if not events:
            office.store.log = read  # type: ignore[method-assign]
            await office.book("second")
        return events

    office.store.log = log  # type: ignore[method-assign]
    report = await office.compared()
    assert (report.agrees, report.listed, report.checked_again, report.strangers) == (True, 2, 1, 0)


async def test_a_leftover_of_an_ended_appointment_is_to_be_removed(office: Office) -> None:
    """Somebody brings a cancelled booking back to life."""
    booked = await office.book()
    await office.desk.cancel(booked.id, key="cancel", wait=10)
    record = office.provider._calendars["main"].records[str(booked.id)]
    record.booking = record.booking.model_copy(update={"status": BookingStatus.ACCEPTED})
    report = await office.compared()
    assert [(f.kind, f.appointment, f.repair) for f in report.findings] == [(Kind.ORPHANED, booked.id, Proposal.REMOVE)]
    assert report.findings[0].event is not None
    assert report.findings[0].event.type == "appointment-cancelled.v1"
    assert report.findings[0].attempted.operation == "compensation"


async def test_a_listing_that_is_too_long_is_asked_for_in_smaller_pages(office: Office) -> None:
    await office.book()
    asked: list[int] = []
    listing = office.provider.listing

    async def short(call: Call, calendar: str, token: str | None = None, limit: int = 100) -> Page:
        asked.append(limit)
        if limit > 100:
            raise ProviderUnavailable("too long")
        return await listing(call, calendar, token, limit)

    office.provider.listing = short  # type: ignore[method-assign]
    assert (await office.compared()).counts[Kind.MATCHED] == 1
    assert asked == list(PAGES[:2])


async def test_a_calendar_that_nobody_knows_is_said_to_be_empty(office: Office) -> None:
    report = await office.compared()
    assert (report.agrees, report.note) == (True, "neither the log nor the provider has anything in this calendar")


async def test_another_tenants_booking_is_neither_ours_nor_unknown(office: Office) -> None:
    await office.book()
    wanted = {"calendar": "main", "start": START, "end": START + HOUR, "time_zone": "UTC", "summary": "x"}
    await office.desk.book(wanted, key="theirs", tenant="other", wait=10)
    for tenant in ("default", "other"):
        report = await office.compared(tenant=tenant)
        assert (report.listed, report.agrees, report.counts[Kind.MATCHED]) == (1, True, 1)


async def test_what_was_in_progress_is_looked_at_again_though_nothing_changed_there(
    office: Office, tmp_path: Path
) -> None:
    later = Retryable(reason="busy", retry_after_ms=3_600_000)
    office.provider.answer_next("create", later)
    wanted = {"calendar": "main", "start": START, "end": START + HOUR, "time_zone": "UTC", "summary": "x"}
    waits = await office.desk.book({**wanted, "deadline_ms": 86_400_000}, key="first", wait=0.2)
    bookmarks, now = Bookmarks(tmp_path / "reconciliation.json"), datetime.now(UTC)
    readings = []
    for ahead in (timedelta(0), 3 * HOUR):
        sides = Sides(office.store, office.provider, partial(now.__add__, ahead))
        readings.append(await reconcile(sides, Wanted(calendar="main", changes=True), bookmarks))
    assert [(one.mode, one.in_progress) for one in readings] == [("full", 1), ("changes", 0)]
    assert [(one.kind, one.appointment) for one in readings[1].findings] == [(Kind.STUCK, waits.id)]
