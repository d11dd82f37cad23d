"""Zones of an iCalendar file: from a TZID to the IANA zone that is meant, or to the rules that the file gives.

Owns the order of trust: the IANA name itself; the name that Windows has for it; the IANA name at the end of a globally
unique one (`/vendor/Europe/Berlin`); the place in X-LIC-LOCATION; last the VTIMEZONE in the file, which gives instants
but no name. A VTIMEZONE that bears an IANA name does not override it (RFC 7809 lets clients and servers leave it out).
"""

from dataclasses import dataclass, field
from datetime import datetime, tzinfo

from icalendar import Timezone, TimezoneDaylight, TimezoneStandard
from icalendar.prop import vRecur, vUTCOffset
from icalendar.timezone.windows_to_olson import WINDOWS_TO_OLSON

from appointments.intake.components import Component
from appointments.intake.recurrence import parts_of
from appointments.intake.values import wall_clock
from domain.errors import InvalidFields
from domain.local_time import instants, is_zone, settle, zone_named

OBSERVANCES_MAX = 500
RULES_MAX = 16
ONSETS_MAX = 500
_YEARLY_PARTS = frozenset({"FREQ", "INTERVAL", "COUNT", "UNTIL", "BYMONTH", "BYDAY", "BYMONTHDAY", "WKST"})
"""Enough for every rule about clocks; others could be made to expand for hours."""
_DAYS_MAX = 7
"""Of one BYMONTHDAY: the days among which a rule such as "the first Sunday" looks."""
_UTC_NAMES = frozenset({"UTC", "Z", "GMT", "COORDINATED UNIVERSAL TIME"})
_YEAR_FIRST = 1_600


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone to read local times in. `named` is False for rules from the file: `name` is then UTC, for want of one."""

    name: str
    rules: tzinfo
    named: bool = True
    shown: str = ""

    def instant(self, local: datetime) -> datetime:
        """The instant at which clocks here show `local`; raises `InvalidFields` unless there is just one."""
        return settle(instants(local, self.rules), local, self.shown or self.name)


@dataclass(slots=True)
class Zones:
    """The zones that one calendar of a file speaks of, and the one that its floating times are in."""

    default_zone: str | None = None
    calendar_zone: str | None = None
    definitions: dict[str, Component] = field(default_factory=dict)
    _known: dict[str, Zone | str] = field(default_factory=dict)
    """What each TZID came to: a zone, or the reason why it is none."""

    @classmethod
    def of(cls, calendar: Component, default_zone: str | None) -> "Zones":
        """The zones of a VCALENDAR; its X-WR-TIMEZONE counts where it can be understood."""
        properties, _ = calendar.properties()
        defined: dict[str, Component] = {}
        for inner in calendar.inner:
            if inner.name == "VTIMEZONE" and inner.closed:
                for tzid in inner.properties()[0].get("TZID", [])[:1]:
                    defined.setdefault(tzid.value.strip(), inner)
        zones = cls(default_zone, None, defined)
        for given in properties.get("X-WR-TIMEZONE", [])[:1]:
            zones.calendar_zone = _iana(given.value.strip())
        return zones

    def floating(self) -> Zone | None:
        """The zone of times that name none: the calendar's own, else the caller's, else none."""
        name = self.calendar_zone or self.default_zone
        return Zone(name, zone_named(name)) if name else None

    def named(self, tzid: str) -> Zone:
        """The zone that a TZID means; raises `InvalidFields` for one that is neither known nor defined in the file."""
        tzid = tzid.strip()
        if tzid not in self._known:
            try:
                self._known[tzid] = self._find(tzid)
            except InvalidFields as unknown:
                self._known[tzid] = unknown.detail
        known = self._known[tzid]
        if isinstance(known, str):
            raise InvalidFields(known)
        return known

    def _find(self, tzid: str) -> Zone:
        name = _iana(tzid)
        definition = self.definitions.get(tzid)
        if name is None and definition is not None:
            for place in definition.properties()[0].get("X-LIC-LOCATION", [])[:1]:
                name = _iana(place.value.strip())
        if name is not None:
            return Zone(name, zone_named(name))
        if definition is not None:
            return Zone("UTC", _rules(definition), named=False, shown=f"{tzid[:64]!r}")
        try:
            zone_named(tzid)
        except InvalidFields as unknown:
            raise InvalidFields(f"TZID: {unknown.detail} (the file holds no VTIMEZONE for it)") from None
        raise AssertionError("unreachable")


def _iana(tzid: str) -> str | None:
    """The IANA name that a TZID means, or None."""
    clean = tzid.strip("/")
    if clean.upper() in _UTC_NAMES:
        return "UTC"
    parts = clean.split("/")
    candidates = [clean, str(WINDOWS_TO_OLSON.get(clean, "")), clean.replace(" ", "_")]
    candidates += ["/".join(parts[skipped:]) for skipped in range(1, min(len(parts) - 1, 8))]
    return next((name for name in candidates if is_zone(name)), None)


def _rules(definition: Component) -> tzinfo:
    """The zone that a VTIMEZONE defines; raises `InvalidFields` for one that cannot be computed within bounds.

    It is built anew from the few properties that matter and never shown to the library's parser, which would keep it
    for every later file under the same name.
    """
    observances = [inner for inner in definition.inner if inner.name in ("STANDARD", "DAYLIGHT")]
    if not 0 < len(observances) <= OBSERVANCES_MAX:
        raise InvalidFields(f"VTIMEZONE: needs 1 to {OBSERVANCES_MAX} STANDARD or DAYLIGHT parts")
    for name, most in (("RRULE", RULES_MAX), ("RDATE", ONSETS_MAX)):
        given = [value for inner in observances for value in inner.properties()[0].get(name, [])]
        if sum(value.value.count(",") + 1 if name == "RDATE" else 1 for value in given) > most:
            raise InvalidFields(f"VTIMEZONE: more than {most} {name}")
    zone = Timezone()
    zone.add("TZID", "intake")
    try:
        for observance in observances:
            zone.add_component(_observance(observance))
        rules: tzinfo = zone.to_tz(lookup_tzid=False)
        return rules
    except InvalidFields as refused:
        raise InvalidFields(f"VTIMEZONE: {refused.detail}") from None
    except (ValueError, TypeError, AttributeError, OverflowError) as broken:
        raise InvalidFields(f"VTIMEZONE: cannot be read: {str(broken)[:100]}") from None


def _observance(observance: Component) -> TimezoneStandard | TimezoneDaylight:
    found, _ = observance.properties()
    for name in ("DTSTART", "TZOFFSETFROM", "TZOFFSETTO"):
        if len(found.get(name, [])) != 1:
            raise InvalidFields(f"{observance.name} needs one {name}")
    part = TimezoneStandard() if observance.name == "STANDARD" else TimezoneDaylight()
    part.add("DTSTART", _onset(found["DTSTART"][0].value))
    for name in ("TZOFFSETFROM", "TZOFFSETTO"):
        part.add(name, vUTCOffset.from_ical(found[name][0].value))  # type: ignore[no-untyped-call]
    for rule in found.get("RRULE", []):
        part.add("RRULE", vRecur.from_ical(_yearly(rule.value)))
    for onset in found.get("RDATE", []):
        part.add("RDATE", [_onset(text) for text in onset.value.split(",")])
    return part


def _yearly(rule: str) -> str:
    """A rule that gives a handful of days a year at most."""
    parts = parts_of(rule)
    many = [name for name in ("BYMONTH", "BYDAY", "BYMONTHDAY") if "," in parts.get(name, "")]
    if (
        parts["FREQ"] != "YEARLY"
        or not parts.keys() <= _YEARLY_PARTS
        or many not in ([], ["BYMONTHDAY"])
        or parts.get("BYMONTHDAY", "").count(",") >= _DAYS_MAX
        or ("BYMONTH" not in parts and not parts.keys().isdisjoint({"BYDAY", "BYMONTHDAY"}))
    ):
        raise InvalidFields("RRULE must be yearly, by one month and day")
    return ";".join(f"{name}={value}" for name, value in parts.items())


def _onset(value: str) -> datetime:
    """When an observance begins: a local time; a date is its midnight."""
    moment, _ = wall_clock(value)
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)  # noqa: DTZ001 - local by definition
    if moment.year < _YEAR_FIRST:
        raise InvalidFields(f"begins before the year {_YEAR_FIRST}")
    return moment
