"""Booking: the happy path, refusals, retries and policies."""

import pytest
from given_when_then import (
    BOOK,
    CONFIRMATION,
    CREATING,
    DEADLINE,
    DUE,
    PLAN,
    REQUESTED,
    START,
    T0,
    TELLING,
    after,
    answered,
    begun,
    book,
    booking,
    failed,
    given,
    lean,
    op,
    requested,
    retry,
    started,
    succeeded,
    with_calendar,
)

from domain.commands import PolicyOverride, Request
from domain.definition import RetryPolicy
from domain.errors import HistoryError, KeyReused
from domain.events import AppointmentFailed, EndReason
from domain.provider import Confirmed, Rejected, Retryable
from saga import turn as turn_module
from saga.inputs import Asked


def test_a_request_is_recorded_and_the_provider_called_in_one_turn() -> None:
    then = given().when(book())
    then.then(requested(), started()).calls("calendar", operation_id=op(), timeout_ms=5_000)
    then.is_("booking")
    assert then.turn.wake is not None
    assert then.turn.wake.at == after(6_000), "the call's own time and a second of grace"


def test_a_confirmed_create_leads_to_the_next_step() -> None:
    seen = booking()
    given(*CREATING).when(answered(Confirmed(booking=seen)), after(80)).then(
        succeeded(booking=lean(seen)), started("notify")
    ).calls("notify", operation_id=op("notify"))


def test_the_last_step_confirms() -> None:
    given(*TELLING).when(answered(Confirmed(), "notify"), after(90)).then(succeeded("notify"), CONFIRMATION).rests(
        "confirmed"
    )


def test_a_replay_by_the_provider_counts_as_done_and_says_so() -> None:
    then = given(*CREATING).when(answered(Confirmed(booking=booking(), replayed=True)))
    then.then(succeeded(booking=lean(booking()), replayed=True), started("notify"))


@pytest.mark.parametrize(("conflict", "reason"), [(False, "rejected"), (True, "conflict")])
def test_a_refusal_for_good_fails_at_once_with_nothing_to_undo(conflict: bool, reason: str) -> None:
    end = AppointmentFailed(at=T0, reason=EndReason(reason))
    given(*CREATING).when(answered(Rejected(reason="full", conflict=conflict)), after(50)).then(
        failed(kind="rejected", reason="full", conflict=conflict), begun(reason, after(50), "full"), end
    ).rests("failed")


def test_a_refused_notice_undoes_the_booking() -> None:
    given(*TELLING).when(answered(Rejected(reason="gone"), "notify"), after(50)).then(
        failed("notify", "rejected", reason="gone"),
        begun("downstream_failed", after(50), "gone"),
        started(operation="compensation"),
    ).calls("calendar", "compensation").is_("compensating")


class TestRetries:
    def test_a_retry_waits_twice_as_long_each_time(self) -> None:
        later = Retryable(reason="503")
        then = given(*CREATING).when(answered(later), after(10))
        then.then(failed(kind="retryable", reason="503"), retry(after(510))).waits(after(510), "main")
        then = then.when(DUE, after(510)).then(started(attempt=2)).calls("calendar", attempt=2, operation_id=op())
        then = then.when(answered(later, attempt=2), after(600))
        then.then(failed(kind="retryable", reason="503"), retry(after(1_600))).waits(after(1_600))

    def test_nothing_happens_before_the_retry_is_due(self) -> None:
        waiting = (*CREATING, failed(kind="retryable"), retry(after(500)))
        given(*waiting).when(DUE, after(499)).nothing().waits(after(500))

    def test_retry_after_is_obeyed_when_it_is_longer_than_the_backoff(self) -> None:
        later = Retryable(reason="429", retry_after_ms=7_000, throttled=True)
        given(*CREATING).when(answered(later)).then(
            failed(kind="retryable", reason="429", retry_after_ms=7_000), retry(after(7_000))
        )

    def test_retry_after_is_no_shortcut(self) -> None:
        later = Retryable(reason="429", retry_after_ms=1, throttled=True)
        given(*CREATING).when(answered(later)).waits(after(500))

    def test_attempts_are_counted_and_then_it_fails(self) -> None:
        stream = (*CREATING, failed(kind="retryable"), retry(T0), started(attempt=2), failed(kind="retryable"))
        stream = (*stream, retry(T0), started(attempt=3))
        given(*stream).when(answered(Retryable(reason="503"), attempt=3), after(9)).then(
            failed(kind="retryable", reason="503"),
            begun("retry_exhausted", after(9), "503"),
            AppointmentFailed(at=T0, reason=EndReason.RETRY_EXHAUSTED),
        ).rests("failed")

    def test_an_exhausted_notice_is_a_downstream_failure(self) -> None:
        stream = (*TELLING, failed("notify", "retryable"), retry(T0, "notify"), started("notify", 2))
        stream = (*stream, failed("notify", "retryable"), retry(T0, "notify"), started("notify", 3))
        then = given(*stream).when(answered(Retryable(reason="503"), "notify", 3))
        assert then.turn.events[1] == begun("downstream_failed", T0, "503")

    def test_jitter_is_a_hash_so_that_replay_is_exact(self) -> None:
        policy = RetryPolicy(backoff_ms=1_000, jitter=0.5)
        delays = [policy.delay_ms(attempt, "seed") for attempt in (1, 2, 3)]
        assert delays == [policy.delay_ms(attempt, "seed") for attempt in (1, 2, 3)]
        assert 500 < delays[0] <= 1_000
        assert delays[0] != policy.delay_ms(1, "other seed")

    def test_the_backoff_has_a_cap(self) -> None:
        policy = RetryPolicy(backoff_ms=500, backoff_max_ms=30_000, jitter=0)
        assert [policy.delay_ms(attempt, "") for attempt in (1, 2, 7, 1_000)] == [500, 1_000, 30_000, 30_000]

    def test_an_answer_to_an_attempt_that_is_over_changes_nothing(self) -> None:
        stream = (*CREATING, failed(kind="retryable"), retry(T0), started(attempt=2))
        given(*stream).when(answered(Confirmed(booking=booking()), attempt=1)).idle()


