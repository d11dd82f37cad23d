"""A booking that was seen otherwise than the log says: adopted, restored, parked, removed; and what is refused."""

from datetime import timedelta
from typing import Any

import pytest
from given_when_then import (
    CANCELLING,
    CONFIRMATION,
    CONFIRMED,
    CREATING,
    DEADLINE,
    DUE,
    END,
    GONE,
    MOVING,
    NEW_END,
    NEW_START,
    PENDING,
    PLAN,
    REFUSED,
    START,
    T0,
    THREE,
    Given,
    act,
    acted,
    after,
    answered,
    asked,
    begun,
    booking,
    called_back,
    cancel,
    closed,
    doubt,
    failed,
    given,
    lean,
    move_requested,
    ms,
    op,
    parked,
    read,
    requested,
    reschedule,
    started,
    succeeded,
    told,
    with_calendar,
)

from domain import events as e
from domain.commands import Repair, ReportBooking, parse
from domain.errors import IllegalTransition, InvalidFields, KeyReused, StaleVersion, UnknownAppointment
from domain.identity import fingerprint
from domain.personal import ERASED
from domain.provider import Confirmed, Found, Pending, ProviderBooking, Rejected, Unknown
from domain.seen import seen_as
from saga.inputs import Asked

pytestmark = pytest.mark.evidence(
    target="edits at the provider",
    answers=("R8.5",),
    given="a booking that is seen otherwise than the log says",
    when="it is adopted, restored, parked or removed",
    then="the end is true, twice is once",
    seen_in="events of the turn",
)

TIMEOUT = Unknown(reason="timeout")
MOVED = booking(version=5, start=NEW_START, end=NEW_END)
OVER = booking("cancelled", 5)
LEFT = booking(version=5)
RENAMED = booking(version=5).model_copy(update={"summary": "Lunch"})
PAID = (
    requested(plan=THREE),
    started(),
    succeeded(booking=booking()),
    started("deposit"),
    succeeded("deposit"),
    started("notify"),
    succeeded("notify"),
    CONFIRMATION,
)


def report(seen: ProviderBooking | None, repair: str, key: str = "report-1", **who: Any) -> Asked:
    return asked(ReportBooking(seen=seen, repair=Repair(repair), reason="seen"), key, **who)


def observed(seen: ProviderBooking | None, repair: str, key: str = "report-1", summary: bool = False) -> e.Event:
    command = ReportBooking(seen=seen, repair=Repair(repair), reason="seen")
    kept = seen.model_copy(update={"client_ref": ""}) if seen else None
    return e.BookingObserved(
        at=T0, key=key, fingerprint=fingerprint(command), repair=command.repair, reason="seen", seen=kept
    )


def followed() -> e.CancellationRequested:
    until = T0 + ms(PLAN.cleanup_ms)
    return e.CancellationRequested(at=T0, key="", fingerprint="", reason="seen", cleanup_until=until)


def back(deadline_at: object = DEADLINE) -> e.RescheduleRequested:
    asked_for = move_requested().model_copy(update={"key": "", "fingerprint": "", "start": START, "end": END})
    return asked_for.model_copy(update={"deadline_at": deadline_at})


def again() -> e.RebookingRequested:
    return e.RebookingRequested(at=T0, deadline_at=DEADLINE)


def erased() -> tuple[e.Event, ...]:
    """A confirmed appointment, the person of which was erased."""
    first = requested()
    details = first.details.model_copy(update={"summary": ERASED})
    return (first.model_copy(update={"key": ERASED, "details": details}), *CONFIRMED[1:])


RESTORING = (*CONFIRMED, observed(MOVED, "restore"), back(), started(operation="reschedule", round=1))
REBOOKING = (*CONFIRMED, observed(None, "restore"), again(), started(round=1))
OVERWRITING = (*CONFIRMED, observed(OVER, "restore"), again(), started(round=1))


