"""One deadline for the whole: it cuts calls, ends waiting, and leaves a budget of its own for cleaning up."""

import pytest
from given_when_then import (
    CREATING,
    DEADLINE,
    DUE,
    PENDING,
    PLAN,
    T0,
    TELLING,
    after,
    answered,
    begun,
    book,
    booking,
    busy,
    closed,
    failed,
    given,
    ms,
    parked,
    requested,
    retry,
    started,
    succeeded,
)

from domain import events as e
from domain.provider import Confirmed, Retryable, Unknown

pytestmark = pytest.mark.evidence(
    target="deadline",
    answers=("R2.4",),
    given="a booking with a deadline",
    when="calls, waits and doubts reach it",
    then="calls are cut to what is left, cleaning up has its own budget, then it is parked",
    seen_in="events of the turn",
)


def test_a_call_is_cut_to_what_is_left() -> None:
    waiting = (*CREATING, failed(kind="retryable"), retry(DEADLINE - ms(700)))
    given(*waiting).when(DUE, DEADLINE - ms(700)).then(started(attempt=2, timeout_ms=700)).calls(
        "calendar", attempt=2, timeout_ms=700
    )


def test_a_call_just_before_the_deadline_has_a_millisecond() -> None:
    waiting = (*CREATING, failed(kind="retryable"), retry(T0))
    given(*waiting).when(DUE, DEADLINE - ms(1) / 2).calls("calendar", attempt=2, timeout_ms=1)


def test_a_retry_that_would_come_too_late_is_not_waited_for() -> None:
    now = DEADLINE - ms(400)
    then = given(*CREATING).when(answered(Retryable(reason="503")), now)
    then.rests("failed").is_("failed", reason=e.EndReason.DEADLINE_EXCEEDED)


def test_an_unknown_outcome_near_the_deadline_is_looked_up_first() -> None:
    now = DEADLINE - ms(400)
    given(*CREATING).when(answered(Unknown(reason="timeout")), now).reads("lookup", timeout_ms=400)


def test_the_deadline_ends_a_wait() -> None:
    waiting = (*CREATING, failed(kind="retryable"), retry(DEADLINE - ms(1)))
    given(*waiting).when(DUE, DEADLINE).rests("failed").is_("failed", reason=e.EndReason.DEADLINE_EXCEEDED)


def test_a_wait_is_due_at_the_deadline_at_the_latest_and_says_so_to_a_closed_lane() -> None:
    stream = (*CREATING, pending_until_long_after())
    then = given(*stream).when(DUE, after(10)).waits(DEADLINE, "main")
    assert then.turn.wake is not None
    assert then.turn.wake.deadline_at == DEADLINE


def pending_until_long_after() -> e.Event:
    return e.StepPending(at=T0, step="calendar", booking=booking("pending"), poll_at=DEADLINE + ms(9_000))


def test_a_closed_lane_does_not_hold_what_is_over() -> None:
    given(requested()).when(DUE, DEADLINE, closed(DEADLINE + ms(5_000))).rests("failed")
    given(requested()).when(DUE, DEADLINE, busy()).rests("failed")


def test_a_closed_lane_is_waited_for_until_the_deadline_only() -> None:
    given(requested()).when(DUE, after(10), closed(DEADLINE + ms(60_000))).waits(DEADLINE)


def test_a_confirmation_that_comes_after_the_deadline_is_taken_back() -> None:
    then = given(*TELLING).when(answered(Confirmed(), "notify"), DEADLINE)
    then.then(
        succeeded("notify"),
        begun("deadline_exceeded", DEADLINE),
        started(operation="compensation"),
    )


def test_a_booking_that_is_made_after_the_deadline_is_taken_back() -> None:
    given(*CREATING).when(answered(Confirmed(booking=booking())), DEADLINE).calls("calendar", "compensation")


def test_while_a_call_is_in_flight_the_deadline_waits_for_its_answer() -> None:
    given(*CREATING).when(book(), DEADLINE).idle()


def test_cleaning_up_has_a_budget_beyond_the_deadline() -> None:
    then = given(*PENDING).when(DUE, DEADLINE)
    assert then.turn.state.cleanup_until == DEADLINE + ms(PLAN.cleanup_ms)
    then.calls("calendar", "compensation", timeout_ms=5_000)


def test_cleaning_up_cuts_its_calls_too() -> None:
    stream = (*TELLING, begun(), failed("calendar", "unknown", "compensation"), retry(T0, operation="compensation"))
    spent = T0 + ms(PLAN.cleanup_ms)
    given(*_landed(stream)).when(DUE, spent - ms(90)).calls("calendar", "compensation", 2, timeout_ms=90)


def test_when_that_is_spent_it_is_parked_never_failed() -> None:
    stream = (*TELLING, begun(), failed("calendar", "unknown", "compensation"), retry(T0, operation="compensation"))
    spent = T0 + ms(PLAN.cleanup_ms)
    given(*_landed(stream)).when(DUE, spent).then(parked("calendar: the time for cleaning up is spent")).rests(
        "compensating"
    )


def _landed(stream: tuple[e.Event, ...]) -> tuple[e.Event, ...]:
    """The notice has been refused before, and the undo been sent once."""
    gone = (failed("notify", "rejected"), stream[-3], started(operation="compensation"))
    return (*stream[:-3], *gone, *stream[-2:])
