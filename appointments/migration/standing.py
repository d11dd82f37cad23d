"""What stands at the provider, for records to be held against: a record is no proof of a booking."""

from appointments.migration.records import Candidate, Entry, LeftOut, listed
from appointments.orchestrator import Orchestrator
from domain.errors import CommandRefused, InvalidFields, ProviderUnavailable
from domain.provider import BookingStatus, ProviderBooking
from domain.seen import stands_as_booked
from projections.reconciliation.intended import text_hash

CALENDARS_MAX = 100
BOOKINGS_MAX = 500_000
"""In all calendars that one run reads: each takes about 1.5 kB until its end."""


class TooMany(CommandRefused):
    """More stands in the calendars than can be remembered; the run ends."""


class Standing:
    """The calendars that records name, each read when the first of its records is met."""

    def __init__(self, desk: Orchestrator) -> None:
        self._desk = desk
        self._calendars: dict[str, dict[str, ProviderBooking]] = {}

    async def checked(self, entry: Entry) -> Entry:
        """The entry with the booking as it stands; left out where that is not what the record says.

        Raises `ProviderUnavailable` or `TooMany`: what cannot be looked at is not taken over.
        """
        if isinstance(entry, LeftOut):
            return entry
        try:
            seen = (await self._calendar(entry.booked.calendar)).get(entry.booking.provider_ref)
        except InvalidFields as refused:
            return LeftOut(entry.where, refused.detail)
        if seen is None:
            where = f"in the calendar {entry.booked.calendar!r}"
            return LeftOut(entry.where, f"/provider_ref: no booking {entry.booking.provider_ref} is {where}")
        fault = _difference(entry, seen)
        return Candidate(entry.where, entry.key, entry.booked, seen) if fault is None else LeftOut(entry.where, fault)

    async def _calendar(self, name: str) -> dict[str, ProviderBooking]:
        if name not in self._calendars:
            if len(self._calendars) == CALENDARS_MAX:
                raise InvalidFields(f"/calendar: one run reads at most {CALENDARS_MAX} calendars; split the file")
            provider, tenant = self._desk.provider(name), self._desk.settings.tenant
            try:
                read: dict[str, ProviderBooking] = {}
                async for booking in listed(provider, name, tenant):
                    read[booking.provider_ref] = booking
                    if len(read) > BOOKINGS_MAX - self._count():
                        raise TooMany(
                            f"records cannot be held against calendar {name!r}: one run reads at most "
                            f"{BOOKINGS_MAX} bookings; split the file by calendar, or believe it and reconcile then"
                        )
            except ProviderUnavailable as fault:
                raise ProviderUnavailable(f"records cannot be held against calendar {name!r}: {fault}") from fault
            self._calendars[name] = read
        return self._calendars[name]

    def _count(self) -> int:
        return sum(len(read) for read in self._calendars.values())


def _difference(entry: Candidate, seen: ProviderBooking) -> str | None:
    wanted = entry.booked
    if seen.status is not BookingStatus.ACCEPTED:
        return f"/status: the booking is {seen.status} in the calendar"
    if not stands_as_booked(wanted, seen):
        return f"/start: it stands in the calendar from {seen.start} to {seen.end}"
    if seen.summary is not None and text_hash(seen.summary) != text_hash(wanted.summary):
        return "/summary: it stands in the calendar under another title"
    if entry.booking.client_ref not in ("", seen.client_ref):
        return "/client_ref: it stands in the calendar under another reference"
    return None
