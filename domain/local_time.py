"""Local times: from the wall clock of an IANA zone to an instant (UTC), and from RFC 3339 text.

Owns what is done with times that a zone does not have (a gap) or has twice (a fold): they are refused, since a guess
would book the wrong hour. It reads no clock; zones come from `zoneinfo` with `tzdata`.
"""

import re
from datetime import UTC, date, datetime, time, tzinfo
from difflib import get_close_matches
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from domain.errors import InvalidFields

_RFC_3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_LOCAL = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?", re.ASCII)
_NOT_PLACES = frozenset({"Factory", "localtime"})
_SHOWN_MAX = 64


def is_zone(name: str) -> bool:
    """Whether this is the name of an IANA time zone, in its exact spelling."""
    return name in _zone_names()


def zone_named(name: str) -> ZoneInfo:
    """The IANA zone of this name; raises `InvalidFields` with the nearest name for one that does not exist."""
    if is_zone(name):
        return ZoneInfo(name)
    raise InvalidFields(f"no such IANA time zone: {name[:_SHOWN_MAX]!r}; did you mean {_nearest(name)!r}?")


def to_instant(local: datetime, zone: str, fold: int | None = None) -> datetime:
    """The instant (UTC) at which the wall clock of `zone` shows `local`, a datetime without an offset.

    Raises `InvalidFields` for an unknown zone, for a time that the zone skips, and for one that it has twice, unless
    `fold` tells which: 0 the first, 1 the second (PEP 495).
    """
    return settle(instants(local, zone_named(zone)), local, zone, fold)


def settle(found: tuple[datetime, ...], local: datetime, zone: str, fold: int | None = None) -> datetime:
    """The one instant of those that `instants` found; raises `InvalidFields` for none, and for two without a `fold`."""
    match found:
        case (only,):
            return only
        case ():
            raise InvalidFields(f"{local:%Y-%m-%d %H:%M:%S} does not exist in {zone}: clocks skip it that day")
        case (first, *_, second):
            if fold is None:
                raise InvalidFields(
                    f"{local:%Y-%m-%d %H:%M:%S} happens twice in {zone}: clocks are set back that day; give the offset"
                )
            return second if fold else first
    raise AssertionError("unreachable")


def instants(local: datetime, zone: tzinfo) -> tuple[datetime, ...]:
    """Every instant (UTC, ascending) at which clocks of `zone` show `local`: none in a gap, two in a fold.

    Raises `InvalidFields` for a time with an offset of its own, or at the edge of the calendar.
    """
    if local.tzinfo is not None:
        raise InvalidFields("a local time carries no offset")
    try:
        guesses = {local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
        return tuple(sorted(at for at in guesses if at.astimezone(zone).replace(tzinfo=None, fold=0) == _plain(local)))
    except (OverflowError, ValueError) as outside:
        raise InvalidFields(f"{local.isoformat()} lies outside the calendar") from outside


def start_of_day(day: date, zone: str) -> datetime:
    """The instant (UTC) at which `day` begins in `zone`.

    Where clocks skip midnight it is read with the offset before the gap, where they repeat it the first counts (RFC
    5545 section 3.3.5). Raises `InvalidFields` for an unknown zone and for a day that the zone skips.
    """
    place = zone_named(zone)
    try:
        instant = datetime.combine(day, time(), tzinfo=place).astimezone(UTC)
        if instant.astimezone(place).date() == day:
            return instant
    except (OverflowError, ValueError) as outside:
        raise InvalidFields(f"{day.isoformat()} lies outside the calendar") from outside
    raise InvalidFields(f"{day.isoformat()} does not exist in {zone}: clocks skip that day")


def parse_instant(text: str) -> datetime:
    """An RFC 3339 date-time as an instant (UTC); raises `InvalidFields`. Finer than a microsecond is cut off."""
    parts = _RFC_3339.fullmatch(text)
    if parts is None:
        raise InvalidFields(f"not an RFC 3339 time such as 2027-03-01T09:00:00Z: {text[:_SHOWN_MAX]!r}")
    day, clock, fraction, offset = parts.groups()
    offset = "+00:00" if offset in "Zz" else offset
    try:
        return datetime.fromisoformat(f"{day}T{clock}.{(fraction or '0')[:6]:0<6}{offset}").astimezone(UTC)
    except (OverflowError, ValueError) as impossible:
        raise InvalidFields(f"no such date, time or offset: {text[:_SHOWN_MAX]!r}") from impossible


def parse_local(text: str) -> datetime | None:
    """A local time such as `2027-03-01T09:00` without its zone, or None when the text looks like anything else.

    Raises `InvalidFields` for a day or an hour that no calendar has.
    """
    if _LOCAL.fullmatch(text) is None:
        return None
    try:
        return datetime.fromisoformat(text.upper())
    except ValueError as impossible:
        raise InvalidFields(f"no such date or time: {text[:_SHOWN_MAX]!r}") from impossible


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones()) - _NOT_PLACES


def _nearest(name: str) -> str:
    """The name that a person most likely meant: the same place whatever its case, else the closest spelling."""
    folded = {_folded(known): known for known in sorted(_zone_names())}
    meant = _folded(name[:_SHOWN_MAX])
    if meant in folded:
        return folded[meant]
    places = {known.rpartition("/")[2]: known for known in folded}
    close = get_close_matches(meant, [*folded, *places], n=1, cutoff=0.6)
    if not close:
        return "Europe/Berlin"
    return folded[places.get(close[0], close[0])]


def _folded(name: str) -> str:
    return name.strip().casefold().replace(" ", "_")


def _plain(local: datetime) -> datetime:
    return local.replace(tzinfo=None, fold=0)
