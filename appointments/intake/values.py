"""Values of iCalendar properties: DATE, DATE-TIME, DURATION, CAL-ADDRESS and TEXT (RFC 5545 section 3.3).

Read here and not by the `icalendar` types, because those resolve zones as they read, by a table that every file that
was read before has written to; a file must mean the same whatever was read before it.
"""

import re
from datetime import date, datetime, timedelta

from appointments.intake.components import Property
from domain.errors import InvalidFields

_DATE_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)(\d\d)(Z?))?", re.ASCII)
_DURATION = re.compile(
    r"([+-]?)P(?:(\d{1,4})W)?(?:(\d{1,5})D)?(?:T(?=\d)(?:(\d{1,6})H)?(?:(\d{1,7})M)?(?:(\d{1,8})S)?)?", re.ASCII
)
_ADDRESS = re.compile(r"[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+")
_LINE_ENDS = re.compile(r"\r\n?")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def wall_clock(value: str) -> tuple[date | datetime, bool]:
    """A DATE as a date, a DATE-TIME as a datetime without an offset, and whether it is UTC; raises `InvalidFields`."""
    parts = _DATE_TIME.fullmatch(value.strip().upper())
    if parts is None:
        raise InvalidFields(f"neither a date nor a time: {value[:40]!r}")
    year, month, day, hour, minute, second, utc = parts.groups()
    try:
        if hour is None:
            return date(int(year), int(month), int(day)), False
        clock = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second))  # noqa: DTZ001 - local
    except ValueError:
        raise InvalidFields(f"no date or time that exists: {value[:40]!r}") from None
    return clock, bool(utc)


def duration(value: str) -> tuple[timedelta, timedelta]:
    """A DURATION as whole days, which the wall clock counts, and exact time; raises `InvalidFields` unless positive."""
    parts = _DURATION.fullmatch(value.strip().upper())
    if parts is None or not any(parts.groups()[1:]):
        raise InvalidFields(f"not a duration such as PT45M: {value[:40]!r}")
    sign, *numbers = parts.groups()
    weeks, days, hours, minutes, seconds = (int(number or 0) for number in numbers)
    nominal, exact = timedelta(weeks=weeks, days=days), timedelta(hours=hours, minutes=minutes, seconds=seconds)
    if sign == "-" or not nominal + exact:
        raise InvalidFields(f"a duration must be positive: {value[:40]!r}")
    return nominal, exact


def email_of(address: Property) -> str | None:
    """The e-mail address of a CAL-ADDRESS: its `mailto:`, else its EMAIL parameter (RFC 7986), else None."""
    scheme, _, rest = address.value.strip().partition(":")
    bare = rest if scheme.lower() == "mailto" else "" if rest else scheme
    for email in (bare.strip(), address.parameters.get("EMAIL", "").strip()):
        if len(email) <= 255 and _ADDRESS.fullmatch(email):
            return email
    return None


def plain_text(value: str) -> str:
    """A TEXT with line ends as `\\n` and no blanks around it."""
    return _LINE_ENDS.sub("\n", value).strip()


def note(value: str, chars_max: int) -> str:
    """A TEXT for reading only: control characters left out, cut with an ellipsis at `chars_max`."""
    kept = _CONTROL.sub("", plain_text(value))
    return kept if len(kept) <= chars_max else f"{kept[: chars_max - 1]}…"
