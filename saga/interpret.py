"""From an input to facts: what an answer, a callback or a due time says about an appointment. Pure."""

from datetime import datetime, timedelta
from typing import assert_never

from domain import events as e
from domain.appointment import Appointment, Progress, StepState
from domain.definition import SagaPlan, StepPlan, patience
from domain.lifecycle import BACKWARD, ENDED, FORWARD, SETTLED, State
from domain.provider import (
    LIVE,
    BookingStatus,
    Confirmed,
    Found,
    Missing,
    Pending,
    ProviderBooking,
    Rejected,
    Retryable,
    Unknown,
)
from saga.inputs import CalledBack, CallEnded, ReadEnded


def call_ended(state: Appointment, ended: CallEnded, now: datetime, plan: SagaPlan) -> tuple[e.Event, ...]:
    """Facts of a call's outcome; none when the call is no longer the one in flight."""
    flight = state.in_flight
    if flight is None or (flight.operation_id, flight.attempt) != (ended.operation_id, ended.attempt):
        return ()
    step, operation, outcome = ended.step, ended.operation, ended.outcome
    told = _told_meanwhile(state, ended)
    match outcome:
        case Confirmed() if told is not None and told.status not in LIVE:
            return _settled(step, told, now)
        case Confirmed():
            return (
                e.StepSucceeded(
                    at=now,
                    step=step,
                    operation=operation,
                    booking=_lean(state, outcome.booking),
                    replayed=outcome.replayed,
                ),
            )
        case Pending() if operation is not e.Operation.ACTION:
            # A cancel or a move that the provider still works on: repeat it, it carries the same id.
            return (_failed(ended, now, "unknown", "pending", retry_after_ms=outcome.poll_after_ms),)
        case Pending() | Rejected() | Retryable() | Unknown() if told is not None:
            return _settled(step, told, now)
        case Pending():
            poll_ms = outcome.poll_after_ms or plan.step(step).poll_ms
            return (
                e.StepPending(
                    at=now, step=step, booking=outcome.booking, poll_at=now + timedelta(milliseconds=poll_ms)
                ),
            )
        case Rejected():
            return (_failed(ended, now, "rejected", outcome.reason, conflict=outcome.conflict),)
        case Retryable():
            return (_failed(ended, now, "retryable", outcome.reason, retry_after_ms=outcome.retry_after_ms),)
        case Unknown():
            return (
                _failed(
                    ended,
                    now,
                    "unknown",
                    outcome.reason,
                    retry_after_ms=outcome.retry_after_ms,
                    in_flight=outcome.in_flight,
                ),
            )
        case _:
            assert_never(outcome)


def _lean(state: Appointment, booking: ProviderBooking | None) -> ProviderBooking | None:
    """A booking without what its stream says already: an event holds what is new, or differs."""
    details = state.details
    if booking is None or details is None:
        return booking
    known = {"client_ref": state.client_ref, "start": details.start, "end": details.end, "summary": details.summary}
    return booking.model_copy(
        update={
            name: "" if name == "client_ref" else None
            for name, value in known.items()
            if getattr(booking, name) == value
        }
    )


def _failed(ended: CallEnded, now: datetime, kind: str, reason: str, **more: object) -> e.Event:
    return e.StepAttemptFailed.model_validate(
        {"at": now, "step": ended.step, "operation": ended.operation, "kind": kind, "reason": reason, **more}
    )


def _told_meanwhile(state: Appointment, ended: CallEnded) -> ProviderBooking | None:
    """What a callback said of the booking while the create call ran, if that is newer than the call's answer."""
    known = state.action(ended.step).booking
    if ended.operation is not e.Operation.ACTION or known is None or known.status is BookingStatus.PENDING:
        return None
    answer = ended.outcome.booking if isinstance(ended.outcome, Pending | Confirmed) else None
    if answer is None:
        # One that has ended may be an earlier attempt's: it does not say what became of this one.
        return known if known.status is BookingStatus.ACCEPTED else None
    if known.provider_ref != answer.provider_ref:
        return None
    if isinstance(ended.outcome, Confirmed) and known.version == answer.version:
        return None
    if known.version < answer.version:
        return None
    return answer.model_copy(update={"status": known.status, "version": known.version, "etag": None})


def _settled(step: str, booking: ProviderBooking, now: datetime) -> tuple[e.Event, ...]:
    if booking.status is BookingStatus.ACCEPTED:
        return (e.StepSucceeded(at=now, step=step, booking=booking, via="callback"),)
    return (e.StepAttemptFailed(at=now, step=step, kind="rejected", reason=f"{booking.status} by the provider"),)