class TestAdopt:
    @pytest.mark.parametrize("stream", [CONFIRMED, (*CONFIRMED, parked())], ids=["confirmed", "parked"])
    def test_moved_it_stands_at_the_times_that_were_seen(self, stream: tuple[e.Event, ...]) -> None:
        then = given(*stream).when(report(MOVED, "adopt")).then(observed(MOVED, "adopt")).rests("confirmed")
        state = then.is_("confirmed", parked=False).turn.state
        assert state.details is not None
        assert (state.details.start, state.details.end, state.details.summary) == (NEW_START, NEW_END, "Check-up")
        assert state.booking == MOVED

    def test_a_title_that_was_erased_is_not_written_down_again(self) -> None:
        moved = MOVED.model_copy(update={"summary": "Check-up"})
        then = given(*erased()).when(report(moved, "adopt")).rests("confirmed")
        assert "Check-up" not in repr(then.turn)
        given(*erased()).refuses(IllegalTransition, report(RENAMED, "adopt"))

    def test_renamed_it_takes_the_title_and_keeps_the_times(self) -> None:
        state = given(*CONFIRMED).when(report(RENAMED, "adopt")).rests("confirmed").turn.state
        assert state.details is not None
        assert (state.details.summary, state.details.start) == ("Lunch", START)

    @pytest.mark.parametrize(("hour", "all_day"), [(23, True), (10, False)], ids=["to another day", "to an hour"])
    def test_whole_days_stay_whole_only_if_they_are(self, hour: int, all_day: bool) -> None:
        first = requested()
        whole = first.model_copy(update={"details": first.details.model_copy(update={"all_day": True})})
        start = START.replace(hour=hour)
        seen = booking(start=start, end=start + timedelta(days=1))
        state = given(whole, *CONFIRMED[1:]).when(report(seen, "adopt")).turn.state
        assert state.details is not None
        assert state.details.all_day is all_day

    def test_another_entry_in_its_place_is_the_booking_from_then_on(self) -> None:
        then = given(*CONFIRMED).when(report(booking(ref="bk-2"), "adopt")).rests("confirmed")
        then.when(cancel(), after(1)).calls("calendar", "compensation")
        assert then.turn.state.booking is not None
        assert then.turn.state.booking.provider_ref == "bk-2"

    def test_the_next_move_is_made_under_the_etag_that_was_seen(self) -> None:
        then = given(*CONFIRMED).when(report(RENAMED, "adopt")).when(reschedule(), after(1))
        then.calls("calendar", "reschedule", operation_id=op(operation="reschedule", round=1))
        assert then.turn.state.booking is not None
        assert then.turn.state.booking.etag == '"5"'

    @pytest.mark.parametrize(
        ("seen", "detail"), [(None, "gone from the calendar"), (OVER, "cancelled in the calendar")]
    )
    def test_gone_it_ends_cancelled_without_another_call(self, seen: ProviderBooking | None, detail: str) -> None:
        then = given(*CONFIRMED).when(report(seen, "adopt"))
        then.then(observed(seen, "adopt"), followed(), e.AppointmentCancelled(at=T0)).rests("cancelled")
        then.is_("cancelled", reason=e.EndReason.CANCELLED_BY_REQUEST, detail=detail)

    def test_gone_what_else_was_done_is_undone(self) -> None:
        then = given(*PAID).when(report(None, "adopt"), plan=THREE)
        then.then(observed(None, "adopt"), followed(), started("deposit", operation="compensation"))
        done = answered(Confirmed(), "deposit", operation="compensation")
        then.when(done, after(5), plan=THREE).then(
            succeeded("deposit", operation="compensation"), e.AppointmentCancelled(at=T0)
        ).rests("cancelled")

    def test_gone_after_the_provider_had_said_so_itself(self) -> None:
        stream = (*CONFIRMED, called_back("cancelled", 2), parked())
        given(*stream).when(report(booking("cancelled", 2), "adopt")).rests("cancelled")

    def test_restored_by_hand_meanwhile_it_is_taken_up(self) -> None:
        stream = (*CONFIRMED, parked())
        given(*stream).when(report(booking(), "adopt")).rests("confirmed").is_("confirmed", parked=False)

    @pytest.mark.parametrize("days", [-1, 0, 400])
    def test_times_that_no_appointment_may_have_are_not_adopted(self, days: int) -> None:
        odd = booking(start=NEW_START, end=NEW_START + timedelta(days=days))
        given(*CONFIRMED).refuses(IllegalTransition, report(odd, "adopt"))
        given(*CONFIRMED).when(report(odd, "restore")).calls("calendar", "reschedule")


