"""The process manager: from a state to the next move. The only place where a saga's course is decided. Pure.

It looks at the state, not at the last event: whatever was interrupted is taken up where the log says it stands.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, assert_never

from domain import events as e
from domain.appointment import Appointment, Progress, StepState
from domain.definition import RetryPolicy, SagaPlan, StepPlan, patience
from domain.identity import operation_id
from domain.lifecycle import BACKWARD, FORWARD, SETTLED, State
from domain.provider import BookingStatus
from saga.definition import with_override
from saga.inputs import Gates, Read, Wake, Write


@dataclass(frozen=True, slots=True)
class Launch:
    """Announce (a read needs no announcement), then call."""

    effect: Write | Read
    event: e.StepStarted | None = None


Move = e.Event | Launch | Wake | None
"""Record a decision and look again; or call; or wait; or rest."""


@dataclass(frozen=True, slots=True)
class View:
    """What the process manager sees: nothing else may matter."""

    state: Appointment
    now: datetime
    plan: SagaPlan
    gates: Gates
    poll_not_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Course:
    """One operation of one step, with the patience that goes with it."""

    step: StepPlan
    operation: e.Operation
    at: StepState
    policy: RetryPolicy
    deadline_at: datetime


def next_move(view: View) -> Move:
    """What the state asks for now."""
    state = view.state
    if state.parked:
        return None
    if state.state in SETTLED:
        return _parked_astray(view) if state.astray and state.state is State.CONFIRMED else None
    if state.in_flight is not None:
        return Wake(state.in_flight.until)
    if state.forced:
        return _forced(view)
    if state.state in FORWARD:
        return _forward(view)
    if state.state in BACKWARD:
        return _backward(view)
    return _reschedule(view)


def _parked_astray(view: View) -> e.Event:
    """It could not be moved back: to leave it confirmed would say that it stands where it does not."""
    detail = f": {view.state.detail}" if view.state.detail else ""
    return e.AppointmentParked(at=view.now, reason=f"it could not be moved back to its times{detail}")


def _forced(view: View) -> Move:
    state, now = view.state, view.now
    if state.state in FORWARD:
        return e.AppointmentConfirmed(at=now, forced=True)
    if state.state is State.RESCHEDULING:
        return _moved(view)
    return _end(view, forced=True)


def _forward(view: View) -> Move:
    state, now = view.state, view.now
    assert state.deadline_at is not None
    for plan in view.plan.steps:
        at = state.action(plan.name)
        if at.progress not in (Progress.DONE, Progress.SKIPPED):
            step = with_override(plan, state.policy)
            return _advance(view, Course(step, e.Operation.ACTION, at, step.retry, state.deadline_at))
    if now >= state.deadline_at:
        return _give_up(view, _late_reason(state))
    return e.AppointmentConfirmed(at=now)


def _late_reason(state: Appointment) -> e.EndReason:
    return next((s.give_up for s in state.actions if s.give_up), e.EndReason.DEADLINE_EXCEEDED)


def _advance(view: View, course: Course) -> Move:
    at, now, deadline_at = course.at, view.now, course.deadline_at
    late = now >= deadline_at
    moving = course.operation is e.Operation.RESCHEDULE
    match at.progress:
        case Progress.READY | Progress.WAITING:
            if late and not (moving and at.doubt_since):
                return _give_up(view, _late_reason(view.state))
            if late:
                return _doubt(course, now, e.EndReason.DEADLINE_EXCEEDED)
            return _wait(course, at.due_at, now) or _launch(view, course)
        case Progress.PENDING:
            if late:
                return _give_up(view, e.EndReason.DEADLINE_EXCEEDED)
            poll_at = max(filter(None, (at.due_at, view.poll_not_before)), default=now)
            return _wait(course, poll_at, now) or _read(view, course, "poll")
        case Progress.DOUBT:
            if late and not moving:
                return _give_up(view, at.give_up or e.EndReason.DEADLINE_EXCEEDED)
            if moving:
                # Nobody can say where the booking stands: it is looked up beyond the deadline of the move.
                course = replace(course, deadline_at=_look_until(view, deadline_at))
            if now >= course.deadline_at:
                return e.AppointmentParked(at=now, reason=f"{course.step.name}: outcome still unknown")
            return _wait(course, at.due_at, now) or _read(view, course, "lookup")
        case Progress.ATTEMPT_FAILED:
            return _after_failure(view, course)
        case Progress.GIVEN_UP | Progress.RUNNING | Progress.DONE | Progress.SKIPPED:
            return _give_up(view, at.give_up or e.EndReason.DEADLINE_EXCEEDED)
        case _:
            assert_never(at.progress)


def _look_until(view: View, deadline_at: datetime) -> datetime:
    moving = view.state.moving
    until = deadline_at + timedelta(milliseconds=view.plan.cleanup_ms)
    return max(until, moving.look_until) if moving is not None and moving.look_until is not None else until


def _after_failure(view: View, course: Course) -> Move:
    at, step, now = course.at, course.step, view.now
    failure = at.failure
    assert failure is not None
    # A booking that is to be moved is known, so it can always be read; one that is to be made must be searched for.
    moving = course.operation is e.Operation.RESCHEDULE
    if failure.kind == "rejected":
        reason = e.EndReason.CONFLICT if failure.conflict else e.EndReason.REJECTED
        if moving and at.doubt_since is not None:
            # An earlier attempt may have moved it, whatever is said of this one.
            return _doubt(course, now, reason)
        return _give_up(view, reason if step.books else e.EndReason.DOWNSTREAM_FAILED, failure.reason)
    due_at = now + timedelta(milliseconds=_delay_ms(view, course, failure))
    if at.spent >= course.policy.attempts_max:
        reason = e.EndReason.RETRY_EXHAUSTED if step.books else e.EndReason.DOWNSTREAM_FAILED
    elif due_at >= course.deadline_at:
        reason = e.EndReason.DEADLINE_EXCEEDED
    elif at.doubt_since is None or step.resend:
        return e.RetryScheduled(at=now, step=step.name, operation=course.operation, due_at=due_at)
    elif step.lookup or moving:
        return _doubt(course, now, None)
    else:
        return e.AppointmentParked(
            at=now, reason=f"{step.name}: outcome unknown, and it can neither be repeated safely nor looked up"
        )
    if at.doubt_since is not None and (step.lookup or moving):
        return _doubt(course, now, reason)
    return _give_up(view, reason, failure.reason)


def _delay_ms(view: View, course: Course, failure: e.StepAttemptFailed) -> int:
    if failure.reason == "interrupted":
        return 0
    seed = operation_id(view.state.id, course.step.name, course.operation)
    return max(course.policy.delay_ms(max(course.at.spent, 1), seed), failure.retry_after_ms or 0)


def _doubt(course: Course, now: datetime, reason: e.EndReason | None) -> e.Event:
    return e.StepInDoubt(at=now, step=course.step.name, operation=course.operation, reason=reason)


def _give_up(view: View, reason: e.EndReason, detail: str = "") -> e.Event:
    if view.state.state is State.RESCHEDULING:
        booking = view.state.action(view.plan.booking_step.name).booking
        if booking is not None and booking.status in (BookingStatus.CANCELLED, BookingStatus.REJECTED):
            # It stands neither at the old time nor, as far as can be seen, at the new one.
            return e.AppointmentParked(at=view.now, reason=f"the move failed, and the booking is {booking.status}")
        return e.RescheduleFailed(at=view.now, reason=reason, detail=detail)
    cleanup_until = view.now + timedelta(milliseconds=view.plan.cleanup_ms)
    return e.CompensationBegun(at=view.now, reason=reason, detail=detail, cleanup_until=cleanup_until)


def _wait(course: Course, until: datetime | None, now: datetime) -> Wake | None:
    if until is None or now >= until:
        return None
    # The deadline counts even while the lane is closed: what can no longer be done in time ends in time.
    return Wake(min(until, course.deadline_at), course.step.target, course.deadline_at)


def _held(view: View, course: Course) -> e.Event | Wake | None:
    hold = view.gates(course.step.target)
    if hold is None:
        return None
    until, known = hold.until or view.now, view.state.deferred_until
    if hold.reason == "circuit_open":
        if known is not None and view.now < known:
            until = known
        elif known != until:
            until = max(until, view.now + patience(view.state.deferred_since, view.now))
            return e.CallDeferred(at=view.now, step=course.step.name, until=until, reason=hold.reason)
    return Wake(min(until, course.deadline_at), course.step.target, course.deadline_at)


def _launch(view: View, course: Course) -> Move:
    held = _held(view, course)
    if held is not None:
        return held
    step, now = course.step, view.now
    timeout_ms = _timeout_ms(view, course)
    rounds = course.at.round if course.operation is e.Operation.ACTION else view.state.rounds
    call = operation_id(view.state.id, step.name, course.operation, rounds)
    attempt = course.at.attempts + 1
    started = e.StepStarted(
        at=now,
        step=step.name,
        operation=course.operation,
        operation_id=call,
        attempt=attempt,
        timeout_ms=timeout_ms,
    )
    return Launch(Write(step.name, step.target, course.operation, call, attempt, timeout_ms), started)


def _timeout_ms(view: View, course: Course) -> int:
    """The step's patience, cut by what is left until the deadline."""
    left_ms = (course.deadline_at - view.now) // timedelta(milliseconds=1)
    return max(1, min(course.step.timeout_ms, left_ms))


