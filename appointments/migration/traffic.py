"""Requests of the legacy system at the provider, as a gateway or the provider wrote them down: JSON Lines.

Owns the record, its limits, and which of them are second clicks on one thing. It knows nothing of what follows.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from domain.commands import Instant
from domain.errors import InvalidFields
from domain.provider import Value
from providers.untrusted import Unreadable, read_json

LINE_MAX = 65_536
BROKEN = ("error", "exception", "hung")
Told = Literal["booked", "error", "exception", "hung"]


class Record(Value):
    """One request. Fields that it does not know are left alone: gateways write more."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    at: Instant
    method: Annotated[str, Field(max_length=16)]
    path: Annotated[str, Field(max_length=2_048)]
    status: int | None = Field(ge=100, le=599)
    """None: no answer was sent."""
    duration_ms: int | None = Field(default=None, ge=0, le=86_400_000)
    key: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    client_ref: Annotated[str, Field(max_length=255)] | None = None
    body_digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    booking: Annotated[str, Field(min_length=1, max_length=1_024)] | None = None
    body: dict[str, Any] | None = None
    """As it was sent; with it, what this system would refuse is known, and without it not."""
    told: Told | None = None
    """What the user was told, where the front end wrote it down; else what such a front end tells by the status."""
    settled: Literal["accepted", "rejected", "cancelled"] | None = None
    """What became of a booking that was answered with 202, by the provider's listing."""

    @property
    def books(self) -> bool:
        """It asks for a booking; no other request of the legacy system is known."""
        return self.method == "POST" and self.path.partition("?")[0].rstrip("/").endswith("/bookings")

    @property
    def content(self) -> str | None:
        """The same for the same content."""
        if self.body_digest is not None or self.body is None:
            return self.body_digest
        return digest(self.body)

    @property
    def made(self) -> str | None:
        """The booking that came of it; a success that does not name its booking has made one of its own."""
        success = self.status is not None and self.status // 100 == 2
        return self.booking or (f"unnamed, {self.at.isoformat()}" if success else None)

    @property
    def heard(self) -> Told:
        """What the user was told."""
        if self.told is not None:
            return self.told
        if self.status is None:
            return "hung"
        return "booked" if self.status // 100 == 2 else "error"


@dataclass(slots=True)
class Wish:
    """One thing that somebody wanted: the first click, and those after it."""

    line: int
    clicks: list[Record] = field(default_factory=list)

    @property
    def bookings(self) -> frozenset[str]:
        """What the provider made of it."""
        return frozenset(click.made for click in self.clicks if click.made is not None)


class Wishes:
    """Takes records in the order of their time; gives a wish once no further click can belong to it."""

    def __init__(self, same_within: timedelta) -> None:
        self._same_within = same_within
        self._open: dict[str, Wish] = {}
        """In the order of their last clicks."""

    def add(self, record: Record, line: int) -> Iterator[Wish]:
        """Take a record; gives what is closed by then."""
        yield from self.closed(record.at)
        name = f"{record.key} {record.content}" if record.key or record.content else f"line {line}"
        wish = self._open.pop(name, None) or Wish(line)
        wish.clicks.append(record)
        self._open[name] = wish

    def closed(self, now: datetime | None) -> Iterator[Wish]:
        """Wishes that were not clicked on for so long; all of them at the end (None)."""
        for name, wish in list(self._open.items()):
            if now is not None and now - wish.clicks[-1].at <= self._same_within:
                return
            del self._open[name]
            yield wish


def read(line: bytes) -> Record:
    """A line as a record. Raises `InvalidFields` that says what is wrong with it, without its content."""
    if len(line) > LINE_MAX:
        raise InvalidFields(f"the line is longer than {LINE_MAX} bytes")
    try:
        return read_json(line, Record)
    except (Unreadable, ValidationError) as fault:
        raise InvalidFields(str(fault)) from None


def digest(body: dict[str, Any]) -> str:
    """SHA-256 of a body with sorted field names and no white space."""
    content = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(content.encode('utf-8', 'replace')).hexdigest()}"
