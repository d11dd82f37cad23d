"""Undoing: in reverse, under a policy of its own, and parked rather than dropped."""

import pytest
from given_when_then import (
    CREATING,
    DEPOSIT,
    DUE,
    REQUESTED,
    T0,
    THREE,
    after,
    answered,
    begun,
    booking,
    cancel,
    failed,
    given,
    op,
    parked,
    read,
    requested,
    retry,
    started,
    succeeded,
)

from domain import events as e
from domain.provider import Confirmed, Found, Missing, Pending, Rejected, Retryable, Unknown
from saga.inputs import ReadEnded

pytestmark = pytest.mark.evidence(
    target="compensation",
    answers=("R2.6",),
    given="sagas of one and three steps",
    when="they are undone",
    then="in reverse order, each under its own policy, parked rather than dropped",
    seen_in="events of the turn",
)

UNDOING = (*CREATING, succeeded(booking=booking()), begun(), started(operation="compensation"))
ENDED = e.AppointmentFailed(at=T0, reason=e.EndReason.REJECTED)
TIMEOUT = Unknown(reason="timeout")


def undo_failed(attempt: int, kind: str = "unknown") -> tuple[e.Event, ...]:
    return (
        failed(kind=kind, operation="compensation"),
        retry(T0, operation="compensation"),
        started(operation="compensation", attempt=attempt),
    )


class TestOneUndo:
    def test_done_ends_it(self) -> None:
        given(*UNDOING).when(answered(Confirmed(), operation="compensation"), after(5)).then(
            succeeded(operation="compensation"), ENDED
        ).rests("failed")

    @pytest.mark.parametrize("outcome", [TIMEOUT, Retryable(reason="503"), Pending(booking=booking("pending"))])
    def test_without_a_clear_answer_it_is_repeated_under_the_same_id(self, outcome: object) -> None:
        then = given(*UNDOING).when(answered(outcome, operation="compensation"), after(5)).waits(after(1_005))
        then.when(DUE, after(1_005)).calls(
            "calendar", "compensation", attempt=2, operation_id=op(operation="compensation")
        )

    def test_it_has_more_patience_than_the_step(self) -> None:
        stream = (*UNDOING, *undo_failed(2), *undo_failed(3))
        given(*stream).when(answered(TIMEOUT, attempt=3, operation="compensation"), after(5)).waits(after(4_005))

    def test_when_its_patience_ends_it_is_parked_and_nothing_is_said_to_have_failed(self) -> None:
        stream = (*UNDOING, *undo_failed(2), *undo_failed(3), *undo_failed(4))
        then = given(*stream).when(answered(TIMEOUT, attempt=4, operation="compensation"), after(5))
        then.then(failed(operation="compensation"), parked("calendar: compensation failed: timeout"))
        then.rests("compensating").is_("compensating", parked=True)

    def test_a_refused_undo_is_parked(self) -> None:
        then = given(*UNDOING).when(answered(Rejected(reason="too late"), operation="compensation"), after(5))
        then.then(
            failed(kind="rejected", reason="too late", operation="compensation"),
            parked("calendar: compensation was refused: too late"),
        ).rests("compensating")


class TestThreeSteps:
    made = (requested(plan=THREE), started(), succeeded(booking=booking()), started("deposit"))
    paid = (*made, succeeded("deposit"), started("notify"))

    def test_they_are_done_in_order(self) -> None:
        then = given(*REQUESTED).when(DUE, plan=THREE).calls("calendar")
        then = then.when(answered(Confirmed(booking=booking())), T0, plan=THREE).calls("deposit")
        then = then.when(answered(Confirmed(), "deposit"), T0, plan=THREE).calls("notify")
        then.when(answered(Confirmed(), "notify"), T0, plan=THREE).rests("confirmed")

    def test_a_refused_notice_undoes_the_deposit_first_then_the_booking(self) -> None:
        then = given(*self.paid).when(answered(Rejected(reason="no"), "notify"), T0, plan=THREE)
        then.calls("deposit", "compensation", operation_id=op("deposit", "compensation"))
        then = then.when(answered(Confirmed(), "deposit", operation="compensation"), T0, plan=THREE)
        then.calls("calendar", "compensation")
        then.when(answered(Confirmed(), operation="compensation"), T0, plan=THREE).rests("failed").is_(
            "failed", reason=e.EndReason.DOWNSTREAM_FAILED
        )

    def test_a_refused_deposit_is_not_undone(self) -> None:
        given(*self.made).when(answered(Rejected(reason="no"), "deposit"), T0, plan=THREE).calls(
            "calendar", "compensation"
        )

    def test_a_deposit_of_unknown_outcome_is_undone_once_it_can_no_longer_take_effect(self) -> None:
        tried = (failed("deposit"), retry(T0, "deposit"), started("deposit", 2))
        stream = (*self.made, *tried, failed("deposit"), retry(T0, "deposit"), started("deposit", 3))
        then = given(*stream).when(answered(TIMEOUT, "deposit", 3), after(5), plan=THREE)
        then.is_("compensating").waits(after(5 + DEPOSIT.settle_ms))
        then.when(DUE, after(5 + DEPOSIT.settle_ms), plan=THREE).calls("deposit", "compensation")

    def test_a_deposit_with_a_lookup_is_looked_up_instead(self) -> None:
        steps = tuple(s.model_copy(update={"lookup": True}) if s.name == "deposit" else s for s in THREE.steps)
        plan = THREE.model_copy(update={"steps": steps})
        tried = (failed("deposit"), retry(T0, "deposit"), started("deposit", 2))
        stream = (*self.made, *tried, failed("deposit"), retry(T0, "deposit"), started("deposit", 3))
        then = given(*stream).when(answered(TIMEOUT, "deposit", 3), after(5), plan=plan).reads("lookup", "deposit")
        gone = then.when(cancel(), after(6), plan=plan).reads("lookup", "deposit")
        missing = gone.when(_look(Missing(), 2_100), after(2_200), plan=plan)
        missing.calls("calendar", "compensation")
        found = gone.when(_look(Found(booking=booking(ref="deposit-1")), 10), after(20), plan=plan)
        found.calls("deposit", "compensation")

    def test_a_cancel_undoes_all_in_reverse(self) -> None:
        confirmed = (*self.paid, succeeded("notify"), e.AppointmentConfirmed(at=T0))
        given(*confirmed).when(cancel(), T0, plan=THREE).calls("deposit", "compensation")

    def test_a_parked_undo_holds_back_those_before_it(self) -> None:
        then = given(*self.paid).when(answered(Rejected(reason="no"), "notify"), T0, plan=THREE)
        then = then.when(answered(Rejected(reason="no"), "deposit", operation="compensation"), T0, plan=THREE)
        then.rests("compensating").is_("compensating", parked=True)
        assert then.turn.state.undo("calendar").attempts == 0


def _look(outcome: object, began_ms: int) -> ReadEnded:
    return read(outcome, after(began_ms), step="deposit")
