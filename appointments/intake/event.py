"""One VEVENT as a booking: its times, its people, what else is kept of it, and what cannot be booked (RFC 5545 3.6.1).

A time that the file leaves open is refused, never guessed: no end, no zone, a local time that is skipped or repeated.
What a booking has no field for goes into its metadata: UID, description, URL, categories, people without an e-mail
address. Alarms, attachments and X-properties are left behind.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property

from pydantic import ValidationError

from appointments.intake.components import Component, Property
from appointments.intake.items import derived_key, label
from appointments.intake.recurrence import checked_rule
from appointments.intake.values import duration, email_of, note, plain_text, wall_clock
from appointments.intake.zones import Zone, Zones
from domain.commands import BookAppointment, refusal
from domain.errors import InvalidFields
from domain.identity import fingerprint
from domain.local_time import start_of_day
from domain.provider import Party

NO_SUMMARY = "(no summary)"
METADATA_VALUE_MAX = 500
_DECIDING = ("DTSTART", "DTEND", "DURATION", "RRULE", "RDATE", "EXDATE", "RECURRENCE-ID", "UID", "STATUS", "SUMMARY")
_ONCE = ("DTSTART", "DTEND", "DURATION", "RRULE", "RECURRENCE-ID", "UID", "STATUS", "SUMMARY")
_NOT_CARRIED = ("RDATE", "EXDATE", "EXRULE")
_UTC = Zone("UTC", UTC)


@dataclass(frozen=True, slots=True)
class Span:
    """When an event takes place: instants, the zone to show them in, and what clocks show there at the start."""

    start: datetime
    end: datetime
    zone: Zone
    all_day: bool
    local_start: datetime


class Event:
    """A VEVENT of a file, with the zones of its calendar."""

    def __init__(self, component: Component, zones: Zones) -> None:
        self.line = component.line
        self.closed = component.closed
        self._zones = zones
        self._found, self._broken = component.properties()

    @cached_property
    def uid(self) -> str | None:
        """The UID, or None where there is none."""
        return (self._text("UID") or "").strip() or None

    @cached_property
    def recurrence_id(self) -> str | None:
        """Which occurrence of a series this event changes, as the file writes it; None for a whole event."""
        given = self._one("RECURRENCE-ID")
        return None if given is None else f"{given.parameters.get('TZID', '')}:{given.value.strip().upper()}"

    @cached_property
    def revision(self) -> tuple[int, str]:
        """What tells the later of two revisions of an event: SEQUENCE, then DTSTAMP (RFC 5546 section 2.1.5)."""
        sequence = (self._text("SEQUENCE") or "0").strip()
        return int(sequence) if sequence.isascii() and sequence.isdigit() and len(sequence) < 10 else 0, (
            self._text("DTSTAMP") or ""
        ).strip()

    @property
    def recurs(self) -> bool:
        """Whether the event is a series."""
        return any(given.value.strip() for name in ("RRULE", "RDATE") for given in self._found.get(name, ()))

    @property
    def name(self) -> str:
        """How a refusal names the event: its UID, and which occurrence; else the line where it begins."""
        if self.uid is None:
            return f"line {self.line}"
        occurrence = self._one("RECURRENCE-ID")
        return label(self.uid if occurrence is None else f"{self.uid} ({occurrence.value})")

    @property
    def summary(self) -> str:
        """The summary, whatever the file holds there."""
        return plain_text(self._text("SUMMARY") or "") or NO_SUMMARY

    def key(self, command: BookAppointment) -> str:
        """The idempotency key: calendar, UID and occurrence; the content where there is no UID."""
        if self.uid is None:
            return derived_key("ics", command.calendar, None, fingerprint(command))
        return derived_key("ics", command.calendar, self.uid, self.recurrence_id)

    def command(self, calendar: str) -> BookAppointment:
        """The booking that this event asks for; raises `InvalidFields` with the reason where it asks for none."""
        self._check()
        span = self._span()
        organizer, attendees, others = self._people()
        try:
            return BookAppointment(
                calendar=calendar,
                start=span.start,
                end=span.end,
                time_zone=span.zone.name,
                summary=self.summary,
                location=plain_text(self._text("LOCATION") or "") or None,
                organizer=organizer,
                attendees=attendees,
                metadata=self._metadata(others),
                all_day=span.all_day,
                recurrence=self._recurrence(span),
            )
        except ValidationError as faults:
            raise refusal(faults) from None

    def _check(self) -> None:
        if not self.closed:
            raise InvalidFields("the file breaks off inside this event")
        for name in _DECIDING:
            if name in self._broken:
                raise InvalidFields(f"line {self._broken[name]}: {name} cannot be read")
        for name in _ONCE:
            if len(self._found.get(name, ())) > 1:
                raise InvalidFields(f"{name} stands there {len(self._found[name])} times")
        if (self._text("STATUS") or "").strip().upper() == "CANCELLED":
            raise InvalidFields("STATUS is CANCELLED: nothing to book")
        for name in _NOT_CARRIED:
            if any(given.value.strip() for given in self._found.get(name, ())):
                raise InvalidFields(f"a booking cannot carry {name}: a series is booked by its RRULE alone")
        occurrence = self._one("RECURRENCE-ID")
        if occurrence is not None and ("RANGE" in occurrence.parameters or self.recurs):
            raise InvalidFields("changes an occurrence and all later ones: a booking cannot carry that")

    def _span(self) -> Span:
        given = self._one("DTSTART")
        if given is None:
            raise InvalidFields("DTSTART is missing")
        start, utc = self._moment("DTSTART", given)
        if not isinstance(start, datetime):
            return self._days(start)
        zone = self._zone(given, utc)
        instant = _within("DTSTART", zone, start)
        shown = self._shown(given, utc, zone)
        return Span(instant, self._end(start, instant, zone), shown, all_day=False, local_start=start)

    def _end(self, start: datetime, instant: datetime, zone: Zone) -> datetime:
        until, length = self._one("DTEND"), self._one("DURATION")
        if until is not None and length is not None:
            raise InvalidFields("DTEND and DURATION exclude each other")
        if until is not None:
            end, utc = self._moment("DTEND", until)
            if not isinstance(end, datetime):
                raise InvalidFields("DTEND is a date, but DTSTART a time")
            return _within("DTEND", self._zone(until, utc), end)
        if length is None:
            raise InvalidFields("no end: neither DTEND nor DURATION")
        nominal, exact = duration(length.value)
        try:
            return (_within("DURATION", zone, start + nominal) if nominal else instant) + exact
        except OverflowError:
            raise InvalidFields("DURATION: ends outside the calendar") from None

    def _days(self, first: date) -> Span:
        """Whole days: from the first to the day before DTEND; one day where there is no end."""
        until, length = self._one("DTEND"), self._one("DURATION")
        if until is not None and length is not None:
            raise InvalidFields("DTEND and DURATION exclude each other")
        try:
            last = first + timedelta(days=1)
            if length is not None:
                nominal, exact = duration(length.value)
                if exact:
                    raise InvalidFields("DURATION must be in days, as DTSTART is a date")
                last = first + nominal
        except OverflowError:
            raise InvalidFields("ends outside the calendar") from None
        if until is not None:
            last, _ = self._moment("DTEND", until)
            if isinstance(last, datetime):
                raise InvalidFields("DTEND is a time, but DTSTART a date")
        zone = self._zones.floating() or _UTC
        midnight = datetime.combine(first, datetime.min.time())
        return Span(start_of_day(first, zone.name), start_of_day(last, zone.name), zone, True, midnight)

    def _moment(self, name: str, given: Property) -> tuple[date | datetime, bool]:
        try:
            moment, utc = wall_clock(given.value)
        except InvalidFields as refused:
            raise InvalidFields(f"{name}: {refused.detail}") from None
        if given.parameters.get("VALUE", "").upper() == "DATE" and isinstance(moment, datetime):
            raise InvalidFields(f"{name} says VALUE=DATE, but holds a time")
        return moment, utc

    def _zone(self, given: Property, utc: bool) -> Zone:
        """The zone in which to read a time."""
        if utc:
            return _UTC
        if "TZID" in given.parameters:
            return self._zones.named(given.parameters["TZID"])
        floating = self._zones.floating()
        if floating is None:
            raise InvalidFields("a floating time: neither the file nor the caller names a time zone")
        return floating

    def _shown(self, given: Property, utc: bool, zone: Zone) -> Zone:
        """The zone in which the booking is shown: that of DTSTART; a time in UTC takes the calendar's zone.

        A series in UTC stays in UTC, as in any other zone its later occurrences would move with the clocks.
        """
        if not utc or self.recurs:
            return zone
        return self._zones.floating() or zone

    def _recurrence(self, span: Span) -> str | None:
        rule = self._one("RRULE")
        if rule is None or not rule.value.strip():
            return None
        if not span.zone.named:
            raise InvalidFields(f"a series in the zone {span.zone.shown}, which has no IANA name, cannot be kept")
        return checked_rule(rule.value, span.start, span.all_day, span.local_start)

    def _people(self) -> tuple[Party | None, tuple[Party, ...], list[str]]:
        """Organizer, attendees (each e-mail address once), and the addresses that are no e-mail addresses."""
        others: list[str] = []
        parties: dict[str, dict[str, Party]] = {"ORGANIZER": {}, "ATTENDEE": {}}
        for role, known in parties.items():
            for address in self._found.get(role, ()):
                email = email_of(address)
                if email is None:
                    others.append(address.value.strip() or address.parameters.get("CN", ""))
                else:
                    name = note(address.parameters.get("CN", ""), 255) or None
                    known.setdefault(email.casefold(), Party(email=email, name=name))
        organizer = next(iter(parties["ORGANIZER"].values()), None)
        return organizer, tuple(parties["ATTENDEE"].values()), others

    def _metadata(self, others: list[str]) -> dict[str, str]:
        status = (self._text("STATUS") or "").strip().upper()
        kept = {
            "ical_uid": self.uid,
            "ical_recurrence_id": self.recurrence_id and self.recurrence_id.removeprefix(":"),
            "description": self._text("DESCRIPTION"),
            "url": self._text("URL"),
            "categories": ", ".join(given.value for given in self._found.get("CATEGORIES", ())),
            "status": status if status == "TENTATIVE" else None,
            "other_people": ", ".join(filter(None, others)),
        }
        noted = {name: note(value, METADATA_VALUE_MAX) for name, value in kept.items() if value}
        return {name: value for name, value in noted.items() if value}

    def _one(self, name: str) -> Property | None:
        return next(iter(self._found.get(name, ())), None)

    def _text(self, name: str) -> str | None:
        given = self._one(name)
        return None if given is None else given.value


def _within(name: str, zone: Zone, local: datetime) -> datetime:
    try:
        return zone.instant(local)
    except InvalidFields as refused:
        raise InvalidFields(f"{name}: {refused.detail}") from None
