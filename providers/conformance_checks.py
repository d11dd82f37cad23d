"""The checks of the conformance suite: what a caller may rely on, one promise each. Plain functions over a `Trial`."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from domain.provider import (
    BookingDetails,
    BookingStatus,
    Call,
    Confirmed,
    Found,
    Missing,
    Pending,
    Provider,
    Rejected,
    Retryable,
    SyncExpired,
    Unknown,
)
from providers.conformance_trial import LIVE, Broken, Skipped, Trial, booking_of, expect, hold, need

SILENT_TIMEOUT_MS = 200
BERLIN = ZoneInfo("Europe/Berlin")


async def create_then_find(trial: Trial) -> None:
    """What was booked is found by its client reference and read by the provider's, at its times."""
    call, details = trial.call(), trial.details()
    made = await trial.book(call, details)
    hold(made.client_ref == call.client_ref, f"booked under {made.client_ref!r}, not {call.client_ref!r}")
    await _stands(trial, call, details)
    read = booking_of(await trial.provider.get(trial.call("get", call), trial.calendar, made.provider_ref))
    hold(read.client_ref == call.client_ref, f"read {read.client_ref!r} by the reference of {call.client_ref!r}")


async def repeat_books_once(trial: Trial) -> None:
    """A repeat with the same operation id answers the first booking, and there is one."""
    need(trial.provider.capabilities.resend, "that a repeat books once")
    call, details = trial.call(), trial.details()
    first = await trial.book(call, details)
    again = await trial.provider.create(call, details)
    hold(booking_of(again).provider_ref == first.provider_ref, "the repeat made another booking")
    hold(isinstance(again, Pending) or (isinstance(again, Confirmed) and again.replayed), f"no replay: {again!r}")
    seen, _ = await trial.walk()
    count = sum(b.client_ref == call.client_ref and b.status in LIVE for b in seen)
    hold(count == 1, f"{count} live bookings under one client reference")


async def same_content_under_another_operation_is_replayed(trial: Trial) -> None:
    """The client reference alone makes a repeat known."""
    need(trial.provider.capabilities.resend and trial.provider.capabilities.lookup, "lookup and repeats")
    call, details = trial.call(), trial.details()
    first = await trial.book(call, details)
    again = booking_of(await trial.provider.create(trial.call("create-again", call), details))
    hold(again.provider_ref == first.provider_ref, "the repeat made another booking")


async def other_content_is_a_conflict(trial: Trial) -> None:
    """Another booking under the same client reference is refused, and the first one stays as it was."""
    need(trial.provider.capabilities.resend, "that a client reference is taken once")
    call, details = trial.call(), trial.details()
    await trial.book(call, details)
    other = await trial.provider.create(trial.call("create-other", call), trial.details(summary="Another booking"))
    hold(isinstance(other, Rejected) and other.conflict, f"Rejected(conflict=True) was due, got {other!r}")
    await _stands(trial, call, details)


async def missing_is_missing(trial: Trial) -> None:
    """A reference that was never booked is Missing."""
    need(trial.provider.capabilities.lookup, "lookup by client reference")
    expect(await trial.provider.find(trial.call("find"), trial.calendar), Missing)


async def cancel_twice(trial: Trial) -> None:
    """A cancel is confirmed, and so is its repeat."""
    call = trial.call()
    made = await trial.book(call, trial.details())
    for operation in ("cancel", "cancel-again"):
        cancelled = await trial.provider.cancel(trial.call(operation, call), trial.calendar, made.provider_ref)
        expect(cancelled, Confirmed)


async def cancelled_is_seen(trial: Trial) -> None:
    """A cancelled booking reads as cancelled or missing."""
    need(trial.provider.capabilities.lookup, "lookup by client reference")
    call = trial.call()
    made = await trial.book(call, trial.details())
    await trial.provider.cancel(trial.call("cancel", call), trial.calendar, made.provider_ref)
    found = expect(await trial.provider.find(trial.call("find", call), trial.calendar), Found, Missing)
    over = isinstance(found, Missing) or booking_of(found).status is BookingStatus.CANCELLED
    hold(over, f"a cancelled booking reads {found!r}")


