"""A booking that another system made: taken over once, then moved, cancelled, restored and compared like our own."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from appointments import Orchestrator, Settings
from domain.errors import InvalidFields, KeyReused
from domain.provider import BookingDetails, Call, Confirmed, ProviderBooking
from mocks.server import MockProvider
from providers.api_v2 import ApiV2Provider
from tests.contract.mock_client import Client

WANTED: dict[str, Any] = {
    "calendar": "main",
    "start": "2031-03-03T09:00:00Z",
    "end": "2031-03-03T10:00:00Z",
    "time_zone": "Europe/Berlin",
    "summary": "Check-up",
}
BY_LEGACY = {
    "calendar_id": "main",
    "organizer": {"email": "desk@example.org"},
    "attendees": [{"email": "ada@example.org"}],
}
LATER = {"start": "2031-03-04T09:00:00Z", "end": "2031-03-04T10:00:00Z"}
QUICK = {"call_timeout_ms": 300, "backoff_ms": 10, "settle_ms": 100, "poll_ms": 20, "log_level": "warning"}


@dataclass
class Office:
    """A desk, and a provider at which the legacy system books by one bare POST."""

    desk: Orchestrator
    mock: MockProvider

    async def legacy_books(self, client_ref: str | None = None) -> ProviderBooking:
        body = {name: value for name, value in WANTED.items() if name != "calendar"} | BY_LEGACY
        if client_ref is not None:
            body["client_ref"] = client_ref
        async with Client(self.mock.url) as client:
            made = (await client.send("POST", "/bookings", json=body)).json
        return ProviderBooking(
            provider_ref=made["id"], client_ref=client_ref or "", status=made["status"], version=made["version"]
        )

    async def take_over(self, booking: ProviderBooking, key: str = "order-1", **otherwise: Any) -> Any:
        command = {"booked": WANTED | otherwise, "booking": booking, "source": "legacy"}
        return await self.desk.import_booking(command, key=key)

    def there(self) -> list[tuple[str, str]]:
        return [(one["status"], one["start"]) for one in self.mock.ledger()["bookings"]]


@pytest.fixture(params=[1, 3], ids=["one attempt", "three attempts"])
async def office(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Office]:
    async with AsyncExitStack() as stack:
        mock = await stack.enter_async_context(MockProvider(lenient=True))
        settings = Settings(store=f"sqlite:///{tmp_path}/x.db", provider=mock.url, attempts_max=request.param, **QUICK)
        yield Office(await stack.enter_async_context(Orchestrator.open(settings)), mock)


@pytest.mark.parametrize("client_ref", [None, "legacy-0001"])
class TestLivesOn:
    async def test_it_is_confirmed_and_nobody_is_called(self, office: Office, client_ref: str | None) -> None:
        booking = await office.legacy_books(client_ref)
        calls = office.mock.calls()
        taken = await office.take_over(booking)
        assert (taken.state, taken.attempts, taken.provider_ref) == ("confirmed", 0, booking.provider_ref)
        assert office.mock.calls() == calls
        (event,) = await office.desk.events(taken.id)
        assert event.type == "appointment-imported.v1"
        assert (await office.desk.replay(taken.id)).matches

    async def test_it_can_be_moved_and_cancelled(self, office: Office, client_ref: str | None) -> None:
        taken = await office.take_over(await office.legacy_books(client_ref))
        moved = await office.desk.reschedule(taken.id, **LATER, key="move", wait=10)
        assert (moved.state, moved.start.day) == ("confirmed", 4)
        assert office.there() == [("accepted", LATER["start"])]
        gone = await office.desk.cancel(taken.id, key="cancel", wait=10)
        assert gone.state == "cancelled"
        assert office.there() == [("cancelled", LATER["start"])]
        assert (await office.desk.replay(taken.id)).matches

    async def test_a_move_whose_answer_was_lost_is_looked_up_where_the_booking_stands(
        self, office: Office, client_ref: str | None
    ) -> None:
        taken = await office.take_over(await office.legacy_books(client_ref))
        office.mock.script("reschedule", "lost_response", how="rst", times=1)
        moved = await office.desk.reschedule(taken.id, **LATER, key="move", wait=10)
        assert (moved.state, moved.start.day, moved.parked) == ("confirmed", 4, False)
        assert office.there() == [("accepted", LATER["start"])]

    async def test_a_cancel_whose_answer_was_lost_ends_cancelled(self, office: Office, client_ref: str | None) -> None:
        taken = await office.take_over(await office.legacy_books(client_ref))
        office.mock.script("cancel", "lost_response", how="rst", times=2)
        assert (await office.desk.cancel(taken.id, key="cancel", wait=10)).state == "cancelled"
        assert office.mock.live() == 0

    async def test_one_that_was_cancelled_at_the_provider_is_restored_as_our_own(
        self, office: Office, client_ref: str | None
    ) -> None:
        booking = await office.legacy_books(client_ref)
        taken = await office.take_over(booking)
        async with Client(office.mock.url) as client:
            await client.send("POST", f"/bookings/{booking.provider_ref}/cancel", key="by-hand")
        restored = await office.desk.observe(
            taken.id, None, "restore", actor="dana", reason="cancelled by mistake", wait=10
        )
        assert (restored.state, office.mock.live(str(taken.id))) == ("confirmed", 1)
        assert restored.provider_ref != booking.provider_ref


async def test_a_booking_without_a_reference_that_stands_where_it_was_to_go_was_moved(office: Office) -> None:
    booking = await office.legacy_books()
    provider = ApiV2Provider("main", office.mock.url)
    details = BookingDetails.model_validate({**WANTED, **LATER})
    call = Call(operation_id="move-0001", client_ref=str(UUID(int=1)), timeout_ms=1_000)
    try:
        stale = (await provider.get(call, "main", booking.provider_ref)).booking.etag  # type: ignore[union-attr]
        for operation in ("move-0001", "move-0002"):
            call = call.model_copy(update={"operation_id": operation})
            assert isinstance(await provider.reschedule(call, booking.provider_ref, stale, details), Confirmed)
    finally:
        await provider.close()


class TestOnce:
    async def test_the_same_again_is_the_same_appointment(self, office: Office) -> None:
        booking = await office.legacy_books()
        first, again = await office.take_over(booking), await office.take_over(booking)
        assert (again.id, again.version) == (first.id, 1)

    async def test_to_book_the_same_under_its_key_calls_nobody(self, office: Office) -> None:
        taken = await office.take_over(await office.legacy_books())
        calls = office.mock.calls()
        booked = await office.desk.book(WANTED, key="order-1", wait=10)
        assert (booked.id, booked.state, office.mock.calls()) == (taken.id, "confirmed", calls)

    async def test_its_key_for_something_else_is_refused(self, office: Office) -> None:
        booking = await office.legacy_books()
        await office.take_over(booking)
        with pytest.raises(KeyReused):
            await office.take_over(booking, summary="Other")
        with pytest.raises(KeyReused):
            await office.desk.book(WANTED | {"summary": "Other"}, key="order-1")

    @pytest.mark.parametrize("status", ["pending", "cancelled", "rejected"])
    async def test_only_what_stands_is_taken_over(self, office: Office, status: str) -> None:
        with pytest.raises(InvalidFields, match="cannot be taken over"):
            await office.take_over(ProviderBooking(provider_ref="bk-1", status=status))
        assert not (await office.desk.list()).items