def read_ended(state: Appointment, ended: ReadEnded, now: datetime, plan: SagaPlan) -> tuple[e.Event, ...]:
    """Facts of a read; none when it tells nothing that matters any more."""
    if ended.purpose == "poll":
        return _polled(state, ended, now)
    if state.state in SETTLED:
        return ()
    step = plan.step(ended.step)
    looked_for = state.move_step if state.state is State.RESCHEDULING else state.action(ended.step)
    if looked_for is None or looked_for.progress is not Progress.DOUBT:
        return ()
    outcome = ended.outcome
    match outcome:
        case Found(booking=booking) if _is_replaced(looked_for, booking):
            # What another was to be made in place of: it says only that the other is not to be seen.
            return (_missing(state, looked_for, step, ended.began, now),)
        case Found():
            return _found(state, looked_for, step, ended, now)
        case Missing():
            # What is to be moved stands somewhere: a search that does not see it says nothing of where.
            believed = state.state is not State.RESCHEDULING
            return (_missing(state, looked_for, step, ended.began, now, believed),)
        case Retryable() | Unknown() | Rejected():
            wait_ms = max(getattr(outcome, "retry_after_ms", None) or 0, step.poll_ms, step.settle_ms // 2)
            look_at = now + max(timedelta(milliseconds=wait_ms), patience(looked_for.doubt_since, now))
            return (e.LookupFailed(at=now, step=step.name, reason=outcome.reason, look_at=look_at),)
        case _:
            assert_never(outcome)


def _is_replaced(looked_for: StepState, booking: ProviderBooking) -> bool:
    replaced = looked_for.replaced
    return replaced is not None and booking.provider_ref == replaced.provider_ref and booking.status not in LIVE


def _polled(state: Appointment, ended: ReadEnded, now: datetime) -> tuple[e.Event, ...]:
    if state.state not in FORWARD or state.action(ended.step).progress is not Progress.PENDING:
        return ()
    match ended.outcome:
        case Found(booking=booking) if booking.status is BookingStatus.ACCEPTED:
            return (e.StepSucceeded(at=now, step=ended.step, booking=booking, via="poll"),)
        case Found(booking=booking) if booking.status not in LIVE:
            reason = f"{booking.status} by the provider"
            return (e.StepAttemptFailed(at=now, step=ended.step, kind="rejected", reason=reason),)
        case _:
            return ()


def _found(
    state: Appointment, doubted: StepState, step: StepPlan, ended: ReadEnded, now: datetime
) -> tuple[e.Event, ...]:
    assert isinstance(ended.outcome, Found)
    booking = ended.outcome.booking
    seen = e.BookingFound(at=now, step=step.name, booking=booking)
    if state.state is State.RESCHEDULING:
        assert state.moving is not None
        there = (booking.start, booking.end) == (state.moving.start, state.moving.end)
        if there and booking.status in LIVE:
            moved = e.StepSucceeded(
                at=now, step=step.name, operation=e.Operation.RESCHEDULE, booking=booking, via="lookup"
            )
            return seen, moved
        return seen, _missing(state, doubted, step, ended.began, now)
    if state.state in BACKWARD and not _conclusive(state, doubted, step, ended.began, booking):
        return (_missing(state, doubted, step, ended.began, now, believed=False),)
    if state.state in BACKWARD or (state.deadline_at is not None and now >= state.deadline_at):
        return (seen,)
    match booking.status:
        case BookingStatus.ACCEPTED:
            return seen, e.StepSucceeded(at=now, step=step.name, booking=booking, via="lookup")
        case BookingStatus.PENDING:
            poll_at = now + timedelta(milliseconds=ended.outcome.poll_after_ms or step.poll_ms)
            return seen, e.StepPending(at=now, step=step.name, booking=booking, poll_at=poll_at, via="lookup")
        case BookingStatus.REJECTED | BookingStatus.CANCELLED:
            reason = f"{booking.status} by the provider"
            return seen, e.StepAttemptFailed(at=now, step=step.name, kind="rejected", reason=reason)
        case _:
            assert_never(booking.status)


def _conclusive(
    state: Appointment, doubted: StepState, step: StepPlan, began: datetime, booking: ProviderBooking
) -> bool:
    """Whether what was seen, turned back, is all there is: a move that is still out may put another in its place."""
    known, alive = doubted.booking, booking.status in LIVE
    same = known is not None and known.provider_ref == booking.provider_ref
    if alive and not same:
        return True
    if began < _settled_at(state, doubted, step, began):
        return False
    # What has ended may have been moved: a search would show where to, a read by reference never.
    searched = step.lookup and not state.foreign
    return alive or (searched and (same or known is None or known.status not in LIVE))


def _missing(
    state: Appointment, doubted: StepState, step: StepPlan, began: datetime, now: datetime, believed: bool = True
) -> e.BookingMissing:
    """Absence is believed once the settle delay has passed, unless a callback has said that it is there."""
    settled_at = _settled_at(state, doubted, step, began)
    # A search may lag behind a callback.
    told = doubted.booking is not None and doubted.booking.status in LIVE
    trusted = believed and began >= settled_at and not told
    again = now + max(timedelta(milliseconds=max(step.settle_ms, step.poll_ms)), patience(doubted.doubt_since, now))
    look_at = now if trusted else settled_at if now < settled_at < again else again
    return e.BookingMissing(at=now, step=step.name, trusted=trusted, look_at=look_at)


def _settled_at(state: Appointment, doubted: StepState, step: StepPlan, began: datetime) -> datetime:
    """From when on a look-up shows the last of a call's effects; while an earlier call ran, not before the deadline."""
    settled_at = (doubted.doubt_since or began) + timedelta(milliseconds=step.settle_ms)
    deadline_at = state.moving.deadline_at if state.moving else state.deadline_at
    return max(settled_at, deadline_at) if doubted.in_flight_seen and deadline_at is not None else settled_at


def called_back(state: Appointment, told: CalledBack, now: datetime, plan: SagaPlan) -> tuple[e.Event, ...]:
    """Facts of a callback; none for a duplicate, or for what is known already (our own writes included).

    Another booking than the known one (an earlier attempt's, or one from before a move) counts only when all is to go.
    """
    step = plan.booking_step.name
    known = state.action(step).booking
    another = known is not None and known.provider_ref != told.provider_ref
    if (known is None or another) and _of_the_replaced(state, told, step):
        return ()
    if told.webhook_id in state.webhooks or (known is not None and not another and told.version <= known.version):
        return ()
    if another and (told.status not in LIVE or state.state not in BACKWARD | ENDED):
        return ()
    fact = e.CallbackReceived(
        at=now,
        step=step,
        webhook_id=told.webhook_id,
        status=told.status,
        provider_ref=told.provider_ref,
        version=told.version,
    )
    booking = ProviderBooking(
        provider_ref=told.provider_ref, client_ref=state.client_ref, status=told.status, version=told.version
    )
    if known is not None and not another:
        booking = known.model_copy(update={"status": told.status, "version": told.version, "etag": None})
    consequence = _consequence(state, step, booking, now, plan)
    return () if another and not consequence else (fact, *consequence)


def _of_the_replaced(state: Appointment, told: CalledBack, step: str) -> bool:
    """Another is made in its place: what is said of the old one comes late, until the other has ended as well."""
    replaced = state.action(step).replaced
    if replaced is None or told.provider_ref != replaced.provider_ref:
        return False
    return state.state not in ENDED or told.version <= replaced.version


def _consequence(
    state: Appointment, step: str, booking: ProviderBooking, now: datetime, plan: SagaPlan
) -> tuple[e.Event, ...]:
    alive, progress = booking.status in LIVE, state.action(step).progress
    if state.state in ENDED and alive:
        cleanup_until = now + timedelta(milliseconds=plan.cleanup_ms)
        return (
            e.LateSuccess(
                at=now,
                step=step,
                provider_ref=booking.provider_ref,
                version=booking.version,
                cleanup_until=cleanup_until,
            ),
        )
    if state.state in BACKWARD and alive and progress not in (Progress.DONE, Progress.PENDING, Progress.RUNNING):
        # Refused, given up or in doubt before, and alive after all: it is undone with the rest.
        return (e.BookingFound(at=now, step=step, booking=booking),)
    if state.state in FORWARD and progress not in (Progress.READY, Progress.RUNNING, Progress.DONE):
        return _settled(step, booking, now) if booking.status is not BookingStatus.PENDING else ()
    standing = (State.CONFIRMED, State.RESCHEDULING)
    done = state.state in standing or (state.state in FORWARD and progress is Progress.DONE)
    undone = state.state in BACKWARD and state.undo(step).progress is Progress.DONE
    if (done and not alive) or (undone and alive):
        return (e.AppointmentParked(at=now, reason=f"the provider says that the booking is {booking.status}"),)
    return ()
