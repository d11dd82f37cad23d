"""What-if: under the recorded policies everything ends as recorded; under others, by the answers that were recorded."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from domain import events as e
from domain.commands import BookAppointment, CancelAppointment, Command, PolicyOverride, Request, RescheduleAppointment
from domain.definition import RetryPolicy, SagaPlan
from domain.identity import appointment_id
from domain.provider import (
    BookingDetails,
    BookingStatus,
    Call,
    Confirmed,
    Found,
    Pending,
    ProviderBooking,
    ReadOutcome,
    Rejected,
    Retryable,
    Unknown,
    WriteOutcome,
)
from providers.local import LocalProvider
from saga.changes import BreakerChange, CapabilityChange, Changes, RetryChange
from saga.definition import CalendarStep, Saga, Step, StepCall
from saga.inputs import Asked, CalledBack
from saga.lanes import Lanes, LimitPolicy
from saga.recorded_provider import Source
from saga.recording import Recording, record
from saga.runtime import Runtime
from saga.virtual_time import VirtualClock, VirtualLoop, run
from saga.what_if import Report, what_if
from store.mapper import decode
from store.memory import MemoryStore

NINE = datetime(2027, 6, 1, 9, tzinfo=UTC)
FULL = Rejected(reason="full", conflict=True)
BUSY = Retryable(reason="connection refused")
LOST = Unknown(reason="connection reset")
LIMITS = LimitPolicy()
NO_LIMITS = LimitPolicy.model_validate({"breaker": {"failures_max": 1_000}})


class Scripted(LocalProvider):
    """Answers each key's creates from a script, after a while; then, and else, it books."""

    def __init__(self, script: dict[str, Sequence[Any]], took_s: float = 0.1) -> None:
        super().__init__("main")
        self.script = {str(appointment_id("default", key)): list(answers) for key, answers in script.items()}
        self.took_s = took_s
        self.pending_until: dict[str, float] = {}

    async def create(self, call: Call, details: BookingDetails) -> WriteOutcome:
        left = self.script.get(call.client_ref, [])
        planned = left.pop(0) if left else "book"
        if isinstance(planned, float):
            await asyncio.sleep(min(planned, call.timeout_ms / 1_000))
            booked = await super().create(call, details)
            return booked if planned * 1_000 <= call.timeout_ms else Unknown(reason="timeout")
        await asyncio.sleep(self.took_s)
        if planned == "book":
            return await super().create(call, details)
        if planned == "lost":
            await super().create(call, details)
            return LOST
        if planned == "pending":
            self.pending_until[call.client_ref] = asyncio.get_running_loop().time() + 5
            return Pending(booking=pending(call.client_ref, BookingStatus.PENDING), poll_after_ms=1_000)
        assert not isinstance(planned, str)
        return planned  # type: ignore[no-any-return]

    async def get(self, call: Call, calendar: str, provider_ref: str) -> ReadOutcome:
        until = self.pending_until.get(call.client_ref)
        if until is None:
            return await super().get(call, calendar, provider_ref)
        await asyncio.sleep(0.03)
        there = asyncio.get_running_loop().time() >= until
        return Found(booking=pending(call.client_ref, BookingStatus.ACCEPTED if there else BookingStatus.PENDING))


def pending(ref: str, status: BookingStatus) -> ProviderBooking:
    return ProviderBooking(provider_ref="bk-1", client_ref=ref, status=status, version=1)


def book(**changes: Any) -> BookAppointment:
    start = NINE + timedelta(days=9)
    fields = {"calendar": "main", "start": start, "end": start + timedelta(hours=1), "time_zone": "UTC"}
    return BookAppointment.model_validate({**fields, "summary": "x", **changes})


@dataclass
class Recorded:
    """What a process has recorded in virtual time."""

    plan: SagaPlan
    recordings: list[Recording] = field(default_factory=list)
    streams: dict[UUID, list[e.Event]] = field(default_factory=dict)

    def what_if(self, limits: LimitPolicy = LIMITS, **changes: Any) -> Report:
        """Under other policies."""
        return what_if(self.recordings, {self.plan.digest: self.plan}, Changes(**changes), limits)


Ask = tuple[float, str, Command | CalledBack]


