"""Evolve: the state after each event. What answers, looks and callbacks come to stands here.

What was asked for, and how everything is turned back, stands in `domain.evolve_commands`.
"""

from datetime import timedelta
from typing import Any, assert_never

from domain import events as e
from domain.appointment import (
    Appointment,
    InFlight,
    Progress,
    StepState,
    but,
    certain,
    operation_of,
    put,
    with_step,
    written,
)
from domain.definition import booking_step_of
from domain.evolve_commands import acted, move_requested, observed, rebooking, turned_back, undeferred
from domain.lifecycle import BACKWARD, State, move
from domain.provider import BookingStatus, ProviderBooking

WEBHOOKS_KEPT = 64
FLIGHT_GRACE = timedelta(seconds=1)
COMMANDS = frozenset(event for event in e.FACTS if issubclass(event, e.CommandFact))


def evolve(before: Appointment, event: e.Event) -> Appointment:
    """The state after `event`. Raises `IllegalMove` when the life cycle has no such move: nothing has happened then."""
    state = move(before.state, type(event))
    now = but(before, version=before.version + 1, state=state, updated_at=event.at)
    if type(event) in COMMANDS:
        assert isinstance(event, e.CommandFact)
        now = written(now, asked_at=event.at, traceparent=event.traceparent or now.traceparent)
    match event:
        case e.StepStarted():
            return _started(now, event)
        case e.StepSucceeded():
            return _succeeded(now, event)
        case e.AppointmentConfirmed():
            return written(now, forced=False, deferred_until=None, deferred_since=None)
        case e.AppointmentRequested():
            return _begun(
                now, event, policy=event.policy, deadline_at=event.deadline_at, action_label=event.action_label
            )
        case e.AppointmentImported():
            there = StepState(booking_step_of(event.definition), progress=Progress.DONE, booking=event.booking)
            others = (StepState(name, progress=Progress.SKIPPED) for name in event.skipped)
            return _begun(now, event, actions=(there, *others), foreign_ref=event.booking.client_ref)
        case e.StepPending():
            step = operation_of(now, event.step, e.Operation.ACTION)
            step = but(step, progress=Progress.PENDING, due_at=event.poll_at, booking=event.booking)
            return with_step(_landed(now), certain(step), e.Operation.ACTION)
        case e.StepAttemptFailed():
            return _attempt_failed(now, event)
        case e.CallInterrupted():
            return _interrupted(now, event)
        case e.RetryScheduled():
            step = operation_of(now, event.step, event.operation)
            return with_step(now, but(step, progress=Progress.WAITING, due_at=event.due_at), event.operation)
        case e.CallDeferred():
            return written(now, deferred_until=event.until, deferred_since=now.deferred_since or event.at)
        case e.StepInDoubt():
            step = operation_of(now, event.step, event.operation)
            moved = now.move_step.doubt_since if state in BACKWARD and now.move_step else None
            since = step.doubt_since or max(moved or event.at, event.at)
            step = but(step, progress=Progress.DOUBT, give_up=event.reason, due_at=event.at, doubt_since=since)
            # Turned back, a move that may have given the booking a new reference is settled by the same look-up.
            return with_step(written(now, move_step=None) if state in BACKWARD else now, step, event.operation)
        case e.BookingFound() | e.BookingMissing() | e.LookupFailed():
            return _looked(now, event)
        case e.CallbackReceived():
            return _called_back(now, event)
        case e.CancellationRequested() | e.CompensationBegun() | e.LateSuccess():
            return turned_back(now, event)
        case e.RescheduleRequested():
            return move_requested(now, event)
        case e.BookingObserved():
            return observed(now, event)
        case e.RebookingRequested():
            return rebooking(now, event)
        case e.AppointmentRescheduled():
            assert now.details is not None
            details = now.details.model_copy(
                update={"start": event.start, "end": event.end, "time_zone": event.time_zone}
            )
            now = written(now, details=details, moving=None, move_step=None, forced=False, astray=False)
            return undeferred(now)
        case e.RescheduleFailed():
            return undeferred(written(now, moving=None, move_step=None, forced=False, detail=event.detail))
        case e.OperatorActed():
            return acted(now, event)
        case e.AppointmentParked():
            return written(now, parked=True, parked_reason=event.reason, stopped=True, astray=False)
        case e.PersonalDataErased():
            # What was erased is gone from the events themselves.
            return now
        case e.AppointmentFailed() | e.AppointmentCancelled():
            return undeferred(written(now, reason=event.reason, forced=False))
        case _:
            # What is left are events of other streams; the table of moves has refused them already.
            raise AssertionError(event)


