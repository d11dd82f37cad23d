"""Bulk booking: many appointments in flight at once, each driven to its end, with bounded memory.

Resumable by nature: the key decides, so that a rerun finds what is booked, goes on with what is not, and books nothing
twice. It prints nothing.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from enum import StrEnum
from itertools import islice
from uuid import UUID

from appointments.intake import Intake, Item, Refusal
from appointments.orchestrator import Orchestrator
from appointments.views import Appointment
from domain.errors import CommandRefused, HistoryError
from domain.lifecycle import Phase
from domain.provider import Value

IN_FLIGHT = 64
"""Appointments under way at once, and items read ahead, unless told otherwise."""


class Outcome(StrEnum):
    """What became of one item."""

    BOOKED = "booked"
    ALREADY_BOOKED = "already_booked"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PARKED = "parked"
    IN_PROGRESS = "in_progress"


class Booked(Value):
    """One item, and what became of it."""

    outcome: Outcome
    source: str
    item: str
    summary: str
    reason: str | None = None
    id: UUID | None = None


class Tally:
    """How many items came to which outcome."""

    def __init__(self) -> None:
        self._counts: Counter[Outcome] = Counter()
        self.waiting = 0
        """Accepted and durable, not yet at their end."""

    def add(self, outcome: Outcome) -> None:
        """Count one item."""
        self._counts[outcome] += 1

    def __getitem__(self, outcome: Outcome) -> int:
        return self._counts[outcome]

    @property
    def done(self) -> int:
        """Items that were dealt with."""
        return self._counts.total()

    def counts(self) -> dict[str, int]:
        """Every outcome with its count, for reports."""
        return {str(outcome): self._counts[outcome] for outcome in Outcome}


class BulkBooking:
    """Books what a reader yields. `tell` hears of each item when it has come to its outcome."""

    def __init__(
        self, desk: Orchestrator, tell: Callable[[Booked, Tally], None], wait_s: float, in_flight: int = IN_FLIGHT
    ) -> None:
        self._desk, self._tell, self._wait_s, self._in_flight = desk, tell, wait_s, in_flight
        self.tally = Tally()
        self._under_way: set[str] = set()

    async def run(self, items: Iterator[Item]) -> Tally:
        """Book every item; each is waited for until its end, at most `wait_s`. Raises `StoreUnavailable`."""
        ahead: asyncio.Queue[Item | None] = asyncio.Queue(self._in_flight)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(items, ahead))
                for _ in range(self._in_flight):
                    group.create_task(self._work(ahead))
        except ExceptionGroup as several:
            # Whatever stops one stops all, and for one cause: the store.
            raise several.exceptions[0] from None
        return self.tally

    async def _read(self, items: Iterator[Item], ahead: asyncio.Queue[Item | None]) -> None:
        """Read in a thread, since a large file takes the processor for long stretches."""
        while batch := await asyncio.to_thread(list, islice(items, self._in_flight)):
            for item in batch:
                await ahead.put(item)
        for _ in range(self._in_flight):
            await ahead.put(None)

    async def _work(self, ahead: asyncio.Queue[Item | None]) -> None:
        while (item := await ahead.get()) is not None:
            booked = _refused(item) if isinstance(item, Refusal) else await self._book(item)
            self.tally.add(booked.outcome)
            self._tell(booked, self.tally)

    async def _book(self, item: Intake) -> Booked:
        twice = item.key in self._under_way  # the same item in two files is booked once
        self._under_way.add(item.key)
        self.tally.waiting += 1
        try:
            seen = await self._desk.book(item.command, key=item.key)
            ended_before = seen.phase is not Phase.IN_PROGRESS or seen.parked
            if not ended_before:
                ended = await self._desk.show(seen.id, wait=self._wait_s)
                seen = ended.model_copy(update={"replayed": seen.replayed, "notice": ended.notice or seen.notice})
        except CommandRefused as fault:
            return _of(item, Outcome.REFUSED, fault.detail)
        except HistoryError as fault:
            return _of(item, Outcome.FAILED, f"its history cannot be read: {fault}")
        finally:
            self.tally.waiting -= 1
            if not twice:
                self._under_way.discard(item.key)
        return _of(item, outcome(seen, again=seen.replayed and (ended_before or twice)), _reason(seen), seen.id)


def outcome(seen: Appointment, again: bool) -> Outcome:
    """What an appointment has come to; `again` when it had ended before this run."""
    if seen.parked:
        return Outcome.PARKED
    match seen.phase:
        case Phase.COMPLETED:
            return Outcome.ALREADY_BOOKED if again else Outcome.BOOKED
        case Phase.FAILED:
            return Outcome.FAILED
        case Phase.CANCELLED:
            return Outcome.CANCELLED
        case _:
            return Outcome.IN_PROGRESS


def _reason(seen: Appointment) -> str | None:
    told = (seen.reason, seen.detail, seen.notice)
    return ": ".join(str(part) for part in told if part) or None


def _refused(item: Refusal) -> Booked:
    return Booked(outcome=Outcome.REFUSED, source=item.source, item=item.item, summary=item.summary, reason=item.reason)


def _of(item: Intake, came_to: Outcome, reason: str | None, id: UUID | None = None) -> Booked:
    summary = item.command.summary
    return Booked(outcome=came_to, source=item.source, item=item.item, summary=summary, reason=reason, id=id)
