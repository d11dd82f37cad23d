"""Who answers a read: our log, or the calendar that people look at as long as the legacy system has no reads.

Owns that choice for one appointment, and the comparison that comes with asking the calendar. It changes nothing. The
whole of a calendar is compared by a reconciliation.
"""

from appointments.migration.split import Leader
from appointments.views import Appointment
from domain.appointment import Appointment as State
from domain.lifecycle import SETTLED
from domain.lifecycle import State as Fine
from domain.provider import LIVE, Call, Found, Missing, Provider, ProviderBooking, Value
from domain.seen import stands_as_booked


class Reading(Value):
    """An appointment as it was read."""

    appointment: Appointment
    """As our log has it, whoever answered."""
    answered_by: Leader
    there: ProviderBooking | None = None
    """As the calendar shows it, where that was asked."""
    agrees: bool | None = None
    """Whether both say the same; None where only one was asked, or gave no usable answer, or it is unfinished."""


async def read_there(seen: Appointment, state: State, provider: Provider, timeout_ms: int) -> Reading:
    """Ask the calendar, and compare. What has no place there as yet is answered from the log."""
    if state.booking is None or state.details is None:
        return Reading(appointment=seen, answered_by=Leader.OURS)
    call = Call(operation_id="read", client_ref=state.client_ref, timeout_ms=timeout_ms, tenant=state.tenant)
    outcome = await provider.get(call, state.details.calendar, state.booking.provider_ref)
    if not isinstance(outcome, Found | Missing):
        return Reading(appointment=seen, answered_by=Leader.OURS)
    there = outcome.booking if isinstance(outcome, Found) else None
    live = there is not None and there.status in LIVE
    agrees = None
    if state.state in SETTLED and not state.parked:
        wanted = state.state is Fine.CONFIRMED
        agrees = live == wanted and (there is None or not live or stands_as_booked(state.details, there))
    return Reading(appointment=seen, answered_by=Leader.LEGACY, there=there, agrees=agrees)
