"""Backfill: bookings of the legacy system become appointments here, each once, however often it is run.

What was taken over is found by its key, so that a run that was killed is gone on with by the next one. A booking that
some appointment holds already is never taken over a second time.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from enum import StrEnum
from uuid import UUID

from appointments.migration.records import Candidate, Defaults, Entry, LeftOut, listed
from appointments.orchestrator import Orchestrator
from domain.commands import ImportBooking
from domain.errors import CommandRefused
from domain.identity import appointment_id
from domain.provider import BookingStatus, Provider, ProviderBooking, Value
from domain.seen import stands_as_booked

BATCH = 256


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
    """One run. `there`: what stands at the provider, to hold records against; None where that is their source."""

    def __init__(self, desk: Orchestrator, defaults: Defaults, told: Told, *, apply: bool) -> None:
        self._desk, self._defaults, self._told, self._apply = desk, defaults, told, apply
        self._met: dict[str, str] = {}
        """Bookings that an entry of this run was about, and which."""
        self.counts: Counter[Outcome] = Counter()

    async def run(self, entries: AsyncIterator[Entry], there: "Standing | None" = None) -> Counter[Outcome]:
        """Take over what can be. Raises `StoreUnavailable`, `ProviderUnavailable`."""
        batch: list[Entry] = []
        async for entry in entries:
            batch.append(self._once(entry if there is None else there.checked(entry)))
            if len(batch) == BATCH:
                await self._take(batch)
                batch = []
        await self._take(batch)
        return self.counts

    def _once(self, entry: Entry) -> Entry:
        if isinstance(entry, LeftOut):
            return entry
        first = self._met.setdefault(entry.booking.provider_ref, entry.where)
        return entry if first == entry.where else LeftOut(entry.where, f"the same booking as {first}")

    async def _take(self, batch: Sequence[Entry]) -> None:
        refs = [entry.booking.provider_ref for entry in batch if isinstance(entry, Candidate)]
        holders = await self._desk.holders(refs)
        for one in await asyncio.gather(*(self._one(entry, holders) for entry in batch)):
            self.counts[one.outcome] += 1
            self._told(one)

    async def _one(self, entry: Entry, holders: dict[str, UUID]) -> Backfilled:
        if isinstance(entry, LeftOut):
            return Backfilled(
                outcome=Outcome.SKIPPED if entry.skipped else Outcome.REFUSED, where=entry.where, reason=entry.reason
            )
        id = appointment_id(self._desk.settings.tenant, entry.key)
        holder = holders.get(entry.booking.provider_ref)
        if holder == id:
            return Backfilled(outcome=Outcome.ALREADY_THERE, where=entry.where, appointment=id)
        if holder is not None:
            reason = f"an appointment holds this booking already: {holder}"
            return Backfilled(outcome=Outcome.SKIPPED, where=entry.where, reason=reason, appointment=holder)
        command = ImportBooking(booked=entry.booked, booking=entry.booking, source=self._defaults.source)
        try:
            if self._apply:
                there = (await self._desk.import_booking(command, key=entry.key)).replayed
            else:
                there = await self._desk.would_import(command, key=entry.key)
        except CommandRefused as fault:
            return Backfilled(outcome=Outcome.REFUSED, where=entry.where, reason=str(fault), appointment=id)
        outcome = Outcome.ALREADY_THERE if there else Outcome.IMPORTED
        return Backfilled(outcome=outcome, where=entry.where, appointment=id)


class Standing:
    """What stands in a calendar, for records to be held against: a record is no proof of a booking."""

    def __init__(self, bookings: Iterable[ProviderBooking]) -> None:
        self._bookings = {booking.provider_ref: booking for booking in bookings}

    @classmethod
    async def of(cls, provider: Provider, calendar: str) -> "Standing":
        """Read the calendar. Raises `ProviderUnavailable`."""
        return cls([booking async for booking in listed(provider, calendar)])

    def checked(self, entry: Entry) -> Entry:
        """The entry with the booking as it stands; left out where it does not stand as the record says."""
        if isinstance(entry, LeftOut):
            return entry
        seen = self._bookings.get(entry.booking.provider_ref)
        if seen is None:
            return LeftOut(entry.where, f"no booking {entry.booking.provider_ref} is in the calendar")
        if seen.status is not BookingStatus.ACCEPTED:
            return LeftOut(entry.where, f"the booking is {seen.status} in the calendar")
        if (seen.start, seen.end) != (None, None) and not stands_as_booked(entry.booked, seen):
            return LeftOut(entry.where, f"it stands in the calendar from {seen.start} to {seen.end}")
        if seen.summary is not None and seen.summary.split() != entry.booked.summary.split():
            return LeftOut(entry.where, "it stands in the calendar under another title")
        return Candidate(entry.where, entry.key, entry.booked, seen)
