"""What the `/api/v2` adapter makes of each fault: the outcome's kind, and what was committed meanwhile."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.errors import ProviderUnavailable
from domain.provider import (
    BookingDetails,
    BookingStatus,
    Call,
    Confirmed,
    Found,
    Missing,
    Party,
    Pending,
    ProviderBooking,
    Rejected,
    Retryable,
    SyncExpired,
    Unknown,
)
from mocks import MockProvider
from providers.api_v2 import ApiV2Provider
from providers.notifications import Notifier
from tests.unit.providers.wire import answer, wire

START = datetime(2027, 3, 1, 9, tzinfo=UTC)
DETAILS = BookingDetails(
    calendar="main",
    start=START,
    end=START + timedelta(hours=1),
    time_zone="Europe/Berlin",
    summary="Visit",
    organizer=Party(email="desk@example.com"),
    attendees=(Party(email="guest@example.com", name="Guest"),),
)
LATER = DETAILS.model_copy(update={"start": START + timedelta(days=1), "end": START + timedelta(days=1, hours=1)})
HOW_LOST = ("close", "rst", "500", "truncated")
HOW_CORRUPT = ("truncated", "invalid_utf8", "wrong_type", "html", "extra_data", "nan", "empty")


def call(operation: str = "create", ref: str = "booking-1", timeout_ms: int = 2_000) -> Call:
    return Call(operation_id=f"{operation}-{ref}", client_ref=ref, timeout_ms=timeout_ms, correlation_id="corr-1")


@pytest.fixture
async def mock() -> AsyncIterator[MockProvider]:
    async with MockProvider() as running:
        yield running


@pytest.fixture
async def provider(mock: MockProvider) -> AsyncIterator[ApiV2Provider]:
    adapter = ApiV2Provider("mock", mock.url, callback_url="http://127.0.0.1:9/callbacks")
    yield adapter
    await adapter.close()


async def booked(provider: ApiV2Provider) -> ProviderBooking:
    outcome = await provider.create(call(), DETAILS)
    assert isinstance(outcome, Confirmed)
    assert outcome.booking is not None
    return outcome.booking


@pytest.mark.parametrize("how", HOW_LOST)
async def test_a_lost_answer_is_unknown_and_its_repeat_is_replayed(
    mock: MockProvider, provider: ApiV2Provider, how: str
) -> None:
    mock.script("create", "lost_response", how=how, times=1)
    assert isinstance(await provider.create(call(), DETAILS), Unknown)
    assert isinstance(await provider.find(call("find"), "main"), Found)
    again = await provider.create(call(), DETAILS)
    assert isinstance(again, Confirmed)
    assert again.replayed
    assert mock.live("booking-1") == 1
    assert mock.calls()["create"] == 2


@pytest.mark.parametrize("how", HOW_CORRUPT)
async def test_an_answer_that_cannot_be_read_is_unknown(mock: MockProvider, provider: ApiV2Provider, how: str) -> None:
    made = await booked(provider)
    for operation in ("create", "cancel", "reschedule", "get", "find"):
        mock.script(operation, "corrupt_json", how=how, times=1)
    assert isinstance(await provider.create(call(ref="booking-2"), LATER), Unknown)
    assert isinstance(await provider.reschedule(call("move"), made.provider_ref, made.etag, LATER), Unknown)
    assert isinstance(await provider.cancel(call("cancel"), "main", made.provider_ref), Unknown)
    assert isinstance(await provider.get(call("get"), "main", made.provider_ref), Unknown)
    assert isinstance(await provider.find(call("find"), "main"), Unknown)
    mock.script("list", "corrupt_json", how=how, times=1)
    with pytest.raises(ProviderUnavailable):
        await provider.listing(call("list"), "main")


async def test_a_slow_body_ends_with_the_call_and_is_unknown(mock: MockProvider, provider: ApiV2Provider) -> None:
    mock.script("create", "slow_body", byte_interval_ms=50, times=1)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    assert isinstance(await provider.create(call(timeout_ms=200), DETAILS), Unknown)
    assert loop.time() - begun < 1.5
    assert mock.live() == 1


@pytest.mark.parametrize(("applied", "live"), [(True, 1), (False, 0)])
async def test_silence_is_unknown_whether_or_not_it_was_applied(
    mock: MockProvider, provider: ApiV2Provider, applied: bool, live: int
) -> None:
    mock.script("create", "timeout", applied=applied, times=1)
    assert isinstance(await provider.create(call(timeout_ms=150), DETAILS), Unknown)
    assert mock.live() == live


@pytest.mark.parametrize("status", [500, 502, 503])
@pytest.mark.parametrize("applied", [True, False])
async def test_a_server_error_is_unknown(
    mock: MockProvider, provider: ApiV2Provider, status: int, applied: bool
) -> None:
    mock.script("create", "fail_then_succeed", failures=1, status=status, applied=applied)
    assert isinstance(await provider.create(call(), DETAILS), Unknown)
    again = await provider.create(call(), DETAILS)
    assert isinstance(again, Confirmed)
    assert again.replayed is applied


@pytest.mark.parametrize("status", [429, 403])
@pytest.mark.parametrize(
    ("retry_after", "lowest", "highest"), [(7, 7_000, 7_000), ("date", 1_000, 8_000), ("absent", None, None)]
)
async def test_a_limited_call_is_retryable_after_what_the_provider_says(
    mock: MockProvider, provider: ApiV2Provider, status: int, retry_after: Any, lowest: int | None, highest: int | None
) -> None:
    extra = {"seconds": 7} if retry_after == "date" else {}
    mock.script("create", "rate_limited", status=status, retry_after=retry_after, times=1, **extra)
    outcome = await provider.create(call(), DETAILS)
    assert isinstance(outcome, Retryable)
    assert outcome.throttled
    if lowest is None or highest is None:
        assert outcome.retry_after_ms is None
    else:
        assert outcome.retry_after_ms is not None
        assert lowest <= outcome.retry_after_ms <= highest
    assert mock.live() == 0


async def test_a_locked_provider_is_retryable_and_throttled(mock: MockProvider, provider: ApiV2Provider) -> None:
    mock.script("create", "stuck_locked")
    for _ in range(2):
        outcome = await provider.create(call(), DETAILS)
        assert isinstance(outcome, Retryable)
        assert outcome.throttled


async def test_a_call_whose_first_copy_still_runs_is_unknown_in_flight(
    mock: MockProvider, provider: ApiV2Provider
) -> None:
    mock.script("create", "delayed", delay_ms=400, times=1)
    first = asyncio.create_task(provider.create(call(), DETAILS))
    while not mock.calls().get("create"):
        await asyncio.sleep(0.01)
    second = await provider.create(call(), DETAILS)
    assert isinstance(second, Unknown)
    assert second.in_flight
    assert isinstance(await first, Confirmed)
    assert mock.live() == 1


async def test_our_own_reference_under_another_key_is_replayed_and_other_content_is_a_conflict(
    mock: MockProvider, provider: ApiV2Provider
) -> None:
    await booked(provider)
    again = await provider.create(call("create-again"), DETAILS)
    assert isinstance(again, Confirmed)
    assert again.replayed
    other = await provider.create(call("create-other"), LATER)
    assert isinstance(other, Rejected)
    assert other.conflict
    assert isinstance(await provider.create(call(), LATER), Rejected)  # the key with another body
    assert mock.live() == 1


async def test_a_conflict_whose_read_back_fails_is_unknown(mock: MockProvider, provider: ApiV2Provider) -> None:
    await booked(provider)
    mock.script("find", "fail_then_succeed", failures=1)
    assert isinstance(await provider.create(call("create-again"), DETAILS), Unknown)


def told(**changes: object) -> bytes:
    times = {"start": "2027-03-01T09:00:00Z", "end": "2027-03-01T10:00:00Z"}
    return json.dumps({"id": "bk_1", "client_ref": "booking-1", "status": "accepted", **times, **changes}).encode()


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[ApiV2Provider]:
    async with wire(lambda number, _head: answers[number - 1]) as seen:
        adapter = ApiV2Provider("wire", seen.url)
        try:
            yield adapter
        finally:
            await adapter.close()
    assert len(seen.heads) == len(answers)


async def test_a_slot_that_somebody_else_holds_is_a_conflict() -> None:
    refusal = b'{"error": {"code": "slot_conflict", "message": "taken", "retryable": false}}'
    async with answering(answer(409, refusal), answer(200, b'{"items": []}')) as adapter:
        outcome = await adapter.create(call(), DETAILS)
    assert isinstance(outcome, Rejected)
    assert outcome.conflict
    assert "slot_conflict" in outcome.reason


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"error": {"code": "client_ref_conflict"}}'])
async def test_a_conflict_that_names_no_slot_and_shows_nothing_of_ours_is_unknown(body: bytes) -> None:
    async with answering(answer(409, body), answer(200, b'{"items": []}')) as adapter:
        assert isinstance(await adapter.create(call(), DETAILS), Unknown)


@pytest.mark.parametrize("broken", ['"retry_after": -1', '"retry_after": "soon"', '"message": null', '"message": [1]'])
async def test_a_broken_part_of_an_error_does_not_hide_that_the_first_copy_runs(broken: str) -> None:
    body = f'{{"error": {{"code": "in_flight", {broken}}}}}'.encode()
    async with answering(answer(409, body)) as adapter:
        outcome = await adapter.create(call(), DETAILS)
    assert isinstance(outcome, Unknown)
    assert outcome.in_flight


@pytest.mark.parametrize(
    ("items", "more"), [([], True), ([told(client_ref="stranger")], False), ([told(client_ref=None)], False)]
)
async def test_a_look_up_that_may_have_left_ours_out_is_unknown(items: list[bytes], more: bool) -> None:
    body = b'{"items": [%s], "has_more": %s}' % (b",".join(items), json.dumps(more).encode())
    async with answering(answer(200, body)) as adapter:
        assert isinstance(await adapter.find(call("find"), "main"), Unknown)


@pytest.mark.parametrize("token", [None, "t"])
async def test_a_listing_that_would_never_end_is_unavailable(token: str | None) -> None:
    body = json.dumps({"items": [], "has_more": True, "next_sync_token": token}).encode()
    async with answering(answer(200, body)) as adapter:
        with pytest.raises(ProviderUnavailable):
            await adapter.listing(call("list"), "main", token)


async def test_a_move_that_is_answered_with_other_times_is_unknown() -> None:
    async with answering(answer(200, told())) as adapter:
        assert isinstance(await adapter.reschedule(call("move"), "bk_1", '"1"', LATER), Unknown)


async def test_a_reference_that_shows_another_booking_is_not_taken_for_ours() -> None:
    strange = answer(200, told(client_ref="stranger"))
    async with answering(strange, strange) as adapter:
        assert isinstance(await adapter.get(call("get"), "main", "bk_1"), Unknown)
        assert isinstance(await adapter.reschedule(call("move"), "bk_1", None, DETAILS), Retryable)


async def test_an_answer_about_another_booking_is_unknown() -> None:
    body = b'{"id": "bk_1", "client_ref": "somebody-else", "status": "accepted", "version": 1}'
    async with wire(lambda _number, _head: answer(201, body)) as seen:
        adapter = ApiV2Provider("wire", seen.url)
        assert isinstance(await adapter.create(call(), DETAILS), Unknown)
        await adapter.close()


async def test_a_pending_booking_says_when_to_look_again(mock: MockProvider, provider: ApiV2Provider) -> None:
    mock.script("create", "pending", settle_ms=1_500, via="poll", times=1)
    outcome = await provider.create(call(), DETAILS)
    assert isinstance(outcome, Pending)
    assert outcome.poll_after_ms == 2_000
    assert outcome.booking.status is BookingStatus.PENDING


async def test_a_booking_that_the_provider_turned_down_is_rejected_on_repeat(
    mock: MockProvider, provider: ApiV2Provider
) -> None:
    mock.script("create", "pending", settle_ms=0, final="rejected", via="poll", times=1)
    await provider.create(call(), DETAILS)
    assert isinstance(await provider.create(call(), DETAILS), Rejected)
    found = await provider.find(call("find"), "main")
    assert isinstance(found, Found)
    assert found.booking.status is BookingStatus.REJECTED


async def test_a_lost_cancel_is_unknown_and_its_repeat_is_confirmed(
    mock: MockProvider, provider: ApiV2Provider
) -> None:
    made = await booked(provider)
    mock.script("cancel", "lost_response", how="rst", times=1)
    assert isinstance(await provider.cancel(call("cancel"), "main", made.provider_ref), Unknown)
    again = await provider.cancel(call("cancel"), "main", made.provider_ref)
    assert isinstance(again, Confirmed)
    assert mock.live() == 0


async def test_an_unknown_reference_is_cancelled_only_if_nothing_live_is_left(provider: ApiV2Provider) -> None:
    unknown = "bk_" + "0" * 32
    assert isinstance(await provider.cancel(call("cancel"), "main", unknown), Confirmed)
    await booked(provider)
    assert isinstance(await provider.cancel(call("cancel"), "main", unknown), Unknown)


@pytest.mark.parametrize("etag", [None, "its own"])
async def test_a_lost_move_is_unknown_and_its_repeat_is_confirmed(
    mock: MockProvider, provider: ApiV2Provider, etag: str | None
) -> None:
    made = await booked(provider)
    given = made.etag if etag else None
    mock.script("reschedule", "lost_response", how="close", times=1)
    assert isinstance(await provider.reschedule(call("move"), made.provider_ref, given, LATER), Unknown)
    assert isinstance(await provider.reschedule(call("move"), made.provider_ref, given, LATER), Confirmed)
    assert mock.ledger()["bookings"][0]["version"] == 2


async def test_a_move_whose_first_read_fails_moved_nothing(mock: MockProvider, provider: ApiV2Provider) -> None:
    made = await booked(provider)
    mock.script("get", "lost_response", how="close", times=1)
    assert isinstance(await provider.reschedule(call("move"), made.provider_ref, None, LATER), Retryable)
    assert mock.calls().get("reschedule", 0) == 0


async def test_a_move_that_is_in_place_under_a_newer_etag_is_replayed(provider: ApiV2Provider) -> None:
    made = await booked(provider)
    await provider.reschedule(call("move"), made.provider_ref, made.etag, LATER)
    again = await provider.reschedule(call("move-2"), made.provider_ref, made.etag, LATER)
    assert isinstance(again, Confirmed)
    assert again.replayed


async def test_a_cancelled_booking_cannot_be_moved(provider: ApiV2Provider) -> None:
    made = await booked(provider)
    await provider.cancel(call("cancel"), "main", made.provider_ref)
    for etag in (None, made.etag):
        assert isinstance(await provider.reschedule(call("move"), made.provider_ref, etag, LATER), Rejected)
    assert isinstance(await provider.reschedule(call("move"), "bk_none", None, LATER), Rejected)


async def test_reads_of_what_is_not_there_are_missing(provider: ApiV2Provider) -> None:
    assert await provider.get(call("get"), "main", "bk_" + "0" * 32) == Missing()
    assert await provider.find(call("find"), "main") == Missing()


async def test_a_listing_whose_token_was_reset_is_expired(mock: MockProvider, provider: ApiV2Provider) -> None:
    page = await provider.listing(call("list"), "main")
    mock.script("list", "reset_sync", times=1)
    with pytest.raises(SyncExpired):
        await provider.listing(call("list"), "main", page.next_token)


async def test_every_write_carries_its_key_and_the_callback_address(
    mock: MockProvider, provider: ApiV2Provider
) -> None:
    await booked(provider)
    own = DETAILS.model_copy(update={"callback_url": "http://127.0.0.1:9/own"})
    await provider.create(call(ref="booking-2"), own)
    first, second = mock.requests("create")
    assert first["idempotency_key"] == "create-booking-1"
    assert "http://127.0.0.1:9/callbacks" in str(first)
    assert "http://127.0.0.1:9/own" in str(second)


async def test_every_call_carries_its_correlation_id() -> None:
    async with wire(lambda _number, _head: answer(404)) as seen:
        adapter = ApiV2Provider("wire", seen.url)
        await adapter.create(call(), DETAILS)
        await adapter.find(call("find"), "main")
        await adapter.close()
    assert [b"X-Correlation-ID: corr-1" in head for head in seen.heads] == [True, True]


async def test_a_series_is_refused_unasked(mock: MockProvider, provider: ApiV2Provider) -> None:
    series = DETAILS.model_copy(update={"recurrence": "FREQ=DAILY"})
    assert isinstance(await provider.create(call(), series), Rejected)
    assert mock.calls().get("create", 0) == 0


async def test_a_notification_is_told_once_and_classified_like_any_write(mock: MockProvider) -> None:
    notifier = Notifier("notify", mock.url)
    body = {"client_ref": "booking-1", "type": "appointment-confirmed"}
    try:
        mock.script("notify", "lost_response", how="close", times=1)
        assert isinstance(await notifier.notify(call("notify"), body), Unknown)
        assert isinstance(await notifier.notify(call("notify"), body), Confirmed)
        assert len(mock.ledger()["notifications"]) == 1
        mock.script("notify", "rate_limited", times=1)
        assert isinstance(await notifier.notify(call("notify-2"), body), Retryable)
        assert isinstance(await notifier.notify(call("notify-3"), {"type": 7}), Rejected)
    finally:
        await notifier.close()
