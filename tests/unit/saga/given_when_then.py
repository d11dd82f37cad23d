"""given(events).when(input, now).then(events): the language of the tests of the pure turn."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from domain import events as e
from domain.appointment import Appointment
from domain.commands import (
    Act,
    BookAppointment,
    CancelAppointment,
    OperatorAction,
    PolicyOverride,
    Request,
    RescheduleAppointment,
)
from domain.definition import RetryPolicy, SagaPlan, StepPlan
from domain.errors import CommandRefused
from domain.evolve import evolve
from domain.identity import appointment_id, fingerprint, operation_id
from domain.provider import BookingDetails, BookingStatus, ProviderBooking
from saga.inputs import Asked, CalledBack, CallEnded, Due, Gates, Hold, Input, Read, ReadEnded, Turn, Write, open_gates
from saga.turn import turn

ID = appointment_id("default", "key-1")
T0 = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
START = datetime(2026, 3, 3, 10, 0, tzinfo=UTC)
END = START + timedelta(hours=1)
NEW_START, NEW_END = START + timedelta(days=1), END + timedelta(days=1)
RETRY = RetryPolicy(attempts_max=3, backoff_ms=500, jitter=0)
UNDO = RetryPolicy(attempts_max=4, backoff_ms=1_000, jitter=0)
CALENDAR = StepPlan(
    name="calendar", target="main", books=True, compensated=True, lookup=True, retry=RETRY, undo_retry=UNDO
)
DEPOSIT = StepPlan(name="deposit", target="bank", compensated=True, retry=RETRY, undo_retry=UNDO)
NOTIFY = StepPlan(name="notify", target="notify", retry=RETRY)
PLAN = SagaPlan(name="booking", provider="main", steps=(CALENDAR, NOTIFY))
THREE = SagaPlan(name="paid", provider="main", steps=(CALENDAR, DEPOSIT, NOTIFY))
BOOK = BookAppointment(calendar="main", start=START, end=END, time_zone="Europe/Berlin", summary="Check-up")

MOVE = RescheduleAppointment(start=NEW_START, end=NEW_END)


def ms(milliseconds: int) -> timedelta:
    return timedelta(milliseconds=milliseconds)


def after(milliseconds: int) -> datetime:
    """T0 and so many milliseconds."""
    return T0 + ms(milliseconds)


SOON = after(1_000)
DEADLINE = after(PLAN.deadline_ms)


def with_calendar(plan: SagaPlan = PLAN, **changes: Any) -> SagaPlan:
    """The plan with another booking step."""
    steps = tuple(step.model_copy(update=changes) if step.books else step for step in plan.steps)
    return plan.model_copy(update={"steps": steps})


def booking(
    status: str = "accepted", version: int = 1, ref: str = "bk-1", start: datetime = START, end: datetime = END
) -> ProviderBooking:
    return ProviderBooking(
        provider_ref=ref,
        client_ref=str(ID),
        status=BookingStatus(status),
        version=version,
        etag=f'"{version}"',
        start=start,
        end=end,
    )


def lean(seen: ProviderBooking) -> ProviderBooking:
    """A booking as events keep it: without what the stream says already."""
    return seen.model_copy(update={"client_ref": "", "start": None, "end": None})


def op(step: str = "calendar", operation: str = "action", round: int = 0) -> str:
    return operation_id(ID, step, e.Operation(operation), round)


# -- events ------------------------------------------------------------------------------------------------------


def requested(
    at: datetime = T0, deadline_at: datetime = DEADLINE, policy: PolicyOverride | None = None, plan: SagaPlan = PLAN
) -> e.AppointmentRequested:
    command = BOOK.model_copy(update={"policy": policy})
    return e.AppointmentRequested(
        at=at,
        key="key-1",
        fingerprint=fingerprint(command),
        tenant="default",
        definition=plan.digest,
        provider="main",
        details=BookingDetails.model_validate(BOOK.model_dump(exclude={"deadline_ms", "policy"}, exclude_unset=True)),
        deadline_at=deadline_at,
        policy=policy,
    )


def started(
    step: str = "calendar",
    attempt: int = 1,
    operation: str = "action",
    at: datetime = T0,
    timeout_ms: int = 5_000,
    round: int = 0,
) -> e.StepStarted:
    return e.StepStarted(
        at=at,
        step=step,
        operation=e.Operation(operation),
        operation_id=op(step, operation, round),
        attempt=attempt,
        timeout_ms=timeout_ms,
    )


def succeeded(
    step: str = "calendar", booking: ProviderBooking | None = None, operation: str = "action", **more: Any
) -> e.StepSucceeded:
    return e.StepSucceeded(at=T0, step=step, booking=booking, operation=e.Operation(operation), **more)


def failed(step: str = "calendar", kind: str = "unknown", operation: str = "action", **more: Any) -> e.Event:
    fields = {"at": T0, "step": step, "kind": kind, "operation": operation, "reason": "timeout", **more}
    return e.StepAttemptFailed.model_validate(fields)


def pending(poll_at: datetime = SOON, **more: Any) -> e.StepPending:
    fields = {"at": T0, "step": "calendar", "booking": booking("pending"), "poll_at": poll_at, **more}
    return e.StepPending.model_validate(fields)


def retry(due_at: datetime, step: str = "calendar", operation: str = "action", at: datetime = T0) -> e.RetryScheduled:
    return e.RetryScheduled(at=at, step=step, operation=e.Operation(operation), due_at=due_at)


def doubt(reason: str | None = None, operation: str = "action", at: datetime = T0, step: str = "calendar") -> e.Event:
    fields = {"at": at, "step": step, "operation": operation, "reason": reason}
    return e.StepInDoubt.model_validate(fields)


def begun(reason: str = "rejected", at: datetime = T0, detail: str = "", plan: SagaPlan = PLAN) -> e.CompensationBegun:
    return e.CompensationBegun(at=at, reason=e.EndReason(reason), detail=detail, cleanup_until=at + ms(plan.cleanup_ms))


def cancellation(key: str = "cancel-1", at: datetime = T0) -> e.CancellationRequested:
    return e.CancellationRequested(
        at=at, key=key, fingerprint=fingerprint(CancelAppointment()), cleanup_until=at + ms(PLAN.cleanup_ms)
    )


def move_requested(at: datetime = T0, deadline_at: datetime = DEADLINE, key: str = "move-1") -> e.RescheduleRequested:
    return e.RescheduleRequested(
        at=at,
        key=key,
        fingerprint=fingerprint(MOVE),
        start=NEW_START,
        end=NEW_END,
        time_zone="Europe/Berlin",
        deadline_at=deadline_at,
    )


def parked(reason: str = "look", at: datetime = T0) -> e.AppointmentParked:
    return e.AppointmentParked(at=at, reason=reason)


def acted(action: str, step: str | None = None, at: datetime = T0, key: str = "act-1") -> e.OperatorActed:
    command = Act(action=OperatorAction(action), reason="fixed", step=step)
    return e.OperatorActed(
        at=at,
        key=key,
        fingerprint=fingerprint(command),
        action=command.action,
        reason="fixed",
        step=step,
        cleanup_until=at + ms(PLAN.cleanup_ms),
    )


def called_back(status: str, version: int, webhook_id: str = "wh-1") -> e.CallbackReceived:
    return e.CallbackReceived(
        at=T0,
        step="calendar",
        webhook_id=webhook_id,
        status=BookingStatus(status),
        provider_ref="bk-1",
        version=version,
    )


CONFIRMATION = e.AppointmentConfirmed(at=T0)
FAILURE = e.AppointmentFailed(at=T0, reason=e.EndReason.REJECTED)
CANCELLED = e.AppointmentCancelled(at=T0)

REQUESTED = (requested(),)
CREATING = (*REQUESTED, started())
PENDING = (*CREATING, pending())
TELLING = (*CREATING, succeeded(booking=booking()), started("notify"))
CONFIRMED = (*TELLING, succeeded("notify"), CONFIRMATION)
MOVING = (*CONFIRMED, move_requested(), started(operation="reschedule", round=1))
CANCELLING = (*CONFIRMED, cancellation(), started(operation="compensation"))
GONE = (*CANCELLING, succeeded(operation="compensation", booking=booking("cancelled", 2)), CANCELLED)
REFUSED = (*CREATING, failed(kind="rejected", reason="full"), begun(detail="full"), FAILURE)

# -- inputs ------------------------------------------------------------------------------------------------------

DUE = Due()


def asked(command: Any, key: str, **who: Any) -> Asked:
    return Asked(command, Request(key=key, **who))


def book(key: str = "key-1", **changes: Any) -> Asked:
    return asked(BOOK.model_copy(update=changes), key)


def cancel(key: str = "cancel-1", **who: Any) -> Asked:
    return asked(CancelAppointment(), key, **who)


def reschedule(key: str = "move-1") -> Asked:
    return asked(MOVE, key)


def act(action: str, step: str | None = None, key: str = "act-1") -> Asked:
    return asked(Act(action=OperatorAction(action), reason="fixed", step=step), key)


def answered(
    outcome: Any, step: str = "calendar", attempt: int = 1, operation: str = "action", round: int = 0
) -> CallEnded:
    return CallEnded(step, e.Operation(operation), op(step, operation, round), attempt, outcome)


def read(outcome: Any, began: datetime, purpose: str = "lookup", step: str = "calendar") -> ReadEnded:
    return ReadEnded(step, "poll" if purpose == "poll" else "lookup", outcome, began)


def told(status: str, version: int, webhook_id: str = "wh-1", ref: str = "bk-1") -> CalledBack:
    return CalledBack(webhook_id, ref, BookingStatus(status), version)


def closed(until: datetime, *lanes: str) -> Gates:
    """These lanes' breakers are open until then (all lanes when none is named)."""
    return lambda lane: Hold("circuit_open", until) if not lanes or lane in lanes else None


