"""The provider port: what a calendar or booking system can do, and every answer it can give.

Owns the vocabulary between the saga and the adapters in `providers/`. It calls nobody.
"""

from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field


class Value(BaseModel):
    """A frozen message that refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", revalidate_instances="never")


class BookingStatus(StrEnum):
    """The status of a booking as the provider tells it."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    CANCELLED = "cancelled"


LIVE = frozenset({BookingStatus.PENDING, BookingStatus.ACCEPTED})
"""Somebody's time is taken by a booking in one of these."""


class Capabilities(Value):
    """What a provider promises; the saga plans by it. Times in milliseconds."""

    resend: bool = True
    """A repeated create with the same operation id, or the same client reference, books once."""
    lookup: bool = True
    """A booking can be found by its client reference."""
    reschedule: bool = True
    """A booking can be moved; the answer may carry a new provider reference."""
    conditional: bool = True
    """A stale etag is refused, so that a lost update is seen."""
    callbacks: bool = False
    """The provider calls back when a pending booking settles."""
    sync: bool = False
    """A listing can go on from a token."""
    settle_ms: int = Field(default=2_000, ge=0, le=600_000)
    """How long after the last unknown answer a "not found" is to be trusted."""


class Party(Value):
    """A person or resource that takes part."""

    email: str = Field(min_length=3, max_length=255, pattern=r"^[^@\s\x00-\x1f\x7f-\x9f]+@[^@\s\x00-\x1f\x7f-\x9f]+$")
    name: str | None = Field(default=None, max_length=255, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")


class BookingDetails(Value):
    """What is to be booked. `start` and `end` are instants (UTC); `time_zone` is the IANA zone they are shown in."""

    calendar: str
    start: datetime
    end: datetime
    time_zone: str
    summary: str
    location: str | None = None
    organizer: Party | None = None
    attendees: tuple[Party, ...] = ()
    metadata: dict[str, str] = Field(default_factory=dict)
    all_day: bool = False
    """The booking covers whole days in `time_zone`: `start` and `end` are local midnights."""
    recurrence: str | None = None
    """An RFC 5545 RRULE value, for providers that take series."""
    callback_url: str | None = None


class ProviderBooking(Value):
    """A booking as it stands at the provider."""

    provider_ref: str = Field(min_length=1, max_length=1_024)
    client_ref: str = ""
    status: BookingStatus
    version: int = Field(default=1, ge=0)
    """The provider's own version where it has one, else 1."""
    etag: str | None = Field(default=None, max_length=1_024)
    start: datetime | None = None
    end: datetime | None = None
    summary: str | None = None


class Confirmed(Value):
    """Done, and known to be done. For a cancel: nothing is left there. `booking` is None where the step has none."""

    kind: Literal["confirmed"] = "confirmed"
    booking: ProviderBooking | None = None
    replayed: bool = False


class Pending(Value):
    """Taken, not settled. Look again after `poll_after_ms` (None: the saga's own rhythm)."""

    kind: Literal["pending"] = "pending"
    booking: ProviderBooking
    poll_after_ms: int | None = Field(default=None, ge=0, le=86_400_000)


class Rejected(Value):
    """Refused for good; nothing was applied. `conflict` marks a slot that somebody else holds."""

    kind: Literal["rejected"] = "rejected"
    reason: str = Field(max_length=500)
    conflict: bool = False


class Retryable(Value):
    """Proven not applied; may be tried again. `throttled` (429, 423, quota) does not count against the provider."""

    kind: Literal["retryable"] = "retryable"
    reason: str = Field(max_length=500)
    retry_after_ms: int | None = Field(default=None, ge=0, le=86_400_000)
    throttled: bool = False


class Unknown(Value):
    """May or may not have been applied. `in_flight`: the provider says that an earlier call with this id still runs."""

    kind: Literal["unknown"] = "unknown"
    reason: str = Field(max_length=500)
    in_flight: bool = False
    retry_after_ms: int | None = Field(default=None, ge=0, le=86_400_000)


class Found(Value):
    """A read saw this booking."""

    kind: Literal["found"] = "found"
    booking: ProviderBooking
    poll_after_ms: int | None = Field(default=None, ge=0, le=86_400_000)


class Missing(Value):
    """A read saw no such booking, nor a trace of a cancelled one. No proof by itself: see `Capabilities.settle_ms`."""

    kind: Literal["missing"] = "missing"


WriteOutcome = Confirmed | Pending | Rejected | Retryable | Unknown
ReadOutcome = Found | Missing | Retryable | Unknown | Rejected
Outcome = Confirmed | Pending | Rejected | Retryable | Unknown | Found | Missing


class Call(Value):
    """What every call carries. The operation id stays the same over all attempts of one operation."""

    operation_id: str
    client_ref: str
    timeout_ms: int = Field(gt=0)
    correlation_id: str = ""
    traceparent: str | None = None
    """The W3C trace context that every exchange of the call carries."""
    tenant: str = "default"
    replaces: str | None = None
    """Etag of the cancelled entry that a create may write over, where the provider keeps such entries."""


class Page(Value):
    """One page of a calendar's listing; `next_token` goes on from here, `more` says that there is more to read now."""

    bookings: tuple[ProviderBooking, ...]
    next_token: str | None = None
    more: bool = False


class SyncExpired(Exception):
    """The listing's token is no longer known to the provider: read the whole calendar again."""


class Provider(Protocol):
    """A calendar or booking system. Adapters never raise for what a provider does: every answer is an outcome.

    The caller cuts no call short: an adapter ends each within `call.timeout_ms`, and answers `Unknown` for a write
    that may have been sent.
    """

    name: str
    capabilities: Capabilities

    async def create(self, call: Call, details: BookingDetails) -> WriteOutcome:
        """Book. A repeat with the same operation id answers `Confirmed(replayed=True)` or the pending booking."""
        ...

    async def get(self, call: Call, calendar: str, provider_ref: str) -> ReadOutcome:
        """Read one booking by the provider's own reference."""
        ...

    async def find(self, call: Call, calendar: str) -> ReadOutcome:
        """Read one booking by `call.client_ref`."""
        ...

    async def cancel(self, call: Call, calendar: str, provider_ref: str) -> WriteOutcome:
        """Cancel. A booking that is gone or cancelled already is `Confirmed`."""
        ...

    async def reschedule(
        self, call: Call, provider_ref: str, etag: str | None, details: BookingDetails
    ) -> WriteOutcome:
        """Move to `details.start` and `details.end`. A stale etag with other times is `Rejected(conflict=True)`."""
        ...

    async def listing(self, call: Call, calendar: str, token: str | None = None, limit: int = 100) -> Page:
        """List a calendar, from a token where there is one. Raises `SyncExpired`, or `ProviderUnavailable`."""
        ...

    async def close(self) -> None:
        """Free connections."""
        ...
