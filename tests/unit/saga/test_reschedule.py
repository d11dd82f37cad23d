"""Reschedule: moved, refused, or unknown and then looked up; the old time stands until the new one is sure."""

import pytest
from given_when_then import (
    CONFIRMED,
    CREATING,
    DEADLINE,
    DUE,
    MOVE,
    MOVING,
    NEW_END,
    NEW_START,
    PENDING,
    PLAN,
    START,
    T0,
    act,
    after,
    answered,
    booking,
    busy,
    cancellation,
    doubt,
    failed,
    given,
    lean,
    move_requested,
    ms,
    op,
    parked,
    read,
    reschedule,
    retry,
    started,
    succeeded,
    with_calendar,
)

from domain import events as e
from domain.commands import PolicyOverride
from domain.errors import IllegalTransition, KeyReused
from domain.events import EndReason
from domain.provider import Confirmed, Found, Missing, Pending, ReadOutcome, Rejected, Retryable, Unknown

MOVED = e.AppointmentRescheduled(at=T0, start=NEW_START, end=NEW_END, time_zone="Europe/Berlin")
THERE = booking(version=2, ref="bk-2", start=NEW_START, end=NEW_END)
TIMEOUT = Unknown(reason="timeout")
DOUBTED = (*MOVING, failed(operation="reschedule"), doubt("retry_exhausted", "reschedule"))


def stays(reason: str, detail: str = "") -> e.RescheduleFailed:
    return e.RescheduleFailed(at=T0, reason=EndReason(reason), detail=detail)


def moving(outcome: object, attempt: int = 1):
    return answered(outcome, attempt=attempt, operation="reschedule", round=1)


def test_it_is_recorded_and_called_in_one_turn() -> None:
    then = given(*CONFIRMED).when(reschedule(), after(5))
    then.calls("calendar", "reschedule", operation_id=op(operation="reschedule", round=1)).is_("rescheduling")


def test_moved_in_place() -> None:
    seen = booking(version=2, start=NEW_START, end=NEW_END)
    then = given(*MOVING).when(moving(Confirmed(booking=seen)), after(9))
    kept = lean(seen).model_copy(update={"start": NEW_START, "end": NEW_END})
    then.then(succeeded(operation="reschedule", booking=kept), MOVED).rests("confirmed")
    assert then.turn.state.details is not None
    assert (then.turn.state.details.start, then.turn.state.details.end) == (NEW_START, NEW_END)


def test_moved_under_a_new_reference_keeps_the_id_and_takes_the_reference() -> None:
    state = given(*MOVING).when(moving(Confirmed(booking=THERE)), after(9)).turn.state
    assert state.id == given(*MOVING).state.id
    assert state.booking is not None
    assert state.booking.provider_ref == "bk-2"


def test_each_move_has_an_id_of_its_own() -> None:
    then = given(*MOVING).when(moving(Confirmed(booking=THERE)), after(9))
    then.when(reschedule("move-2"), after(10)).calls(
        "calendar", "reschedule", operation_id=op(operation="reschedule", round=2)
    )


@pytest.mark.parametrize(("conflict", "reason"), [(False, "rejected"), (True, "conflict")])
def test_refused_it_stands_at_the_old_time(conflict: bool, reason: str) -> None:
    then = given(*MOVING).when(moving(Rejected(reason="full", conflict=conflict)), after(9))
    then.then(
        failed(kind="rejected", reason="full", operation="reschedule", conflict=conflict), stays(reason, "full")
    ).rests("confirmed")
    assert then.turn.state.details is not None
    assert then.turn.state.details.start == START
    assert then.turn.state.reason is None


def test_an_unknown_move_is_repeated_under_the_same_id() -> None:
    then = given(*MOVING).when(moving(TIMEOUT), after(5)).waits(after(505))
    then.when(DUE, after(505)).calls(
        "calendar", "reschedule", attempt=2, operation_id=op(operation="reschedule", round=1)
    )


def test_a_move_that_the_provider_still_works_on_is_asked_for_again() -> None:
    given(*MOVING).when(moving(Pending(booking=booking("pending"), poll_after_ms=900)), after(5)).waits(after(905))


def test_where_a_repeat_would_act_twice_it_is_looked_up_first() -> None:
    given(*MOVING).when(moving(TIMEOUT), after(5), plan=with_calendar(resend=False)).reads("lookup")


def test_without_a_lookup_the_known_booking_is_read() -> None:
    given(*MOVING).when(moving(TIMEOUT), after(5), plan=with_calendar(resend=False, lookup=False)).reads("lookup")


def test_a_refusal_after_an_unknown_attempt_is_looked_up_for_the_first_may_have_moved_it() -> None:
    stream = (*MOVING, failed(operation="reschedule"), retry(T0, operation="reschedule"))
    stream = (*stream, started(operation="reschedule", attempt=2, round=1))
    given(*stream).when(moving(Rejected(reason="stale", conflict=True), 2), after(5)).then(
        failed(kind="rejected", reason="stale", operation="reschedule", conflict=True),
        doubt("conflict", "reschedule"),
    ).reads("lookup")


def test_found_at_the_new_time_it_has_moved() -> None:
    given(*DOUBTED).when(read(Found(booking=THERE), after(10)), after(20)).then(
        e.BookingFound(at=T0, step="calendar", booking=THERE),
        succeeded(operation="reschedule", booking=THERE, via="lookup"),
        MOVED,
    ).rests("confirmed")


def test_found_at_the_old_time_it_is_not_believed_before_the_settle_delay() -> None:
    then = given(*DOUBTED).when(read(Found(booking=booking()), after(10)), after(20))
    then.waits(after(2_000)).is_("rescheduling")