def _begun(now: Appointment, event: e.Beginning, **also: Any) -> Appointment:
    return written(
        now,
        tenant=event.tenant,
        definition=event.definition,
        provider=event.provider,
        details=event.details,
        keys=(("book", event.key, event.fingerprint),),
        key=event.key,
        created_at=event.at,
        correlation_id=event.correlation_id or str(now.id),
        **also,
    )


def _landed(now: Appointment) -> Appointment:
    return written(now, in_flight=None)


def _started(now: Appointment, event: e.StepStarted) -> Appointment:
    step = operation_of(now, event.step, event.operation)
    step = but(step, progress=Progress.RUNNING, attempts=event.attempt, due_at=None)
    until = event.at + timedelta(milliseconds=event.timeout_ms) + FLIGHT_GRACE
    flight = InFlight(event.step, event.operation, event.operation_id, event.attempt, until)
    return with_step(now, step, event.operation, in_flight=flight, deferred_until=None, deferred_since=None)


def _succeeded(now: Appointment, event: e.StepSucceeded) -> Appointment:
    step = operation_of(now, event.step, event.operation)
    done = {"progress": Progress.DONE, "due_at": None, "doubt_since": None, "in_flight_seen": False}
    if event.operation is e.Operation.ACTION:
        step = but(step, **done, booking=event.booking or step.booking)
        return with_step(now, step, event.operation, in_flight=None)
    if event.booking is not None:
        action = but(now.action(event.step), booking=event.booking)
        now = with_step(now, action, e.Operation.ACTION)
    return with_step(now, but(step, **done), event.operation, in_flight=None)


def _attempt_failed(now: Appointment, event: e.StepAttemptFailed) -> Appointment:
    step = operation_of(now, event.step, event.operation)
    step = but(step, progress=Progress.ATTEMPT_FAILED, failure=event)
    if event.kind == "unknown":
        # An earlier attempt that was cut off may be at work for longer than this one.
        since = max(step.doubt_since or event.at, event.at)
        step = but(step, doubt_since=since, in_flight_seen=step.in_flight_seen or event.in_flight)
    return with_step(_landed(now), step, event.operation)


def _interrupted(now: Appointment, event: e.CallInterrupted) -> Appointment:
    step = operation_of(now, event.step, event.operation)
    failure = e.StepAttemptFailed(
        at=event.at, step=event.step, operation=event.operation, kind="unknown", reason="interrupted"
    )
    # Nobody waited for the answer: the provider may be at work until the call's own time would have run out.
    until = now.in_flight.until if now.in_flight else event.at
    step = but(
        step,
        progress=Progress.ATTEMPT_FAILED,
        failure=failure,
        doubt_since=max(step.doubt_since or event.at, event.at, until),
        forgiven=min(step.forgiven + 1, step.attempts),
    )
    return with_step(_landed(now), step, event.operation)


def _looked(now: Appointment, event: e.BookingFound | e.BookingMissing | e.LookupFailed) -> Appointment:
    operation = e.Operation.RESCHEDULE if now.state is State.RESCHEDULING else e.Operation.ACTION
    step = operation_of(now, event.step, operation)
    match event:
        case e.BookingFound():
            found = event.booking
            live = found.status in (BookingStatus.ACCEPTED, BookingStatus.PENDING)
            action = but(now.action(event.step), booking=found)
            if operation is e.Operation.RESCHEDULE:
                return written(now, actions=put(now.actions, action), move_step=but(step, due_at=event.at))
            # Found while going forward is settled by the StepSucceeded or StepPending that follows.
            progress = Progress.DONE if live else Progress.GIVEN_UP
            return with_step(now, but(certain(action), progress=progress), operation)
        case e.BookingMissing() if event.trusted:
            after = Progress.GIVEN_UP if step.give_up or now.state in BACKWARD else Progress.ATTEMPT_FAILED
            return with_step(now, but(certain(step), progress=after, due_at=None), operation)
        case e.BookingMissing() | e.LookupFailed():
            return with_step(now, but(step, due_at=event.look_at), operation)
        case _:
            assert_never(event)


def _called_back(now: Appointment, event: e.CallbackReceived) -> Appointment:
    now = written(now, webhooks=(*now.webhooks, event.webhook_id)[-WEBHOOKS_KEPT:])
    known = now.action(event.step).booking
    if known is None:
        seen = ProviderBooking(
            provider_ref=event.provider_ref, client_ref=now.client_ref, status=event.status, version=event.version
        )
    elif event.version > known.version:
        # The etag that we hold is that of the version before.
        seen = known.model_copy(update={"version": event.version, "status": event.status, "etag": None})
    else:
        return now
    step = now.action(event.step)
    return written(now, actions=put(now.actions, but(step, booking=seen)))
