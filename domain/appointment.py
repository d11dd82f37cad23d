"""An appointment's state: the fold of its stream, and nothing else. `evolve` is the only way from one to the next."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar, assert_never
from uuid import UUID

from domain import events as e
from domain.commands import OperatorAction, PolicyOverride, Repair
from domain.definition import booking_step_of
from domain.identity import client_ref
from domain.lifecycle import BACKWARD, ENDED, SETTLED, State, move
from domain.provider import LIVE, BookingDetails, BookingStatus, ProviderBooking
from domain.seen import seen_as, stands_as_booked, whole_days


class Progress(StrEnum):
    """How far one step's operation is."""

    READY = "ready"
    RUNNING = "running"
    ATTEMPT_FAILED = "attempt_failed"
    WAITING = "waiting"
    PENDING = "pending"
    DOUBT = "doubt"
    GIVEN_UP = "given_up"
    DONE = "done"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class StepState:
    """One operation of one step: attempts, what is known of the booking, and since when the outcome is unknown.

    `doubt_since` is when the last unknown answer came, or would have come at the latest: the settle delay runs from it.
    """

    name: str
    progress: Progress = Progress.READY
    attempts: int = 0
    forgiven: int = 0
    """Attempts that do not count against the budget: interrupted ones, and those before an operator's retry."""
    due_at: datetime | None = None
    booking: ProviderBooking | None = None
    doubt_since: datetime | None = None
    in_flight_seen: bool = False
    failure: e.StepAttemptFailed | None = None
    give_up: e.EndReason | None = None
    round: int = 0
    """Of an action that is done again: the appointment's round by then, which makes it another operation."""
    replaced: ProviderBooking | None = None
    """The booking in whose place another is made."""

    @property
    def spent(self) -> int:
        """Attempts that count against the budget."""
        return self.attempts - self.forgiven

    @property
    def to_undo(self) -> bool:
        """Something may stand there because of this step."""
        return self.progress in (Progress.DONE, Progress.PENDING) or self.doubt_since is not None


@dataclass(frozen=True, slots=True)
class InFlight:
    """A call that was announced and whose outcome is not recorded."""

    step: str
    operation: e.Operation
    operation_id: str
    attempt: int
    until: datetime


@dataclass(frozen=True, slots=True)
class Move:
    """A reschedule under way."""

    start: datetime
    end: datetime
    time_zone: str
    deadline_at: datetime
    look_until: datetime | None = None
    """An operator's further time to find out where the booking stands."""


@dataclass(frozen=True)
class Appointment:
    """Everything that is true of one appointment at one version (0: nothing yet)."""

    id: UUID
    version: int = 0
    state: State = State.INIT
    parked: bool = False
    parked_reason: str = ""
    stopped: bool = False
    """Parked by the process itself: it asks what only an operator can answer."""
    reason: e.EndReason | None = None
    detail: str = ""
    tenant: str = ""
    definition: str = ""
    provider: str = ""
    details: BookingDetails | None = None
    policy: PolicyOverride | None = None
    deadline_at: datetime | None = None
    cleanup_until: datetime | None = None
    deferred_until: datetime | None = None
    deferred_since: datetime | None = None
    forced: bool = False
    actions: tuple[StepState, ...] = ()
    undos: tuple[StepState, ...] = ()
    moving: Move | None = None
    move_step: StepState | None = None
    rounds: int = 0
    """Reschedules and rebookings asked for, and late successes: each gets operation ids of its own."""
    astray: bool = False
    """The booking was seen at other times, and is to be moved back."""
    in_flight: InFlight | None = None
    keys: tuple[tuple[str, str, str], ...] = ()
    """(kind of command, idempotency key, fingerprint) of every command that was accepted."""
    webhooks: tuple[str, ...] = ()
    created_at: datetime | None = None
    updated_at: datetime | None = None
    correlation_id: str = ""
    action_label: str | None = None
    key: str = ""
    foreign_ref: str | None = None
    """Of a booking that another system made: its client reference there, "" where it has none. None: it is ours."""

    @property
    def client_ref(self) -> str:
        """The reference under which the provider knows the booking, or is to know it."""
        return self.foreign_ref or client_ref(self.id)

    def action(self, step: str) -> StepState:
        """A step's action; a fresh one when it has not begun."""
        return _find(self.actions, step)

    def undo(self, step: str) -> StepState:
        """A step's compensation; a fresh one when it has not begun."""
        return _find(self.undos, step)

    @property
    def booking_step(self) -> StepState:
        """The action of the step that makes the booking; other steps may keep a reference of their own."""
        return self.action(booking_step_of(self.definition))

    @property
    def booking(self) -> ProviderBooking | None:
        """The booking as it was last seen at the provider."""
        return self.booking_step.booking