def recorded(
    asks: Sequence[Ask],
    script: dict[str, Sequence[Any]] | None = None,
    until_s: float = 300,
    limits: LimitPolicy = LIMITS,
    took_s: float = 0.1,
    notify: Callable[[StepCall], Awaitable[WriteOutcome]] | None = None,
) -> Recorded:
    """Live through it; each ask is (second, key of the appointment, command)."""

    async def told(_asked: StepCall) -> WriteOutcome:
        await asyncio.sleep(0.02)
        return Confirmed()

    loop = VirtualLoop()
    clock, provider, store = VirtualClock(loop, NINE), Scripted(script or {}, took_s), MemoryStore()
    retry = RetryPolicy(jitter=0)
    saga = Saga("booking", 1, (CalendarStep(retry=retry), Step("notify", notify or told, retry=retry)))
    plan = saga.plan(provider)

    async def live() -> None:
        runtime = Runtime(store, clock, [saga], {"main": provider}, Lanes({"*": limits}), "recorder")
        await runtime.start()
        for number, (at_s, key, given) in enumerate(asks):
            await asyncio.sleep(max(0.0, at_s - loop.time()))
            id = appointment_id("default", key)
            if isinstance(given, CalledBack):
                await runtime.called_back("main", str(id), given)
                continue
            own = key if isinstance(given, BookAppointment) else f"{key}-{number}"
            await runtime.give(id, Asked(given, Request(key=own)), plan)
        await asyncio.sleep(until_s)
        await runtime.stop()

    run(live(), loop)
    found = Recorded(plan)
    for id, stream in store._tables.streams.items():
        events = [decode(one) for one in stream]
        if isinstance(events[0], e.AppointmentRequested):
            found.streams[id] = events
            found.recordings.append(record(id, events, plan))
    return found


def ends(report: Report) -> list[tuple[str, str]]:
    return [(one.recorded, one.what_if) for one in report.differences]


MIXED: list[Ask] = [
    (0, "plain", book()),
    (1, "exhausted", book()),
    (2, "full", book()),
    (3, "lost", book()),
    (4, "moved", book()),
    (5, "pending", book()),
    (6, "slow", book()),
    (20, "moved", RescheduleAppointment(start=NINE + timedelta(days=20), end=NINE + timedelta(days=21))),
    (30, "plain", CancelAppointment()),
    (31, "slow", CalledBack("wh-1", "bk-9", BookingStatus.CANCELLED, 9)),
]
SCRIPT: dict[str, Sequence[Any]] = {
    "exhausted": [BUSY, BUSY, BUSY],
    "full": [FULL],
    "lost": ["lost"],
    "pending": ["pending"],
    "slow": [3.0],
}


def test_under_the_recorded_policies_everything_ends_as_recorded_by_recorded_answers() -> None:
    there = recorded(MIXED, SCRIPT)
    report = there.what_if()
    assert sorted({str(one.end) for one in there.recordings}) == [
        "cancelled (cancelled_by_request)",
        "confirmed",
        "failed (conflict)",
        "failed (retry_exhausted)",
    ]
    assert report.control.compared == report.control.equal == report.appointments == 7
    assert (report.differing, report.refused, report.unfinished) == (0, 0, 0)
    assert report.answers[Source.NEIGHBOURS] == report.answers[Source.ASSUMED] == 0
    assert all(both.recorded == both.what_if for both in report.calls.values())
    assert report.time_to_end_ms["recorded"] == report.time_to_end_ms["what_if"]


def test_control_what_the_record_does_not_reproduce_is_not_judged() -> None:
    there = recorded(MIXED, SCRIPT)
    plain = next(one for one in there.recordings if str(one.end) == "failed (conflict)")
    for answers in plain.answers.values():
        answers[0].outcome = Confirmed()
    report = there.what_if(retry=RetryChange(attempts=1))
    assert (report.control.compared, report.control.equal) == (7, 6)
    assert plain.id not in {one.id for one in report.differences}


def test_a_further_attempt_gets_what_others_got_then() -> None:
    there = recorded([(0, "a", book()), (4, "b", book())], {"a": [BUSY, BUSY, BUSY]})
    report = there.what_if(retry=RetryChange(attempts=5))
    assert ends(report) == [("failed (retry_exhausted)", "confirmed")]
    assert report.by_kind == {"failed (retry_exhausted) -> confirmed": 1}
    assert report.answers[Source.NEIGHBOURS] == 2, "the fourth attempt, and the notice that was never sent"
    calls = report.calls["calendar action"]
    assert (calls.recorded, calls.what_if) == (4, 5)


def test_a_further_attempt_without_a_neighbour_is_assumed_to_go_as_the_last_one_did() -> None:
    there = recorded([(0, "a", book()), (4_000, "b", book())], {"a": [BUSY, BUSY, BUSY]})
    report = there.what_if(NO_LIMITS, retry=RetryChange(attempts=5))
    assert ends(report) == []
    assert (report.answers[Source.NEIGHBOURS], report.answers[Source.ASSUMED]) == (0, 2)


def test_a_refusal_for_good_tells_nothing_about_others() -> None:
    there = recorded([(0, "a", book()), (4, "b", book())], {"a": [BUSY, BUSY, BUSY], "b": [FULL]})
    report = there.what_if(retry=RetryChange(attempts=4))
    assert report.answers[Source.NEIGHBOURS] == 0


