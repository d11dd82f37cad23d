"""A booking as an iCalendar object (RFC 5545): written, read, moved. Bytes in, bytes out; no HTTP.

Times carry a TZID and its VTIMEZONE, so that a series keeps its wall time. An instant in the second pass of a repeated
hour has no TZID form (RFC 5545, 3.3.5: the first pass is meant) and is written in UTC.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from icalendar import Calendar, Component, Event, vCalAddress, vRecur

from domain.provider import BookingDetails, BookingStatus, Party

PRODUCT = "-//appointments//CalDAV//EN"
ZONE = "X-APPOINTMENTS-TIME-ZONE"
METADATA = "X-APPOINTMENTS-METADATA"
SERIES_YEARS = 20
ZONES_SINCE = date(1970, 1, 1)
RRULE = re.compile(r"FREQ=[A-Z]+(;[A-Z-]+=[A-Za-z0-9,:+/-]+)*")
STATUS = {"CANCELLED": BookingStatus.CANCELLED, "TENTATIVE": BookingStatus.PENDING}


class Unwritable(ValueError):
    """These details have no iCalendar form."""


class Unreadable(ValueError):
    """This body holds no event that can be read."""


@dataclass(frozen=True)
class CalendarEvent:
    """What a stored event says. `start` and `end` are UTC instants; for whole days, of the booking's own zone."""

    uid: str
    status: BookingStatus
    sequence: int
    start: datetime | None
    end: datetime | None
    summary: str

    def same_content(self, details: BookingDetails) -> bool:
        """Whether this is the booking that `details` asks for: fields are compared, servers rewrite bytes."""
        return self.same_times(details) and _plain(self.summary) == _plain(details.summary)

    def same_times(self, details: BookingDetails) -> bool:
        """Whether it stands at the times that `details` asks for."""
        return (self.start, self.end) == (details.start.replace(microsecond=0), details.end.replace(microsecond=0))


def write_event(client_ref: str, details: BookingDetails, now: datetime) -> bytes:
    """Write a new event; raises `Unwritable`."""
    event = Event()
    event.add("UID", client_ref)
    event.add("SEQUENCE", 0)
    event.add("STATUS", "CONFIRMED")
    event.add("SUMMARY", details.summary)
    _put_times(event, details, now)
    if details.location:
        event.add("LOCATION", details.location)
    if details.organizer:
        event.add("ORGANIZER", _address(details.organizer))
    for attendee in details.attendees:
        event.add("ATTENDEE", _address(attendee))
    if details.recurrence:
        event.add("RRULE", _recurrence(details))
    if details.metadata:
        event.add(METADATA, json.dumps(details.metadata, ensure_ascii=False, sort_keys=True))
    calendar = Calendar()
    calendar.add("PRODID", PRODUCT)
    calendar.add("VERSION", "2.0")
    calendar.add_component(event)
    return _written(calendar, details, (details.start - timedelta(days=366)).date())


def read_event(body: bytes) -> CalendarEvent:
    """Read a stored event; raises `Unreadable`."""
    try:
        event = _main_event(Calendar.from_ical(body))
        zone = _zone(str(event.get(ZONE, "UTC")))
        return CalendarEvent(
            uid=str(event["UID"]),
            status=STATUS.get(str(event.get("STATUS", "")).upper(), BookingStatus.ACCEPTED),
            sequence=max(int(event.get("SEQUENCE", 0)), 0),
            start=_instant(event.start, zone),
            end=_instant(event.end, zone),
            summary=str(event.get("SUMMARY", "")),
        )
    except Exception as fault:  # a stored body is a stranger's: the parser's errors have no common root
        raise Unreadable(f"{type(fault).__name__}: {fault}") from fault


def move_event(body: bytes, details: BookingDetails, now: datetime) -> bytes:
    """Give a stored event other times and the next SEQUENCE, all else kept; raises `Unreadable` or `Unwritable`."""
    try:
        calendar = Calendar.from_ical(body)
        event = _main_event(calendar)
        sequence = max(int(event.get("SEQUENCE", 0)), 0)
    except Exception as fault:
        raise Unreadable(f"{type(fault).__name__}: {fault}") from fault
    for name in ("DTSTART", "DTEND", "DURATION", "DTSTAMP", "LAST-MODIFIED", "SEQUENCE", ZONE):
        event.pop(name, None)
    event.add("SEQUENCE", sequence + 1)
    _put_times(event, details, now)
    # zones that IANA names are written anew: the old rules may end before the new times
    calendar.subcomponents = [part for part in calendar.subcomponents if not _is_iana_zone(part)]
    return _written(calendar, details, ZONES_SINCE)


def _put_times(event: Event, details: BookingDetails, now: datetime) -> None:
    zone = _zone(details.time_zone)
    event.add("DTSTART", _local(details.start, zone, details))
    event.add("DTEND", _local(details.end, zone, details))
    event.add("DTSTAMP", now.astimezone(UTC))
    event.add("LAST-MODIFIED", now.astimezone(UTC))
    event.add(ZONE, details.time_zone)


def _local(instant: datetime, zone: ZoneInfo, details: BookingDetails) -> datetime | date:
    local = instant.astimezone(zone)
    if details.all_day:
        if local.time() != time():
            raise Unwritable(f"whole days begin and end at midnight in {zone.key}, not at {local:%H:%M}")
        return local.date()
    if not local.fold:
        return instant.astimezone(UTC) if zone.key == "UTC" else local
    if details.recurrence:
        raise Unwritable(
            f"a series cannot be told to begin or end in the second pass of an hour repeated in {zone.key}"
        )
    return instant.astimezone(UTC)


def _address(party: Party) -> vCalAddress:
    address = vCalAddress(f"mailto:{party.email}")
    if party.name:
        address.params["CN"] = party.name
    return address


def _recurrence(details: BookingDetails) -> vRecur:
    rule = (details.recurrence or "").removeprefix("RRULE:")
    if not RRULE.fullmatch(rule):
        raise Unwritable("the recurrence is no RFC 5545 RRULE value")
    try:
        parsed: vRecur = vRecur.from_ical(rule)
    except ValueError as fault:
        raise Unwritable(f"the recurrence is no RFC 5545 RRULE value: {fault}") from fault
    return parsed


def _written(calendar: Calendar, details: BookingDetails, first: date) -> bytes:
    # bounded, because a zone's full history is 3 KB; a series gets rules enough for its years
    years = SERIES_YEARS if details.recurrence or calendar.events[0].rrules else 1
    calendar.add_missing_timezones(first_date=first, last_date=(details.end + timedelta(days=366 * years)).date())
    written: bytes = calendar.to_ical()
    return written


def _main_event(calendar: Calendar) -> Event:
    # a changed instance of a series is a further VEVENT with a RECURRENCE-ID
    return next(event for event in calendar.events if "RECURRENCE-ID" not in event)


def _is_iana_zone(part: Component) -> bool:
    return part.name == "VTIMEZONE" and str(part.get("TZID")) in available_timezones()


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, ZoneInfoNotFoundError) as fault:
        raise Unwritable(f"no such IANA time zone: {name!r}") from fault


def _instant(value: date, zone: ZoneInfo) -> datetime:
    if not isinstance(value, datetime):
        value = datetime.combine(value, time(), zone)
    elif value.tzinfo is None:
        value = value.replace(tzinfo=zone)
    return value.astimezone(UTC)


def _plain(text: str) -> str:
    return " ".join(text.split())
