"""Effects: what a call carries, and that whatever goes wrong in one is an outcome."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from given_when_then import (
    CANCELLING,
    CONFIRMED,
    CREATING,
    ID,
    MOVING,
    NEW_END,
    NEW_START,
    PENDING,
    START,
    TELLING,
    booking,
    op,
)
from given_when_then import given as given_events

from domain import events as e
from domain.provider import Capabilities, Confirmed, Found, Missing, ReadOutcome, Unknown, WriteOutcome
from providers.local import LocalProvider
from saga import effects
from saga.definition import CalendarStep, Saga, Step, StepCall
from saga.inputs import Read, Write


class Recorder(LocalProvider):
    """Remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__("main")
        self.asked: list[tuple[Any, ...]] = []

    async def create(self, *asked: Any) -> WriteOutcome:
        self.asked.append(("create", *asked))
        return Confirmed(booking=booking())

    async def cancel(self, *asked: Any) -> WriteOutcome:
        self.asked.append(("cancel", *asked))
        return Confirmed()

    async def reschedule(self, *asked: Any) -> WriteOutcome:
        self.asked.append(("reschedule", *asked))
        return Confirmed()

    async def get(self, *asked: Any) -> ReadOutcome:
        self.asked.append(("get", *asked))
        return Found(booking=booking())

    async def find(self, *asked: Any) -> ReadOutcome:
        self.asked.append(("find", *asked))
        return Missing()


def saga(**step: Any) -> Saga:
    async def confirmed(_asked: StepCall) -> WriteOutcome:
        return Confirmed()

    return Saga("booking", 1, (CalendarStep(), Step("notify", **{"action": confirmed, **step})))


def write(step: str = "calendar", operation: str = "action", timeout_ms: int = 500) -> Write:
    return Write(step, step, e.Operation(operation), op(step, operation), 1, timeout_ms)


async def asked_for(stream: tuple[e.Event, ...], effect: Write | Read, provider: Recorder | None = None) -> tuple:
    provider = provider or Recorder()
    state = given_events(*stream).state
    if isinstance(effect, Write):
        await effects.write(state, effect, saga(), provider)
    else:
        await effects.read(state, effect, saga(), provider)
    (one,) = provider.asked
    return one


async def test_a_create_carries_the_ids_the_time_and_the_details() -> None:
    name, call, details = await asked_for(CREATING, write())
    assert name == "create"
    assert (call.operation_id, call.client_ref, call.timeout_ms, call.tenant) == (op(), str(ID), 500, "default")
    assert call.correlation_id == str(ID)
    assert details.start == START


async def test_a_cancel_names_the_booking() -> None:
    name, _, calendar, ref = await asked_for(CANCELLING, write(operation="compensation"))
    assert (name, calendar, ref) == ("cancel", "main", "bk-1")


async def test_a_move_carries_the_etag_and_the_new_time() -> None:
    name, _, ref, etag, details = await asked_for(MOVING, write(operation="reschedule"))
    assert (name, ref, etag) == ("reschedule", "bk-1", '"1"')
    assert (details.start, details.end) == (NEW_START, NEW_END)


async def test_a_poll_reads_by_the_providers_reference_and_a_lookup_by_ours() -> None:
    assert (await asked_for(PENDING, Read("calendar", "main", "poll", 500)))[0] == "get"
    name, call, _ = await asked_for(CREATING, Read("calendar", "main", "lookup", 500))
    assert (name, call.client_ref, call.operation_id) == ("find", str(ID), str(ID))


async def test_without_a_search_a_known_booking_is_read_by_its_reference() -> None:
    provider = Recorder()
    provider.capabilities = Capabilities(lookup=False)
    assert (await asked_for(MOVING, Read("calendar", "main", "lookup", 500), provider))[0] == "get"


