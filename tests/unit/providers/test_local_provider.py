"""The provider in memory: planned answers, live bookings, listing by token."""

from datetime import UTC, datetime, timedelta

import pytest

from domain.provider import BookingDetails, Call, Confirmed, Found, Rejected, SyncExpired, Unknown
from providers.local import LocalProvider

START = datetime(2027, 3, 1, 9, tzinfo=UTC)


def call(ref: str) -> Call:
    return Call(operation_id=f"create-{ref}", client_ref=ref, timeout_ms=1_000)


def details(hours: int = 0) -> BookingDetails:
    start = START + timedelta(hours=hours)
    return BookingDetails(
        calendar="main", start=start, end=start + timedelta(minutes=30), time_zone="UTC", summary="Visit"
    )


async def test_a_planned_lost_answer_still_books() -> None:
    provider = LocalProvider()
    provider.answer_next("create", Unknown(reason="lost"), applied=True)
    assert isinstance(await provider.create(call("booking-1"), details()), Unknown)
    assert isinstance(await provider.find(call("booking-1"), "main"), Found)
    again = await provider.create(call("booking-1"), details())
    assert isinstance(again, Confirmed)
    assert again.replayed


async def test_a_planned_refusal_books_nothing() -> None:
    provider = LocalProvider()
    provider.answer_next("create", Rejected(reason="closed"))
    assert isinstance(await provider.create(call("booking-1"), details()), Rejected)
    assert provider.live("main") == ()


async def test_a_late_repeat_after_a_move_is_replayed_at_the_new_time() -> None:
    provider = LocalProvider()
    await provider.create(call("booking-1"), details())
    await provider.reschedule(call("booking-1"), "local-booking-1", None, details(2))
    again = await provider.create(call("booking-1"), details())
    assert isinstance(again, Confirmed)
    assert again.replayed
    assert again.booking is not None
    assert again.booking.start == START + timedelta(hours=2)


async def test_a_listing_goes_on_from_its_token() -> None:
    provider = LocalProvider()
    for number in range(5):
        await provider.create(call(f"booking-{number}"), details(number))
    first = await provider.listing(call("list"), "main", limit=3)
    assert (len(first.bookings), first.more) == (3, True)
    rest = await provider.listing(call("list"), "main", first.next_token, limit=3)
    assert (len(rest.bookings), rest.more) == (2, False)
    await provider.cancel(call("booking-2"), "main", "local-booking-2")
    changed = await provider.listing(call("list"), "main", rest.next_token)
    assert [(b.client_ref, b.status.value) for b in changed.bookings] == [("booking-2", "cancelled")]


async def test_a_token_never_given_is_expired() -> None:
    for token in ("7", "-1", "elsewhere", "9" * 5_000):
        with pytest.raises(SyncExpired):
            await LocalProvider().listing(call("list"), "main", token)
