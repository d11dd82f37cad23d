"""Unknown is neither failed nor done: resend where that is safe, look up where it is not, and never leave it open."""

import pytest
from given_when_then import (
    CREATING,
    DEADLINE,
    DUE,
    PLAN,
    T0,
    after,
    answered,
    begun,
    booking,
    busy,
    doubt,
    failed,
    given,
    lean,
    ms,
    op,
    parked,
    pending,
    read,
    retry,
    started,
    succeeded,
    with_calendar,
)

from domain import events as e
from domain.events import EndReason
from domain.provider import Confirmed, Found, Missing, Rejected, Retryable, Unknown

TIMEOUT = Unknown(reason="timeout")
LOOK_FIRST = with_calendar(resend=False)
BLIND = with_calendar(resend=False, lookup=False)
RESEND_ONLY = with_calendar(lookup=False)
DOUBTING = (*CREATING, failed(), doubt())
EXHAUSTED = (
    *CREATING,
    failed(),
    retry(T0),
    started(attempt=2),
    failed(),
    retry(T0),
    started(attempt=3),
    failed(),
    doubt("retry_exhausted"),
)


def missing(trusted: bool, look_at_ms: int) -> e.BookingMissing:
    return e.BookingMissing(at=T0, step="calendar", trusted=trusted, look_at=after(look_at_ms))


def found(status: str = "accepted") -> e.BookingFound:
    return e.BookingFound(at=T0, step="calendar", booking=booking(status))


class TestWhereTheProviderHonoursTheOperationId:
    def test_it_is_sent_again_under_the_same_id(self) -> None:
        then = given(*CREATING).when(answered(TIMEOUT), after(10)).then(failed(), retry(after(510)))
        then.when(DUE, after(510)).calls("calendar", attempt=2, operation_id=op())

    def test_after_the_last_attempt_it_is_looked_up_before_giving_up(self) -> None:
        stream = EXHAUSTED[:-2]
        given(*stream).when(answered(TIMEOUT, attempt=3), after(10)).then(failed(), doubt("retry_exhausted")).reads(
            "lookup"
        )

    def test_a_later_refusal_does_not_clear_the_doubt(self) -> None:
        stream = (*CREATING, failed(), retry(T0), started(attempt=2))
        then = given(*stream).when(answered(Rejected(reason="full"), attempt=2), after(10))
        then.then(failed(kind="rejected", reason="full"), begun("rejected", after(10), "full"), doubt())
        then.reads("lookup").is_("compensating")

    def test_a_later_success_does(self) -> None:
        stream = (*CREATING, failed(), retry(T0), started(attempt=2))
        then = given(*stream).when(answered(Confirmed(booking=booking(), replayed=True), attempt=2))
        assert then.turn.state.action("calendar").doubt_since is None

    def test_without_a_lookup_an_operator_must_say_what_is_there(self) -> None:
        then = given(*EXHAUSTED[:-2]).when(answered(TIMEOUT, attempt=3), after(10), plan=RESEND_ONLY)
        then.then(
            failed(),
            begun("retry_exhausted", after(10), "timeout"),
            parked("calendar: outcome unknown, and it cannot be looked up"),
        ).rests("compensating")


class TestWhereARepeatWouldBookTwice:
    def test_it_is_looked_up_first(self) -> None:
        given(*CREATING).when(answered(TIMEOUT), after(10), plan=LOOK_FIRST).then(failed(), doubt()).reads("lookup")

    def test_found_is_adopted(self) -> None:
        given(*DOUBTING).when(read(Found(booking=booking()), after(10)), after(20), plan=LOOK_FIRST).then(
            found(), succeeded(booking=booking(), via="lookup"), started("notify")
        ).calls("notify")

    def test_found_pending_is_waited_for(self) -> None:
        given(*DOUBTING).when(read(Found(booking=booking("pending")), after(10)), after(20), plan=LOOK_FIRST).then(
            found("pending"), pending(after(1_020), via="lookup")
        ).waits(after(1_020)).is_("pending")

    @pytest.mark.parametrize("status", ["rejected", "cancelled"])
    def test_found_dead_is_a_refusal(self, status: str) -> None:
        then = given(*DOUBTING).when(read(Found(booking=booking(status)), after(10)), after(20), plan=LOOK_FIRST)
        then.rests("failed").is_("failed", reason=EndReason.REJECTED)

    def test_absence_is_not_believed_before_the_settle_delay(self) -> None:
        given(*DOUBTING).when(read(Missing(), after(10)), after(20), plan=LOOK_FIRST).then(missing(False, 2_000)).waits(
            after(2_000)
        )

    def test_a_look_that_began_too_early_proves_nothing_however_late_it_ends(self) -> None:
        given(*DOUBTING).when(read(Missing(), after(1_999)), after(3_000), plan=LOOK_FIRST).then(missing(False, 5_000))

    def test_absence_after_the_settle_delay_allows_the_next_attempt(self) -> None:
        then = given(*DOUBTING).when(read(Missing(), after(2_000)), after(2_010), plan=LOOK_FIRST)
        then.then(missing(True, 2_010), retry(after(2_510))).waits(after(2_510))
        then.when(DUE, after(2_510), plan=LOOK_FIRST).calls("calendar", attempt=2, operation_id=op())

    @pytest.mark.parametrize(
        ("outcome", "reason", "wait_ms"),
        [
            (Retryable(reason="503"), "503", 1_000),
            (Unknown(reason="reset"), "reset", 1_000),
            (Rejected(reason="403"), "403", 1_000),
            (Retryable(reason="429", retry_after_ms=9_000), "429", 9_000),
        ],
    )
    def test_a_look_without_an_answer_is_repeated(self, outcome: object, reason: str, wait_ms: int) -> None:
        look_at = after(20 + wait_ms)
        again = e.LookupFailed(at=T0, step="calendar", reason=reason, look_at=look_at)
        given(*DOUBTING).when(read(outcome, after(10)), after(20), plan=LOOK_FIRST).then(again).waits(look_at)

    def test_what_can_neither_be_repeated_nor_looked_up_is_parked(self) -> None:
        given(*CREATING).when(answered(TIMEOUT), after(10), plan=BLIND).then(
            failed(), parked("calendar: outcome unknown, and it can neither be repeated safely nor looked up")
        ).rests("booking")

    def test_proven_not_applied_needs_no_look(self) -> None:
        given(*CREATING).when(answered(Retryable(reason="refused")), after(10), plan=LOOK_FIRST).waits(after(510))


