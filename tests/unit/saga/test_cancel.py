"""Cancel: in every state, and against every answer that may still be under way."""

import pytest
from given_when_then import (
    CANCELLED,
    CANCELLING,
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
    after,
    answered,
    begun,
    booking,
    cancel,
    cancellation,
    doubt,
    failed,
    given,
    lean,
    op,
    parked,
    pending,
    read,
    retry,
    started,
    succeeded,
    told,
)

from domain import events as e
from domain.errors import IllegalTransition, KeyReused, StaleVersion, UnknownAppointment
from domain.provider import Confirmed, Found, Missing, Pending, Rejected, Retryable, Unknown

pytestmark = pytest.mark.evidence(
    target="cancel",
    answers=("R2.6", "R1.2"),
    given="every state, and every answer that may be under way",
    when="a cancel comes",
    then="one defined result",
    seen_in="events of the turn",
)

COMPENSATING = (*CREATING, succeeded(booking=booking()), begun(), started(operation="compensation"))


class TestInEveryState:
    def test_before_it_was_requested_there_is_nothing(self) -> None:
        given().refuses(UnknownAppointment, cancel())

    def test_requested_ends_without_a_call(self) -> None:
        given(*REQUESTED).when(cancel(), after(5)).then(cancellation(at=after(5)), CANCELLED).rests("cancelled")

    def test_while_the_create_call_runs_its_outcome_is_awaited(self) -> None:
        given(*CREATING).when(cancel(), after(5)).then(cancellation(at=after(5))).waits(after(6_000)).is_("cancelling")

    def test_while_a_retry_is_waited_for_after_a_proven_failure_there_is_nothing_to_undo(self) -> None:
        stream = (*CREATING, failed(kind="retryable"), retry(after(500)))
        given(*stream).when(cancel(), after(5)).rests("cancelled")

    def test_while_the_outcome_is_unknown_it_is_looked_up(self) -> None:
        stream = (*CREATING, failed(), retry(after(500)))
        then = given(*stream).when(cancel(), after(5)).then(cancellation(at=after(5)), doubt()).reads("lookup")
        then.when(read(Found(booking=booking()), after(6)), after(9)).calls("calendar", "compensation")
        then.when(read(Missing(), after(2_000)), after(2_009)).rests("cancelled")

    def test_pending_is_taken_back(self) -> None:
        given(*PENDING).when(cancel(), after(5)).calls("calendar", "compensation")

    def test_confirmed_is_taken_back(self) -> None:
        then = given(*CONFIRMED).when(cancel(), after(5))
        then.then(cancellation(at=after(5)), started(operation="compensation")).calls("calendar", "compensation")
        assert then.turn.effect is not None
        then.when(answered(Confirmed(booking=booking("cancelled", 2)), operation="compensation"), after(9)).then(
            succeeded(operation="compensation", booking=lean(booking("cancelled", 2))), CANCELLED
        ).rests("cancelled").is_("cancelled", reason=e.EndReason.CANCELLED_BY_REQUEST)

    @pytest.mark.parametrize("stream", [COMPENSATING, REFUSED, CANCELLING, GONE])
    def test_what_is_going_or_gone_is_refused(self, stream: tuple[e.Event, ...]) -> None:
        given(*stream).refuses(IllegalTransition, cancel("cancel-2"))

    def test_parked_is_taken_up_again(self) -> None:
        given(*CONFIRMED, parked()).when(cancel(), after(5)).calls("calendar", "compensation").is_(
            "cancelling", parked=False
        )


