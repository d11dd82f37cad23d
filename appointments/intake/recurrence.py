"""Recurrence rules: whether an RRULE is one that a provider can keep (RFC 5545 section 3.3.10)."""

import re
from datetime import datetime

from domain.errors import InvalidFields

FREQUENCIES = ("HOURLY", "DAILY", "WEEKLY", "MONTHLY", "YEARLY")
"""Finer ones are legal iCalendar, but no appointment, and a server would drown in their occurrences."""
TIMES_A_DAY_MAX = 24

_RANGES = {
    "BYSECOND": (0, 60),
    "BYMINUTE": (0, 59),
    "BYHOUR": (0, 23),
    "BYMONTHDAY": (-31, 31),
    "BYYEARDAY": (-366, 366),
    "BYWEEKNO": (-53, 53),
    "BYMONTH": (1, 12),
    "BYSETPOS": (-366, 366),
    "INTERVAL": (1, 10_000),
    "COUNT": (1, 100_000),
}
_FROM_ZERO = ("BYSECOND", "BYMINUTE", "BYHOUR")
_SINGLE = ("INTERVAL", "COUNT")
_NUMBER = re.compile(r"[+-]?\d{1,6}", re.ASCII)
_WEEKDAY = re.compile(r"([+-]?[1-9]\d?)?(MO|TU|WE|TH|FR|SA|SU)", re.ASCII)


def parts_of(rule: str) -> dict[str, str]:
    """The parts of an RRULE, each checked by itself; raises `InvalidFields`. Empty parts (`;;`) are left out."""
    parts: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in rule.upper().split(";"))):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name in parts:
            raise InvalidFields(f"RRULE: {name} stands there twice")
        _check_part(name, value)
        parts[name] = value
    if "FREQ" not in parts:
        raise InvalidFields("RRULE: FREQ is missing")
    return parts


def checked_rule(rule: str, start: datetime, all_day: bool, local_start: datetime) -> str:
    """The rule as it is to be sent, in upper case; raises `InvalidFields` for one that cannot be kept.

    `start` is the first occurrence (UTC), `local_start` what clocks there show then: a rule for whole days ends on a
    date, one for times at an instant (UTC).
    """
    parts = parts_of(rule)
    if parts["FREQ"] not in FREQUENCIES:
        raise InvalidFields(f"RRULE: a series repeats {', '.join(FREQUENCIES)}; not {parts['FREQ']}")
    times = 1
    for name in _FROM_ZERO:
        times *= len(parts.get(name, "").split(","))
    if times > TIMES_A_DAY_MAX:
        raise InvalidFields(f"RRULE: more than {TIMES_A_DAY_MAX} times a day")
    if "UNTIL" in parts:
        if "COUNT" in parts:
            raise InvalidFields("RRULE: COUNT and UNTIL exclude each other")
        _check_until(parts["UNTIL"], start, all_day, local_start)
    return ";".join(f"{name}={value}" for name, value in parts.items())


def _check_part(name: str, value: str) -> None:
    if name in _RANGES:
        numbers = value.split(",")
        low, high = _RANGES[name]
        zero = name in _FROM_ZERO
        if any(not _NUMBER.fullmatch(n) or not low <= int(n) <= high or (int(n) == 0 and not zero) for n in numbers):
            raise InvalidFields(f"RRULE: {name} must lie in {low}..{high}{'' if zero or low > 0 else ', not 0'}")
        if name in _SINGLE and len(numbers) > 1:
            raise InvalidFields(f"RRULE: {name} is one number")
    elif name == "BYDAY":
        if not all(_WEEKDAY.fullmatch(day) for day in value.split(",")):
            raise InvalidFields("RRULE: BYDAY takes weekdays such as MO or -1FR")
    elif name == "WKST":
        if not re.fullmatch("MO|TU|WE|TH|FR|SA|SU", value):
            raise InvalidFields("RRULE: WKST is a weekday such as MO")
    elif name == "FREQ":
        if value not in (*FREQUENCIES, "SECONDLY", "MINUTELY"):
            raise InvalidFields(f"RRULE: FREQ must be one of: {', '.join(FREQUENCIES)}")
    elif name != "UNTIL":
        raise InvalidFields(f"RRULE: unknown part {name[:20]!r}")


def _check_until(until: str, start: datetime, all_day: bool, local_start: datetime) -> None:
    """UNTIL has the kind of DTSTART, and does not lie before it."""
    shape = "%Y%m%d" if all_day else "%Y%m%dT%H%M%SZ"
    if not re.fullmatch(r"\d{8}" if all_day else r"\d{8}T\d{6}Z", until, re.ASCII):
        raise InvalidFields(f"RRULE: UNTIL must be {'a date' if all_day else 'a UTC time'}, as DTSTART is")
    try:
        last = datetime.strptime(until, shape)  # noqa: DTZ007 - compared with a wall clock of the same kind
    except ValueError:
        raise InvalidFields("RRULE: UNTIL is no date that exists") from None
    first = local_start if all_day else start
    if last < first.replace(tzinfo=None):
        raise InvalidFields("RRULE: UNTIL lies before the start: no occurrence is left")