def test_found_at_the_old_time_after_it_the_move_has_failed() -> None:
    then = given(*DOUBTED).when(read(Found(booking=booking()), after(2_000)), after(2_010))
    assert then.turn.events[-1] == stays("retry_exhausted").model_copy(update={"at": after(2_010)})
    then.rests("confirmed")


def test_a_lookup_that_sees_nothing_at_all_does_not_say_that_it_stands_at_the_old_time() -> None:
    then = given(*DOUBTED).when(read(Missing(), after(9_000)), after(9_001))
    look_at = after(11_001)
    then.then(e.BookingMissing(at=T0, step="calendar", trusted=False, look_at=look_at)).waits(look_at)
    then = then.when(DUE, DEADLINE + ms(PLAN.cleanup_ms))
    then.then(parked("calendar: outcome still unknown"))


@pytest.mark.parametrize("seen", [Missing(), Unknown(reason="timeout")])
def test_a_doubt_that_lasts_does_not_fill_the_log(seen: ReadOutcome) -> None:
    then, looks = given(*DOUBTED).when(DUE), 0
    while not then.turn.state.parked:
        then = then.when(read(seen, then.now), then.now)
        assert then.turn.wake is not None
        assert then.turn.wake.at - then.now <= ms(60_000)
        then, looks = then.when(DUE, then.turn.wake.at), looks + 1
    assert then.now == DEADLINE + ms(PLAN.cleanup_ms)
    assert looks < 70


def test_while_the_move_still_runs_there_the_old_time_is_not_believed_before_its_deadline() -> None:
    stream = (*MOVING, failed(operation="reschedule", in_flight=True), doubt("retry_exhausted", "reschedule"))
    given(*stream).when(read(Found(booking=booking()), after(5_000)), after(5_010)).is_("rescheduling")


def test_past_the_deadline_a_move_in_doubt_is_still_looked_up() -> None:
    given(*DOUBTED).when(DUE, DEADLINE + ms(5)).reads("lookup").is_("rescheduling")


def test_past_the_deadline_a_busy_lane_is_waited_for_without_spinning() -> None:
    then = given(*DOUBTED).when(DUE, DEADLINE + ms(5), busy())
    assert then.turn.wake is not None
    assert then.turn.wake.deadline_at == DEADLINE + ms(PLAN.cleanup_ms)


@pytest.mark.parametrize("action", ["retry", "resume"])
def test_a_move_parked_in_doubt_is_looked_up_again_when_an_operator_says_so(action: str) -> None:
    late = DEADLINE + ms(PLAN.cleanup_ms)
    then = given(*DOUBTED).when(DUE, late).when(act(action), late + ms(5))
    then.reads("lookup").is_("rescheduling", parked=False)


def test_a_move_in_doubt_is_parked_when_the_time_for_that_is_spent() -> None:
    given(*DOUBTED).when(DUE, DEADLINE + ms(PLAN.cleanup_ms)).then(parked("calendar: outcome still unknown")).rests(
        "rescheduling"
    )


def test_past_the_deadline_a_move_that_certainly_did_not_happen_has_failed() -> None:
    stream = (*MOVING, failed(kind="retryable", operation="reschedule"), retry(DEADLINE, operation="reschedule"))
    given(*stream).when(DUE, DEADLINE).then(stays("deadline_exceeded")).rests("confirmed")


def test_a_move_takes_the_policy_of_its_booking() -> None:
    own = PolicyOverride(attempts_max=1, timeout_ms=300)
    first = CONFIRMED[0].model_copy(update={"policy": own})
    then = given(first, *CONFIRMED[1:]).when(reschedule(), after(5)).calls("calendar", "reschedule", timeout_ms=300)
    then.when(moving(Retryable(reason="503")), after(9)).rests("confirmed")


@pytest.mark.parametrize(
    "stream",
    [CREATING, PENDING, MOVING, (*CONFIRMED, parked()), (*CONFIRMED, cancellation())],
)
def test_only_what_is_confirmed_can_be_moved(stream: tuple[e.Event, ...]) -> None:
    given(*stream).refuses(IllegalTransition, reschedule("move-9"))


def test_what_was_completed_by_hand_cannot_be_moved() -> None:
    given(CREATING[0], e.AppointmentConfirmed(at=T0, forced=True)).refuses(IllegalTransition, reschedule())


def test_the_same_key_again_is_a_replay_and_another_payload_is_refused() -> None:
    assert given(*MOVING).when(reschedule()).idle().turn.replayed
    other = MOVE.model_copy(update={"end": NEW_END + ms(60_000)})
    given(*MOVING).refuses(KeyReused, type(reschedule())(other, reschedule().request))


def test_a_move_ends_before_the_old_start_passes() -> None:
    then = given(*CONFIRMED).when(reschedule(), START - ms(1_000))
    assert then.turn.state.moving is not None
    assert then.turn.state.moving.deadline_at == START


def test_a_failed_move_can_be_asked_for_again() -> None:
    then = given(*MOVING).when(moving(Rejected(reason="full")), after(9))
    then.when(reschedule("move-2"), after(10)).calls("calendar", "reschedule")


def test_the_request_names_the_new_times() -> None:
    assert given(*CONFIRMED).when(reschedule()).turn.events[0] == move_requested()


def test_past_the_deadline_a_retry_of_an_unknown_move_becomes_a_look() -> None:
    stream = (*MOVING, failed(operation="reschedule"), retry(DEADLINE, operation="reschedule"))
    given(*stream).when(DUE, DEADLINE).then(doubt("deadline_exceeded", "reschedule")).reads("lookup")
