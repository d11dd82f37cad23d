"""Backfill: bookings of the legacy system become appointments here, each once, however often it is run.

What was taken over is found by its key, so that a run that was killed is gone on with by the next one. A booking that
some appointment holds already is never taken over a second time.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from appointments.migration.records import Candidate, Defaults, Entry, LeftOut
from appointments.migration.standing import Standing
from appointments.orchestrator import Orchestrator
from appointments.views import Appointment
from domain.commands import BookAppointment, ImportBooking
from domain.errors import CommandRefused, HistoryError, InvalidFields
from domain.events import AppointmentImported
from domain.identity import appointment_id
from domain.lifecycle import Phase
from domain.provider import ProviderBooking, Value
from projections.current_state import PAGE_MAX, AppointmentFilter

BATCH = 256
"""Entries under way at once."""
ENTRIES_MAX = 500_000
"""In one run: which booking and which key an entry was about is remembered to its end, in about 1.4 kB."""
HELD = "an appointment holds this booking already"
MAYBE_OURS = "an unfinished appointment at the same times may have made it; run it again when that has ended"


class Outcome(StrEnum):
    """What became of one entry."""

    IMPORTED = "imported"
    """In a dry run: would be."""
    ALREADY_THERE = "already_there"
    SKIPPED = "skipped"
    REFUSED = "refused"


class Backfilled(Value):
    """One entry, and what became of it."""

    outcome: Outcome
    where: str
    reason: str | None = None
    appointment: UUID | None = None


Told = Callable[[Backfilled], None]


class Backfill:
    """One run. With `apply` it writes to the log; without, it only says what would come of each entry."""

    def __init__(self, desk: Orchestrator, defaults: Defaults, told: Told, *, apply: bool) -> None:
        self._desk, self._defaults, self._told, self._apply = desk, defaults, told, apply
        self._met: dict[str, str] = {}
        """Bookings and keys that an entry of this run was about, and which."""
        self._unfinished: dict[_Slot, UUID] = {}
        self.counts: Counter[Outcome] = Counter()
        self.skipped: Counter[str] = Counter()
        """By reason."""

    async def run(self, entries: AsyncIterator[Entry], there: Standing | None = None) -> Counter[Outcome]:
        """Take over what can be. `there`: records are held against it; None where the entries come from there.

        Raises `StoreUnavailable`, `ProviderUnavailable`, and `InvalidFields` behind `ENTRIES_MAX` entries.
        """
        self._unfinished = await self._without_booking()
        batch: list[Entry] = []
        seen = 0
        async for entry in entries:
            seen += 1
            if seen > ENTRIES_MAX:
                await self._take(batch)
                raise InvalidFields(f"one run takes {ENTRIES_MAX} entries, and has dealt with them: split the rest off")
            batch.append(self._once(entry if there is None else await there.checked(entry)))
            if len(batch) == BATCH:
                await self._take(batch)
                batch = []
        await self._take(batch)
        return self.counts

    async def _without_booking(self) -> dict["_Slot", UUID]:
        """What is unfinished and knows of no booking: one that nobody gave our reference may be its own."""
        found: dict[_Slot, UUID] = {}
        wanted = AppointmentFilter(tenant=self._desk.settings.tenant, phase=Phase.IN_PROGRESS, limit=PAGE_MAX)
        while True:
            page = await self._desk.list(wanted)
            found.update({_slot(one): one.id for one in page if one.provider_ref is None})
            if page.next_cursor is None:
                return found
            wanted = wanted.model_copy(update={"cursor": page.next_cursor})

    def _once(self, entry: Entry) -> Entry:
        if isinstance(entry, LeftOut):
            return entry
        first = self._met.setdefault(f"booking {entry.booked.calendar} {entry.booking.provider_ref}", entry.where)
        if first != entry.where:
            return LeftOut(entry.where, f"/provider_ref: the same booking as {first}")
        first = self._met.setdefault(f"key {entry.key}", entry.where)
        if first != entry.where:
            return LeftOut(entry.where, f"/key: the same key as {first}; each booking has one of its own")
        return entry

    async def _take(self, batch: Sequence[Entry]) -> None:
        refs = [entry.booking.provider_ref for entry in batch if isinstance(entry, Candidate)]
        holders = await self._desk.holders(refs)
        for one in await asyncio.gather(*(self._one(entry, holders) for entry in batch)):
            self.counts[one.outcome] += 1
            if one.outcome is Outcome.SKIPPED:
                self.skipped[one.reason or ""] += 1
            self._told(one)

    async def _one(self, entry: Entry, holders: dict[tuple[str, str], UUID]) -> Backfilled:
        if isinstance(entry, LeftOut):
            return _told(entry, Outcome.SKIPPED if entry.skipped else Outcome.REFUSED, entry.reason)
        id = appointment_id(self._desk.settings.tenant, entry.key)
        try:
            held = holders.get((entry.booked.calendar, entry.booking.provider_ref))
            holder = held or await self._asked_by_us(entry.booking)
            if held == id:
                return _told(entry, Outcome.ALREADY_THERE, None, id)
            if holder is not None:
                return _told(entry, Outcome.SKIPPED, HELD, holder)
            if (unfinished := self._unfinished.get(_slot(entry.booked))) is not None:
                return _told(entry, Outcome.SKIPPED, MAYBE_OURS, unfinished)
            return await self._import(entry, id)
        except CommandRefused as fault:
            return _told(entry, Outcome.REFUSED, fault.detail, id)
        except HistoryError as fault:
            return _told(entry, Outcome.REFUSED, f"the history of {id} cannot be read: {fault}", id)

    async def _asked_by_us(self, booking: ProviderBooking) -> UUID | None:
        """The appointment that gave the booking its reference, though its log may not know yet what came of it."""
        id = _uuid(booking.client_ref)
        return id if id is not None and (await self._desk.runtime.load(id)).version else None

    async def _import(self, entry: Candidate, id: UUID) -> Backfilled:
        command = ImportBooking(booked=entry.booked, booking=entry.booking, source=self._defaults.source)
        if self._apply:
            there = (await self._desk.import_booking(command, key=entry.key)).replayed
        else:
            there = await self._desk.would_import(command, key=entry.key)
        if not there:
            return _told(entry, Outcome.IMPORTED, None, id)
        # The key and the content say nothing of which booking it was: two that look alike are two all the same.
        first = (await self._desk.events(id))[0]
        if (
            first.type == AppointmentImported.type
            and first.data["booking"]["provider_ref"] == entry.booking.provider_ref
        ):
            return _told(entry, Outcome.ALREADY_THERE, None, id)
        reason = "/key: it stands for another booking of the same content; give this one a key of its own"
        return _told(entry, Outcome.REFUSED, reason, id)


_Slot = tuple[str, datetime, datetime]


def _slot(one: BookAppointment | Appointment) -> _Slot:
    return one.calendar, one.start, one.end


def _told(entry: Entry, outcome: Outcome, reason: str | None, appointment: UUID | None = None) -> Backfilled:
    return Backfilled(outcome=outcome, where=entry.where, reason=reason, appointment=appointment)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