def _read(view: View, course: Course, purpose: Literal["poll", "lookup"]) -> Move:
    step = course.step
    return _held(view, course) or Launch(Read(step.name, step.target, purpose, _timeout_ms(view, course)))


def _backward(view: View) -> Move:
    state = view.state
    assert state.cleanup_until is not None
    for step in reversed(view.plan.steps):
        action, undo = state.action(step.name), state.undo(step.name)
        if not step.compensated or undo.progress in (Progress.DONE, Progress.SKIPPED):
            continue
        if action.to_undo:
            if view.now >= state.cleanup_until:
                return e.AppointmentParked(at=view.now, reason=f"{step.name}: the time for cleaning up is spent")
            course = Course(step, e.Operation.COMPENSATION, undo, step.undo_retry, state.cleanup_until)
            not_begun = step.books and undo.progress is Progress.READY
            if not_begun and _may_have_moved(state):
                return e.StepInDoubt(at=view.now, step=step.name)
            if not_begun and (state.foreign or not step.lookup) and _lost_in_a_move(state, action):
                reason = f"{step.name}: the booking was moved to where it cannot be looked up"
                return e.AppointmentParked(at=view.now, reason=reason)
            known = action.progress in (Progress.DONE, Progress.PENDING)
            return _undo(view, course) if known else _clear_doubt(view, course, action)
    return _end(view)


