"""Callbacks, the answer to the create call, a poll and a cancel in every order: one end, no illegal move.

Pure turns; what the provider holds is the truth: one booking that was pending at version 1 and settled at version 2.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import combinations, permutations

import pytest

from domain import events as e
from domain.appointment import Appointment
from domain.commands import BookAppointment, CancelAppointment, Request
from domain.definition import RetryPolicy, SagaPlan, StepPlan
from domain.errors import CommandRefused
from domain.identity import appointment_id
from domain.lifecycle import ENDED, State
from domain.provider import (
    BookingStatus,
    Confirmed,
    Found,
    Pending,
    ProviderBooking,
    Rejected,
    Unknown,
    WriteOutcome,
)
from saga.inputs import Asked, CalledBack, CallEnded, Due, Input, Read, ReadEnded, Turn, Write
from saga.turn import turn
from saga.virtual_time import EPOCH

ID = appointment_id("default", "order")
START = EPOCH + timedelta(days=1)
PLAN = SagaPlan(
    name="booking",
    provider="main",
    steps=(
        StepPlan(name="calendar", target="main", books=True, compensated=True, lookup=True, settle_ms=100),
        StepPlan(name="notify", target="notify", retry=RetryPolicy(attempts_max=3)),
    ),
)
ANSWER, POLL, CANCEL = "answer", "poll", "cancel"
HOOKS = ("v1", "v2", "v2 again", "v2 by another id")
MESSAGES = (*HOOKS, POLL)
TURNS_MAX = 40


def booking(status: BookingStatus, version: int) -> ProviderBooking:
    return ProviderBooking(provider_ref="bk_1", client_ref=str(ID), status=status, version=version, etag=f'"{version}"')


@dataclass
class Desk:
    """An appointment whose create call is out, and a provider that has settled it as `final`."""

    final: BookingStatus
    answer: str
    state: Appointment = field(default_factory=lambda: Appointment(ID))
    now: datetime = EPOCH
    events: list[e.Event] = field(default_factory=list)
    calls: list[Write | Read] = field(default_factory=list)
    wake: datetime | None = None
    refused: bool = False
    cancelled: bool = False

    def __post_init__(self) -> None:
        book = BookAppointment(
            calendar="main", start=START, end=START + timedelta(hours=1), time_zone="Europe/Berlin", summary="x"
        )
        self.give(Asked(book, Request(key="order")))
        self.create = self.calls.pop()

    def give(self, given: Input) -> Turn:
        self.now += timedelta(milliseconds=10)
        turned = turn(self.state, given, self.now, PLAN)
        if not turned.idle:
            self.state, self.wake = turned.state, turned.wake.at if turned.wake else None
            self.events += turned.events
            if turned.effect is not None:
                self.calls.append(turned.effect)
        return turned

    def deliver(self, message: str) -> None:
        match message:
            case "answer":
                assert isinstance(self.create, Write)
                self.give(_ended(self.create, self._first_answer()))
            case "poll":
                self.give(ReadEnded("calendar", "poll", Found(booking=booking(self.final, 2)), self.now))
            case "cancel":
                try:
                    self.give(Asked(CancelAppointment(), Request(key="cancel")))
                    self.cancelled = True
                except CommandRefused:
                    self.refused = True
            case "v1":
                self.give(CalledBack("wh-1", "bk_1", BookingStatus.PENDING, 1))
            case _:
                self.give(CalledBack("wh-3" if "other" in message else "wh-2", "bk_1", self.final, 2))

    def _first_answer(self) -> WriteOutcome:
        match self.answer:
            case "pending":
                return Pending(booking=booking(BookingStatus.PENDING, 1))
            case "settled":
                return self._settled()
            case _:
                return Unknown(reason="timeout")

    def _settled(self) -> WriteOutcome:
        if self.final is BookingStatus.ACCEPTED:
            return Confirmed(booking=booking(self.final, 2), replayed=True)
        return Rejected(reason="rejected by the provider")

    def rest(self) -> None:
        """Answer every call with the truth, and let the time pass, until nothing is left to do."""
        for _ in range(TURNS_MAX):
            if self.calls:
                call = self.calls.pop(0)
                self.give(self._truth(call))
            elif self.wake is not None:
                self.now = max(self.now, self.wake)
                self.give(Due())
            else:
                return
        raise AssertionError(f"no rest after {TURNS_MAX} turns: {self.state.state}")

    def _truth(self, call: Write | Read) -> Input:
        gone = any(isinstance(event, e.StepStarted) and event.operation == "compensation" for event in self.events)
        if isinstance(call, Read):
            there = booking(BookingStatus.CANCELLED, 3) if gone else booking(self.final, 2)
            return ReadEnded(call.step, call.purpose, Found(booking=there), self.now)
        if call.operation is e.Operation.COMPENSATION:
            return _ended(call, Confirmed(booking=booking(BookingStatus.CANCELLED, 3)))
        return _ended(call, self._settled() if call.step == "calendar" else Confirmed())


def _ended(call: Write, outcome: WriteOutcome) -> CallEnded:
    return CallEnded(call.step, call.operation, call.operation_id, call.attempt, outcome)


def orders(extra: Sequence[str] = ()) -> Iterator[tuple[str, ...]]:
    """Every order of the answer, what is `extra`, and further messages: up to five in all."""
    for count in range(5 - len(extra)):
        for chosen in combinations(MESSAGES, count):
            yield from permutations((ANSWER, *extra, *chosen))


def play(order: tuple[str, ...], final: BookingStatus, answer: str) -> Desk:
    desk = Desk(final, answer)
    for message in order:
        desk.deliver(message)
    desk.rest()
    for message in HOOKS:
        before = (desk.state.state, desk.state.parked)
        desk.deliver(message)
        desk.rest()
        assert (desk.state.state, desk.state.parked) == before, f"{message} after the end changed it"
    return desk


def wrong(desk: Desk, expected: State) -> str:
    kinds = Counter(type(event) for event in desk.events)
    hooks = Counter(event.webhook_id for event in desk.events if isinstance(event, e.CallbackReceived))
    done = [
        x for x in desk.events if isinstance(x, e.StepSucceeded) and x.operation == "action" and x.step == "calendar"
    ]
    if desk.state.state is not expected or desk.state.parked:
        return f"ended {desk.state.state}, parked {desk.state.parked}, not {expected}"
    # A refusal names no booking: a callback that says "pending" after it is taken seriously, and cleaned up after.
    refused = desk.answer == "settled" and desk.final is BookingStatus.REJECTED
    if kinds[e.AppointmentConfirmed] > 1 or len(done) > 1 or (kinds[e.LateSuccess] and not refused):
        return f"happened twice: {kinds}"
    if max(hooks.values(), default=0) > 1:
        return f"heard twice: {hooks}"
    return ""


@pytest.mark.evidence(
    target="callbacks",
    answers=("R2.7", "G5"),
    given="callbacks with duplicates, the answer to the create, and a poll",
    when="they come in every order",
    then="one end, no illegal move, no event twice",
    seen_in="stream of each order",
)
@pytest.mark.parametrize("answer", ["pending", "settled", "unknown"])
@pytest.mark.parametrize("final", [BookingStatus.ACCEPTED, BookingStatus.REJECTED])
def test_callbacks_in_any_order_come_to_one_end(final: BookingStatus, answer: str) -> None:
    expected = State.CONFIRMED if final is BookingStatus.ACCEPTED else State.FAILED
    count = 0
    for order in orders():
        fault = wrong(play(order, final, answer), expected)
        assert not fault, f"{order}: {fault}"
        count += 1
    print(f"{count} orders")


@pytest.mark.evidence(
    target="cancel race",
    answers=("R2.6", "G2"),
    given="the same messages, and a cancel",
    when="the cancel comes anywhere among them",
    then="one defined end for each order",
    seen_in="stream of each order",
)
@pytest.mark.parametrize("answer", ["pending", "settled", "unknown"])
@pytest.mark.parametrize("final", [BookingStatus.ACCEPTED, BookingStatus.REJECTED])
def test_a_cancel_anywhere_among_them_has_one_defined_result(final: BookingStatus, answer: str) -> None:
    for order in orders((CANCEL,)):
        desk = play(order, final, answer)
        assert desk.refused or desk.cancelled
        expected = State.CANCELLED if desk.cancelled else State.FAILED
        fault = wrong(desk, expected)
        assert not fault, f"{order}: {fault}"
        assert desk.state.state in ENDED


def test_the_control_a_state_that_forgets_what_it_heard_is_noticed() -> None:
    desk = play((ANSWER, "v1", "v2"), BookingStatus.ACCEPTED, "pending")
    heard = next(event for event in desk.events if isinstance(event, e.CallbackReceived))
    desk.events.append(heard)
    assert "heard twice" in wrong(desk, State.CONFIRMED)