class TestRestoreWhatWasMoved:
    @pytest.mark.parametrize("stream", [CONFIRMED, (*CONFIRMED, parked())], ids=["confirmed", "parked"])
    def test_it_is_moved_back_by_an_operation_of_its_own(self, stream: tuple[e.Event, ...]) -> None:
        then = given(*stream).when(report(MOVED, "restore"))
        then.then(observed(MOVED, "restore"), back(), started(operation="reschedule", round=1))
        then.calls("calendar", "reschedule", operation_id=op(operation="reschedule", round=1)).is_("rescheduling")
        assert then.turn.state.booking == MOVED

    def test_moved_back_it_is_confirmed_at_its_times(self) -> None:
        seen = booking(version=6)
        then = given(*RESTORING).when(answered(Confirmed(booking=seen), operation="reschedule", round=1), after(9))
        done = e.AppointmentRescheduled(at=T0, start=START, end=END, time_zone="Europe/Berlin")
        then.then(succeeded(operation="reschedule", booking=lean(seen)), done).rests("confirmed")
        then.is_("confirmed", parked=False, astray=False)

    @pytest.mark.parametrize("stream", [MOVING, RESTORING], ids=["a move", "a restore"])
    def test_refused_a_restore_parks_for_the_booking_stands_elsewhere(self, stream: tuple[e.Event, ...]) -> None:
        then = given(*stream).when(answered(Rejected(reason="full"), operation="reschedule", round=1), after(9))
        then.is_("confirmed", parked=stream is RESTORING).rests("confirmed")
        if stream is RESTORING:
            assert then.turn.state.parked_reason == "it could not be moved back to its times: full"

    def test_parked_so_it_can_be_adopted_after_all(self) -> None:
        then = given(*RESTORING).when(answered(Rejected(reason="full"), operation="reschedule", round=1), after(9))
        then.when(report(MOVED, "adopt", "report-2"), after(10)).is_("confirmed", parked=False).rests("confirmed")

    def test_resumed_by_an_operator_it_is_left_as_it_is(self) -> None:
        then = given(*RESTORING).when(answered(Rejected(reason="full"), operation="reschedule", round=1), after(9))
        then.when(act("resume"), after(10)).rests("confirmed").is_("confirmed", parked=False)

    def test_a_cancel_overtakes_it(self) -> None:
        then = given(*RESTORING).when(cancel(), after(5)).is_("cancelling")
        then.when(answered(Rejected(reason="full"), operation="reschedule", round=1), after(9)).calls(
            "calendar", "compensation", operation_id=op(operation="compensation", round=1)
        )

    def test_another_entry_at_the_same_times_needs_no_call(self) -> None:
        seen = booking(ref="bk-2")
        then = given(*CONFIRMED).when(report(seen, "restore")).then(observed(seen, "restore")).rests("confirmed")
        assert then.turn.state.booking == seen

    def test_a_title_is_not_taken_back(self) -> None:
        given(*CONFIRMED).refuses(IllegalTransition, report(RENAMED, "restore"))