class TestGivingUp:
    def test_found_after_the_last_attempt_is_adopted_before_the_deadline(self) -> None:
        given(*EXHAUSTED).when(read(Found(booking=booking()), after(10)), after(20)).calls("notify")

    def test_found_after_the_deadline_is_taken_away(self) -> None:
        late = DEADLINE + ms(5)
        then = given(*EXHAUSTED).when(read(Found(booking=booking()), after(10)), late)
        then.is_("compensating", reason=EndReason.RETRY_EXHAUSTED).calls("calendar", "compensation")

    def test_trusted_absence_ends_it_with_its_first_reason(self) -> None:
        then = given(*EXHAUSTED).when(read(Missing(), after(2_000)), after(2_010))
        then.rests("failed").is_("failed", reason=EndReason.RETRY_EXHAUSTED)

    def test_the_deadline_does_not_end_the_search(self) -> None:
        then = given(*EXHAUSTED).when(DUE, DEADLINE)
        then.then(begun("retry_exhausted", DEADLINE)).reads("lookup").is_("compensating")

    def test_while_the_first_call_still_runs_absence_is_not_believed_before_the_deadline(self) -> None:
        stream = (*CREATING, failed(in_flight=True), doubt())
        then = given(*stream).when(read(Missing(), after(5_000)), after(5_010), plan=LOOK_FIRST)
        then.then(missing(False, 7_010)).waits(after(7_010))
        then = given(*stream).when(read(Missing(), DEADLINE), DEADLINE + ms(9), plan=LOOK_FIRST)
        then.rests("failed")

    def test_a_search_that_finds_no_answer_is_parked_in_the_end(self) -> None:
        stream = (*EXHAUSTED, begun("retry_exhausted", DEADLINE))
        spent = DEADLINE + ms(PLAN.cleanup_ms)
        given(*stream).when(DUE, spent).then(parked("calendar: the time for cleaning up is spent")).rests(
            "compensating"
        )


class TestInterruptedCalls:
    def test_a_call_without_a_recorded_outcome_is_unknown_and_no_attempt_is_lost(self) -> None:
        then = given(*CREATING).when(DUE, after(6_000))
        then.then(e.CallInterrupted(at=T0, step="calendar"), retry(after(6_000)), started(attempt=2))
        then.calls("calendar", attempt=2, operation_id=op())
        assert then.turn.state.action("calendar").spent == 1

    def test_it_is_looked_up_first_where_a_repeat_would_book_twice(self) -> None:
        then = given(*CREATING).when(DUE, after(6_000), plan=LOOK_FIRST)
        then.then(e.CallInterrupted(at=T0, step="calendar"), doubt()).reads("lookup")

    def test_the_answer_that_comes_after_all_changes_nothing(self) -> None:
        then = given(*CREATING).when(DUE, after(6_000))
        then.when(answered(Confirmed(booking=booking())), after(6_001)).idle()

    def test_an_interrupted_undo_is_repeated_under_its_own_id(self) -> None:
        stream = (*CREATING, succeeded(booking=booking()), begun(), started(operation="compensation"))
        then = given(*stream).when(DUE, after(6_000))
        then.calls("calendar", "compensation", attempt=2, operation_id=op(operation="compensation"))


def test_a_lookup_waits_for_its_lane_until_the_deadline() -> None:
    then = given(*DOUBTING).when(DUE, after(10), busy("main"), LOOK_FIRST).nothing().waits(after(10), "main")
    assert then.turn.wake is not None
    assert then.turn.wake.deadline_at == DEADLINE


def test_a_lookup_that_nobody_asked_for_any_more_is_ignored() -> None:
    then = given(*CREATING, succeeded(booking=lean(booking())), started("notify"))
    then.when(read(Missing(), after(9_000)), after(9_001)).nothing()
