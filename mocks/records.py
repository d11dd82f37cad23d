"""Records of the mock provider: a booking at one version, a change, a line of the ledger. Values without behaviour."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

Status = Literal["pending", "accepted", "rejected", "cancelled"]
LIVE: tuple[Status, ...] = ("pending", "accepted")


@dataclass(frozen=True)
class Request:
    """What a booking was asked for."""

    client_ref: str | None
    calendar_id: str
    start: str
    end: str
    time_zone: str
    summary: str
    callback_url: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Settle:
    """When and how a pending booking settles. `due_at` None: it stays pending."""

    due_at: float | None
    final: Status


@dataclass(frozen=True)
class Booking:
    """One booking at one version."""

    id: str
    uid: str
    status: Status
    version: int
    request: Request
    start: str
    end: str
    time_zone: str
    created_at: float
    updated_at: float
    notifies: bool
    """Its creator was promised callbacks, so later changes are told too."""

    @property
    def etag(self) -> str:
        """A strong entity tag, quotes included, as it goes into If-Match."""
        return f'"{self.id[3:15]}-{self.version}"'

    def view(self) -> dict[str, Any]:
        """The booking as clients see it."""
        return {
            "id": self.id,
            "uid": self.uid,
            "client_ref": self.request.client_ref,
            "status": self.status,
            "version": self.version,
            "etag": self.etag,
            "start": self.start,
            "end": self.end,
            "time_zone": self.time_zone,
            "rescheduled_from": None,
            "created_at": instant(self.created_at),
            "updated_at": instant(self.updated_at),
        }


@dataclass
class Commit:
    """One line of the ledger: a change that was applied, and whether its caller ever got the answer."""

    op: str
    id: str
    client_ref: str | None
    key: str | None
    version: int
    status: str
    applied_at: float
    response_sent: bool = False


@dataclass
class Notification(Commit):
    """One accepted notification."""

    body: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """One change in the order of application: what the listing and the callbacks are read from."""

    at: float
    op: str
    booking: Booking


@dataclass(frozen=True)
class Page:
    """One page of a listing."""

    bookings: tuple[Booking, ...]
    next_token: str
    more: bool


def instant(seconds: float) -> str:
    """RFC 3339 in UTC, with microseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
