"""Reconciling while the log moves on and the listing lags: nothing that is right is ever reported, what is wrong is."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from appointments import Orchestrator, Settings
from appointments.views import Appointment
from domain.errors import CommandRefused
from domain.provider import Call, ProviderBooking
from mocks import MockProvider
from projections.reconciliation.bookmarks import Bookmarks
from projections.reconciliation.calendar import pages
from projections.reconciliation.classify import classify
from projections.reconciliation.intended import Scope
from projections.reconciliation.log import read_log
from projections.reconciliation.model import Finding, Kind, Report
from projections.reconciliation.run import Wanted, reconcile
from projections.reconciliation.survey import Sides, appointment_of
from providers.api_v2 import ApiV2Provider
from store.sqlite import SqliteStore
from tests.contract.mock_client import Client

START = datetime(2031, 3, 3, 9, tzinfo=UTC)
SCOPE = Scope("main", "main", "default")
LAG_MS = 60_000
BUSY_CLIENTS = 4
ROUNDS_MAX = 20


@dataclass
class Desk:
    """A desk at the mock provider, and the parts that a reconciliation reads."""

    orchestrator: Orchestrator
    mock: MockProvider
    sides: Sides
    bookmarks: Bookmarks

    async def book(self, key: str) -> Appointment:
        wanted = {"calendar": "main", "start": START, "end": START + timedelta(hours=1), "time_zone": "UTC"}
        return await self.orchestrator.book({**wanted, "summary": "Check-up"}, key=key, wait=20)

    async def book_many(self, count: int) -> list[Appointment]:
        return await asyncio.gather(*(self.book(f"key-{n}") for n in range(count)))

    async def move(self, id: object, key: str, days: int = 1) -> Appointment:
        start = START + timedelta(days=days)
        return await self.orchestrator.reschedule(
            str(id), start=start, end=start + timedelta(hours=1), key=key, wait=20
        )

    async def compared(self, **wanted: Any) -> Report:
        return await reconcile(self.sides, Wanted(calendar="main", **wanted), self.bookmarks)

    async def behind_our_back(self, booking: Appointment) -> None:
        """Cancelled by somebody who asked the provider and not us."""
        call = Call(operation_id="somebody-else", client_ref=str(booking.id), timeout_ms=5_000)
        await self.sides.provider.cancel(call, "main", str(booking.provider_ref))


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        mock = await stack.enter_async_context(MockProvider())
        provider = ApiV2Provider("main", mock.url, settle_ms=0)
        store = SqliteStore.open(tmp_path / "log.db", owner="test")
        settings = Settings(store="memory:", provider="local:", log_level="warning")
        opened = Orchestrator.open(settings, providers=(provider,), store=store)
        orchestrator = await stack.enter_async_context(opened)
        yield Desk(
            orchestrator,
            mock,
            Sides(store, provider, lambda: datetime.now(UTC)),
            Bookmarks(tmp_path / "log.db.views" / "reconciliation.json"),
        )


async def at_first_sight(sides: Sides) -> list[Finding]:
    """The control: the same two sides and the same heart, and nothing looked at again."""
    log = await read_log(sides.store, SCOPE)
    there: dict[str, list[ProviderBooking]] = {}
    async for page in pages(sides.provider, SCOPE):
        for booking in page.bookings:
            there.setdefault(booking.client_ref, []).append(booking)
    known = {str(id): record for id, record in log.records.items()}
    found: list[Finding] = []
    for ref, record in known.items():
        found += classify(record.intended, record.attempted, there.get(ref, ()), sides.now())
    assert all(appointment_of(ref) for ref in there)
    return [finding for finding in found if finding.kind is not Kind.MATCHED]


async def test_a_listing_that_lags_makes_no_finding(desk: Desk) -> None:
    await desk.book_many(20)
    desk.mock.script("list", "stale_list", times=-1, lag_ms=LAG_MS)
    desk.mock.script("find", "stale_list", times=-1, lag_ms=LAG_MS)
    report = await desk.compared()
    assert report.agrees, report
    assert (report.listed, report.checked_again, report.counts[Kind.MATCHED]) == (0, 20, 20)

    control = await at_first_sight(desk.sides)
    assert [finding.kind for finding in control] == [Kind.MISSING] * 20, "the re-check is what kept them out"


@pytest.mark.evidence(
    target="reconciliation",
    answers=("R3.3", "R8.1"),
    given="edits of every class in a calendar whose listing lags",
    when="it is compared",
    then="each edit is found in its class",
    seen_in="report",
)
async def test_what_is_wrong_is_found_however_the_listing_lags(desk: Desk) -> None:
    booked = await desk.book_many(5)
    await desk.behind_our_back(booked[3])
    desk.mock.script("list", "stale_list", times=-1, lag_ms=LAG_MS)
    report = await desk.compared()
    assert [(finding.appointment, finding.kind) for finding in report.findings] == [(booked[3].id, Kind.MISSING)]


@pytest.mark.evidence(
    target="reconciliation",
    answers=("R3.3", "R8.1"),
    given="a calendar that agrees with the log",
    when="it is compared while commands go on",
    then="no finding",
    seen_in="report",
)
async def test_commands_that_go_on_meanwhile_make_no_finding(desk: Desk) -> None:
    seed = time.time_ns() % 10_000
    print(f"seed {seed}")
    booked = await desk.book_many(120)  # two pages
    desk.mock.script("list", "delayed", times=-1, delay_ms=60)
    over = asyncio.Event()

    async def client(number: int) -> None:
        choose = random.Random(seed * 100 + number)
        mine = [booked[n].id for n in range(number, len(booked), BUSY_CLIENTS)]
        count = 0
        while not over.is_set():
            count += 1
            key = f"{number}-{count}"
            try:
                match choose.choice(("book", "move", "move", "cancel")) if mine else "book":
                    case "book":
                        mine.append((await desk.book(key)).id)
                    case "move":
                        await desk.move(choose.choice(mine), key, days=count)
                    case "cancel":
                        await desk.orchestrator.cancel(mine.pop(choose.randrange(len(mine))), key=key, wait=20)
            except CommandRefused:
                continue

    async def compare() -> tuple[list[Report], int]:
        try:
            reports: list[Report] = []
            while len(reports) < 4 or (len(reports) < ROUNDS_MAX and not any(one.checked_again for one in reports)):
                reports.append(await desk.compared(changes=len(reports) % 2 == 1))
            wrong = 0
            for _ in range(ROUNDS_MAX):
                wrong += len(await at_first_sight(desk.sides))
                if wrong:
                    break
            return reports, wrong
        finally:
            over.set()

    (reports, wrong), *_ = await asyncio.gather(compare(), *(client(n) for n in range(BUSY_CLIENTS)))
    for report in reports:
        assert (report.findings, report.unchecked) == ((), ())
    assert any(report.checked_again for report in reports)
    assert wrong, "without the re-check there are findings that are none"
    quiet = await desk.compared()
    assert (quiet.agrees, quiet.in_progress) == (True, 0)


async def test_a_provider_that_cannot_be_read_makes_no_finding_either(desk: Desk) -> None:
    booked = await desk.book_many(3)
    await desk.behind_our_back(booked[0])
    desk.mock.script("get", "rate_limited", times=-1)
    report = await desk.compared()
    assert (report.findings, report.agrees) == ((), False)
    assert [one.appointment for one in report.unchecked] == [booked[0].id]
    desk.mock.clear_scripts()
    again = await desk.compared(changes=True)
    assert [(again.mode, finding.kind) for finding in again.findings] == [("changes", Kind.MISSING)]


async def test_a_token_that_expired_costs_a_full_reading(desk: Desk) -> None:
    await desk.book_many(3)
    assert (await desk.compared(changes=True)).note == "no earlier reading is kept"
    assert (await desk.compared(changes=True)).mode == "changes"
    desk.mock.script("list", "reset_sync")
    report = await desk.compared(changes=True)
    assert (report.mode, report.agrees) == ("full", True)
    assert report.note == "the provider no longer knows where the last reading ended"


@pytest.fixture
async def shared(tmp_path: Path) -> AsyncIterator[Desk]:
    """At a provider where another system books as well, without a client reference if it likes."""
    async with AsyncExitStack() as stack:
        mock = await stack.enter_async_context(MockProvider(lenient=True))
        provider = ApiV2Provider("main", mock.url, settle_ms=0)
        store = SqliteStore.open(tmp_path / "log.db", owner="test")
        settings = Settings(store="memory:", provider="local:", log_level="warning")
        opened = Orchestrator.open(settings, providers=(provider,), store=store)
        orchestrator = await stack.enter_async_context(opened)
        sides = Sides(store, provider, lambda: datetime.now(UTC))
        yield Desk(orchestrator, mock, sides, Bookmarks(tmp_path / "reconciliation.json"))


@pytest.mark.parametrize("client_ref", [None, "legacy-0001"])
async def test_a_booking_that_was_taken_over_is_compared_like_our_own(shared: Desk, client_ref: str | None) -> None:
    wanted = {"start": START, "end": START + timedelta(hours=1), "time_zone": "UTC", "summary": "Check-up"}
    times = {name: one.isoformat() if isinstance(one, datetime) else one for name, one in wanted.items()}
    body = {"calendar_id": "main", "organizer": {"email": "a@example.org"}, "attendees": [], **times}
    body |= {"attendees": [{"email": "b@example.org"}]} | ({"client_ref": client_ref} if client_ref else {})
    async with Client(shared.mock.url) as legacy:
        made = (await legacy.send("POST", "/bookings", json=body)).json
        booking = ProviderBooking(
            provider_ref=made["id"], client_ref=client_ref or "", status=made["status"], version=made["version"]
        )
        command = {"booked": {"calendar": "main", **wanted}, "booking": booking, "source": "legacy"}
        taken = await shared.orchestrator.import_booking(command, key="order-1")
        for changes in (False, True):
            report = await shared.compared(changes=changes)
            assert (report.findings, report.unchecked, report.strangers) == ((), (), 0)
        assert (await shared.compared(tenant="another")).findings == ()
        # Its own id is no reference there: only where it was taken over from is looked.
        await shared.behind_our_back(taken)
        for changes in (True, False):
            report = await shared.compared(changes=changes, policy="adopt")
            assert [(one.appointment, one.kind) for one in report.findings] == [(taken.id, Kind.MISSING)]
    (healed,) = await shared.orchestrator.heal(report, dry_run=False, wait=10)
    assert (healed.outcome, healed.detail) == ("given", "cancelled")
    assert (await shared.compared()).agrees