def busy(*lanes: str) -> Gates:
    """These lanes have no free place."""
    return lambda lane: Hold("busy") if not lanes or lane in lanes else None


# -- given, when, then -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Then:
    """What a turn came to."""

    turn: Turn
    now: datetime

    def then(self, *events: e.Event) -> Self:
        """Exactly these events, all of them at the instant of the turn."""
        expected = tuple(event.model_copy(update={"at": self.now}) for event in events)
        assert self.turn.events == expected
        return self

    def nothing(self) -> Self:
        """No event at all."""
        return self.then()

    def calls(self, step: str, operation: str = "action", attempt: int = 1, **fields: Any) -> Self:
        """A write leaves."""
        effect = self.turn.effect
        assert isinstance(effect, Write)
        assert (effect.step, str(effect.operation), effect.attempt) == (step, operation, attempt)
        for name, value in fields.items():
            assert getattr(effect, name) == value, name
        return self

    def reads(self, purpose: str, step: str = "calendar", **fields: Any) -> Self:
        """A read leaves."""
        effect = self.turn.effect
        assert isinstance(effect, Read)
        assert (effect.purpose, effect.step) == (purpose, step)
        for name, value in fields.items():
            assert getattr(effect, name) == value, name
        return self

    def waits(self, until: datetime, lane: str | None = None) -> Self:
        """No call; the next turn is due then."""
        assert self.turn.effect is None
        assert self.turn.wake is not None
        assert self.turn.wake.at == until
        if lane is not None:
            assert self.turn.wake.lane == lane
        return self

    def rests(self, state: str) -> Self:
        """No call and no timer."""
        assert self.turn.effect is None
        assert self.turn.wake is None
        return self.is_(state)

    def is_(self, state: str, **fields: Any) -> Self:
        """The state after the turn."""
        assert str(self.turn.state.state) == state
        for name, value in fields.items():
            assert getattr(self.turn.state, name) == value, name
        return self

    def idle(self) -> Self:
        """Nothing at all has changed."""
        assert self.turn.idle
        assert not self.turn.events
        return self

    def when(self, given: Input, now: datetime, gates: Gates = open_gates, plan: SagaPlan = PLAN) -> "Then":
        """The next input."""
        return Then(turn(self.turn.state, given, now, plan, gates), now)


@dataclass(frozen=True)
class Given:
    """A stream so far."""

    state: Appointment

    def when(self, given: Input, now: datetime = T0, gates: Gates = open_gates, plan: SagaPlan = PLAN) -> Then:
        """One input at an instant."""
        return Then(turn(self.state, given, now, plan, gates), now)

    def refuses(
        self, refusal: type[CommandRefused], given: Input, now: datetime = T0, plan: SagaPlan = PLAN
    ) -> CommandRefused:
        """The command is refused, with nothing recorded."""
        try:
            turned = turn(self.state, given, now, plan, open_gates)
        except refusal as refused:
            return refused
        raise AssertionError(f"not refused: {turned.events}")


def given(*events: e.Event) -> Given:
    """A stream of these events."""
    state = Appointment(ID)
    for event in events:
        state = evolve(state, event)
    return Given(state)
