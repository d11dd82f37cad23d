"""Operator actions: what each does where it is legal, and that a refusal records nothing."""

import pytest
from given_when_then import (
    CONFIRMATION,
    CONFIRMED,
    CREATING,
    DUE,
    GONE,
    MOVING,
    PENDING,
    REFUSED,
    REQUESTED,
    T0,
    TELLING,
    THREE,
    act,
    acted,
    after,
    answered,
    begun,
    book,
    booking,
    cancel,
    cancellation,
    doubt,
    failed,
    given,
    parked,
    read,
    requested,
    reschedule,
    retry,
    started,
    succeeded,
    told,
)

from domain import events as e
from domain.decide import COMMANDS_MAX
from domain.errors import IllegalTransition, KeyReused, UnknownAppointment
from domain.identity import fingerprint
from domain.provider import Confirmed, Found, Rejected, Retryable, Unknown

pytestmark = pytest.mark.evidence(
    target="operator",
    answers=("R1.2",),
    given="every state",
    when="each of the six actions is asked for",
    then="done where it is legal, with who and why; else refused with nothing recorded",
    seen_in="events of the turn",
)

ACTIONS = ("retry", "skip", "force_complete", "compensate", "park", "resume")
WAITING = (*CREATING, failed(kind="retryable"), retry(after(500)))
NOTICE_WAITS = (*TELLING, failed("notify", "retryable"), retry(after(500), "notify"))
UNDO_PARKED = (
    *CREATING,
    succeeded(booking=booking()),
    begun(),
    started(operation="compensation"),
    failed(kind="rejected", operation="compensation"),
    parked(),
)
UNDOING = (*CREATING, succeeded(booking=booking()), cancellation(), started(operation="compensation"))


class TestWhereNothingIsLegal:
    @pytest.mark.parametrize("action", ACTIONS)
    def test_an_unknown_appointment(self, action: str) -> None:
        given().refuses(UnknownAppointment, act(action))

    @pytest.mark.parametrize("stream", [REFUSED, GONE])
    @pytest.mark.parametrize("action", ACTIONS)
    def test_an_ended_one(self, action: str, stream: tuple[e.Event, ...]) -> None:
        given(*stream).refuses(IllegalTransition, act(action))

    @pytest.mark.parametrize("action", ["retry", "skip", "force_complete", "resume"])
    def test_a_confirmed_one_has_nothing_left_to_do(self, action: str) -> None:
        given(*CONFIRMED).refuses(IllegalTransition, act(action))

    @pytest.mark.parametrize("stream", [CREATING, TELLING, MOVING, UNDOING])
    @pytest.mark.parametrize("action", ["retry", "skip", "force_complete"])
    def test_while_a_call_is_in_flight(self, action: str, stream: tuple[e.Event, ...]) -> None:
        given(*stream).refuses(IllegalTransition, act(action))

    @pytest.mark.parametrize("action", ACTIONS)
    def test_a_step_that_the_saga_does_not_have(self, action: str) -> None:
        refused = given(*WAITING).refuses(IllegalTransition, act(action, step="room"))
        assert "calendar, notify" in str(refused)


class TestRetry:
    def test_it_calls_at_once_with_a_fresh_budget(self) -> None:
        then = given(*WAITING).when(act("retry"), after(9))
        then.then(acted("retry", at=after(9)), started(attempt=2)).calls("calendar", attempt=2)
        assert then.turn.state.action("calendar").spent == 1

    def test_it_lets_go_of_the_park(self) -> None:
        given(*NOTICE_WAITS, parked()).when(act("retry"), after(9)).calls("notify", attempt=2).is_(
            "booking", parked=False
        )

    def test_it_polls_a_pending_booking_at_once(self) -> None:
        given(*PENDING).when(act("retry"), after(9)).reads("poll")

    def test_it_looks_again_where_the_outcome_is_in_doubt(self) -> None:
        stream = (
            *CREATING,
            failed(),
            doubt(),
            e.LookupFailed(at=T0, step="calendar", reason="503", look_at=after(900)),
        )
        given(*stream).when(act("retry"), after(9)).reads("lookup")

    def test_a_parked_undo_is_sent_again_with_time_to_clean_up(self) -> None:
        then = given(*UNDO_PARKED).when(act("retry"), after(700_000))
        then.calls("calendar", "compensation", attempt=2).is_("compensating")

    @pytest.mark.parametrize("action", ["resume", "compensate"])
    def test_so_it_is_by_the_actions_that_go_on_with_the_undo(self, action: str) -> None:
        then = given(*UNDO_PARKED).when(act(action), after(700_000))
        assert not (then.turn.state.parked and "time for cleaning up" in then.turn.state.parked_reason)

    def test_a_compensate_while_undoing_has_a_fresh_budget(self) -> None:
        then = given(*UNDO_PARKED).when(act("compensate"), after(700_000))
        then.calls("calendar", "compensation", attempt=2).is_("compensating", parked=False)

    def test_a_pending_booking_that_was_refused_while_parked_can_be_tried_again(self) -> None:
        stream = (*PENDING, acted("park"))
        then = given(*stream).when(told("rejected", 2), after(5)).rests("booking")
        then.when(act("retry", key="act-2"), after(9)).calls("calendar", attempt=2)

    def test_a_confirmed_one_that_was_parked_rests_again(self) -> None:
        given(*CONFIRMED, parked()).when(act("retry"), after(9)).rests("confirmed").is_("confirmed", parked=False)


