"""Evolve, further: what commands, operators and reports ask for, and how an appointment is turned back."""

from dataclasses import replace
from typing import assert_never

from domain import events as e
from domain.appointment import (
    Appointment,
    Move,
    Progress,
    StepState,
    but,
    certain,
    operation_of,
    put,
    with_step,
    written,
)
from domain.commands import OperatorAction, Repair
from domain.lifecycle import BACKWARD, ENDED, SETTLED
from domain.provider import LIVE, BookingStatus, ProviderBooking
from domain.seen import seen_as, stands_as_booked, whole_days


def turned_back(now: Appointment, event: e.CancellationRequested | e.CompensationBegun | e.LateSuccess) -> Appointment:
    """What was begun is to be undone."""
    now = undeferred(_unparked(written(now, cleanup_until=event.cleanup_until)))
    match event:
        case e.CancellationRequested():
            return written(
                now,
                reason=e.EndReason.CANCELLED_BY_REQUEST,
                keys=(*now.keys, ("cancel", event.key, event.fingerprint)) if event.key else now.keys,
            )
        case e.CompensationBegun():
            return written(now, reason=event.reason, detail=event.detail)
        case e.LateSuccess():
            assert now.details is not None
            action = certain(now.action(event.step))
            if action.replaced is not None and action.replaced.provider_ref == event.provider_ref:
                # It is the one from before it was booked anew, and is known by the reference that it had then.
                action = but(action, round=0)
                now = written(now, actions=put(now.actions, action))
            alive = ProviderBooking(
                provider_ref=event.provider_ref,
                client_ref=now.client_ref,
                status=BookingStatus.ACCEPTED,
                version=event.version,
            )
            action = but(action, progress=Progress.DONE, booking=alive)
            undos = tuple(undo for undo in now.undos if undo.name != event.step)
            return written(now, actions=put(now.actions, action), undos=undos, rounds=now.rounds + 1)
        case _:
            assert_never(event)


def move_requested(now: Appointment, event: e.RescheduleRequested) -> Appointment:
    """It is to be moved."""
    return written(
        now,
        moving=Move(event.start, event.end, event.time_zone, event.deadline_at),
        move_step=None,
        rounds=now.rounds + 1,
        keys=(*now.keys, ("reschedule", event.key, event.fingerprint)) if event.key else now.keys,
        detail="",
    )


def observed(now: Appointment, event: e.BookingObserved) -> Appointment:
    """The booking was seen otherwise than the log says."""
    now = written(now, keys=(*now.keys, ("report", event.key, event.fingerprint)))
    if now.state in ENDED:
        # What was seen is taken away by the late success that follows.
        return now
    seen, details = event.seen, now.details
    assert details is not None
    if event.repair is Repair.PARK:
        told = f": {event.reason}" if event.reason else ""
        return written(now, parked=True, parked_reason=f"{seen_as(seen)}{told}", stopped=False)
    now = written(_unparked(now), detail=seen_as(seen))
    step = certain(now.booking_step)
    if seen is None or seen.status not in LIVE:
        over = {"status": seen.status if seen else BookingStatus.CANCELLED, "etag": seen.etag if seen else None}
        known = seen or step.booking
        left = known.model_copy(update={**over, "client_ref": now.client_ref}) if known else None
        return written(now, actions=put(now.actions, but(step, progress=Progress.GIVEN_UP, booking=left)))
    there = seen.model_copy(update={"client_ref": now.client_ref})
    now = written(now, actions=put(now.actions, but(step, progress=Progress.DONE, booking=there)), detail="")
    if event.repair is Repair.RESTORE:
        return written(now, astray=not stands_as_booked(details, seen))
    told_of = {"start": seen.start, "end": seen.end, "summary": seen.summary}
    kept = details.model_copy(update={name: value for name, value in told_of.items() if value is not None})
    if kept.all_day and not whole_days(kept):
        kept = kept.model_copy(update={"all_day": False})
    return written(now, details=kept)


def rebooking(now: Appointment, event: e.RebookingRequested) -> Appointment:
    """It is to be booked anew."""
    gone = now.booking_step
    rounds = now.rounds + 1
    again = StepState(gone.name, round=rounds, replaced=gone.booking)
    return written(now, actions=put(now.actions, again), rounds=rounds, deadline_at=event.deadline_at, detail="")


def acted(now: Appointment, event: e.OperatorActed) -> Appointment:
    """An operator did something by hand."""
    now = written(now, keys=(*now.keys, ("act", event.key, event.fingerprint)))
    match event.action:
        case OperatorAction.PARK:
            return written(now, parked=True, parked_reason=event.reason)
        case OperatorAction.RESUME:
            return _more_time(_unparked(now), event)
        case OperatorAction.RETRY:
            return _fresh_budget(now, event)
        case OperatorAction.SKIP:
            return _skipped(_unparked(now), event)
        case OperatorAction.FORCE_COMPLETE:
            # Where nothing is left to complete it only lets go of the park; a cancel to come is not forced.
            return written(_unparked(now), forced=now.state not in SETTLED)
        case OperatorAction.COMPENSATE:
            return _fresh_budget(now, event) if now.state in BACKWARD else _unparked(now)
        case _:
            assert_never(event.action)


def _unparked(now: Appointment) -> Appointment:
    return written(now, parked=False, parked_reason="", stopped=False)


def undeferred(now: Appointment) -> Appointment:
    """It waits for no breaker."""
    return written(now, deferred_until=None, deferred_since=None)


def _fresh_budget(now: Appointment, event: e.OperatorActed) -> Appointment:
    answered = now.stopped
    now = _more_time(_unparked(now), event)

    def fresh(step: StepState) -> StepState:
        if step.progress is Progress.ATTEMPT_FAILED and step.doubt_since is not None and not answered:
            # Parked by hand before it was decided how the doubt is cleared: that decision is still to come.
            return but(step, forgiven=step.attempts)
        if step.progress in (Progress.WAITING, Progress.ATTEMPT_FAILED):
            return but(step, progress=Progress.WAITING, forgiven=step.attempts, due_at=event.at)
        if step.progress in (Progress.PENDING, Progress.DOUBT):
            return but(step, due_at=event.at)
        return step

    return written(
        now,
        actions=tuple(map(fresh, now.actions)),
        undos=tuple(map(fresh, now.undos)),
        move_step=fresh(now.move_step) if now.move_step else None,
        deferred_until=None,
        deferred_since=None,
    )


def _more_time(now: Appointment, event: e.OperatorActed) -> Appointment:
    """Without it, what was parked because its time was spent would be parked again at once."""
    return written(
        now,
        cleanup_until=event.cleanup_until if now.cleanup_until else None,
        moving=replace(now.moving, look_until=event.cleanup_until) if now.moving else None,
    )


def _skipped(now: Appointment, event: e.OperatorActed) -> Appointment:
    assert event.step is not None
    operation = e.Operation.COMPENSATION if now.state in BACKWARD else e.Operation.ACTION
    step = but(certain(operation_of(now, event.step, operation)), progress=Progress.SKIPPED, due_at=None)
    return with_step(now, step, operation)
