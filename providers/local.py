"""A provider inside this process: for users' tests and for benchmarks. Owns nothing outside its memory, does no IO."""

import re
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from domain.provider import (
    BookingDetails,
    BookingStatus,
    Call,
    Capabilities,
    Confirmed,
    Found,
    Missing,
    Page,
    ProviderBooking,
    ReadOutcome,
    Rejected,
    SyncExpired,
    WriteOutcome,
)

Operation = Literal["create", "cancel", "reschedule"]
TOKEN = re.compile(r"[0-9]{1,18}")
LIVE = (BookingStatus.PENDING, BookingStatus.ACCEPTED)


@dataclass
class _Record:
    booking: ProviderBooking
    requested: BookingDetails
    """As first asked for, so that a late repeat is known even after a move."""
    changed: int


@dataclass
class _Calendar:
    records: dict[str, _Record] = field(default_factory=dict)
    changes: list[tuple[int, str]] = field(default_factory=list)


class LocalProvider:
    """A calendar in memory that keeps every promise of the port.

    `answer_next` plans other answers for a test: a lost answer is `answer_next("create", Unknown(...), applied=True)`.
    """

    capabilities = Capabilities(settle_ms=0, sync=True)

    def __init__(self, name: str = "local") -> None:
        self.name = name
        self.calls = 0
        self._calendars: dict[str, _Calendar] = defaultdict(_Calendar)
        self._planned: dict[Operation, deque[tuple[WriteOutcome, bool]]] = defaultdict(deque)
        self._changes = 0

    def answer_next(self, operation: Operation, *outcomes: WriteOutcome, applied: bool = False) -> None:
        """Answer the next calls of `operation` with these outcomes; `applied` says whether they take effect."""
        self._planned[operation].extend((outcome, applied) for outcome in outcomes)

    def live(self, calendar: str) -> tuple[ProviderBooking, ...]:
        """Every booking of a calendar that is neither cancelled nor rejected: what a test asks at the end."""
        return tuple(r.booking for r in self._calendars[calendar].records.values() if r.booking.status in LIVE)

    async def create(self, call: Call, details: BookingDetails) -> WriteOutcome:
        """Book; a repeat under the same client reference is replayed, other content there is a conflict."""
        return self._answer("create", lambda: self._create(call, details))

    async def get(self, call: Call, calendar: str, provider_ref: str) -> ReadOutcome:
        """Read one booking by the provider's own reference."""
        return self._read(calendar, provider_ref.removeprefix("local-"))

    async def find(self, call: Call, calendar: str) -> ReadOutcome:
        """Read one booking by its client reference."""
        return self._read(calendar, call.client_ref)

    async def cancel(self, call: Call, calendar: str, provider_ref: str) -> WriteOutcome:
        """Cancel; what is gone or cancelled already is confirmed."""
        return self._answer("cancel", lambda: self._cancel(calendar, provider_ref.removeprefix("local-")))

    async def reschedule(
        self, call: Call, provider_ref: str, etag: str | None, details: BookingDetails
    ) -> WriteOutcome:
        """Move to other times; a stale etag is a conflict unless the booking is there already."""
        return self._answer("reschedule", lambda: self._reschedule(provider_ref.removeprefix("local-"), etag, details))

    async def listing(self, call: Call, calendar: str, token: str | None = None, limit: int = 100) -> Page:
        """List what changed after `token`, in the order of the changes; from the start it leaves out what is over."""
        self.calls += 1
        kept = self._calendars[calendar]
        if token is not None and not (TOKEN.fullmatch(token) and int(token) <= self._changes):
            raise SyncExpired(token)
        after = int(token or 0)
        begin = bisect_right(kept.changes, after, key=lambda change: change[0])
        bookings: list[ProviderBooking] = []
        for number, client_ref in kept.changes[begin:]:
            record = kept.records[client_ref]
            if len(bookings) == limit:
                return Page(bookings=tuple(bookings), next_token=str(after), more=True)
            after = number
            if record.changed == number and (token is not None or record.booking.status in LIVE):
                bookings.append(record.booking)
        return Page(bookings=tuple(bookings), next_token=str(max(after, self._changes)))

    async def close(self) -> None:
        """Nothing to free."""

    def _create(self, call: Call, details: BookingDetails) -> WriteOutcome:
        kept = self._calendars[details.calendar]
        record = kept.records.get(call.client_ref)
        if record is None:
            booking = ProviderBooking(
                provider_ref=f"local-{call.client_ref}",
                client_ref=call.client_ref,
                status=BookingStatus.ACCEPTED,
                etag='"1"',
                start=details.start,
                end=details.end,
                summary=details.summary,
            )
            self._keep(kept, booking, details)
            return Confirmed(booking=booking)
        if record.requested != details:
            return Rejected(reason="the client reference holds another booking", conflict=True)
        if record.booking.status not in LIVE:
            return Rejected(reason="the booking was cancelled")
        return Confirmed(booking=record.booking, replayed=True)

    def _read(self, calendar: str, client_ref: str) -> ReadOutcome:
        self.calls += 1
        record = self._calendars[calendar].records.get(client_ref)
        return Found(booking=record.booking) if record else Missing()

    def _cancel(self, calendar: str, client_ref: str) -> WriteOutcome:
        kept = self._calendars[calendar]
        record = kept.records.get(client_ref)
        if record is None:
            return Confirmed(replayed=True)
        if record.booking.status not in LIVE:
            return Confirmed(booking=record.booking, replayed=True)
        booking = _moved_on(record.booking, status=BookingStatus.CANCELLED)
        self._keep(kept, booking, record.requested)
        return Confirmed(booking=booking)

    def _reschedule(self, client_ref: str, etag: str | None, details: BookingDetails) -> WriteOutcome:
        kept = self._calendars[details.calendar]
        record = kept.records.get(client_ref)
        if record is None or record.booking.status not in LIVE:
            return Rejected(reason="there is no live booking to move")
        booking = record.booking
        if (booking.start, booking.end) == (details.start, details.end):
            return Confirmed(booking=booking, replayed=True)
        if etag is not None and etag != booking.etag:
            return Rejected(reason="the booking has changed since it was read", conflict=True)
        booking = _moved_on(booking, start=details.start, end=details.end)
        self._keep(kept, booking, record.requested)
        return Confirmed(booking=booking)

    def _answer(self, operation: Operation, apply: Callable[[], WriteOutcome]) -> WriteOutcome:
        self.calls += 1
        planned = self._planned.get(operation)
        if not planned:
            return apply()
        outcome, applied = planned.popleft()
        if applied:
            apply()
        return outcome

    def _keep(self, kept: _Calendar, booking: ProviderBooking, requested: BookingDetails) -> None:
        self._changes += 1
        kept.records[booking.client_ref] = _Record(booking, requested, self._changes)
        kept.changes.append((self._changes, booking.client_ref))


def _moved_on(booking: ProviderBooking, **fields: object) -> ProviderBooking:
    version = booking.version + 1
    return booking.model_copy(update={**fields, "version": version, "etag": f'"{version}"'})