def _may_have_moved(state: Appointment) -> bool:
    """A cancel overtook a move of unknown outcome: the booking may have another reference by now."""
    return state.move_step is not None and state.move_step.doubt_since is not None


def _lost_in_a_move(state: Appointment, action: StepState) -> bool:
    """A move was under way, and what is known of is cancelled: another may stand in its place."""
    booking = action.booking
    return state.move_step is not None and booking is not None and booking.status is BookingStatus.CANCELLED


def _clear_doubt(view: View, course: Course, action: StepState) -> Move:
    step = course.step
    if not step.lookup and not (step.books and action.booking is not None):
        if step.books:
            return e.AppointmentParked(at=view.now, reason=f"{step.name}: outcome unknown, and it cannot be looked up")
        # Until the settle delay is over the action may still take effect: undone before, it would stay.
        assert action.doubt_since is not None
        settled_at = action.doubt_since + timedelta(milliseconds=step.settle_ms)
        return _wait(course, settled_at, view.now) or _undo(view, course)
    if action.progress is not Progress.DOUBT:
        return e.StepInDoubt(at=view.now, step=step.name, reason=action.give_up)
    return _wait(course, action.due_at, view.now) or _read(view, course, "lookup")


def _undo(view: View, course: Course) -> Move:
    at, now, step = course.at, view.now, course.step
    if at.progress is not Progress.ATTEMPT_FAILED:
        return _wait(course, at.due_at, now) or _launch(view, course)
    failure = at.failure
    assert failure is not None
    if failure.kind == "rejected":
        return e.AppointmentParked(at=now, reason=f"{step.name}: compensation was refused: {failure.reason}")
    if at.spent >= course.policy.attempts_max:
        return e.AppointmentParked(at=now, reason=f"{step.name}: compensation failed: {failure.reason}")
    due_at = now + timedelta(milliseconds=_delay_ms(view, course, failure))
    return e.RetryScheduled(at=now, step=step.name, operation=course.operation, due_at=due_at)


def _end(view: View, forced: bool = False) -> e.Event:
    state = view.state
    if state.state is State.CANCELLING:
        return e.AppointmentCancelled(at=view.now, forced=forced)
    assert state.reason is not None
    return e.AppointmentFailed(at=view.now, reason=state.reason, forced=forced)


def _reschedule(view: View) -> Move:
    state = view.state
    assert state.moving is not None
    step = with_override(view.plan.booking_step, state.policy)
    at = state.move_step or StepState(step.name)
    if at.progress is Progress.DONE:
        return _moved(view)
    return _advance(view, Course(step, e.Operation.RESCHEDULE, at, step.retry, state.moving.deadline_at))


def _moved(view: View) -> e.Event:
    moving = view.state.moving
    assert moving is not None
    return e.AppointmentRescheduled(at=view.now, start=moving.start, end=moving.end, time_zone=moving.time_zone)
