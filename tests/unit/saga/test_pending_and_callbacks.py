"""Providers that settle later: polls, callbacks, both; duplicates, out of order and early ones change nothing twice."""

from itertools import permutations

import pytest
from given_when_then import (
    CALENDAR,
    CANCELLING,
    CONFIRMED,
    CREATING,
    DEADLINE,
    DEPOSIT,
    DUE,
    GONE,
    MOVING,
    PENDING,
    REFUSED,
    T0,
    TELLING,
    acted,
    after,
    answered,
    begun,
    booking,
    called_back,
    cancel,
    cancellation,
    closed,
    failed,
    given,
    lean,
    ms,
    op,
    parked,
    pending,
    read,
    requested,
    started,
    succeeded,
    told,
)

from domain import events as e
from domain.definition import SagaPlan
from domain.provider import Confirmed, Found, Missing, Pending, Rejected, Retryable, Unknown


class TestPolls:
    def test_a_pending_answer_is_waited_for(self) -> None:
        then = given(*CREATING).when(answered(Pending(booking=booking("pending"))), after(40))
        then.then(pending(after(1_040))).waits(after(1_040), "main").is_("pending")

    def test_the_provider_may_say_when_to_look_again(self) -> None:
        outcome = Pending(booking=booking("pending"), poll_after_ms=7_000)
        given(*CREATING).when(answered(outcome)).then(pending(after(7_000))).waits(after(7_000))

    def test_a_due_poll_reads_and_records_nothing(self) -> None:
        given(*PENDING).when(DUE, after(1_000)).nothing().reads("poll", timeout_ms=5_000)

    def test_a_poll_ends_by_the_deadline(self) -> None:
        given(*PENDING).when(DUE, DEADLINE - ms(300)).reads("poll", timeout_ms=300)

    def test_still_pending_only_moves_the_due_time(self) -> None:
        then = given(*PENDING).when(read(Found(booking=booking("pending")), T0, "poll"), after(1_100))
        then.nothing().waits(after(2_100))
        then = given(*PENDING).when(read(Found(booking=booking("pending"), poll_after_ms=50), T0, "poll"), after(1_100))
        then.nothing().waits(after(1_150))

    @pytest.mark.parametrize(
        "outcome", [Retryable(reason="429", retry_after_ms=9_000), Unknown(reason="503", retry_after_ms=9_000)]
    )
    def test_a_poll_that_is_told_to_wait_waits(self, outcome: object) -> None:
        given(*PENDING).when(read(outcome, T0, "poll"), after(1_000)).nothing().waits(after(10_000))

    @pytest.mark.parametrize("outcome", [Missing(), Retryable(reason="503"), Unknown(reason="reset")])
    def test_a_poll_without_an_answer_is_repeated(self, outcome: object) -> None:
        given(*PENDING).when(read(outcome, T0, "poll"), after(1_000)).nothing().waits(after(2_000))

    def test_accepted_goes_on(self) -> None:
        given(*PENDING).when(read(Found(booking=booking(version=2)), T0, "poll"), after(1_000)).then(
            succeeded(booking=booking(version=2), via="poll"), started("notify")
        ).is_("booking")

    @pytest.mark.parametrize("status", ["rejected", "cancelled"])
    def test_refused_in_the_end_fails_with_nothing_to_undo(self, status: str) -> None:
        given(*PENDING).when(read(Found(booking=booking(status, 2)), T0, "poll"), after(1_000)).rests("failed")

    def test_a_poll_that_comes_too_late_is_ignored(self) -> None:
        given(*TELLING).when(read(Found(booking=booking(version=2)), T0, "poll"), after(1_000)).nothing().is_("booking")

    def test_at_the_deadline_it_is_given_up_and_taken_away(self) -> None:
        given(*PENDING).when(DUE, DEADLINE).then(
            begun("deadline_exceeded", DEADLINE), started(operation="compensation")
        ).calls("calendar", "compensation")


