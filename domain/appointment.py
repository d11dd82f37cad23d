"""An appointment's state: the fold of its stream, and nothing else. `domain.evolve` leads from one to the next."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar, assert_never
from uuid import UUID

from domain import events as e
from domain.commands import PolicyOverride
from domain.definition import booking_step_of
from domain.identity import client_ref
from domain.lifecycle import State
from domain.provider import BookingDetails, ProviderBooking


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
    asked_at: datetime | None = None
    """When the last command was accepted."""
    traceparent: str | None = None
    """The trace that the last command that told one came in."""
    action_label: str | None = None
    key: str = ""
    foreign_ref: str | None = None
    """Of an appointment that was taken over: its booking's client reference then, "" where it has none."""

    @property
    def foreign(self) -> bool:
        """The booking is the one that another system made, and cannot be found by a reference of ours."""
        return self.foreign_ref is not None and not self.booking_step.round

    @property
    def client_ref(self) -> str:
        """The reference under which the provider knows the booking, or is to know it."""
        return (self.foreign and self.foreign_ref) or client_ref(self.id)

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


Frozen = TypeVar("Frozen", "Appointment", StepState)


def but(before: Frozen, **changes: Any) -> Frozen:
    """As before, but for these fields: what `dataclasses.replace` does, at a tenth of the time of every turn."""
    fields = {**before.__dict__, **changes}
    assert len(fields) == len(before.__dict__), changes
    after = object.__new__(type(before))
    object.__setattr__(after, "__dict__", fields)  # whole, not field by field: half the time and half the bytes
    return after


def written(now: Appointment, **changes: Any) -> Appointment:
    """The state that `evolve` is about to return, with these fields: until then it is nobody else's to see."""
    fields = now.__dict__
    known = len(fields)
    fields.update(changes)
    assert len(fields) == known, changes
    return now


_FRESH = StepState("")


def _find(steps: tuple[StepState, ...], name: str) -> StepState:
    for step in steps:
        if step.name == name:
            return step
    return but(_FRESH, name=name)


def put(steps: tuple[StepState, ...], changed: StepState) -> tuple[StepState, ...]:
    """The steps with this one in its place."""
    for place, step in enumerate(steps):
        if step.name == changed.name:
            return (*steps[:place], changed, *steps[place + 1 :])
    return (*steps, changed)


def operation_of(now: Appointment, step: str, operation: e.Operation) -> StepState:
    """This operation of a step; a fresh one when it has not begun."""
    match operation:
        case e.Operation.ACTION:
            return now.action(step)
        case e.Operation.COMPENSATION:
            return now.undo(step)
        case e.Operation.RESCHEDULE:
            return now.move_step or StepState(step)
        case _:
            assert_never(operation)


def with_step(now: Appointment, step: StepState, operation: e.Operation, **also: Any) -> Appointment:
    """The appointment with this step, and with whatever else has changed: one copy for all of it."""
    match operation:
        case e.Operation.ACTION:
            return written(now, actions=put(now.actions, step), **also)
        case e.Operation.COMPENSATION:
            return written(now, undos=put(now.undos, step), **also)
        case e.Operation.RESCHEDULE:
            return written(now, move_step=step, **also)
        case _:
            assert_never(operation)


def certain(step: StepState) -> StepState:
    """The step, with its outcome known."""
    return but(step, doubt_since=None, in_flight_seen=False)
