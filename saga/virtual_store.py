"""The memory store for virtual time: its open work indexed by time and lane, for a clock that never goes back.

In a backlog of many thousands someone looks for due work whenever a place is free; walking all of it each time is slow.
"""

from bisect import insort
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from uuid import UUID

from store.memory import MemoryStore, _Tables
from store.port import Append, OpenWork

Timer = tuple[datetime, int, OpenWork]
Ready = tuple[datetime, UUID, int, OpenWork]
ANY_LANE = "\x00"
"""Holds what is past its deadline: it wants a turn whatever its lane says."""
KEPT = timedelta(seconds=5)
"""How far back `next_due` may be asked for."""


class VirtualStore(MemoryStore):
    """As `MemoryStore`; `due` must be asked with times that do not go back."""

    def __init__(self, owner: str) -> None:
        super().__init__(owner)
        self._numbers = count()
        self._timers: list[Timer] = []
        self._deadlines: list[Timer] = []
        self._fallen_due: deque[OpenWork] = deque()
        """In order of due time, the last seconds' alone."""
        self._ready: dict[str, list[Ready]] = {}
        """By lane, in order of start; rows that were replaced since are still among them."""

    def _apply(self, tables: _Tables, entry: Append) -> None:
        super()._apply(tables, entry)
        row = tables.work.get(entry.stream_id) if entry.work is not None else None
        if row is None or row.due_at is None:
            return
        heappush(self._timers, (row.due_at, next(self._numbers), row))
        if row.deadline_at is not None:
            heappush(self._deadlines, (max(row.due_at, row.deadline_at), next(self._numbers), row))

    async def due(
        self, now: datetime, limit: int, closed_lanes: Sequence[str] = (), skip: Sequence[UUID] = ()
    ) -> Sequence[OpenWork]:
        for row in self._until(now, self._timers):
            self._make_ready(row, row.lane)
            self._fallen_due.append(row)
        for row in self._until(now, self._deadlines):
            self._make_ready(row, ANY_LANE)
        while self._fallen_due and (self._fallen_due[0].due_at or now) < now - KEPT:
            self._fallen_due.popleft()
        skipped = frozenset(skip)
        found: dict[UUID, OpenWork] = {}
        for lane, ready in self._ready.items():
            if lane not in closed_lanes:
                found.update((row.stream_id, row) for row in self._first(ready, limit, skipped))
        return sorted(found.values(), key=lambda row: (row.starts_at, row.stream_id))[:limit]

    async def next_due(self, after: datetime) -> datetime | None:
        for row in self._fallen_due:
            if row.due_at is not None and row.due_at > after and self._stands(row):
                return row.due_at
        while self._timers and not self._stands(self._timers[0][2]):
            heappop(self._timers)
        if not self._timers or self._timers[0][0] > after:
            return self._timers[0][0] if self._timers else None
        # Asked for later than anybody has looked: not on the runtime's way.
        return min((at for at, _, row in self._timers if at > after and self._stands(row)), default=None)

    def _stands(self, row: OpenWork) -> bool:
        """The row has not been replaced since."""
        return self._open_tables().work.get(row.stream_id) is row

    def _until(self, now: datetime, timers: list[Timer]) -> Iterator[OpenWork]:
        while timers and timers[0][0] <= now:
            row = heappop(timers)[2]
            if self._stands(row):
                yield row

    def _make_ready(self, row: OpenWork, lane: str) -> None:
        insort(self._ready.setdefault(lane, []), (row.starts_at, row.stream_id, next(self._numbers), row))

    def _first(self, ready: list[Ready], limit: int, skipped: frozenset[UUID]) -> Iterator[OpenWork]:
        """The first ones; those that were replaced are dropped on the way."""
        kept: list[Ready] = []
        seen = found = 0
        for one in ready:
            if found == limit:
                break
            seen += 1
            if self._stands(one[3]):
                kept.append(one)
                found += one[1] not in skipped
        ready[:seen] = kept
        yield from (row for _, stream, _, row in kept if stream not in skipped)
