"""Decide what a command means: (state, command) to events, or a refusal with nothing recorded."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import assert_never

from domain import events as e
from domain.appointment import Appointment, Progress
from domain.commands import (
    Act,
    BookAppointment,
    CancelAppointment,
    Command,
    ImportBooking,
    OperatorAction,
    ReportBooking,
    Request,
    RescheduleAppointment,
)
from domain.definition import SagaPlan
from domain.errors import IllegalTransition, KeyReused, StaleVersion, UnknownAppointment
from domain.identity import fingerprint
from domain.lifecycle import BACKWARD, ENDED, FORWARD, SETTLED, State
from domain.observed import reported
from domain.personal import ERASED
from domain.provider import BookingDetails

COMMANDS_MAX = 1_000
_KINDS: dict[type[Command], str] = {
    BookAppointment: "book",
    ImportBooking: "book",
    CancelAppointment: "cancel",
    RescheduleAppointment: "reschedule",
    Act: "act",
    ReportBooking: "report",
}
"""Keys are scoped to the operation: one key may book, and cancel what it booked."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What a command comes to; `replayed` when its key had been used with the same content before."""

    events: tuple[e.Event, ...]
    replayed: bool = False


def decide(state: Appointment, command: Command, request: Request, now: datetime, plan: SagaPlan) -> Decided:
    """Turn a command into facts. Raises a `CommandRefused` for what is not legal; then nothing is recorded."""
    # What is taken over answers to its key as if it had been booked here.
    print_ = fingerprint(command.booked if isinstance(command, ImportBooking) else command)
    kind = _KINDS[type(command)]
    used = next((known for *scope, known in state.keys if scope == [kind, request.key]), None)
    if used is not None:
        if used != print_:
            raise KeyReused(
                f"the key {request.key!r} was used before with another payload; use a new key for a new command"
            )
        return Decided((), replayed=True)
    if not isinstance(command, BookAppointment | ImportBooking) and state.version == 0:
        raise UnknownAppointment(f"there is no appointment {state.id}")
    if request.expected_version is not None and request.expected_version != state.version:
        raise StaleVersion(f"the appointment is at version {state.version}, not at {request.expected_version}")
    if len(state.keys) >= COMMANDS_MAX:
        raise IllegalTransition(f"an appointment takes at most {COMMANDS_MAX} commands")
    who = {
        "at": now,
        "actor": request.actor,
        "key": request.key,
        "fingerprint": print_,
        "correlation_id": request.correlation_id,
        "traceparent": request.traceparent,
    }
    match command:
        case BookAppointment():
            return Decided((_request(state, command, request, now, plan, who),))
        case ImportBooking():
            return Decided((_import(state, command, request, plan, who),))
        case CancelAppointment():
            return Decided((_cancel(state, command, now, plan, who),))
        case RescheduleAppointment():
            return Decided((_reschedule(state, command, now, plan, who),))
        case Act():
            return Decided(_act(state, command, now, plan, who))
        case ReportBooking():
            return Decided(reported(state, command, now, plan, who))
        case _:
            assert_never(command)


def _request(
    state: Appointment,
    command: BookAppointment,
    request: Request,
    now: datetime,
    plan: SagaPlan,
    who: dict[str, object],
) -> e.Event:
    _check_new(state)
    deadline = now + timedelta(milliseconds=command.deadline_ms or plan.deadline_ms)
    if command.start > now:
        # Nobody is told "confirmed" after the appointment has begun.
        deadline = min(deadline, command.start)
    return e.AppointmentRequested.model_validate(
        {
            **_beginning(command, request, plan, who),
            "deadline_at": deadline,
            "policy": command.policy,
            "action_label": request.action_label,
        }
    )


def _import(
    state: Appointment, command: ImportBooking, request: Request, plan: SagaPlan, who: dict[str, object]
) -> e.Event:
    _check_new(state)
    begun = _beginning(command.booked, request, plan, who)
    skipped = tuple(step.name for step in plan.steps if not step.books)
    return e.AppointmentImported.model_validate(
        {**begun, "booking": command.booking, "source": command.source, "skipped": skipped}
    )


def _check_new(state: Appointment) -> None:
    if state.version:
        erased = state.key == ERASED
        why = "what was booked under this key was erased" if erased else f"the appointment {state.id} exists already"
        raise KeyReused(f"{why}; use a new key to book anew")


def _beginning(command: BookAppointment, request: Request, plan: SagaPlan, who: dict[str, object]) -> dict[str, object]:
    fields = command.model_dump(exclude={"deadline_ms", "policy"}, exclude_unset=True)
    if request.callback_url is not None:
        fields["callback_url"] = request.callback_url
    return {
        **who,
        "tenant": request.tenant,
        "definition": plan.digest,
        "provider": plan.provider,
        "details": BookingDetails.model_validate(fields),
    }


