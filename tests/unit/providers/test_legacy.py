"""The legacy system as an adapter: one bare POST, and its booking known again only where it can be nobody else's."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from domain.provider import (
    BookingDetails,
    Call,
    Confirmed,
    Found,
    Missing,
    Party,
    Pending,
    Rejected,
    Retryable,
    Unknown,
)
from mocks.server import MockProvider
from providers.api_v2 import ApiV2Provider
from providers.legacy import LegacyCalendar, Wanted
from tests.contract.mock_client import Client

ROOT = Path(__file__).resolve().parents[3]
ME = "6f0c8a52-3b0e-5c8f-9a57-0d6d5c1f7e11"
DETAILS = BookingDetails(
    calendar="main",
    start=datetime(2031, 3, 3, 9, tzinfo=UTC),
    end=datetime(2031, 3, 3, 10, tzinfo=UTC),
    time_zone="Europe/Berlin",
    summary="Check-up",
    organizer=Party(email="desk@example.org"),
    attendees=(Party(email="ada@example.org", name="Ada"),),
    metadata={"room": "2"},
)
CALL = Call(operation_id="create-0001", client_ref=ME, timeout_ms=300)


@dataclass
class Log:
    """What the log says, as a test sets it."""

    provider_ref: str | None = None
    held: set[str] = field(default_factory=set)
    rival: bool = False

    async def wanted(self, client_ref: str) -> Wanted:
        assert client_ref == ME
        return Wanted(details=DETAILS, provider_ref=self.provider_ref)

    async def unclaimed(self, client_ref: str, details: BookingDetails, refs: Collection[str]) -> frozenset[str] | None:
        assert (client_ref, details) == (ME, DETAILS)
        return None if self.rival else frozenset(refs) - self.held


@dataclass
class Office:
    """The adapter in front of a provider that takes bookings without a name."""

    legacy: LegacyCalendar
    mock: MockProvider
    log: Log

    def lose_answer(self, how: str = "rst") -> None:
        self.mock.script("create", "lost_response", how=how, times=1)

    async def somebody_books(self, **otherwise: Any) -> str:
        body = self.mock.requests("create")[0]["body"] | otherwise
        async with Client(self.mock.url) as client:
            return str((await client.send("POST", "/bookings", json=body)).json["id"])


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    async with MockProvider(lenient=True) as mock:
        own, log = ApiV2Provider("main", mock.url, settle_ms=100), Log()
        legacy = LegacyCalendar(own, mock.url, log)
        yield Office(legacy, mock, log)
        await legacy.close()
        await own.close()


class TestItsCall:
    async def test_it_is_the_one_of_project_a(self, office: Office) -> None:
        payload = DETAILS.model_dump(mode="json", exclude={"all_day"}, exclude_none=True)
        click = {"target": {"attributes": {"data-action": "book-appointment"}}, "payload": payload}
        # In a process of its own, as it leaves its connection to whoever comes after.
        a = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "Shared.legacy.call", office.mock.url),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        told, _ = await a.communicate(json.dumps(click).encode())
        assert json.loads(told)["told"] == "booked"
        await office.legacy.create(CALL, DETAILS)
        theirs, ours = ({**one, "at": 0} for one in office.mock.requests())
        assert ours == theirs
        assert (ours["idempotency_key"], ours["client_ref"]) == (None, None)

    async def test_what_it_booked_is_confirmed(self, office: Office) -> None:
        outcome = await office.legacy.create(CALL, DETAILS)
        assert isinstance(outcome, Confirmed)
        assert outcome.booking is not None
        assert outcome.booking.provider_ref == office.mock.ledger()["bookings"][0]["id"]

    async def test_its_booked_for_a_202_is_not_believed(self, office: Office) -> None:
        office.mock.script("create", "pending", settle_ms=50)
        assert isinstance(await office.legacy.create(CALL, DETAILS), Pending)

    @pytest.mark.parametrize(
        ("mode", "fields", "kind"),
        [
            ("reject", {}, Rejected),
            ("fail_then_succeed", {"status": 503}, Unknown),
            ("lost_response", {"how": "rst"}, Unknown),
            ("timeout", {"applied": False}, Unknown),
            ("corrupt_json", {"how": "truncated"}, Unknown),
        ],
    )
    async def test_an_error_is_what_it_is(self, office: Office, mode: str, fields: dict[str, Any], kind: type) -> None:
        office.mock.script("create", mode, **fields)
        assert isinstance(await office.legacy.create(CALL, DETAILS), kind)
        assert office.mock.calls() == {"create": 1}

    async def test_a_legacy_system_that_is_gone_was_not_asked(self, office: Office) -> None:
        gone = LegacyCalendar(ApiV2Provider("main", office.mock.url), "http://127.0.0.1:9/api/v2", office.log)
        assert isinstance(await gone.create(CALL, DETAILS), Retryable)
        await gone.close()

    async def test_it_books_no_series_and_no_whole_days(self, office: Office) -> None:
        for more in ({"recurrence": "FREQ=DAILY;COUNT=2"}, {"all_day": True}):
            assert isinstance(await office.legacy.create(CALL, DETAILS.model_copy(update=more)), Rejected)
        assert office.mock.calls() == {}


class TestItsBookingAgain:
    async def test_the_only_one_of_its_content_is_it(self, office: Office) -> None:
        office.lose_answer()
        await office.legacy.create(CALL, DETAILS)
        found = await office.legacy.find(CALL, "main")
        assert isinstance(found, Found)
        assert found.booking.provider_ref == office.mock.ledger()["bookings"][0]["id"]

    async def test_one_that_an_appointment_holds_is_not_it(self, office: Office) -> None:
        held = await office.legacy.create(CALL, DETAILS)
        assert isinstance(held, Confirmed)
        assert held.booking is not None
        office.log.held = {held.booking.provider_ref}
        assert isinstance(await office.legacy.find(CALL, "main"), Retryable)

    async def test_of_two_alike_none_is_taken(self, office: Office) -> None:
        office.lose_answer()
        await office.legacy.create(CALL, DETAILS)
        await office.somebody_books()
        assert isinstance(await office.legacy.find(CALL, "main"), Retryable)

    async def test_with_a_rival_in_doubt_none_is_taken(self, office: Office) -> None:
        office.lose_answer()
        await office.legacy.create(CALL, DETAILS)
        office.log.rival = True
        assert isinstance(await office.legacy.find(CALL, "main"), Retryable)

    @pytest.mark.parametrize(
        "otherwise",
        [{"client_ref": "somebody-0001"}, {"end": "2031-03-03T10:30:00Z"}, {"calendar_id": "other"}],
        ids=["named", "other times", "other calendar"],
    )
    async def test_another_content_is_not_it(self, office: Office, otherwise: dict[str, str]) -> None:
        office.mock.script("create", "timeout", applied=False, times=1)
        await office.legacy.create(CALL, DETAILS)
        await office.somebody_books(**otherwise)
        assert isinstance(await office.legacy.find(CALL, "main"), Retryable)

    async def test_it_is_looked_for_on_every_page(self, office: Office) -> None:
        await office.legacy.create(CALL, DETAILS)
        office.log.held = {office.mock.ledger()["bookings"][0]["id"]}
        for minute in range(110):
            at = f"2031-04-01T{minute // 60:02}:{minute % 60:02}"
            await office.somebody_books(start=f"{at}:00Z", end=f"{at}:30Z")
        last = await office.somebody_books()
        found = await office.legacy.find(CALL.model_copy(update={"timeout_ms": 5_000}), "main")
        assert isinstance(found, Found)
        assert found.booking.provider_ref == last

    async def test_where_its_place_is_known_that_is_read(self, office: Office) -> None:
        made = await office.legacy.create(CALL, DETAILS)
        assert isinstance(made, Confirmed)
        assert made.booking is not None
        office.log.provider_ref = made.booking.provider_ref
        assert isinstance(await office.legacy.find(CALL, "main"), Found)
        assert office.mock.calls() == {"create": 1, "get": 1}

    async def test_a_listing_that_fails_says_nothing(self, office: Office) -> None:
        office.mock.script("list", "fail_then_succeed", failures=1, status=503)
        assert isinstance(await office.legacy.find(CALL, "main"), Unknown)


class TestItsAbsence:
    """The process would call again, or give up, on a `Missing`: so it must be true."""

    async def test_without_an_answer_it_may_still_book(self, office: Office) -> None:
        office.mock.script("create", "delayed", delay_ms=500, apply="after")
        await office.legacy.create(CALL, DETAILS)
        assert isinstance(await office.legacy.find(CALL, "main"), Retryable)
        while not office.mock.live():
            await asyncio.sleep(0.02)
        assert isinstance(await office.legacy.find(CALL, "main"), Found)

    async def test_after_a_crash_nobody_knows_whether_it_answered(self, office: Office) -> None:
        assert isinstance(await office.legacy.find(CALL, "main"), Retryable)

    async def test_a_success_that_cannot_be_read_is_no_error(self, office: Office) -> None:
        office.mock.script("create", "corrupt_json", how="truncated", applied=False)
        await office.legacy.create(CALL, DETAILS)
        assert isinstance(await office.legacy.find(CALL, "main"), Retryable)

    async def test_after_an_error_it_is_done(self, office: Office) -> None:
        office.mock.script("create", "fail_then_succeed", status=503)
        await office.legacy.create(CALL, DETAILS)
        assert isinstance(await office.legacy.find(CALL, "main"), Missing)


async def test_what_it_cannot_do_goes_by_the_own_adapter(office: Office) -> None:
    made = await office.legacy.create(CALL, DETAILS)
    assert isinstance(made, Confirmed)
    assert made.booking is not None
    ref = made.booking.provider_ref
    moved = DETAILS.model_copy(update={"start": datetime(2031, 3, 3, 8, tzinfo=UTC)})
    assert isinstance(await office.legacy.reschedule(CALL, ref, None, moved), Confirmed)
    assert isinstance(await office.legacy.cancel(CALL, "main", ref), Confirmed)
    assert office.mock.live() == 0
    sent = [(one["op"], one["idempotency_key"]) for one in office.mock.requests() if one["op"] != "get"]
    assert sent == [("create", None), ("reschedule", CALL.operation_id), ("cancel", CALL.operation_id)]
