"""Carries effects out: from a planned call to a provider's or a step's answer. Decides nothing, records nothing."""

import asyncio
from collections.abc import Awaitable
from traceback import format_exception_only
from typing import TypeVar, get_args

from domain import events as e
from domain.appointment import Appointment
from domain.identity import client_ref
from domain.lifecycle import State
from domain.provider import BookingDetails, Call, Provider, ReadOutcome, Unknown, WriteOutcome
from saga.definition import CalendarStep, Saga, Step, StepCall
from saga.inputs import Read, Write

OVERRUN_S = 0.5
"""An adapter ends its own calls; one that overruns by this much is cut off."""

T = TypeVar("T")

NOTICES = {
    State.BOOKING: "appointment.confirmed",
    State.COMPENSATING: "appointment.failed",
    State.CANCELLING: "appointment.cancelled",
}


async def write(state: Appointment, effect: Write, saga: Saga, provider: Provider) -> WriteOutcome:
    """Run one operation; whatever goes wrong is an outcome, never an exception."""
    return await _ended(_write(state, effect, saga, provider), effect.timeout_ms, get_args(WriteOutcome))


async def read(state: Appointment, effect: Read, saga: Saga, provider: Provider) -> ReadOutcome:
    """Look at the provider; whatever goes wrong is an outcome, never an exception."""
    return await _ended(_read(state, effect, saga, provider), effect.timeout_ms, get_args(ReadOutcome))


async def _ended(call: Awaitable[T], timeout_ms: int, outcomes: tuple[type, ...]) -> T | Unknown:
    try:
        async with asyncio.timeout(timeout_ms / 1_000 + OVERRUN_S):
            outcome = await call
    except TimeoutError:
        return Unknown(reason="timeout")
    except Exception as fault:
        # A fault in somebody's step must not lose the appointment: it may have acted before it raised.
        told = " ".join("".join(format_exception_only(fault)).split())
        return Unknown(reason="".join(c if c.isprintable() else "?" for c in f"raised {told}"[:500]))
    if not isinstance(outcome, outcomes):
        return Unknown(reason=f"answered with a {type(outcome).__name__}, which is no outcome"[:500])
    return outcome


async def _write(state: Appointment, effect: Write, saga: Saga, provider: Provider) -> WriteOutcome:
    step, asked = saga.step(effect.step), _step_call(state, effect, saga, effect.operation_id)
    if isinstance(step, Step):
        act = step.compensation if effect.operation is e.Operation.COMPENSATION else step.action
        assert act is not None
        return await act(asked)
    return await _book(state, effect.operation, asked, provider)


async def _book(state: Appointment, operation: e.Operation, asked: StepCall, provider: Provider) -> WriteOutcome:
    match operation:
        case e.Operation.ACTION:
            return await provider.create(asked.call, asked.details)
        case e.Operation.COMPENSATION:
            assert asked.booking is not None
            return await provider.cancel(asked.call, asked.details.calendar, asked.booking.provider_ref)
        case e.Operation.RESCHEDULE:
            assert asked.booking is not None
            moving = state.moving
            assert moving is not None
            details = asked.details.model_copy(
                update={"start": moving.start, "end": moving.end, "time_zone": moving.time_zone}
            )
            return await provider.reschedule(asked.call, asked.booking.provider_ref, asked.booking.etag, details)


async def _read(state: Appointment, effect: Read, saga: Saga, provider: Provider) -> ReadOutcome:
    step, asked = saga.step(effect.step), _step_call(state, effect, saga, client_ref(state.id))
    if isinstance(step, CalendarStep):
        by_ref = effect.purpose == "poll" or not provider.capabilities.lookup or state.foreign
        if by_ref and asked.booking is not None:
            return await provider.get(asked.call, asked.details.calendar, asked.booking.provider_ref)
        return await provider.find(asked.call, asked.details.calendar)
    assert step.lookup is not None
    return await step.lookup(asked)


def _step_call(state: Appointment, effect: Write | Read, saga: Saga, operation_id: str) -> StepCall:
    assert state.details is not None
    # Other steps may keep a reference of their own (a deposit's): only the calendar's is the booking.
    calendar = state.action(next(step.name for step in saga.steps if isinstance(step, CalendarStep)))
    call = Call(
        operation_id=operation_id,
        client_ref=state.client_ref,
        timeout_ms=effect.timeout_ms,
        correlation_id=state.correlation_id,
        traceparent=state.traceparent,
        tenant=state.tenant,
        replaces=calendar.replaced.etag if calendar.replaced else None,
    )
    details: BookingDetails = state.details
    notice = NOTICES.get(state.state, "appointment.changed")
    return StepCall(call, effect.step, details, calendar.booking, notice)