def erasure(state: Appointment, actor: str, reference: str, now: datetime) -> e.PersonalDataErased:
    """The fact that a subject of this appointment was erased. Raises `IllegalTransition` while it is unfinished.

    Whatever is still to be done at a provider would be done in the name of nobody.
    """
    if state.state not in SETTLED:
        raise _refuse(state, "erase", "once the appointment has come to its end; cancel it first")
    return e.PersonalDataErased(at=now, actor=actor, reference=reference)


def _refuse(state: Appointment, command: str, legal: str) -> IllegalTransition:
    parked = ", parked" if state.parked else ""
    return IllegalTransition(f"{command} is not legal in state {state.state}{parked}; it is legal {legal}")


def _cancel(
    state: Appointment, command: CancelAppointment, now: datetime, plan: SagaPlan, who: dict[str, object]
) -> e.Event:
    if state.state not in FORWARD | {State.CONFIRMED, State.RESCHEDULING}:
        raise _refuse(state, "cancel", "until the appointment is failing, failed or cancelled")
    return e.CancellationRequested.model_validate(
        {**who, "reason": command.reason, "cleanup_until": now + timedelta(milliseconds=plan.cleanup_ms)}
    )


def _reschedule(
    state: Appointment, command: RescheduleAppointment, now: datetime, plan: SagaPlan, who: dict[str, object]
) -> e.Event:
    if state.state is not State.CONFIRMED or state.parked or state.details is None:
        raise _refuse(state, "reschedule", "when confirmed")
    if state.action(plan.booking_step.name).booking is None:
        raise IllegalTransition("reschedule needs a booking at the provider; this one was completed by hand")
    return e.RescheduleRequested.model_validate(
        {
            **who,
            "start": command.start,
            "end": command.end,
            "time_zone": command.time_zone or state.details.time_zone,
            "deadline_at": plan.deadline_after(now, state.details.start, command.start),
        }
    )


def _act(
    state: Appointment, command: Act, now: datetime, plan: SagaPlan, who: dict[str, object]
) -> tuple[e.Event, ...]:
    _check_act(state, command, plan)
    cleanup_until = now + timedelta(milliseconds=plan.cleanup_ms)
    step = command.step or (_current(state, plan) if command.action is OperatorAction.SKIP else None)
    acted = e.OperatorActed.model_validate(
        {**who, "action": command.action, "reason": command.reason, "step": step, "cleanup_until": cleanup_until}
    )
    if command.action is OperatorAction.COMPENSATE and state.state not in BACKWARD:
        gone = {**who, "key": "", "fingerprint": "", "reason": command.reason, "cleanup_until": cleanup_until}
        return acted, e.CancellationRequested.model_validate(gone)
    return (acted,)


def _check_act(state: Appointment, command: Act, plan: SagaPlan) -> None:
    action = command.action
    if state.state in ENDED:
        raise _refuse(state, action, "before the appointment has ended")
    if command.step is not None and command.step not in {step.name for step in plan.steps}:
        raise IllegalTransition(f"there is no step {command.step!r}; there are {', '.join(s.name for s in plan.steps)}")
    if action is OperatorAction.PARK and state.parked:
        raise _refuse(state, action, "when not parked")
    if action is OperatorAction.RESUME and not state.parked:
        raise _refuse(state, action, "when parked")
    if action in (OperatorAction.PARK, OperatorAction.RESUME, OperatorAction.COMPENSATE):
        return
    if state.state is State.CONFIRMED and not state.parked:
        raise _refuse(state, action, "while there is work left to do")
    if state.in_flight is not None:
        raise IllegalTransition(f"{action} is not legal while a call is in flight; it will have ended in seconds")
    if action is OperatorAction.SKIP:
        _check_skip(state, command.step or _current(state, plan), plan)


def _check_skip(state: Appointment, step: str | None, plan: SagaPlan) -> None:
    if step is None or state.state is State.RESCHEDULING:
        raise IllegalTransition("there is no step to skip")
    if step != _current(state, plan):
        raise IllegalTransition(f"only the step that is due can be skipped: {_current(state, plan)}")
    if state.state in FORWARD and plan.step(step).books:
        raise IllegalTransition(
            f"step {step!r} makes the booking and cannot be skipped; force_complete says that it was made by hand"
        )


def _current(state: Appointment, plan: SagaPlan) -> str | None:
    over = (Progress.DONE, Progress.SKIPPED)
    if state.state in FORWARD:
        return next((s.name for s in plan.steps if state.action(s.name).progress not in over), None)
    if state.state in BACKWARD:
        return next(
            (
                s.name
                for s in reversed(plan.steps)
                if s.compensated and state.action(s.name).to_undo and state.undo(s.name).progress not in over
            ),
            None,
        )
    return None