class TestRestoreWhatIsGone:
    @pytest.mark.parametrize("seen", [None, OVER], ids=["gone", "cancelled"])
    @pytest.mark.parametrize("stream", [CONFIRMED, (*CONFIRMED, parked())], ids=["confirmed", "parked"])
    def test_it_is_booked_again_by_another_operation(
        self, stream: tuple[e.Event, ...], seen: ProviderBooking | None
    ) -> None:
        then = given(*stream).when(report(seen, "restore"))
        then.then(observed(seen, "restore"), again(), started(round=1))
        then.calls("calendar", attempt=1, operation_id=op(round=1)).is_("booking", parked=False)
        assert op(round=1) != op()

    def test_time_and_attempts_are_fresh(self) -> None:
        tired = (*CONFIRMED[:1], started(attempt=1), failed(), started(attempt=2), *CONFIRMED[2:])
        late = DEADLINE + timedelta(hours=2)
        then = given(*tired).when(report(None, "restore"), late).calls("calendar", attempt=1)
        assert then.turn.state.deadline_at == late + ms(PLAN.deadline_ms)

    def test_nobody_is_told_confirmed_after_it_has_begun(self) -> None:
        then = given(*CONFIRMED).when(report(None, "restore"), START - ms(1_000))
        assert then.turn.state.deadline_at == START

    def test_booked_again_it_is_confirmed_and_nobody_else_is_asked_again(self) -> None:
        seen = booking(ref="bk-2")
        then = given(*PAID).when(report(None, "restore"), plan=THREE)
        then = then.when(answered(Confirmed(booking=seen), round=1), after(9), plan=THREE)
        then.then(succeeded(booking=lean(seen)), CONFIRMATION).rests("confirmed").is_("confirmed", detail="")
        assert then.turn.state.booking == lean(seen)

    def test_a_lost_answer_is_repeated_under_the_same_id(self) -> None:
        then = given(*REBOOKING).when(answered(TIMEOUT, round=1), after(5)).waits(after(505))
        then.when(DUE, after(505)).calls("calendar", attempt=2, operation_id=op(round=1))

    def test_an_answer_to_the_operation_of_before_is_nobody_s(self) -> None:
        given(*REBOOKING).when(answered(Confirmed(booking=booking()), round=0), after(5)).idle()

    def test_refused_it_fails_and_what_else_was_done_is_undone(self) -> None:
        then = given(*PAID).when(report(None, "restore"), plan=THREE)
        then = then.when(answered(Rejected(reason="taken", conflict=True), round=1), after(5), plan=THREE)
        then.calls("deposit", "compensation")
        done = answered(Confirmed(), "deposit", operation="compensation", round=1)
        then.when(done, after(9), plan=THREE).rests("failed").is_("failed", reason=e.EndReason.CONFLICT)

    def test_out_of_time_it_is_looked_for_and_taken_away(self) -> None:
        then = given(*REBOOKING).when(answered(TIMEOUT, round=1), after(5))
        then = then.when(DUE, DEADLINE).is_("compensating").reads("lookup")
        then = then.when(read(Found(booking=booking(ref="bk-2")), DEADLINE + ms(2_500)), DEADLINE + ms(2_600))
        then.calls("calendar", "compensation", operation_id=op(operation="compensation", round=1))

    def test_held_back_by_a_breaker_it_is_not_called_confirmed(self) -> None:
        given(*CONFIRMED).when(report(None, "restore"), T0, closed(after(5_000))).is_("booking").waits(after(5_000))

    def test_pending_it_settles_as_any_booking(self) -> None:
        then = given(*REBOOKING).when(answered(Pending(booking=booking("pending", 1, "bk-2")), round=1), after(5))
        then.is_("pending").when(told("accepted", 2, ref="bk-2"), after(9)).rests("confirmed")

    def test_a_cancelled_entry_is_written_over_under_its_etag(self) -> None:
        replaced = given(*OVERWRITING).state.action("calendar").replaced
        assert replaced is not None
        assert replaced.etag == '"5"'

    def test_what_was_booked_by_an_erased_person_is_not_booked_again(self) -> None:
        given(*erased()).refuses(IllegalTransition, report(None, "restore"))
        given(*erased()).when(report(None, "adopt")).rests("cancelled")

    class TestWordOfTheOldOne:
        @pytest.mark.parametrize("status", ["cancelled", "accepted"])
        @pytest.mark.parametrize("stream", [REBOOKING, OVERWRITING], ids=["gone", "cancelled"])
        def test_a_callback_comes_late_and_says_nothing_of_the_new_one(
            self, stream: tuple[e.Event, ...], status: str
        ) -> None:
            given(*stream).when(told(status, 9), after(5)).idle()
            given(*stream, failed(), doubt()).when(told(status, 9), after(5)).idle()

        def test_nor_does_a_look_up_that_shows_it(self) -> None:
            stream = (*OVERWRITING, failed(), doubt("retry_exhausted"))
            then = given(*stream).when(read(Found(booking=OVER), T0), after(5))
            missing = e.BookingMissing(at=T0, step="calendar", trusted=False, look_at=after(2_000))
            then.then(missing).waits(after(2_000))
            then = then.when(read(Found(booking=OVER), after(2_000)), after(2_010))
            then.rests("failed").is_("failed", reason=e.EndReason.RETRY_EXHAUSTED)

        def test_when_all_is_over_its_revival_is_taken_away(self) -> None:
            then = given(*REBOOKING).when(answered(Rejected(reason="full"), round=1), after(5)).rests("failed")
            then.when(told("accepted", 1, "wh-1"), after(6)).idle()
            then.when(told("accepted", 9, "wh-2"), after(7)).calls("calendar", "compensation")