def test_fewer_attempts_end_what_was_booked_at_the_third() -> None:
    there = recorded([(0, "a", book())], {"a": [BUSY, BUSY]})
    report = there.what_if(retry=RetryChange(attempts=2))
    assert ends(report) == [("confirmed", "failed (retry_exhausted)")]
    assert report.time_to_end_ms["what_if"].p50 is not None


def test_what_a_booking_set_for_itself_stays() -> None:
    own = book(policy=PolicyOverride(attempts_max=3))
    there = recorded([(0, "a", own)], {"a": [BUSY, BUSY]})
    assert ends(there.what_if(retry=RetryChange(attempts=1))) == []


def test_a_shorter_patience_hears_later_what_its_call_has_done() -> None:
    there = recorded([(0, "a", book())], {"a": [3.0]})
    report = there.what_if(timeout_ms=1_000)
    assert ends(report) == []
    assert report.calls["calendar action"].what_if > 1
    assert report.answers[Source.RECORDED] == sum(both.what_if for both in report.calls.values())


def test_where_a_repeat_is_not_safe_a_shorter_patience_looks_it_up() -> None:
    there = recorded([(0, "a", book())], {"a": [3.0]})
    report = there.what_if(timeout_ms=1_000, capability=CapabilityChange(resend=False, settle_ms=4_000))
    assert ends(report) == []
    assert report.calls["calendar action"].what_if == 1
    without = there.what_if(timeout_ms=1_000, capability=CapabilityChange(resend=False, lookup=False))
    assert ends(without) == [("confirmed", "booking, parked")]


def test_that_a_longer_patience_would_have_helped_is_not_claimed() -> None:
    there = recorded([(0, "a", book())], {"a": [9.0, BUSY, BUSY]})
    report = there.what_if(NO_LIMITS, timeout_ms=10_000)
    assert report.answers[Source.ASSUMED] == 1


def test_an_earlier_deadline_gives_up_what_was_still_pending() -> None:
    there = recorded([(0, "a", book())], {"a": ["pending"]})
    assert ends(there.what_if(deadline_ms=3_000)) == [("confirmed", "failed (deadline_exceeded)")]
    assert ends(there.what_if(deadline_ms=20_000)) == []


def test_another_breaker_keeps_calls_back() -> None:
    asks: list[Ask] = [(0, "a", book()), (1.0, "b", book(deadline_ms=20_000))]
    there = recorded(asks, {"a": [BUSY, BUSY, BUSY]})
    assert ends(there.what_if(breaker=BreakerChange(failures=1, open_ms=60_000))) == [
        ("failed (retry_exhausted)", "failed (deadline_exceeded)"),
        ("confirmed", "failed (deadline_exceeded)"),
    ]


def test_commands_that_are_not_legal_then_are_counted_and_left_out() -> None:
    move = RescheduleAppointment(start=NINE + timedelta(days=20), end=NINE + timedelta(days=21))
    there = recorded([(0, "a", book()), (10, "a", move)], {"a": [BUSY]})
    report = there.what_if(retry=RetryChange(attempts=1))
    assert report.refused == 1
    assert ends(report) == [("confirmed", "failed (retry_exhausted)")]


def test_what_the_record_leaves_unfinished_is_not_compared() -> None:
    there = recorded([(0, "a", book())], {"a": [BUSY]}, until_s=0.3)
    report = there.what_if()
    assert (report.unfinished, report.control.compared) == (1, 0)


def test_a_month_with_little_to_do_takes_no_time() -> None:
    there = recorded([(0, "a", book()), (1, "b", book())])
    late = there.recordings[1]
    late.asked[:] = [(at + timedelta(days=30), given) for at, given in late.asked]
    began = time.perf_counter()
    report = there.what_if()
    assert report.control.equal == 2
    assert time.perf_counter() - began < 2


def test_nothing_recorded_is_nothing_different() -> None:
    report = what_if([], {}, Changes(), LIMITS)
    assert (report.appointments, report.time_to_end_ms["recorded"].p50) == (0, None)


def test_texts_of_people_are_not_carried_into_the_rerun() -> None:
    there = recorded([(0, "a", book(summary="Root canal", location="Room 2", metadata={"phone": "1"}))])
    assert "Root canal" not in repr(there.recordings)
    assert "Room 2" not in repr(there.recordings)


def test_a_changed_plan_has_a_digest_of_its_own() -> None:
    there = recorded([])
    changed = Changes(deadline_ms=9_000, retry=RetryChange(attempts=7)).plan(there.plan, 4)
    assert changed.digest != there.plan.digest
    assert {step.retry.attempts_max for step in changed.steps} == {7}
    assert {step.undo_retry for step in changed.steps} == {step.undo_retry for step in there.plan.steps}
    assert Changes().plan(there.plan, 1) == there.plan


@pytest.mark.parametrize("fields", [{"retry": {"attempts": 0}}, {"timeout_ms": 1}, {"breaker": {"nonsense": 1}}])
def test_changes_have_limits(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Changes.model_validate(fields)