async def reschedule_moves(trial: Trial) -> None:
    """A move gives the new times under the same client reference, and its repeat changes nothing."""
    need(trial.provider.capabilities.reschedule, "rescheduling")
    call, later = trial.call(), trial.details()
    made = await trial.book(call, trial.details())
    move = trial.call("reschedule", call)
    moved = booking_of(await trial.provider.reschedule(move, made.provider_ref, made.etag, later))
    hold(moved.client_ref == call.client_ref, f"the move changed the client reference to {moved.client_ref!r}")
    await _stands(trial, call, later)
    again = await trial.provider.reschedule(move, moved.provider_ref, moved.etag, later)
    expect(again, Confirmed, Pending)
    await _stands(trial, call, later)


async def stale_etag_is_refused(trial: Trial) -> None:
    """A move that knows an older state is a conflict, and changes nothing."""
    need(trial.provider.capabilities.conditional, "that stale etags are refused")
    need(trial.provider.capabilities.reschedule, "rescheduling")
    call, second, third = trial.call(), trial.details(), trial.details()
    made = await trial.book(call, trial.details())
    etag = made.etag or booking_of(await trial.provider.find(trial.call("find", call), trial.calendar)).etag
    hold(etag is not None, "no etag is given")
    moved = booking_of(await trial.provider.reschedule(trial.call("move", call), made.provider_ref, etag, second))
    stale = await trial.provider.reschedule(trial.call("move-stale", call), moved.provider_ref, etag, third)
    hold(isinstance(stale, Rejected) and stale.conflict, f"Rejected(conflict=True) was due, got {stale!r}")
    await _stands(trial, call, second)


async def silence_is_unknown(trial: Trial) -> None:
    """A write that is never answered is Unknown, not Rejected, and ends in its time."""
    call = trial.call(timeout_ms=SILENT_TIMEOUT_MS)
    async with _given(trial.silent, "silent") as silent:
        expect(await silent.create(call, trial.details()), Unknown)
        expect(await silent.cancel(call, trial.calendar, "reference"), Unknown)
        expect(await silent.find(call, trial.calendar), Unknown, Retryable)


async def refused_connection_is_retryable(trial: Trial) -> None:
    """Where no byte left, nothing was applied."""
    call = trial.call()
    async with _given(trial.unreachable, "unreachable") as unreachable:
        expect(await unreachable.create(call, trial.details()), Retryable)
        expect(await unreachable.cancel(call, trial.calendar, "reference"), Retryable)
        expect(await unreachable.find(call, trial.calendar), Retryable)


async def listing_shows_every_live_booking(trial: Trial) -> None:
    """A walk in pages of two shows every live booking once, and no cancelled one as live."""
    calls = [trial.call() for _ in range(5)]
    made = [await trial.book(call, trial.details()) for call in calls]
    await trial.provider.cancel(trial.call("cancel", calls[0]), trial.calendar, made[0].provider_ref)
    seen, _ = await trial.walk(limit=2)
    for call in calls[1:]:
        count = sum(b.client_ref == call.client_ref and b.status in LIVE for b in seen)
        hold(count == 1, f"a live booking is shown {count} times")
    ghosts = [b for b in seen if b.client_ref == calls[0].client_ref and b.status in LIVE]
    hold(not ghosts, "a cancelled booking is shown as live")


async def listing_goes_on_from_its_token(trial: Trial) -> None:
    """After a walk, the token shows what changed since and nothing else."""
    need(trial.provider.capabilities.sync, "listings from a token")
    kept, dropped, added = trial.call(), trial.call(), trial.call()
    await trial.book(kept, trial.details())
    gone = await trial.book(dropped, trial.details())
    _, page = await trial.walk()
    hold(page.next_token is not None, "the last page has no token")
    await trial.provider.cancel(trial.call("cancel", dropped), trial.calendar, gone.provider_ref)
    await trial.book(added, trial.details())
    seen, _ = await trial.walk(page.next_token)
    told = {b.client_ref: b.status in LIVE for b in seen}
    wanted = {dropped.client_ref: False, added.client_ref: True}
    hold(told == wanted, f"changes told: {told}; made: {wanted}")


