"""Named fields, as a JSON line or a CSV row gives them, as a booking.

Owns how times are written there: RFC 3339 instants, or local times in the item's `time_zone`; a whole-day booking may
give dates. Names and limits are those of `POST /v1/appointments`.
"""

from collections.abc import Iterator
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import TypeAdapter, ValidationError

from appointments.intake.items import Intake, Refusal, Scope, derived_key, label, printable
from domain.commands import BookAppointment, Key, refusal
from domain.errors import InvalidFields
from domain.identity import fingerprint
from domain.local_time import parse_instant, parse_local, start_of_day, to_instant

_KEY: TypeAdapter[str] = TypeAdapter(Key)


class Rows:
    """The rows of one file: gives each its key, and refuses one that repeats the key of another."""

    def __init__(self, prefix: str, scope: Scope) -> None:
        self._prefix = prefix
        self._scope = scope
        self._seen: dict[str, tuple[int, BookAppointment]] = {}

    def item(self, number: int, fields: dict[str, Any]) -> Intake | Refusal:
        """A row as an intake, or as a refusal; `number` is its line. Without a `key` its content is its key."""
        given = dict(fields)
        summary = given.get("summary")
        try:
            key = _checked_key(given.pop("key", None))
            command = _booking(given, self._scope)
            key = key or derived_key(self._prefix, fingerprint(command))
            self._check_new(key, number, command)
        except InvalidFields as refused:
            return self.refusal(number, refused.detail, summary if isinstance(summary, str) else "")
        return Intake(key, command, self._scope.source, f"line {number}")

    def refusal(self, number: int, reason: str, summary: str = "") -> Refusal:
        """A row that cannot be read."""
        return Refusal(self._scope.source, f"line {number}", label(summary), printable(reason))

    def _check_new(self, key: str, number: int, command: BookAppointment) -> None:
        earlier, content = self._seen.setdefault(key, (number, command))
        if earlier != number:
            other = "the same content" if content == command else "other content"
            raise InvalidFields(f"/key: line {earlier} has the same key, with {other}")


def _booking(fields: dict[str, Any], scope: Scope) -> BookAppointment:
    fields.setdefault("calendar", scope.calendar)
    if scope.default_zone is not None:
        fields.setdefault("time_zone", scope.default_zone)
    faults = list(_read_times(fields))
    if faults:
        raise InvalidFields("; ".join(f"{pointer}: {detail}" for pointer, detail in faults), tuple(faults))
    try:
        command = BookAppointment.model_validate(fields)
    except ValidationError as invalid:
        raise refusal(invalid) from None
    if command.all_day:
        _check_midnights(command)
    return command


def _read_times(fields: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Put instants in the place of what the fields hold, and tell what cannot be read; a missing one stays missing."""
    for name in ("start", "end"):
        if name in fields:
            try:
                fields[name] = _instant(fields[name], fields.get("time_zone"), fields.get("all_day"))
            except InvalidFields as refused:
                yield f"/{name}", refused.detail


def _instant(text: Any, zone: Any, all_day: Any) -> datetime:
    if not isinstance(text, str):
        raise InvalidFields("a time is a text such as 2027-03-01T09:00:00Z")
    day = _date(text)
    local = None if day else parse_local(text)
    if day is None and local is None:
        return parse_instant(text)
    if not isinstance(zone, str):
        raise InvalidFields("a local time needs a time_zone")
    if local is not None:
        return to_instant(local, zone)
    if day is None or all_day in (None, False, "", "false", "0", "no"):
        raise InvalidFields("a date alone is for all_day bookings")
    return start_of_day(day, zone)


def _date(text: str) -> date | None:
    if len(text) != len("2027-03-01"):
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidFields(f"no such date: {text!r}") from None


def _check_midnights(command: BookAppointment) -> None:
    """`start` and `end` of a whole-day booking are local midnights."""
    for name, instant in (("start", command.start), ("end", command.end)):
        if start_of_day(instant.astimezone(ZoneInfo(command.time_zone)).date(), command.time_zone) != instant:
            raise InvalidFields(f"/{name}: an all_day booking begins and ends at midnight in {command.time_zone}")


def _checked_key(key: Any) -> str | None:
    if key is None:
        return None
    try:
        return _KEY.validate_python(key, strict=True)
    except ValidationError:
        raise InvalidFields("/key: 1 to 255 printable ASCII characters without blanks") from None
