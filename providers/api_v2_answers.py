"""What an answer of the `/api/v2` contract means, and what a read back says about a refusal. Pure.

A refusal may be the echo of our own earlier call whose answer was lost; the read back tells the two apart.
"""

from domain.provider import (
    BookingDetails,
    BookingStatus,
    Call,
    Confirmed,
    Found,
    Missing,
    Pending,
    ProviderBooking,
    ReadOutcome,
    Rejected,
    Unknown,
    WriteOutcome,
)
from providers.exchange import Answer
from providers.outcomes import printable, refused_read, refused_write, retry_after_ms
from providers.untrusted import BookingAnswer, ErrorAnswer, ErrorCause, Unreadable, read_json

LIVE = (BookingStatus.PENDING, BookingStatus.ACCEPTED)
IN_FLIGHT = "in_flight"
SLOT_CONFLICT = "slot_conflict"


def taken(answer: Answer, call: Call, *, replayed: bool) -> WriteOutcome:
    """The outcome of a write whose answer is a success."""
    outcome = read_booking(answer, call)
    if not isinstance(outcome, ProviderBooking):
        return outcome
    return _standing(outcome, retry_after_ms(answer), replayed=replayed)


def moved(answer: Answer, call: Call, details: BookingDetails) -> WriteOutcome:
    """The outcome of a move whose answer is a success: done only if the booking stands where it was to go."""
    outcome = taken(answer, call, replayed=False)
    booking = outcome.booking if isinstance(outcome, Confirmed) else None
    if booking is not None and booking.start is not None and not same_times(booking, details):
        return Unknown(reason=f"{answer.status}, but the booking stands at other times")
    return outcome


def read_booking(answer: Answer, call: Call) -> ProviderBooking | Unknown:
    """The booking of an answer, if it can be read and is about this call's booking."""
    try:
        booking = read_json(answer.body, BookingAnswer).booking(call.client_ref)
    except Unreadable as fault:
        return Unknown(reason=f"{answer.status}, but the answer cannot be read: {fault}")
    if booking.client_ref != call.client_ref:
        return Unknown(reason=f"{answer.status}, but the answer is about another booking")
    return booking


def ours_or_not(read: ReadOutcome, details: BookingDetails, cause: ErrorCause, reason: str) -> WriteOutcome:
    """After a refused create: our own earlier booking, or somebody else's.

    Where nothing of ours is seen, only a slot that somebody else holds is a refusal: a look-up may lag behind our own.
    """
    match read:
        case Found(booking=booking):
            if same_times(booking, details) and booking.summary in (None, details.summary):
                return _standing(booking, read.poll_after_ms, replayed=True)
            return Rejected(reason=reason, conflict=True)
        case Missing() if cause.code == SLOT_CONFLICT:
            return Rejected(reason=reason, conflict=True)
        case Missing():
            return Unknown(reason=f"{reason}; the read back saw no booking of ours")
        case _:
            return Unknown(reason=f"{reason}; the read back failed: {read.reason}"[:500])


def moved_or_not(read: ReadOutcome, details: BookingDetails, reason: str, *, conflict: bool) -> WriteOutcome:
    """After a refused move: in place already, or refused for good."""
    match read:
        case Found(booking=booking):
            if booking.status not in LIVE:
                return Rejected(reason=f"the booking is {booking.status}")
            if same_times(booking, details):
                return _standing(booking, read.poll_after_ms, replayed=True)
            return Rejected(reason=reason, conflict=conflict)
        case Missing():
            return Rejected(reason=reason, conflict=conflict)
        case Rejected():
            return read
        case _:
            return Unknown(reason=f"{reason}; the read back failed: {read.reason}"[:500])


def absent_or_not(read: ReadOutcome) -> WriteOutcome:
    """After "not found" for a cancel: nothing left there, or a live booking under another reference."""
    match read:
        case Found(booking=booking) if booking.status in LIVE:
            return Unknown(reason=f"not found, but a booking with this client reference is {booking.status}")
        case Found(booking=booking):
            return Confirmed(booking=booking, replayed=True)
        case Missing():
            return Confirmed(replayed=True)
        case _:
            return Unknown(reason=f"not found, and the read back failed: {read.reason}"[:500])


def refused(answer: Answer) -> WriteOutcome:
    """The outcome of a write that was answered with an error envelope."""
    cause = cause_of(answer)
    delay_ms = None if cause.retry_after is None else int(cause.retry_after * 1_000)
    if answer.status == 409 and cause.code == IN_FLIGHT:
        return Unknown(reason=reason_of(answer, cause), in_flight=True, retry_after_ms=retry_after_ms(answer, delay_ms))
    return refused_write(answer, cause.text(), delay_ms)


def unread(answer: Answer) -> ReadOutcome:
    """The outcome of a read that was answered with an error envelope."""
    cause = cause_of(answer)
    delay_ms = None if cause.retry_after is None else int(cause.retry_after * 1_000)
    return refused_read(answer, cause.text(), delay_ms)


def cause_of(answer: Answer) -> ErrorCause:
    """What the error envelope says; the status stands without one."""
    try:
        return read_json(answer.body, ErrorAnswer).error
    except Unreadable:
        return ErrorCause()  # the status stands without its envelope


def reason_of(answer: Answer, cause: ErrorCause) -> str:
    """Status and cause in a few words that print."""
    return printable(f"{answer.status} {cause.text()}")[:400]


def same_times(booking: ProviderBooking, details: BookingDetails) -> bool:
    """Whether a booking stands at the times asked for."""
    return (booking.start, booking.end) == (details.start, details.end)


def _standing(booking: ProviderBooking, poll_after_ms: int | None, *, replayed: bool) -> WriteOutcome:
    match booking.status:
        case BookingStatus.ACCEPTED:
            return Confirmed(booking=booking, replayed=replayed)
        case BookingStatus.PENDING:
            return Pending(booking=booking, poll_after_ms=poll_after_ms)
        case BookingStatus.REJECTED | BookingStatus.CANCELLED:
            return Rejected(reason=f"the booking is {booking.status}")