class TestOnePolicyOfItsOwn:
    own = PolicyOverride(attempts_max=1, timeout_ms=200, backoff_ms=7)

    def test_a_booking_may_shorten_the_call(self) -> None:
        given().when(book(policy=self.own)).calls("calendar", timeout_ms=200)

    def test_a_booking_may_set_its_attempts(self) -> None:
        stream = (requested(policy=self.own), started(timeout_ms=200))
        given(*stream).when(answered(Retryable(reason="503"))).rests("failed")

    def test_other_steps_keep_theirs(self) -> None:
        stream = (requested(policy=self.own), started(timeout_ms=200))
        given(*stream).when(answered(Confirmed(booking=booking()))).calls("notify", timeout_ms=5_000)

    def test_a_provider_may_be_given_more_time(self) -> None:
        given().when(book(), plan=with_calendar(timeout_ms=30_000)).calls("calendar", timeout_ms=30_000)


class TestOneKey:
    def test_the_same_key_and_payload_again_changes_nothing(self) -> None:
        then = given(*CREATING).when(book(), after(5)).idle()
        assert then.turn.replayed

    def test_the_same_key_with_another_payload_is_refused(self) -> None:
        given(*CREATING).refuses(KeyReused, book(summary="Another"))

    def test_another_key_cannot_take_over_the_appointment(self) -> None:
        given(*CREATING).refuses(KeyReused, book("key-2"))

    def test_a_replay_of_an_ended_one_calls_nobody(self) -> None:
        stream = (*CREATING, failed(kind="rejected"), begun(), AppointmentFailed(at=T0, reason=EndReason.REJECTED))
        then = given(*stream).when(book(), after(9)).idle()
        assert then.turn.effect is None


def test_nobody_is_told_confirmed_after_the_appointment_began() -> None:
    late = START - (DEADLINE - T0) / 2
    then = given().when(book(), late)
    assert then.turn.state.deadline_at == START


def test_a_booking_for_the_past_keeps_the_usual_deadline() -> None:
    then = given().when(book(), START + (DEADLINE - T0))
    assert then.turn.state.deadline_at == START + 2 * (DEADLINE - T0)


def test_a_booking_may_set_its_deadline() -> None:
    then = given().when(book(deadline_ms=500))
    assert then.turn.state.deadline_at == after(500)
    then.calls("calendar", timeout_ms=500)


def test_the_stream_remembers_the_definition_that_it_began_with() -> None:
    assert given(*REQUESTED).state.definition == PLAN.digest
    assert given(*REQUESTED).state.details is not None
    assert given(*REQUESTED).state.details.summary == BOOK.summary


def test_where_the_provider_is_to_call_back_is_recorded_with_the_request() -> None:
    url = "https://desk.example/v1/callbacks/main"
    then = given().when(Asked(BOOK, Request(key="key-1", callback_url=url)))
    assert then.turn.state.details is not None
    assert then.turn.state.details.callback_url == url


def test_a_process_that_comes_to_no_rest_is_a_fault_of_that_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_module, "next_move", lambda view: retry(view.now, at=view.now))
    with pytest.raises(HistoryError, match="no rest after 50 decisions"):
        given(*CREATING).when(answered(Retryable(reason="503")))
