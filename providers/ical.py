"""A booking as an iCalendar object (RFC 5545): written, read, moved. Bytes in, bytes out; no HTTP.

Times carry a TZID and its VTIMEZONE, so that a series keeps its wall time. An instant in the second pass of a repeated
hour has no TZID form (RFC 5545, 3.3.5: the first pass is meant) and is written in UTC.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from icalendar import Calendar, Component, Event, vCalAddress, vRecur, vText
from icalendar.timezone import tzp

from domain.provider import BookingDetails, BookingStatus, Party

PRODUCT = "-//appointments//CalDAV//EN"
ZONE = "X-APPOINTMENTS-TIME-ZONE"
METADATA = "X-APPOINTMENTS-METADATA"
SERIES_YEARS = 20
ZONES_SINCE = date(1970, 1, 1)
ZONES_MAX = 20
ZONE_RULES_MAX = 50
ZONE_RULE = {"FREQ": 1, "BYMONTH": 1, "BYDAY": 1, "BYMONTHDAY": 7, "UNTIL": 1, "COUNT": 1, "WKST": 1}
"""What a yearly change of the clock is told by, and how many values each may have."""
SEQUENCE_MAX = 2**31 - 1
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


class _Text(vText):
    """TEXT in which a backslash before an N stays one: the library would write a line break in its place."""

    def to_ical(self) -> bytes:
        escaped = self.replace("\\", "\\\\").replace(";", r"\;").replace(",", r"\,").replace("\n", r"\n")
        return escaped.encode()


def write_event(client_ref: str, details: BookingDetails, now: datetime, sequence: int = 0) -> bytes:
    """Write a new event, or the next one in the place of one that was cancelled; raises `Unwritable`."""
    event = Event()
    event.add("UID", client_ref)
    event.add("SEQUENCE", sequence)
    event.add("STATUS", "CONFIRMED")
    event.add("SUMMARY", _Text(details.summary))
    _put_times(event, details, now)
    if details.location:
        event.add("LOCATION", _Text(details.location))
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
    since = (details.start - timedelta(days=366)).date()
    return _written(calendar, details, since, series=bool(details.recurrence))


def read_event(body: bytes) -> CalendarEvent:
    """Read a stored event; raises `Unreadable`."""
    try:
        calendar = _parsed(body)
        event = _main_event(calendar)
        start, end = _times(event, calendar)
        return CalendarEvent(
            uid=str(_needed(event, "UID")),
            status=STATUS.get(str(event.get("STATUS", "")).upper(), BookingStatus.ACCEPTED),
            sequence=_sequence(event),
            start=start,
            end=end,
            summary=str(event.get("SUMMARY", "")),
        )
    except Exception as fault:  # a stored body is a stranger's: the parser's errors have no common root
        raise Unreadable(str(fault)) from fault


def move_event(body: bytes, details: BookingDetails, now: datetime) -> bytes:
    """Give a stored event other times and the next SEQUENCE, all else kept; raises `Unreadable` or `Unwritable`."""
    try:
        calendar = _parsed(body)
        event = _main_event(calendar)
        sequence = _sequence(event)
        for name in ("DTSTART", "DTEND", "DURATION", "DTSTAMP", "LAST-MODIFIED", "SEQUENCE", ZONE):
            event.pop(name, None)
        event.add("SEQUENCE", sequence + 1)
        _put_times(event, details, now)
        # zones that IANA names are written anew: the old rules may end before the new times
        calendar.subcomponents = [part for part in calendar.subcomponents if not _is_iana_zone(part)]
        if len(calendar.get_used_tzids()) > ZONES_MAX:
            raise ValueError(f"it names more than {ZONES_MAX} time zones")
        return _written(calendar, details, ZONES_SINCE, series="RRULE" in event)
    except Unwritable:
        raise
    except Exception as fault:  # what a stranger's body holds shows only as it is written again
        raise Unreadable(str(fault)) from fault


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


def _written(calendar: Calendar, details: BookingDetails, first: date, *, series: bool) -> bytes:
    # bounded, because a zone's full history is 3 KB; a series gets rules enough for its years
    years = SERIES_YEARS if series else 1
    calendar.add_missing_timezones(first_date=first, last_date=(details.end + timedelta(days=366 * years)).date())
    written: bytes = calendar.to_ical()
    return written


def _parsed(body: bytes) -> Calendar:
    # the library keeps every zone that a body defines, by name and for good: another body would be read by it
    tzp.use_zoneinfo()
    return Calendar.from_ical(body)


def _main_event(calendar: Calendar) -> Event:
    # a changed instance of a series is a further VEVENT with a RECURRENCE-ID
    for event in calendar.events:
        if "RECURRENCE-ID" not in event:
            return event
    raise ValueError("it holds no event")


def _needed(event: Event, name: str) -> Any:
    if name not in event:
        raise ValueError(f"the event has no {name}")
    return event[name]


def _sequence(event: Event) -> int:
    return min(max(int(event.get("SEQUENCE", 0)), 0), SEQUENCE_MAX)


def _is_iana_zone(part: Component) -> bool:
    if part.name != "VTIMEZONE":
        return False
    try:
        _zone(str(part.get("TZID")))
    except Unwritable:
        return False
    return True


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, ZoneInfoNotFoundError) as fault:
        raise Unwritable(f"no such IANA time zone: {name!r}") from fault


def _times(event: Event, calendar: Calendar) -> tuple[datetime, datetime]:
    told = _needed(event, "DTSTART")
    start = _moment(told, calendar, event)
    if "DTEND" in event:
        end = _moment(_needed(event, "DTEND"), calendar, event)
    elif "DURATION" in event:
        # days are wall time, hours are exact (RFC 5545, 3.3.6)
        lasts = _needed(event, "DURATION").dt
        end = (start + timedelta(days=lasts.days)).astimezone(UTC) + timedelta(seconds=lasts.seconds)
    else:
        end = start if isinstance(told.dt, datetime) else start + timedelta(days=1)
    return start.astimezone(UTC), end.astimezone(UTC)


def _moment(told: Any, calendar: Calendar, event: Event) -> datetime:
    """A DTSTART or DTEND in its zone: IANA's, one that the body defines, or for floating times the booking's own."""
    moment, name = told.dt, str(told.params.get("TZID", ""))
    if not isinstance(moment, datetime):
        return datetime.combine(moment, time(), _zone(str(event.get(ZONE, "UTC"))))
    if not name:
        return moment if moment.tzinfo else moment.replace(tzinfo=_zone(str(event.get(ZONE, "UTC"))))
    if moment.tzinfo is None:
        raise ValueError(f"no such time zone: {name}")
    if not isinstance(moment.tzinfo, ZoneInfo):
        for zone in calendar.timezones:
            _check_rules(zone)
    return moment


def _check_rules(zone: Component) -> None:
    # every change of the clock since the rules began is worked out: one a second would take for ever
    if len(zone.subcomponents) > ZONE_RULES_MAX:
        raise ValueError(f"the time zone has more than {ZONE_RULES_MAX} rules")
    for part in zone.subcomponents:
        rule: Any = part.get("RRULE", {})
        few = all(len(values) <= ZONE_RULE.get(name, 0) for name, values in rule.items())
        if rule and not (few and rule.get("FREQ") == ["YEARLY"]):
            raise ValueError("the rules of the time zone are not yearly")


def _plain(text: str) -> str:
    # Servers that use the library write a backslash before an N anew as a line break, and it drops a byte order mark.
    return " ".join(text.replace("\\N", " ").replace("\ufeff", " ").split())