WEBHOOKS_KEPT = 64
FLIGHT_GRACE = timedelta(seconds=1)


Frozen = TypeVar("Frozen", "Appointment", StepState)


def _but(before: Frozen, **changes: Any) -> Frozen:
    """As before, but for these fields: what `dataclasses.replace` does, at a tenth of the time of every turn."""
    after = object.__new__(type(before))
    fields = after.__dict__
    fields.update(before.__dict__)
    known = len(fields)
    fields.update(changes)
    assert len(fields) == known, changes
    return after


def _find(steps: tuple[StepState, ...], name: str) -> StepState:
    for step in steps:
        if step.name == name:
            return step
    return StepState(name)


def _put(steps: tuple[StepState, ...], changed: StepState) -> tuple[StepState, ...]:
    for place, step in enumerate(steps):
        if step.name == changed.name:
            return (*steps[:place], changed, *steps[place + 1 :])
    return (*steps, changed)


def evolve(before: Appointment, event: e.Event) -> Appointment:
    """The state after `event`. Raises `IllegalMove` when the life cycle has no such move: nothing has happened then."""
    state = move(before.state, type(event))
    now = _but(before, version=before.version + 1, state=state, updated_at=event.at)
    match event:
        case e.StepStarted():
            return _started(now, event)
        case e.StepSucceeded():
            return _succeeded(now, event)
        case e.AppointmentConfirmed():
            return _but(now, forced=False, deferred_until=None, deferred_since=None)
        case e.AppointmentRequested():
            return _begun(
                now, event, policy=event.policy, deadline_at=event.deadline_at, action_label=event.action_label
            )
        case e.AppointmentImported():
            there = StepState(booking_step_of(event.definition), progress=Progress.DONE, booking=event.booking)
            return _begun(now, event, actions=(there,), foreign_ref=event.booking.client_ref)
        case e.StepPending():
            step = _operation(now, event.step, e.Operation.ACTION)
            step = _but(step, progress=Progress.PENDING, due_at=event.poll_at, booking=event.booking)
            return _with(_landed(now), _certain(step), e.Operation.ACTION)
        case e.StepAttemptFailed():
            return _attempt_failed(now, event)
        case e.CallInterrupted():
            return _interrupted(now, event)
        case e.RetryScheduled():
            step = _operation(now, event.step, event.operation)
            return _with(now, _but(step, progress=Progress.WAITING, due_at=event.due_at), event.operation)
        case e.CallDeferred():
            return _but(now, deferred_until=event.until, deferred_since=now.deferred_since or event.at)
        case e.StepInDoubt():
            step = _operation(now, event.step, event.operation)
            moved = now.move_step.doubt_since if state in BACKWARD and now.move_step else None
            since = step.doubt_since or max(moved or event.at, event.at)
            step = _but(step, progress=Progress.DOUBT, give_up=event.reason, due_at=event.at, doubt_since=since)
            # Turned back, a move that may have given the booking a new reference is settled by the same look-up.
            return _with(_but(now, move_step=None) if state in BACKWARD else now, step, event.operation)
        case e.BookingFound() | e.BookingMissing() | e.LookupFailed():
            return _looked(now, event)
        case e.CallbackReceived():
            return _called_back(now, event)
        case e.CancellationRequested() | e.CompensationBegun() | e.LateSuccess():
            return _turned_back(now, event)
        case e.RescheduleRequested():
            return _move_requested(now, event)
        case e.BookingObserved():
            return _observed(now, event)
        case e.RebookingRequested():
            return _rebooking(now, event)
        case e.AppointmentRescheduled():
            assert now.details is not None
            details = now.details.model_copy(
                update={"start": event.start, "end": event.end, "time_zone": event.time_zone}
            )
            now = _but(now, details=details, moving=None, move_step=None, forced=False, astray=False)
            return _undeferred(now)
        case e.RescheduleFailed():
            return _undeferred(_but(now, moving=None, move_step=None, forced=False, detail=event.detail))
        case e.OperatorActed():
            return _acted(now, event)
        case e.AppointmentParked():
            return _but(now, parked=True, parked_reason=event.reason, stopped=True, astray=False)
        case e.PersonalDataErased():
            # What was erased is gone from the events themselves.
            return now
        case e.AppointmentFailed() | e.AppointmentCancelled():
            return _undeferred(_but(now, reason=event.reason, forced=False))
        case _:
            # What is left are events of other streams; the table of moves has refused them already.
            raise AssertionError(event)


