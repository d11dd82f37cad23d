"""Decide what a booking comes to that was seen otherwise than the log says: adopted, restored, parked or removed.

The report is a fact of its own; what follows from it is what a command would have brought about, without a key.
"""

from datetime import datetime, timedelta

from domain import events as e
from domain.appointment import Appointment
from domain.commands import Repair, ReportBooking, check_times
from domain.definition import SagaPlan
from domain.errors import IllegalTransition
from domain.identity import client_ref
from domain.lifecycle import ENDED, State
from domain.personal import ERASED
from domain.provider import LIVE, BookingDetails, BookingStatus, ProviderBooking
from domain.seen import seen_as, stands_as_booked


def reported(
    state: Appointment, command: ReportBooking, now: datetime, plan: SagaPlan, who: dict[str, object]
) -> tuple[e.Event, ...]:
    """The report, and what was asked with it. Raises `IllegalTransition`, also where nothing differs."""
    assert state.details is not None
    if command.seen is not None and command.seen.client_ref not in ("", client_ref(state.id), state.foreign_ref):
        raise IllegalTransition("what was seen is the booking of another appointment")
    seen = _news(state.details, command.seen)
    observed = e.BookingObserved.model_validate(
        {**who, "repair": command.repair, "reason": command.reason, "seen": seen}
    )
    if state.state in ENDED:
        return observed, _removed(state, command, now, plan)
    if state.state is not State.CONFIRMED or command.repair is Repair.REMOVE:
        parked = ", parked" if state.parked else ""
        legal = "once failed or cancelled" if command.repair is Repair.REMOVE else "when confirmed"
        raise IllegalTransition(f"{command.repair} is not legal in state {state.state}{parked}; it is legal {legal}")
    _check(state, command.repair, seen)
    return observed, *_followed(state, command, seen, now, plan, who)


def _news(details: BookingDetails, seen: ProviderBooking | None) -> ProviderBooking | None:
    """What was seen, without what the stream says already, and without a title that was erased from it."""
    if seen is None:
        return None
    summary = seen.summary
    if summary is None or details.summary == ERASED or summary.split() == details.summary.split():
        summary = None
    return seen.model_copy(update={"client_ref": "", "summary": summary})


def _removed(state: Appointment, command: ReportBooking, now: datetime, plan: SagaPlan) -> e.LateSuccess:
    seen = command.seen
    if command.repair is not Repair.REMOVE:
        raise IllegalTransition(f"{command.repair} is not legal in state {state.state}; a leftover can be removed")
    if seen is None or seen.status not in LIVE:
        raise IllegalTransition("nothing differs: nothing is left there to remove")
    return e.LateSuccess(
        at=now,
        step=plan.booking_step.name,
        provider_ref=seen.provider_ref,
        version=seen.version,
        cleanup_until=now + timedelta(milliseconds=plan.cleanup_ms),
    )


def _check(state: Appointment, repair: Repair, seen: ProviderBooking | None) -> None:
    gone = seen is None or seen.status not in LIVE
    if not _differs(state, seen) and (gone or not state.parked or repair is Repair.PARK):
        raise IllegalTransition("nothing differs: the booking is as the log says")
    if repair is Repair.PARK:
        return
    assert state.details is not None
    if seen is not None and seen.status is BookingStatus.PENDING:
        raise IllegalTransition("the provider has not settled the booking; report it again when it has, or park it")
    if repair is Repair.ADOPT and seen is not None and not gone and seen.start and seen.end:
        try:
            check_times(seen.start, seen.end)
        except ValueError as fault:
            raise IllegalTransition(f"what was seen cannot be adopted: {fault}; restore or park it") from None
    if repair is Repair.RESTORE and gone and ERASED in (state.details.summary, state.key):
        raise IllegalTransition("what was booked was erased and cannot be booked again; adopt it or park it")
    if repair is Repair.RESTORE and seen is not None and not gone and not _can_be_restored(state, seen):
        raise IllegalTransition("a provider takes times back, no other field; adopt it or park it")


def _differs(state: Appointment, seen: ProviderBooking | None) -> bool:
    known = state.booking
    if seen is None or seen.status not in LIVE:
        # One that was completed by hand has no booking to miss.
        return known is not None
    return seen.status is not BookingStatus.ACCEPTED or seen.summary is not None or _moved(state, seen)


def _moved(state: Appointment, seen: ProviderBooking) -> bool:
    """It stands at other times, or it is another booking than the one that is known to live."""
    known, details = state.booking, state.details
    assert details is not None
    same = known is not None and known.status in LIVE and known.provider_ref == seen.provider_ref
    return not same or not stands_as_booked(details, seen)


def _can_be_restored(state: Appointment, seen: ProviderBooking) -> bool:
    return seen.summary is None or _moved(state, seen)


def _followed(
    state: Appointment,
    command: ReportBooking,
    seen: ProviderBooking | None,
    now: datetime,
    plan: SagaPlan,
    who: dict[str, object],
) -> tuple[e.Event, ...]:
    details = state.details
    assert details is not None
    gone = seen is None or seen.status not in LIVE
    keyless = {**who, "key": "", "fingerprint": ""}
    deadline_at = plan.deadline_after(now, details.start)
    match command.repair:
        case Repair.ADOPT if gone:
            cleanup_until = now + timedelta(milliseconds=plan.cleanup_ms)
            asked = {"reason": command.reason or seen_as(seen), "cleanup_until": cleanup_until}
            return (e.CancellationRequested.model_validate({**keyless, **asked}),)
        case Repair.RESTORE if gone:
            return (e.RebookingRequested(at=now, deadline_at=deadline_at),)
        case Repair.RESTORE if seen is not None and not stands_as_booked(details, seen):
            back = {"start": details.start, "end": details.end, "time_zone": details.time_zone}
            return (e.RescheduleRequested.model_validate({**keyless, **back, "deadline_at": deadline_at}),)
        case _:
            return ()