class TestSkip:
    def test_the_notice_can_be_skipped(self) -> None:
        given(*NOTICE_WAITS).when(act("skip"), after(9)).then(
            acted("skip", "notify", at=after(9)).model_copy(update={"fingerprint": _print("skip")}), CONFIRMATION
        ).rests("confirmed")

    def test_the_booking_itself_cannot(self) -> None:
        given(*WAITING).refuses(IllegalTransition, act("skip"))
        given(*PENDING).refuses(IllegalTransition, act("skip"))

    def test_only_the_step_that_is_due(self) -> None:
        given(*NOTICE_WAITS).refuses(IllegalTransition, act("skip", step="calendar"))

    def test_a_pending_step_that_is_no_booking_can_be_skipped(self) -> None:
        taken = e.StepPending(at=T0, step="deposit", booking=booking("pending"), poll_at=after(1_000))
        stream = (requested(plan=THREE), started(), succeeded(booking=booking()), started("deposit"), taken)
        given(*stream).when(act("skip"), after(9), plan=THREE).calls("notify").is_("booking")

    def test_an_undo_that_cannot_be_done_is_skipped_and_the_next_follows(self) -> None:
        then = given(*UNDO_PARKED).when(act("skip"), after(9))
        then.rests("failed")

    def test_the_undo_that_is_due_is_the_one_that_is_skipped(self) -> None:
        refused_deposit = (failed("deposit", "rejected"), begun("downstream_failed"))
        stream = (requested(plan=THREE), started(), succeeded(booking=booking()), started("deposit"), *refused_deposit)
        undo = (started(operation="compensation"), failed(kind="rejected", operation="compensation"), parked())
        then = given(*stream, *undo).when(act("skip", step="calendar"), after(9), plan=THREE)
        then.rests("failed")

    @pytest.mark.parametrize("stream", [(*CONFIRMED, parked()), (*MOVING, failed(operation="reschedule"), parked())])
    def test_where_no_step_is_due(self, stream: tuple[e.Event, ...]) -> None:
        given(*stream).refuses(IllegalTransition, act("skip"))


def _print(action: str) -> str:
    return fingerprint(act(action).command)


class TestForceComplete:
    def test_a_booking_made_by_hand_is_confirmed(self) -> None:
        then = given(*WAITING, parked()).when(act("force_complete"), after(9))
        then.then(acted("force_complete", at=after(9)), e.AppointmentConfirmed(at=T0, forced=True)).rests("confirmed")

    def test_a_pending_one_too(self) -> None:
        given(*PENDING).when(act("force_complete"), after(9)).rests("confirmed")

    def test_an_undo_done_by_hand_ends_it(self) -> None:
        given(*UNDO_PARKED).when(act("force_complete"), after(9)).rests("failed").is_(
            "failed", reason=e.EndReason.REJECTED
        )

    def test_a_cancel_done_by_hand_ends_it(self) -> None:
        stream = (*UNDOING, failed(kind="rejected", operation="compensation"), parked())
        given(*stream).when(act("force_complete"), after(9)).rests("cancelled")

    def test_a_move_done_by_hand_is_taken_for_done(self) -> None:
        stream = (*MOVING, failed(operation="reschedule"), parked())
        then = given(*stream).when(act("force_complete"), after(9)).rests("confirmed")
        assert then.turn.events[-1].type == "appointment-rescheduled.v1"

    def test_on_a_confirmed_one_it_only_lets_go_of_the_park(self) -> None:
        then = given(*CONFIRMED, parked()).when(act("force_complete"), after(9)).rests("confirmed")
        then.when(cancel(), after(10)).calls("calendar", "compensation")
        then.when(reschedule(), after(10)).calls("calendar", "reschedule")