def _begun(now: Appointment, event: e.Beginning, **also: Any) -> Appointment:
    return _but(
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


def _operation(now: Appointment, step: str, operation: e.Operation) -> StepState:
    match operation:
        case e.Operation.ACTION:
            return now.action(step)
        case e.Operation.COMPENSATION:
            return now.undo(step)
        case e.Operation.RESCHEDULE:
            return now.move_step or StepState(step)
        case _:
            assert_never(operation)


def _with(now: Appointment, step: StepState, operation: e.Operation, **also: Any) -> Appointment:
    """The appointment with this step, and with whatever else has changed: one copy for all of it."""
    match operation:
        case e.Operation.ACTION:
            return _but(now, actions=_put(now.actions, step), **also)
        case e.Operation.COMPENSATION:
            return _but(now, undos=_put(now.undos, step), **also)
        case e.Operation.RESCHEDULE:
            return _but(now, move_step=step, **also)
        case _:
            assert_never(operation)


def _landed(now: Appointment) -> Appointment:
    return _but(now, in_flight=None)


def _certain(step: StepState) -> StepState:
    return _but(step, doubt_since=None, in_flight_seen=False)


def _started(now: Appointment, event: e.StepStarted) -> Appointment:
    step = _operation(now, event.step, event.operation)
    step = _but(step, progress=Progress.RUNNING, attempts=event.attempt, due_at=None)
    until = event.at + timedelta(milliseconds=event.timeout_ms) + FLIGHT_GRACE
    flight = InFlight(event.step, event.operation, event.operation_id, event.attempt, until)
    return _with(now, step, event.operation, in_flight=flight, deferred_until=None, deferred_since=None)


def _succeeded(now: Appointment, event: e.StepSucceeded) -> Appointment:
    step = _operation(now, event.step, event.operation)
    done = {"progress": Progress.DONE, "due_at": None, "doubt_since": None, "in_flight_seen": False}
    if event.operation is e.Operation.ACTION:
        step = _but(step, **done, booking=event.booking or step.booking)
        return _with(now, step, event.operation, in_flight=None)
    if event.booking is not None:
        action = _but(now.action(event.step), booking=event.booking)
        now = _with(now, action, e.Operation.ACTION)
    return _with(now, _but(step, **done), event.operation, in_flight=None)


def _attempt_failed(now: Appointment, event: e.StepAttemptFailed) -> Appointment:
    step = _operation(now, event.step, event.operation)
    step = _but(step, progress=Progress.ATTEMPT_FAILED, failure=event)
    if event.kind == "unknown":
        # An earlier attempt that was cut off may be at work for longer than this one.
        since = max(step.doubt_since or event.at, event.at)
        step = _but(step, doubt_since=since, in_flight_seen=step.in_flight_seen or event.in_flight)
    return _with(_landed(now), step, event.operation)


def _interrupted(now: Appointment, event: e.CallInterrupted) -> Appointment:
    step = _operation(now, event.step, event.operation)
    failure = e.StepAttemptFailed(
        at=event.at, step=event.step, operation=event.operation, kind="unknown", reason="interrupted"
    )
    # Nobody waited for the answer: the provider may be at work until the call's own time would have run out.
    until = now.in_flight.until if now.in_flight else event.at
    step = _but(
        step,
        progress=Progress.ATTEMPT_FAILED,
        failure=failure,
        doubt_since=max(step.doubt_since or event.at, event.at, until),
        forgiven=min(step.forgiven + 1, step.attempts),
    )
    return _with(_landed(now), step, event.operation)


def _looked(now: Appointment, event: e.BookingFound | e.BookingMissing | e.LookupFailed) -> Appointment:
    operation = e.Operation.RESCHEDULE if now.state is State.RESCHEDULING else e.Operation.ACTION
    step = _operation(now, event.step, operation)
    match event:
        case e.BookingFound():
            found = event.booking
            live = found.status in (BookingStatus.ACCEPTED, BookingStatus.PENDING)
            action = _but(now.action(event.step), booking=found)
            if operation is e.Operation.RESCHEDULE:
                return _but(now, actions=_put(now.actions, action), move_step=_but(step, due_at=event.at))
            # Found while going forward is settled by the StepSucceeded or StepPending that follows.
            progress = Progress.DONE if live else Progress.GIVEN_UP
            return _with(now, _but(_certain(action), progress=progress), operation)
        case e.BookingMissing() if event.trusted:
            after = Progress.GIVEN_UP if step.give_up or now.state in BACKWARD else Progress.ATTEMPT_FAILED
            return _with(now, _but(_certain(step), progress=after, due_at=None), operation)
        case e.BookingMissing() | e.LookupFailed():
            return _with(now, _but(step, due_at=event.look_at), operation)
        case _:
            assert_never(event)


def _called_back(now: Appointment, event: e.CallbackReceived) -> Appointment:
    now = _but(now, webhooks=(*now.webhooks, event.webhook_id)[-WEBHOOKS_KEPT:])
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
    return _but(now, actions=_put(now.actions, _but(step, booking=seen)))


def _turned_back(now: Appointment, event: e.CancellationRequested | e.CompensationBegun | e.LateSuccess) -> Appointment:
    now = _undeferred(_unparked(_but(now, cleanup_until=event.cleanup_until)))
    match event:
        case e.CancellationRequested():
            return _but(
                now,
                reason=e.EndReason.CANCELLED_BY_REQUEST,
                keys=(*now.keys, ("cancel", event.key, event.fingerprint)) if event.key else now.keys,
            )
        case e.CompensationBegun():
            return _but(now, reason=event.reason, detail=event.detail)
        case e.LateSuccess():
            assert now.details is not None
            alive = ProviderBooking(
                provider_ref=event.provider_ref,
                client_ref=now.client_ref,
                status=BookingStatus.ACCEPTED,
                version=event.version,
            )
            action = _but(_certain(now.action(event.step)), progress=Progress.DONE, booking=alive)
            undos = tuple(undo for undo in now.undos if undo.name != event.step)
            return _but(now, actions=_put(now.actions, action), undos=undos, rounds=now.rounds + 1)
        case _:
            assert_never(event)


def _move_requested(now: Appointment, event: e.RescheduleRequested) -> Appointment:
    return _but(
        now,
        moving=Move(event.start, event.end, event.time_zone, event.deadline_at),
        move_step=None,
        rounds=now.rounds + 1,
        keys=(*now.keys, ("reschedule", event.key, event.fingerprint)) if event.key else now.keys,
        detail="",
    )


def _observed(now: Appointment, event: e.BookingObserved) -> Appointment:
    now = _but(now, keys=(*now.keys, ("report", event.key, event.fingerprint)))
    if now.state in ENDED:
        # What was seen is taken away by the late success that follows.
        return now
    seen, details = event.seen, now.details
    assert details is not None
    if event.repair is Repair.PARK:
        told = f": {event.reason}" if event.reason else ""
        return _but(now, parked=True, parked_reason=f"{seen_as(seen)}{told}", stopped=False)
    now = _but(_unparked(now), detail=seen_as(seen))
    step = _certain(now.booking_step)
    if seen is None or seen.status not in LIVE:
        over = {"status": seen.status if seen else BookingStatus.CANCELLED, "etag": seen.etag if seen else None}
        known = seen or step.booking
        left = known.model_copy(update={**over, "client_ref": now.client_ref}) if known else None
        return _but(now, actions=_put(now.actions, _but(step, progress=Progress.GIVEN_UP, booking=left)))
    there = seen.model_copy(update={"client_ref": now.client_ref})
    now = _but(now, actions=_put(now.actions, _but(step, progress=Progress.DONE, booking=there)), detail="")
    if event.repair is Repair.RESTORE:
        return _but(now, astray=not stands_as_booked(details, seen))
    told_of = {"start": seen.start, "end": seen.end, "summary": seen.summary}
    kept = details.model_copy(update={name: value for name, value in told_of.items() if value is not None})
    if kept.all_day and not whole_days(kept):
        kept = kept.model_copy(update={"all_day": False})
    return _but(now, details=kept)


def _rebooking(now: Appointment, event: e.RebookingRequested) -> Appointment:
    gone = now.booking_step
    rounds = now.rounds + 1
    again = StepState(gone.name, round=rounds, replaced=gone.booking)
    return _but(
        now, actions=_put(now.actions, again), rounds=rounds, deadline_at=event.deadline_at, detail="", foreign_ref=None
    )


def _acted(now: Appointment, event: e.OperatorActed) -> Appointment:
    now = _but(now, keys=(*now.keys, ("act", event.key, event.fingerprint)))
    match event.action:
        case OperatorAction.PARK:
            return _but(now, parked=True, parked_reason=event.reason)
        case OperatorAction.RESUME:
            return _more_time(_unparked(now), event)
        case OperatorAction.RETRY:
            return _fresh_budget(now, event)
        case OperatorAction.SKIP:
            return _skipped(_unparked(now), event)
        case OperatorAction.FORCE_COMPLETE:
            # Where nothing is left to complete it only lets go of the park; a cancel to come is not forced.
            return _but(_unparked(now), forced=now.state not in SETTLED)
        case OperatorAction.COMPENSATE:
            return _fresh_budget(now, event) if now.state in BACKWARD else _unparked(now)
        case _:
            assert_never(event.action)


def _unparked(now: Appointment) -> Appointment:
    return _but(now, parked=False, parked_reason="", stopped=False)


def _undeferred(now: Appointment) -> Appointment:
    return _but(now, deferred_until=None, deferred_since=None)


def _fresh_budget(now: Appointment, event: e.OperatorActed) -> Appointment:
    answered = now.stopped
    now = _more_time(_unparked(now), event)

    def fresh(step: StepState) -> StepState:
        if step.progress is Progress.ATTEMPT_FAILED and step.doubt_since is not None and not answered:
            # Parked by hand before it was decided how the doubt is cleared: that decision is still to come.
            return _but(step, forgiven=step.attempts)
        if step.progress in (Progress.WAITING, Progress.ATTEMPT_FAILED):
            return _but(step, progress=Progress.WAITING, forgiven=step.attempts, due_at=event.at)
        if step.progress in (Progress.PENDING, Progress.DOUBT):
            return _but(step, due_at=event.at)
        return step

    return _but(
        now,
        actions=tuple(map(fresh, now.actions)),
        undos=tuple(map(fresh, now.undos)),
        move_step=fresh(now.move_step) if now.move_step else None,
        deferred_until=None,
        deferred_since=None,
    )


def _more_time(now: Appointment, event: e.OperatorActed) -> Appointment:
    """Without it, what was parked because its time was spent would be parked again at once."""
    return _but(
        now,
        cleanup_until=event.cleanup_until if now.cleanup_until else None,
        moving=replace(now.moving, look_until=event.cleanup_until) if now.moving else None,
    )


def _skipped(now: Appointment, event: e.OperatorActed) -> Appointment:
    assert event.step is not None
    operation = e.Operation.COMPENSATION if now.state in BACKWARD else e.Operation.ACTION
    step = _but(_certain(_operation(now, event.step, operation)), progress=Progress.SKIPPED, due_at=None)
    return _with(now, step, operation)