class TestPark:
    @pytest.mark.parametrize("seen", [None, OVER, MOVED, RENAMED, booking("pending", 2)], ids=seen_as)
    def test_it_is_parked_with_what_was_seen(self, seen: ProviderBooking | None) -> None:
        then = given(*CONFIRMED).when(report(seen, "park")).then(observed(seen, "park")).rests("confirmed")
        then.is_("confirmed", parked=True, parked_reason=f"{seen_as(seen)}: seen")
        assert then.turn.state.booking == given(*CONFIRMED).state.booking

    @pytest.mark.parametrize("repair", ["adopt", "restore"])
    @pytest.mark.parametrize("seen", [None, MOVED], ids=seen_as)
    def test_an_operator_decides_by_the_same_command(self, repair: str, seen: ProviderBooking | None) -> None:
        then = given(*CONFIRMED).when(report(seen, "park")).when(report(seen, repair, "report-2"), after(5))
        assert then.turn.events[0] == observed(seen, repair, "report-2").model_copy(update={"at": after(5)})
        assert not then.turn.state.parked

    def test_or_lets_it_be(self) -> None:
        given(*CONFIRMED).when(report(MOVED, "park")).when(act("resume"), after(5)).rests("confirmed")


class TestRemove:
    @pytest.mark.parametrize(("stream", "end"), [(GONE, "cancelled"), (REFUSED, "failed")], ids=["cancelled", "failed"])
    def test_a_leftover_is_taken_away_and_the_end_stays(self, stream: tuple[e.Event, ...], end: str) -> None:
        seen = booking(version=7, ref="bk-9")
        then = given(*stream).when(report(seen, "remove"))
        late = e.LateSuccess(
            at=T0, step="calendar", provider_ref="bk-9", version=7, cleanup_until=T0 + ms(PLAN.cleanup_ms)
        )
        undo = started(operation="compensation", round=1)
        then.then(observed(seen, "remove"), late, undo).calls("calendar", "compensation")
        reason = given(*stream).state.reason
        done = answered(Confirmed(), operation="compensation", round=1)
        then.when(done, after(5)).rests(end).is_(end, reason=reason)

    @pytest.mark.parametrize("seen", [None, OVER], ids=seen_as)
    def test_where_nothing_is_left_there_is_nothing_to_remove(self, seen: ProviderBooking | None) -> None:
        given(*GONE).refuses(IllegalTransition, report(seen, "remove"))


