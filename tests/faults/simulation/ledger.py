"""The provider's own books: the oracle. Knows nothing of sagas; notes at once whatever must never be."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from domain.provider import (
    BookingDetails,
    BookingStatus,
    Confirmed,
    Pending,
    ProviderBooking,
    Rejected,
    WriteOutcome,
)

LIVE = (BookingStatus.PENDING, BookingStatus.ACCEPTED)


@dataclass
class Record:
    """One booking."""

    number: int
    client_ref: str
    operation_id: str
    asked: BookingDetails
    status: BookingStatus
    start: datetime
    end: datetime
    moved_from: int = 0
    version: int = 1
    deleted: bool = False
    visible_s: float = 0.0
    """Listings and searches show it from then on."""
    foreign_ref: str | None = None
    """Of one that another system made: the client reference that the provider tells instead."""

    @property
    def live(self) -> bool:
        """Somebody's time is taken by it."""
        return self.status in LIVE

    @property
    def known_as(self) -> str:
        """Its client reference at the provider; `client_ref` is whose it is."""
        return self.client_ref if self.foreign_ref is None else self.foreign_ref

    def booking(self) -> ProviderBooking:
        """As the provider tells it."""
        return ProviderBooking(
            provider_ref=f"bk_{self.number}",
            client_ref=self.known_as,
            status=self.status,
            version=self.version,
            etag=f'"{self.version}"',
            start=self.start,
            end=self.end,
            summary=self.asked.summary,
        )


