"""Files become bookings: each item of a file is a command with a stable key, or a refusal with its reason.

Owns what a file may contain, never what becomes of it: nothing is booked here, and nothing in a file raises.
"""

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Annotated

from pydantic import TypeAdapter, ValidationError

from appointments.intake import csv, ics, jsonl
from appointments.intake.items import ITEMS_MAX, FileRefused, Intake, Item, Reader, Refusal, Scope, label, read_text
from domain.commands import BookAppointment
from domain.errors import InvalidFields
from domain.local_time import zone_named

__all__ = ["FORMATS", "Intake", "Item", "Refusal", "read_file"]

_CALENDAR: TypeAdapter[str] = TypeAdapter(Annotated[str, BookAppointment.model_fields["calendar"]])
FORMATS: dict[str, Reader] = {
    ".ics": ics.read,
    ".ical": ics.read,
    ".jsonl": jsonl.read,
    ".ndjson": jsonl.read,
    ".csv": csv.read,
}


def read_file(path: Path, calendar: str, default_zone: str | None = None) -> Iterator[Item]:
    """The items of one file, in its order; the name's ending tells the format.

    `calendar` takes what names no calendar itself; `default_zone` is the zone of local times that name none; raises
    `InvalidFields` for a calendar or a zone that cannot be. Nothing raises for what a file contains: a broken file is
    one refusal with an empty `item`.
    """
    try:
        _CALENDAR.validate_python(calendar)
    except ValidationError:
        detail = "1 to 64 of a-z, 0-9 and -"
        raise InvalidFields(f"no name of a calendar: {label(calendar)!r}; {detail}", (("/calendar", detail),)) from None
    if default_zone is not None:
        zone_named(default_zone)
    return _items(path, Scope(label(str(path)), calendar, default_zone))


def _items(path: Path, scope: Scope) -> Iterator[Item]:
    try:
        reader = FORMATS.get(path.suffix.lower())
        if reader is None:
            raise FileRefused(f"the file's name must end in one of: {', '.join(FORMATS)}")
        items = reader(read_text(path), scope)
        first = next(items, None)
        if first is None:
            raise FileRefused("the file holds no appointment")
        yield from islice(chain((first,), items), ITEMS_MAX)
        if next(items, None) is not None:
            raise FileRefused(f"the file holds more than {ITEMS_MAX} items; the others were not read: split it")
    except FileRefused as broken:
        yield Refusal(scope.source, "", "", str(broken))