@pytest.mark.parametrize(
    ("stream", "notice"),
    [(TELLING, "appointment.confirmed"), (CANCELLING, "appointment.cancelled"), (CONFIRMED, "appointment.changed")],
)
async def test_a_step_is_told_the_booking_and_what_there_is_to_say(stream: tuple[e.Event, ...], notice: str) -> None:
    told: list[StepCall] = []

    async def listen(asked: StepCall) -> WriteOutcome:
        told.append(asked)
        return Confirmed()

    state = given_events(*stream).state
    await effects.write(state, write("notify"), saga(action=listen), Recorder())
    assert (told[0].event, told[0].step) == (notice, "notify")
    assert told[0].booking is not None
    assert told[0].booking.provider_ref == "bk-1"


@pytest.mark.parametrize("fault", [ValueError("no"), KeyError("x"), OSError(5, "disk"), AssertionError()])
async def test_a_step_that_raises_has_an_unknown_outcome(fault: Exception) -> None:
    async def breaks(_asked: StepCall) -> Any:
        raise fault

    state = given_events(*TELLING).state
    outcome = await effects.write(state, write("notify"), saga(action=breaks), Recorder())
    assert isinstance(outcome, Unknown)
    assert type(fault).__name__ in outcome.reason
    outcome = await effects.read(state, Read("notify", "notify", "lookup", 500), saga(lookup=breaks), Recorder())
    assert isinstance(outcome, Unknown)


async def test_a_long_message_is_cut() -> None:
    async def breaks(_asked: StepCall) -> WriteOutcome:
        raise ValueError("x" * 10_000)

    outcome = await effects.write(given_events(*TELLING).state, write("notify"), saga(action=breaks), Recorder())
    assert isinstance(outcome, Unknown)
    assert len(outcome.reason) == 500


class Speechless(Exception):
    """Cannot even say what is wrong."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize("fault", [OSError("report\udcff.pdf"), ValueError("two\nlines\0"), Speechless()])
async def test_what_a_step_raises_is_told_in_printable_words(fault: Exception) -> None:
    async def breaks(_asked: StepCall) -> WriteOutcome:
        raise fault

    outcome = await effects.write(given_events(*TELLING).state, write("notify"), saga(action=breaks), Recorder())
    assert isinstance(outcome, Unknown)
    assert type(fault).__name__ in outcome.reason
    assert outcome.reason.isprintable()


@pytest.mark.parametrize("answer", [None, True, Confirmed])
async def test_an_answer_that_is_no_outcome_is_unknown(answer: object) -> None:
    async def answers(_asked: StepCall) -> Any:
        return answer

    state = given_events(*TELLING).state
    outcome = await effects.write(state, write("notify"), saga(action=answers), Recorder())
    assert isinstance(outcome, Unknown)
    assert "is no outcome" in outcome.reason
    outcome = await effects.read(state, Read("notify", "notify", "lookup", 500), saga(lookup=answers), Recorder())
    assert isinstance(outcome, Unknown)


async def test_a_call_that_overruns_its_time_is_cut_off_and_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(_asked: StepCall) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(effects, "OVERRUN_S", 0.01)
    state = given_events(*TELLING).state
    effect = write("notify", timeout_ms=10)
    assert await effects.write(state, effect, saga(action=hangs), Recorder()) == Unknown(reason="timeout")
    read = Read("notify", "notify", "lookup", 10)
    assert await effects.read(state, read, saga(lookup=hangs), Recorder()) == Unknown(reason="timeout")


async def test_being_stopped_is_no_outcome() -> None:
    async def hangs(_asked: StepCall) -> WriteOutcome:
        await asyncio.Event().wait()
        return Confirmed()

    running = asyncio.ensure_future(
        effects.write(given_events(*TELLING).state, write("notify"), saga(action=hangs), Recorder())
    )
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_an_undo_without_a_known_booking_is_unknown_and_not_lost() -> None:
    state = replace(given_events(*CREATING).state)
    outcome = await effects.write(state, write(operation="compensation"), saga(), Recorder())
    assert isinstance(outcome, Unknown)