@dataclass
class Ledger:
    """All bookings of one provider.

    `idempotent`: one booking to an operation id and to a client reference. `renames`: a move cancels the booking and
    makes another, under a reference of its own, as some booking systems do.
    """

    idempotent: bool
    renames: bool
    now_s: Callable[[], float]
    changed: Callable[[Record], None] = lambda _record: None
    records: list[Record] = field(default_factory=list)
    by_ref: dict[str, list[Record]] = field(default_factory=dict)
    moves: set[str] = field(default_factory=set)
    """Operation ids of moves that have been made."""
    faults: list[tuple[str, str]] = field(default_factory=list)
    """What must never be: more than one live booking of one appointment."""
    story: list[tuple[float, str]] = field(default_factory=list)
    rebooks: bool = False
    """A reference whose bookings are all over can be booked again, under another operation id."""
    foreign: dict[str, str] = field(default_factory=dict)
    """Client references of another system, and the appointments that took those bookings over."""
    created: dict[str, Record] = field(default_factory=dict)
    edited: set[str] = field(default_factory=set)
    """Operation ids whose bookings somebody has edited by hand: a repeat is still answered as the first time."""

    def create(
        self, operation_id: str, client_ref: str, details: BookingDetails, pending: bool, lag_s: float
    ) -> WriteOutcome:
        """Book."""
        known = [record for record in self.by_ref.get(client_ref, []) if record.foreign_ref is None]
        again = self.rebooks and operation_id not in self.created and not self.live(client_ref)
        if self.idempotent and operation_id in self.edited and not self.live(client_ref):
            answered = self.created[operation_id].booking()
            return Confirmed(booking=answered.model_copy(update={"status": BookingStatus.ACCEPTED}), replayed=True)
        if self.idempotent and known and not again:
            record = known[-1]
            if record.asked != details:
                return Rejected(reason="the key was used for another booking", conflict=True)
            if not record.live:
                return Rejected(reason=f"the booking is {record.status}")
            return self._taken(record, replayed=True)
        status = BookingStatus.PENDING if pending else BookingStatus.ACCEPTED
        record = Record(
            len(self.records) + 1,
            client_ref,
            operation_id,
            details,
            status,
            details.start,
            details.end,
            visible_s=self.now_s() + lag_s,
        )
        self.records.append(record)
        self.created[operation_id] = record
        self.by_ref.setdefault(client_ref, []).append(record)
        self._note(record, "created")
        return self._taken(record, replayed=False)

    def create_elsewhere(self, appointment: str, foreign_ref: str, details: BookingDetails) -> ProviderBooking:
        """Another system books; `appointment` will take it over."""
        number, accepted = len(self.records) + 1, BookingStatus.ACCEPTED
        record = Record(number, appointment, "", details, accepted, details.start, details.end, foreign_ref=foreign_ref)
        self.records.append(record)
        self.by_ref.setdefault(appointment, []).append(record)
        self.foreign[foreign_ref or appointment] = appointment
        self._note(record, "created elsewhere")
        return record.booking()

    @staticmethod
    def _taken(record: Record, replayed: bool) -> WriteOutcome:
        if record.status is BookingStatus.PENDING:
            return Pending(booking=record.booking(), poll_after_ms=None)
        return Confirmed(booking=record.booking(), replayed=replayed)

    def settle(self, record: Record, status: BookingStatus) -> None:
        """A pending booking comes to its answer; one that was cancelled meanwhile stays so."""
        if record.status is BookingStatus.PENDING:
            self._change(record, status=status)

    def cancel(self, provider_ref: str) -> WriteOutcome:
        """Cancel; a repeat is confirmed."""
        record = self.get(provider_ref)
        if record is None or not record.live:
            return Confirmed(replayed=True)
        self._change(record, status=BookingStatus.CANCELLED)
        return Confirmed(booking=record.booking())

    def reschedule(
        self, operation_id: str, provider_ref: str, etag: str | None, start: datetime, end: datetime
    ) -> WriteOutcome:
        """Move; a repeat is confirmed, a stale etag refused. A repeat that comes late undoes no later move."""
        record = self.get(provider_ref)
        if self.idempotent and not self.renames and operation_id in self.moves and record is not None:
            return Confirmed(booking=record.booking(), replayed=True)
        if record is not None and record.status is BookingStatus.CANCELLED:
            moved = next(
                (r for r in self.records if r.moved_from == record.number and (r.start, r.end) == (start, end)), None
            )
            if moved and moved.live:
                return Confirmed(booking=moved.booking(), replayed=True)
        if record is None or not record.live:
            return Rejected(reason="there is no live booking to move")
        if (record.start, record.end) == (start, end):
            return Confirmed(booking=record.booking(), replayed=True)
        if etag is not None and etag != f'"{record.version}"':
            return Rejected(reason="stale etag", conflict=True)
        self.moves.add(operation_id)
        if self.renames:
            record = self._rename(record, start, end)
        else:
            self._change(record, start=start, end=end)
        return Confirmed(booking=record.booking())

    def _rename(self, record: Record, start: datetime, end: datetime) -> Record:
        new = replace(record, number=len(self.records) + 1, start=start, end=end, version=1, moved_from=record.number)
        new.visible_s = self.now_s()
        record.status, record.version = BookingStatus.CANCELLED, record.version + 1
        self.records.append(new)
        self.by_ref[record.client_ref].append(new)
        self._note(new, f"moved from bk_{record.number}")
        self._note(record, "moved away")
        return new

    def get(self, provider_ref: str) -> Record | None:
        """By the provider's own reference."""
        number = provider_ref.removeprefix("bk_")
        record = self.records[int(number) - 1] if number.isdecimal() and int(number) <= len(self.records) else None
        return None if record is None or record.deleted else record

    def find(self, client_ref: str) -> Record | None:
        """By client reference: a live one if there is one; lagging as searches do."""
        ours = self.by_ref.get(self.foreign.get(client_ref, client_ref), [])
        seen = [record for record in ours if record.known_as == client_ref and record.visible_s <= self.now_s()]
        return next((record for record in seen if record.live), seen[-1] if seen else None)

    def live(self, client_ref: str) -> list[Record]:
        """What stands there for an appointment."""
        return [record for record in self.by_ref.get(client_ref, []) if record.live]

    # -- past the desk -------------------------------------------------------------------------------------------

    def move(self, record: Record, start: datetime, end: datetime) -> None:
        """Somebody drags it to another time."""
        self._edit(record, start=start, end=end)

    def cancel_by_hand(self, record: Record) -> None:
        """Somebody cancels it."""
        self._edit(record, status=BookingStatus.CANCELLED)

    def revive(self, record: Record) -> None:
        """Somebody takes a cancellation back."""
        self._edit(record, status=BookingStatus.ACCEPTED)

    def delete(self, record: Record) -> None:
        """Somebody deletes it: no trace is left."""
        self.by_ref[record.client_ref].remove(record)
        self._edit(record, status=BookingStatus.CANCELLED, deleted=True)

    def _edit(self, record: Record, **fields: object) -> None:
        self.edited.add(record.operation_id)
        self._change(record, **fields)

    def _change(self, record: Record, **fields: object) -> None:
        for name, value in fields.items():
            setattr(record, name, value)
        record.version += 1
        self._note(record, ", ".join(fields))

    def _note(self, record: Record, what: str) -> None:
        self.story.append(
            (
                self.now_s(),
                f"ledger {record.client_ref[:8]} bk_{record.number} v{record.version} {record.status} {what}",
            )
        )
        if len(self.live(record.client_ref)) > 1:
            self.faults.append((record.client_ref, f"has more than one live booking at {self.now_s():.3f}s"))
        self.changed(record)


@dataclass
class Deposits:
    """The books of a step that users declare: money held, money given back. `idempotent` by operation id."""

    idempotent: bool
    now_s: Callable[[], float]
    held: dict[str, int] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    faults: list[tuple[str, str]] = field(default_factory=list)
    story: list[tuple[float, str]] = field(default_factory=list)

    def hold(self, operation_id: str, client_ref: str) -> WriteOutcome:
        """Hold the deposit."""
        if self.idempotent and operation_id in self.seen:
            return Confirmed(replayed=True)
        self.seen.add(operation_id)
        self.held[client_ref] = self.held.get(client_ref, 0) + 1
        if self.held[client_ref] > 1:
            self.faults.append((client_ref, f"holds {self.held[client_ref]} deposits at {self.now_s():.3f}s"))
        self.story.append((self.now_s(), f"deposit {client_ref[:8]} held"))
        return Confirmed()

    def release(self, client_ref: str) -> WriteOutcome:
        """Give back whatever is held."""
        if self.held.pop(client_ref, 0):
            self.story.append((self.now_s(), f"deposit {client_ref[:8]} released"))
        return Confirmed()