async def unknown_token_is_expired(trial: Trial) -> None:
    """A token that the provider never gave asks for a fresh walk."""
    need(trial.provider.capabilities.sync, "listings from a token")
    try:
        page = await trial.provider.listing(trial.call("list"), trial.calendar, "no-token-of-yours")
    except SyncExpired:
        return
    raise Broken(f"SyncExpired was due, got {page!r}")


async def any_text_is_kept(trial: Trial) -> None:
    """Unicode, separators, quotes and 255 characters come back, or are not told at all."""
    texts = ('Zahnärztin, „früh“; 予約 🗓 \\n a\\b "q" <x>&amp;', "x" * 255, "é" * 255)
    for text in texts:
        call, details = trial.call(), trial.details(summary=text, location=text)
        await trial.book(call, details)
        await _stands(trial, call, details)


async def any_time_is_kept(trial: Trial) -> None:
    """Across both clock changes, inside the repeated hour, and past 2038."""
    utc = ZoneInfo("UTC")
    starts = (
        datetime(2027, 3, 28, 0, 30, tzinfo=utc),
        datetime(2027, 10, 31, 0, 30, tzinfo=utc),
        datetime(2027, 10, 31, 1, 30, tzinfo=utc),
        datetime(2044, 7, 1, 8, 0, tzinfo=utc),
    )
    for start in starts:
        call, details = trial.call(), trial.details(start=start)
        await trial.book(call, details)
        await _stands(trial, call, details)
        repeat = booking_of(await trial.provider.create(call, details))
        hold(repeat.client_ref == call.client_ref, "a repeat is not known")


async def whole_days_are_kept(trial: Trial) -> None:
    """A booking of a whole day keeps its instants."""
    start = datetime(2027, 7, 5, tzinfo=BERLIN).astimezone(ZoneInfo("UTC"))
    call, details = trial.call(), trial.details(start=start, end=start + timedelta(days=1), all_day=True)
    await trial.book(call, details)
    await _stands(trial, call, details)


async def odd_references_do_no_harm(trial: Trial) -> None:
    """A reference that is no reference is answered, and touches nothing else."""
    call, details = trial.call(), trial.details()
    await trial.book(call, details)
    for reference in (
        "..",
        ".",
        "../..",
        "x/..",
        f"../{trial.calendar}",
        "a/b",
        "%2e%2e",
        "?x",
        "#",
        " ",
        "\n",
        "ü" * 300,
    ):
        odd = trial.call("odd")
        await trial.provider.get(odd, trial.calendar, reference)
        await trial.provider.cancel(odd, trial.calendar, reference)
    await _stands(trial, call, details)


async def _stands(trial: Trial, call: Call, details: BookingDetails) -> None:
    """Hold that the booking of this call is live, with the times and the summary asked for."""
    if not trial.provider.capabilities.lookup:
        return
    found = booking_of(await trial.provider.find(trial.call("find", call), trial.calendar))
    hold(found.status in LIVE, f"the booking is {found.status}")
    hold(found.client_ref == call.client_ref, f"{found.client_ref!r} was found for {call.client_ref!r}")
    times = (found.start, found.end)
    hold(times == (details.start, details.end), f"it stands at {times}, not {(details.start, details.end)}")
    hold(found.summary in (None, details.summary), f"its summary is {found.summary!r}, not {details.summary!r}")


@asynccontextmanager
async def _given(provider: Provider | None, which: str) -> AsyncIterator[Provider]:
    if provider is None:
        raise Skipped(f"no {which} provider was given")
    try:
        yield provider
    finally:
        await provider.close()


CHECKS: dict[str, Callable[[Trial], Awaitable[None]]] = {
    check.__name__: check
    for check in (
        create_then_find,
        repeat_books_once,
        same_content_under_another_operation_is_replayed,
        other_content_is_a_conflict,
        missing_is_missing,
        cancel_twice,
        cancelled_is_seen,
        reschedule_moves,
        stale_etag_is_refused,
        silence_is_unknown,
        refused_connection_is_retryable,
        listing_shows_every_live_booking,
        listing_goes_on_from_its_token,
        unknown_token_is_expired,
        any_text_is_kept,
        any_time_is_kept,
        whole_days_are_kept,
        odd_references_do_no_harm,
    )
}