class TestCompensate:
    @pytest.mark.parametrize("stream", [CONFIRMED, PENDING, NOTICE_WAITS, (*CONFIRMED, parked())])
    def test_it_takes_everything_back(self, stream: tuple[e.Event, ...]) -> None:
        then = given(*stream).when(act("compensate"), after(9))
        then.calls("calendar", "compensation").is_("cancelling", parked=False)
        assert [event.type for event in then.turn.events[:2]] == ["operator-acted.v1", "cancellation-requested.v1"]

    def test_with_a_call_in_flight_its_outcome_is_awaited(self) -> None:
        given(*CREATING).when(act("compensate"), after(9)).waits(after(6_000)).is_("cancelling")

    def test_while_undoing_it_goes_on_with_that(self) -> None:
        given(*UNDOING).when(act("compensate"), after(9)).waits(after(6_000)).is_("cancelling")


class TestParkAndResume:
    @pytest.mark.parametrize("stream", [REQUESTED, WAITING, PENDING, CONFIRMED, NOTICE_WAITS])
    def test_parked_it_rests_and_resumed_it_goes_on(self, stream: tuple[e.Event, ...]) -> None:
        then = given(*stream).when(act("park"), after(9))
        then.is_(str(given(*stream).state.state), parked=True, parked_reason="fixed")
        assert then.turn.wake is None
        then.when(DUE, after(10)).nothing()
        again = then.when(act("resume", key="act-2"), after(11))
        assert not again.turn.state.parked

    def test_an_answer_that_comes_while_parked_is_recorded_and_nothing_follows(self) -> None:
        then = given(*CREATING).when(act("park"), after(9)).when(answered(Confirmed(booking=booking())), after(10))
        then.rests("booking")
        then.when(act("resume", key="act-2"), after(11)).calls("notify")

    def test_a_look_that_ends_while_parked_is_recorded_and_nothing_follows(self) -> None:
        stream = (*CREATING, failed(), doubt(), acted("park"))
        then = given(*stream).when(read(Found(booking=booking()), after(10)), after(11))
        assert then.turn.effect is None
        assert then.turn.state.action("calendar").progress == "done"

    def test_parked_twice_is_refused(self) -> None:
        given(*WAITING, parked()).refuses(IllegalTransition, act("park"))

    def test_resumed_without_a_park_is_refused(self) -> None:
        given(*WAITING).refuses(IllegalTransition, act("resume"))


class TestWhoAndWhy:
    def test_the_event_holds_them(self) -> None:
        acted_on = given(*WAITING).when(act("retry"), after(9)).turn.events[0]
        assert isinstance(acted_on, e.OperatorActed)
        assert (acted_on.actor, acted_on.reason) == ("anonymous", "fixed")

    def test_the_same_key_acts_once(self) -> None:
        then = given(*WAITING).when(act("park"), after(9))
        then.when(act("park"), after(10)).idle()

    def test_the_same_key_for_another_action_is_refused(self) -> None:
        given(*WAITING, acted("park")).refuses(KeyReused, act("resume"))

    def test_there_is_a_limit(self) -> None:
        stream = [acted("resume" if n % 2 else "park", key=f"act-{n}") for n in range(COMMANDS_MAX)]
        given(*WAITING, *stream).refuses(IllegalTransition, act("park", key="one-more"))


def test_a_stale_read_after_the_undo_was_skipped_changes_nothing() -> None:
    stream = (*CREATING, failed(), begun("retry_exhausted"), doubt())
    then = given(*stream).when(act("skip"), after(9)).rests("failed")
    then.when(read(Found(booking=booking()), after(1)), after(10)).nothing().rests("failed")


def test_after_everything_was_tried_by_hand_the_first_key_still_answers() -> None:
    then = given(*WAITING).when(act("force_complete"), after(9)).when(book(), after(10))
    assert then.turn.replayed


@pytest.mark.parametrize("outcome", [Rejected(reason="no"), Retryable(reason="503"), Unknown(reason="reset")])
def test_an_answer_that_fails_while_parked_is_kept_until_resumed(outcome: object) -> None:
    then = given(*CREATING).when(act("park"), after(9)).when(answered(outcome), after(10)).rests("booking")
    assert then.turn.state.in_flight is None