class TestAgainstTheAnswerUnderWay:
    cancelling = (*CREATING, cancellation())

    def test_a_confirmed_create_is_taken_back(self) -> None:
        given(*self.cancelling).when(answered(Confirmed(booking=booking())), after(9)).then(
            succeeded(booking=lean(booking())), started(operation="compensation")
        ).calls("calendar", "compensation")

    def test_a_pending_create_is_taken_back(self) -> None:
        outcome = Pending(booking=booking("pending"))
        given(*self.cancelling).when(answered(outcome), after(9)).then(
            pending(after(1_009)), started(operation="compensation")
        ).is_("cancelling")

    @pytest.mark.parametrize("outcome", [Rejected(reason="full"), Retryable(reason="503")])
    def test_a_create_that_did_not_happen_ends_it(self, outcome: object) -> None:
        given(*self.cancelling).when(answered(outcome), after(9)).rests("cancelled")

    def test_an_unknown_create_is_looked_up_not_repeated(self) -> None:
        given(*self.cancelling).when(answered(Unknown(reason="timeout")), after(9)).then(failed(), doubt()).reads(
            "lookup"
        )

    def test_an_acceptance_that_arrives_meanwhile_does_not_confirm(self) -> None:
        stream = (*PENDING, cancellation(), started(operation="compensation"))
        then = given(*stream).when(told("accepted", 2), after(9))
        then.when(answered(Confirmed(), operation="compensation"), after(19)).rests("cancelled")

    def test_a_confirmed_notice_does_not_confirm(self) -> None:
        given(*TELLING, cancellation()).when(answered(Confirmed(), "notify"), after(9)).calls(
            "calendar", "compensation"
        ).is_("cancelling")

    def test_a_crash_leaves_the_outcome_to_a_look(self) -> None:
        given(*self.cancelling).when(DUE, after(6_000)).reads("lookup").is_("cancelling")


class TestAMoveUnderWay:
    def test_a_move_in_flight_is_awaited_then_all_is_taken_back(self) -> None:
        then = given(*MOVING).when(cancel(), after(5)).waits(after(6_000))
        moved = booking(version=2, ref="bk-2")
        then = then.when(answered(Confirmed(booking=moved), operation="reschedule", round=1), after(9))
        then.calls("calendar", "compensation", operation_id=op(operation="compensation", round=1))
        assert then.turn.state.booking is not None
        assert then.turn.state.booking.provider_ref == "bk-2"

    def test_a_move_of_unknown_outcome_is_looked_up_for_the_booking_may_have_a_new_reference(self) -> None:
        then = given(*MOVING).when(cancel(), after(5))
        then = then.when(answered(Unknown(reason="timeout"), operation="reschedule", round=1), after(9))
        then.then(failed(operation="reschedule"), doubt()).reads("lookup").is_("cancelling")
        then = then.when(read(Found(booking=booking(ref="bk-2")), after(10)), after(11))
        then.calls("calendar", "compensation")
        assert then.turn.state.booking is not None
        assert then.turn.state.booking.provider_ref == "bk-2"

    def test_a_move_that_waits_for_its_retry_is_dropped(self) -> None:
        later = failed(kind="retryable", operation="reschedule")
        stream = (*MOVING, later, retry(after(500), operation="reschedule"))
        given(*stream).when(cancel(), after(5)).calls("calendar", "compensation")


class TestKeysAndVersions:
    def test_the_same_key_again_is_a_replay(self) -> None:
        then = given(*CANCELLING).when(cancel(), after(9)).idle()
        assert then.turn.replayed

    def test_the_key_of_the_booking_may_cancel_it_too(self) -> None:
        given(*CONFIRMED).when(cancel("key-1"), after(9)).calls("calendar", "compensation")

    def test_the_same_key_with_another_reason_is_refused(self) -> None:
        other = cancel().command.model_copy(update={"reason": "another"})
        asked = type(cancel())(other, cancel().request)
        given(*CANCELLING).refuses(KeyReused, asked)

    def test_a_stale_version_is_refused(self) -> None:
        given(*CONFIRMED).refuses(StaleVersion, cancel(expected_version=len(CONFIRMED) - 1))

    def test_the_version_of_now_is_taken(self) -> None:
        given(*CONFIRMED).when(cancel(expected_version=len(CONFIRMED))).is_("cancelling")

    def test_a_replay_does_not_ask_for_the_version(self) -> None:
        given(*CANCELLING).when(cancel(expected_version=1)).idle()


def test_an_appointment_completed_by_hand_is_cancelled_without_a_call() -> None:
    stream = (*REQUESTED, e.AppointmentConfirmed(at=T0, forced=True))
    given(*stream).when(cancel(), after(5)).rests("cancelled")