class TestCallbacks:
    def test_accepted_by_callback_goes_on(self) -> None:
        given(*PENDING).when(told("accepted", 2), after(300)).then(
            called_back("accepted", 2),
            succeeded(
                booking=booking("accepted", 2).model_copy(update={"etag": None}),
                via="callback",
            ),
            started("notify"),
        )

    def test_rejected_by_callback_fails(self) -> None:
        given(*PENDING).when(told("rejected", 2), after(300)).rests("failed")

    def test_the_same_callback_twice_changes_nothing(self) -> None:
        then = given(*PENDING).when(told("accepted", 2), after(300))
        then.when(told("accepted", 2), after(301)).idle()

    def test_another_callback_with_the_same_news_changes_nothing(self) -> None:
        then = given(*PENDING).when(told("accepted", 2), after(300))
        then.when(told("accepted", 2, "wh-2"), after(301)).idle()

    def test_an_older_one_that_comes_later_changes_nothing(self) -> None:
        then = given(*PENDING).when(told("accepted", 3), after(300))
        then.when(told("pending", 2, "wh-2"), after(301)).idle()

    @pytest.mark.parametrize(
        "order", sorted(set(permutations([("pending", 1), ("accepted", 2), ("accepted", 2), ("accepted", 3)])))
    )
    def test_in_any_order_there_is_one_confirmation(self, order: tuple[tuple[str, int], ...]) -> None:
        then = given(*CREATING).when(answered(Pending(booking=booking("pending", 1))))
        for place, (status, version) in enumerate(order):
            then = then.when(told(status, version, f"wh-{place}"), after(place))
        then = then.when(answered(Confirmed(), "notify"), after(50))
        then.rests("confirmed")

    def test_one_that_comes_before_the_create_answer_is_kept_for_it(self) -> None:
        then = given(*CREATING).when(told("accepted", 2), after(5)).then(called_back("accepted", 2))
        then = then.when(answered(Pending(booking=booking("pending", 1))), after(9))
        assert then.turn.events[0].type == "step-succeeded.v1"
        then.calls("notify")

    def test_one_that_came_early_settles_a_lost_answer(self) -> None:
        then = given(*CREATING).when(told("accepted", 1), after(5))
        then.when(answered(Unknown(reason="timeout")), after(9)).calls("notify")

    def test_one_that_came_early_and_says_dead_is_believed_over_an_older_answer(self) -> None:
        then = given(*CREATING).when(told("cancelled", 2), after(5))
        then.when(answered(Confirmed(booking=booking(version=1))), after(9)).rests("failed")

    def test_an_answer_newer_than_the_early_callback_is_believed(self) -> None:
        then = given(*CREATING).when(told("pending", 1), after(5))
        then.when(answered(Confirmed(booking=booking(version=2))), after(9)).calls("notify")

    def test_one_during_a_wait_for_a_retry_settles_the_doubt(self) -> None:
        then = given(*CREATING).when(answered(Unknown(reason="timeout")), after(5))
        then.when(told("accepted", 1), after(50)).calls("notify")

    def test_our_own_write_is_no_news(self) -> None:
        given(*CONFIRMED).when(told("accepted", 1)).idle()

    def test_news_of_a_confirmed_one_are_kept(self) -> None:
        given(*CONFIRMED).when(told("accepted", 2)).then(called_back("accepted", 2)).rests("confirmed")

    @pytest.mark.parametrize("status", ["cancelled", "rejected"])
    @pytest.mark.parametrize("stream", [CONFIRMED, TELLING, MOVING])
    def test_one_that_the_provider_took_away_is_parked(self, stream: tuple[e.Event, ...], status: str) -> None:
        then = given(*stream).when(told(status, 2), after(5))
        then.then(called_back(status, 2), parked(f"the provider says that the booking is {status}"))
        assert then.turn.state.parked

    def test_one_that_the_provider_took_away_while_it_was_parked_is_parked_for_that(self) -> None:
        then = given(*CONFIRMED, acted("park")).when(told("cancelled", 2), after(5))
        then.then(called_back("cancelled", 2), parked("the provider says that the booking is cancelled"))

    @pytest.mark.parametrize("refusal", [Rejected(reason="taken", conflict=True), Retryable(reason="429")])
    def test_one_that_was_accepted_while_its_create_call_ran_is_believed_over_a_refusal(self, refusal: object) -> None:
        then = given(*CREATING).when(told("accepted", 1), after(5))
        then.when(answered(refusal), after(9)).calls("notify")
        then.when(cancel(), after(6)).when(answered(refusal), after(9)).calls("calendar", "compensation")

    @pytest.mark.parametrize("stream", [PENDING, TELLING, CONFIRMED, MOVING, CANCELLING, GONE])
    def test_the_end_of_another_booking_ends_nothing(self, stream: tuple[e.Event, ...]) -> None:
        given(*stream).when(told("cancelled", 7, ref="bk-0"), after(5)).idle()

    @pytest.mark.parametrize("stream", [PENDING, TELLING, CONFIRMED, MOVING])
    def test_the_life_of_another_booking_says_nothing_of_this_one(self, stream: tuple[e.Event, ...]) -> None:
        given(*stream).when(told("accepted", 7, ref="bk-0"), after(5)).idle()

    def test_the_end_of_our_own_cancel_is_no_news(self) -> None:
        given(*GONE).when(told("cancelled", 2)).idle()

    def test_one_that_settles_it_while_it_is_parked_waits_for_the_operator(self) -> None:
        then = given(*PENDING, acted("park")).when(told("accepted", 2), after(9)).rests("booking")
        assert then.turn.state.action("calendar").progress == "done"

    def test_a_callback_needs_no_gate(self) -> None:
        then = given(*PENDING).when(told("accepted", 2), after(5), closed(after(5_000)))
        assert then.turn.events[-1] == e.CallDeferred(
            at=after(5), step="notify", until=after(5_000), reason="circuit_open"
        )


