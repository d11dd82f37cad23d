"""What comes out of a file: an intake (a command with its key) or a refusal, and the limits of every format."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from domain.commands import BookAppointment
from domain.errors import AppointmentsError

FILE_BYTES_MAX = 16 * 1024 * 1024
ITEMS_MAX = 50_000
LINE_CHARS_MAX = 1024 * 1024
"""Of one unfolded iCalendar line; an inline attachment may take it up."""
ROW_CHARS_MAX = 64 * 1024
"""Of one JSON line or CSV field: what the HTTP way in takes as a body."""
LABEL_CHARS_MAX = 120


@dataclass(frozen=True, slots=True)
class Intake:
    """A booking to be made. The key is the same whenever, and from whichever file, the item is read again."""

    key: str
    command: BookAppointment
    source: str
    item: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """An item, or a whole file (`item` is empty), that cannot be booked, and why."""

    source: str
    item: str
    summary: str
    reason: str


Item = Intake | Refusal


@dataclass(frozen=True, slots=True)
class Scope:
    """What an item takes from its surroundings: the file's name, the calendar and the zone it goes to by default."""

    source: str
    calendar: str
    default_zone: str | None = None


Reader = Callable[[str, Scope], Iterator[Item]]
"""Turns a file's text into its items; raises `FileRefused` where it cannot go on."""


class FileRefused(AppointmentsError):
    """The file as a whole cannot be read; the text is the reason."""


def read_text(path: Path) -> str:
    """The text of a file: UTF-8, with or without a byte order mark, at most `FILE_BYTES_MAX`; raises `FileRefused`."""
    try:
        if not path.is_file():
            raise FileRefused("there is no file of this name")
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as unreadable:
        raise FileRefused(f"the file cannot be read: {getattr(unreadable, 'strerror', None) or unreadable}") from None
    if len(content) > FILE_BYTES_MAX:
        raise FileRefused(f"the file is larger than {FILE_BYTES_MAX // 1024 // 1024} MiB; split it")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as foreign:
        raise FileRefused(f"the file is not UTF-8 text: byte {foreign.start}") from None


def derived_key(prefix: str, *identity: str | None) -> str:
    """An idempotency key that is a hash of what makes an item the same item."""
    text = json.dumps(identity, ensure_ascii=True)
    return f"{prefix}-{hashlib.sha256(text.encode()).hexdigest()[:40]}"


def label(text: str) -> str:
    """Text from a file, fit for one line of a terminal: printable, and cut to `LABEL_CHARS_MAX`."""
    shown = printable(text[: LABEL_CHARS_MAX + 1]).strip()
    return shown if len(shown) <= LABEL_CHARS_MAX else f"{shown[: LABEL_CHARS_MAX - 1]}…"


def printable(text: str) -> str:
    """Text that steers no terminal: a blank for each control character."""
    return "".join(c if c.isprintable() else " " for c in text)
