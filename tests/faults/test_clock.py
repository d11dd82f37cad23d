"""The wall clock jumps: timers fire once, and never more than a second before their time."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from simulation.faulty_store import at_once

from domain import events as e
from domain.commands import BookAppointment, Request
from domain.definition import SagaPlan
from domain.identity import appointment_id
from domain.lifecycle import State
from domain.provider import BookingDetails, Call, Confirmed, Retryable, WriteOutcome
from providers.local import LocalProvider
from saga.definition import CalendarStep, Saga, Step, StepCall
from saga.inputs import Asked
from saga.lanes import Lanes
from saga.replay import replay
from saga.runtime import Runtime
from saga.virtual_time import VirtualClock, VirtualLoop, run
from store.mapper import decode, encode
from store.memory import MemoryStore

EARLY_MAX = timedelta(seconds=1)
RETRY_AFTER_MS = 5_000
ID = appointment_id("default", "clock")
ORDINARY = datetime(2027, 6, 1, 9, tzinfo=UTC)
STARTS = {
    "ordinary": ORDINARY,
    "summer time begins in Berlin": datetime(2027, 3, 28, 0, 59, 56, tzinfo=UTC),
    "summer time ends in Berlin": datetime(2027, 10, 31, 0, 59, 56, tzinfo=UTC),
    "29 February begins": datetime(2028, 2, 28, 23, 59, 56, tzinfo=UTC),
    "29 February ends": datetime(2028, 2, 29, 23, 59, 56, tzinfo=UTC),
    "a year ends": datetime(2027, 12, 31, 23, 59, 56, tzinfo=UTC),
}
JUMPS = {"+2 h": timedelta(hours=2), "-2 h": timedelta(hours=-2), "+1 day": timedelta(1), "-1 day": timedelta(-1)}
MOMENTS = {"while a timer runs": 2.0, "while a call is out": 0.2, "while a second timer runs": 7.0}
"""Seconds after the beginning."""


class SlowProvider(LocalProvider):
    """Half a second to each create."""

    async def create(self, call: Call, details: BookingDetails) -> WriteOutcome:
        await asyncio.sleep(0.5)
        return await super().create(call, details)


async def live(loop: VirtualLoop, clock: VirtualClock, jump: timedelta, at_s: float) -> tuple[list[e.Event], SagaPlan]:
    """Two answers of 429 with Retry-After, then a booking; the clock jumps once."""
    provider = SlowProvider("main")
    busy = Retryable(reason="429", retry_after_ms=RETRY_AFTER_MS, throttled=True)
    provider.answer_next("create", busy, busy)

    async def notify(_asked: StepCall) -> WriteOutcome:
        return Confirmed()

    saga = Saga("booking", 1, (CalendarStep(), Step("notify", action=notify)), deadline_ms=86_400_000)
    store = MemoryStore("clock")
    runtime = Runtime(store, clock, [saga], {"main": provider}, Lanes(), "clock")
    plan = saga.plan(provider)
    await runtime.start()
    start = clock.now() + timedelta(days=30)
    book = BookAppointment(
        calendar="main", start=start, end=start + timedelta(hours=1), time_zone="Europe/Berlin", summary="x"
    )
    await runtime.give(ID, Asked(book, Request(key="clock")), plan)
    loop.call_later(at_s, clock.jump, jump)
    state = await runtime.settled(ID, 90_000)
    assert state.state in (State.CONFIRMED, State.FAILED)
    await runtime.stop()
    return [decode(recorded) for recorded in at_once(store.events(ID))], plan


def check(events: list[e.Event]) -> None:
    """Each timer has fired once, and none early."""
    timers = [event for event in events if isinstance(event, e.RetryScheduled)]
    calls = [event for event in events if isinstance(event, e.StepStarted) and event.step == "calendar"]
    assert len({event.attempt for event in calls}) == len(calls)
    assert not [event for event in events if isinstance(event, e.CallInterrupted)], "a running call was given up"
    for timer, call in zip(timers, calls[1:], strict=False):
        assert call.at >= timer.due_at - EARLY_MAX, f"fired {timer.due_at - call.at} early"
    assert len(calls) <= len(timers) + 1


def test_timers_keep_their_time_over_every_kind_of_midnight_and_hour() -> None:
    for name, start in STARTS.items():
        loop = VirtualLoop()
        clock = VirtualClock(loop, start)
        events, _ = run(live(loop, clock, timedelta(0), 1.0), loop)
        check(events)
        assert isinstance(events[-1], e.AppointmentConfirmed), name
        lasted = events[-1].at - start
        assert timedelta(seconds=11) <= lasted <= timedelta(seconds=13), f"{name}: {lasted}"


@pytest.mark.evidence(
    target="durable timers",
    answers=("R2.9", "G6"),
    given="timers of many lengths",
    when="the wall clock jumps by hours, days, over leap days",
    then="each fires once, none more than a second early",
    seen_in="times of the calls",
)
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("jump", JUMPS)
def test_a_jump_fires_each_timer_once_and_none_early(jump: str, moment: str) -> None:
    loop = VirtualLoop()
    clock = VirtualClock(loop, ORDINARY)
    events, plan = run(live(loop, clock, JUMPS[jump], MOMENTS[moment]), loop)
    check(events)
    last = events[-1]
    if isinstance(last, e.AppointmentFailed):
        assert jump == "+1 day", "only a clock past the deadline may end it"
        assert last.reason is e.EndReason.DEADLINE_EXCEEDED
    assert replay([encode(ID, version, event) for version, event in enumerate(events, 1)], plan, set()).matches
    calls = [event for event in events if isinstance(event, e.StepStarted) and event.step == "calendar"]
    print(f"{jump} {moment}: {len(calls)} calls, ended {type(last).__name__} after {loop.time():.1f}s")


def test_the_control_a_timer_that_fires_early_is_noticed() -> None:
    at = ORDINARY
    started = e.StepStarted(at=at, step="calendar", operation_id="o", attempt=1, timeout_ms=1_000)
    timer = e.RetryScheduled(at=at, step="calendar", due_at=at + timedelta(seconds=5))
    early = started.model_copy(update={"at": at + timedelta(seconds=3), "attempt": 2})
    with pytest.raises(AssertionError, match="early"):
        check([started, timer, early])
