"""Breaker and limits as the turn sees them: a call that may not leave is no attempt."""

from datetime import timedelta

from given_when_then import (
    CREATING,
    DEADLINE,
    DUE,
    PENDING,
    PLAN,
    REQUESTED,
    T0,
    TELLING,
    after,
    answered,
    begun,
    book,
    booking,
    busy,
    cancel,
    closed,
    failed,
    given,
    requested,
    retry,
    started,
    succeeded,
)

from domain import events as e
from domain.provider import Confirmed

UNTIL = after(5_000)


def deferred(step: str = "calendar", until: object = UNTIL) -> e.CallDeferred:
    return e.CallDeferred.model_validate({"at": T0, "step": step, "until": until, "reason": "circuit_open"})


def test_an_open_breaker_defers_the_call_and_counts_no_attempt() -> None:
    then = given().when(book(), T0, closed(UNTIL)).then(requested(), deferred()).waits(UNTIL, "main")
    assert then.turn.state.action("calendar").attempts == 0
    assert str(then.turn.state.state) == "requested"


def test_while_it_stays_open_nothing_more_is_recorded() -> None:
    then = given(*REQUESTED, deferred()).when(DUE, after(100), closed(UNTIL)).nothing().waits(UNTIL, "main")
    assert then.turn.wake is not None
    assert then.turn.wake.deadline_at == DEADLINE


def test_when_it_opens_anew_that_is_recorded_once() -> None:
    again = after(11_000)
    given(*REQUESTED, deferred()).when(DUE, UNTIL, closed(again)).then(deferred(until=again)).waits(again)


def test_when_it_lets_through_the_first_attempt_is_the_first() -> None:
    given(*REQUESTED, deferred()).when(DUE, UNTIL).then(started()).calls("calendar", attempt=1)


def test_a_retry_is_deferred_too() -> None:
    waiting = (*CREATING, failed(kind="retryable"), retry(T0))
    then = given(*waiting).when(DUE, after(500), closed(UNTIL)).then(deferred())
    assert then.turn.state.action("calendar").attempts == 1


def test_a_busy_lane_is_waited_for_without_an_event() -> None:
    then = given(*REQUESTED).when(DUE, after(7), busy("main")).nothing().waits(after(7), "main")
    assert then.turn.wake is not None
    assert then.turn.wake.deadline_at == DEADLINE


def test_each_step_has_a_lane_of_its_own() -> None:
    given(*REQUESTED).when(DUE, T0, closed(UNTIL, "notify")).calls("calendar")
    given(*CREATING).when(answered(Confirmed(booking=booking())), T0, closed(UNTIL, "notify")).is_("booking").waits(
        UNTIL, "notify"
    )


def test_polls_and_lookups_wait_for_the_breaker() -> None:
    given(*PENDING).when(DUE, after(1_000), closed(UNTIL)).then(deferred()).waits(UNTIL)


def test_compensations_wait_for_the_breaker() -> None:
    stream = (*TELLING, failed("notify", "rejected"), begun("downstream_failed"))
    given(*stream).when(DUE, after(10), closed(UNTIL)).then(deferred()).waits(UNTIL).is_("compensating")


def test_a_cancel_is_taken_at_once_whatever_the_breaker_says() -> None:
    then = given(*CREATING, succeeded(booking=booking())).when(cancel(), after(10), closed(UNTIL))
    then.is_("cancelling").waits(UNTIL)


def test_a_call_in_flight_is_not_held_back() -> None:
    given(*CREATING).when(DUE, after(6_000), closed(after(9_000))).waits(after(9_000)).is_("booking")


def test_the_longer_it_stays_open_the_less_often_that_is_recorded() -> None:
    """An outage of a whole day, and a breaker that opens anew every five seconds."""
    day = PLAN.model_copy(update={"deadline_ms": 86_400_000})
    then = given().when(book(deadline_ms=86_400_000), T0, closed(UNTIL), day)
    events = 0
    while then.turn.state.state != "failed":
        assert then.turn.wake is not None
        now = then.turn.wake.at
        then = then.when(DUE, now, closed(now + timedelta(seconds=5)), day)
        events += len(then.turn.events)
    assert events < 1_500


def test_what_wakes_it_early_records_nothing_and_what_is_open_again_is_used_at_once() -> None:
    stream = (*REQUESTED, deferred(until=after(60_000)))
    given(*stream).when(DUE, after(9_000), closed(after(14_000))).nothing().waits(after(60_000), "main")
    given(*stream).when(DUE, after(9_000)).calls("calendar")