class TestLateSuccess:
    def test_a_failed_one_that_comes_to_life_is_taken_away(self) -> None:
        then = given(*REFUSED).when(told("accepted", 5), after(9_000))
        then.calls("calendar", "compensation", operation_id=op(operation="compensation", round=1)).is_("compensating")
        assert [event.type for event in then.turn.events] == [
            "callback-received.v1",
            "late-success.v1",
            "step-started.v1",
        ]
        then.when(answered(Confirmed(), operation="compensation", round=1), after(9_001)).rests("failed")

    def test_a_cancelled_one_that_comes_to_life_is_cancelled_again_under_a_new_id(self) -> None:
        then = given(*GONE).when(told("accepted", 5), after(9_000)).is_("cancelling")
        then.calls("calendar", "compensation", operation_id=op(operation="compensation", round=1))

    @pytest.mark.parametrize("version", [1, 9])
    def test_another_booking_that_comes_to_life_after_the_end_is_taken_away(self, version: int) -> None:
        then = given(*GONE).when(told("accepted", version, ref="bk-9"), after(9_000)).is_("cancelling")
        then.calls("calendar", "compensation", operation_id=op(operation="compensation", round=1))
        assert then.turn.state.booking is not None
        assert then.turn.state.booking.provider_ref == "bk-9"

    def test_one_that_comes_alive_after_its_cancel_while_others_are_undone_is_parked(self) -> None:
        plan = SagaPlan(name="paid", provider="main", steps=(DEPOSIT, CALENDAR))
        booked = (
            requested(plan=plan),
            started("deposit"),
            succeeded("deposit"),
            started(),
            succeeded(booking=booking()),
        )
        cancelled = succeeded(operation="compensation", booking=booking("cancelled", 2))
        stream = (*booked, cancellation(), started(operation="compensation"), cancelled)
        then = given(*stream, started("deposit", operation="compensation")).when(
            told("accepted", 3), after(5), plan=plan
        )
        then.then(called_back("accepted", 3), parked("the provider says that the booking is accepted"))
        then = then.when(answered(Confirmed(), "deposit", operation="compensation"), after(9), plan=plan)
        then.rests("cancelling")

    def test_one_that_was_refused_and_comes_alive_while_others_are_undone_is_undone_too(self) -> None:
        stream = (*CREATING, failed(kind="rejected", reason="no"), begun(), acted("park"))
        then = given(*stream).when(told("accepted", 3), after(5))
        then.then(called_back("accepted", 3), e.BookingFound(at=T0, step="calendar", booking=_told_of()))
        assert then.turn.state.action("calendar").to_undo

    def test_what_is_still_in_doubt_while_cancelling_is_found_by_a_callback(self) -> None:
        stream = (*CREATING, failed(), begun("retry_exhausted"), e.StepInDoubt(at=T0, step="calendar"))
        given(*stream).when(told("accepted", 1), after(5)).is_("compensating")

    def test_a_dead_callback_for_an_ended_one_is_only_kept(self) -> None:
        given(*REFUSED).when(told("cancelled", 5)).then(called_back("cancelled", 5)).rests("failed")


def _told_of() -> e.ProviderBooking:
    return booking("accepted", 3).model_copy(update={"etag": None, "start": None, "end": None})


def test_a_callback_during_the_cancel_leaves_the_cancel_alone() -> None:
    then = given(*CANCELLING).when(told("accepted", 2), after(5)).then(called_back("accepted", 2))
    then.when(answered(Confirmed(), operation="compensation"), after(9)).rests("cancelled")


def test_a_lean_booking_is_enough_to_go_on() -> None:
    given(*CREATING, succeeded(booking=lean(booking()))).when(DUE).calls("notify")


@pytest.mark.parametrize(
    ("status", "version", "ref"), [("cancelled", 5, "bk-0"), ("accepted", 1, "bk-1"), ("cancelled", 1, "bk-1")]
)
def test_an_early_callback_about_another_booking_or_no_newer_than_the_answer_is_not_believed_over_it(
    status: str, version: int, ref: str
) -> None:
    then = given(*CREATING).when(told(status, version, ref=ref), after(5))
    then.when(answered(Confirmed(booking=booking(version=max(1, version - 4)))), after(9)).calls("notify")


def test_an_early_acceptance_that_is_older_than_the_pending_answer_is_not_believed() -> None:
    then = given(*CREATING).when(told("accepted", 1), after(5))
    then.when(answered(Pending(booking=booking("pending", 2))), after(9)).is_("pending")