class TestRefused:
    @pytest.mark.parametrize("repair", list(Repair))
    @pytest.mark.parametrize(
        "stream",
        [CREATING, PENDING, MOVING, CANCELLING, (*CREATING, parked()), (*CREATING, failed(), begun())],
        ids=["booking", "pending", "rescheduling", "cancelling", "parked", "compensating"],
    )
    def test_what_is_unfinished_settles_itself(self, stream: tuple[e.Event, ...], repair: str) -> None:
        for seen in (None, OVER, MOVED):
            given(*stream).refuses(IllegalTransition, report(seen, repair))

    @pytest.mark.parametrize("repair", ["adopt", "restore", "park"])
    @pytest.mark.parametrize("stream", [GONE, REFUSED], ids=["cancelled", "failed"])
    def test_of_what_has_ended_only_a_leftover_is_removed(self, stream: tuple[e.Event, ...], repair: str) -> None:
        for seen in (None, OVER, MOVED):
            given(*stream).refuses(IllegalTransition, report(seen, repair))

    def test_what_is_confirmed_is_not_removed(self) -> None:
        for seen in (None, OVER, MOVED):
            given(*CONFIRMED).refuses(IllegalTransition, report(seen, "remove"))

    @pytest.mark.parametrize("repair", ["adopt", "restore", "park"])
    @pytest.mark.parametrize(
        "seen",
        [
            booking(),
            booking(version=8),
            booking(start=START + ms(1), end=END + ms(999)),
            lean(booking()),
            booking().model_copy(update={"summary": " Check-up\n"}),
        ],
        ids=["the same", "another version", "within the second", "without times", "white space"],
    )
    def test_a_report_that_agrees(self, seen: ProviderBooking, repair: str) -> None:
        refused = given(*CONFIRMED).refuses(IllegalTransition, report(seen, repair))
        assert "nothing differs" in str(refused)

    def test_one_that_was_completed_by_hand_has_no_booking_to_miss(self) -> None:
        by_hand = e.AppointmentConfirmed(at=T0, forced=True)
        stream = (*CREATING, failed(kind="retryable"), acted("force_complete"), by_hand)
        for repair in ("adopt", "restore", "park"):
            given(*stream).refuses(IllegalTransition, report(None, repair))

    @pytest.mark.parametrize("repair", ["adopt", "restore"])
    def test_what_the_provider_has_not_settled(self, repair: str) -> None:
        given(*CONFIRMED).refuses(IllegalTransition, report(booking("pending", 2), repair))

    def test_another_appointment_s_booking(self) -> None:
        other = MOVED.model_copy(update={"client_ref": "somebody-else"})
        given(*CONFIRMED).refuses(IllegalTransition, report(other, "adopt"))

    def test_what_does_not_exist(self) -> None:
        given().refuses(UnknownAppointment, report(None, "adopt"))

    def test_a_version_that_has_passed(self) -> None:
        given(*CONFIRMED).refuses(StaleVersion, report(None, "adopt", expected_version=3))

    @pytest.mark.parametrize(
        "times",
        [
            {"start": "2026-03-04T10:00:00", "end": "2026-03-04T11:00:00"},
            {"start": "2026-03-04T10:00:00Z"},
            {"start": "1804-03-04T10:00:00Z", "end": "1804-03-04T11:00:00Z"},
        ],
        ids=["no offset", "no end", "another age"],
    )
    def test_what_cannot_have_been_seen(self, times: dict[str, str]) -> None:
        seen = {"provider_ref": "bk-1", "status": "accepted", **times}
        with pytest.raises(InvalidFields):
            parse(ReportBooking, {"seen": seen, "repair": "adopt"})


class TestTwice:
    @pytest.mark.parametrize(
        ("stream", "seen", "repair"),
        [
            (CONFIRMED, MOVED, "adopt"),
            (CONFIRMED, None, "adopt"),
            (CONFIRMED, MOVED, "restore"),
            (CONFIRMED, None, "restore"),
            (CONFIRMED, MOVED, "park"),
            (GONE, LEFT, "remove"),
        ],
    )
    def test_the_same_report_does_nothing_twice(
        self, stream: tuple[e.Event, ...], seen: ProviderBooking | None, repair: str
    ) -> None:
        then = given(*stream).when(report(seen, repair))
        again = then.when(report(seen, repair), after(5)).idle()
        assert again.turn.replayed
        later = Given(then.turn.state)
        later.refuses(KeyReused, report(booking(version=99), repair))

    def test_adopted_once_it_agrees(self) -> None:
        then = given(*CONFIRMED).when(report(MOVED, "adopt"))
        Given(then.turn.state).refuses(IllegalTransition, report(MOVED, "adopt", "report-2"))


def test_a_stranger_s_title_is_taken_over_as_far_as_a_booking_may_have_it() -> None:
    for title, kept in (("x" * 300, "x" * 255), ("a\x00b", "a b"), ("\x07", None)):
        command = ReportBooking(seen=MOVED.model_copy(update={"summary": title}), repair=Repair.ADOPT)
        assert command.seen is not None
        assert command.seen.summary == kept


def test_a_look_up_of_a_provider_without_search_reads_no_old_reference() -> None:
    blind = with_calendar(PLAN, resend=False, lookup=False)
    then = given(*REBOOKING).when(answered(TIMEOUT, round=1), after(5), plan=blind)
    then.is_("booking", parked=True)
