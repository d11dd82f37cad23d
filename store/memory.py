"""The store in memory: a double for users' tests and for the simulation. Plain asyncio, no threads, no durability."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Self
from uuid import UUID

from domain.errors import ConcurrencyConflict, StoreUnavailable
from store.port import Append, OpenWork, RecordedEvent, Store
from store.rows import check


@dataclass(slots=True)
class _Tables:
    log: list[RecordedEvent] = field(default_factory=list)
    streams: dict[UUID, list[RecordedEvent]] = field(default_factory=dict)
    work: dict[UUID, OpenWork] = field(default_factory=dict)


class MemoryStore(Store):
    """Keeps the whole contract but durability; `reopen` stands for the next process on the same data."""

    def __init__(self, owner: str = "memory") -> None:
        self.owner = owner
        self._tables = _Tables()
        self._closed = False

    def reopen(self, owner: str) -> Self:
        """What another process would find; this store is closed, as if its process had died."""
        successor = type(self)(owner)
        successor._tables = self._tables
        self._closed = True
        return successor

    async def append(self, entry: Append) -> int:
        check(entry)
        tables = self._open_tables()
        stream = tables.streams.get(entry.stream_id, [])
        if len(stream) != entry.expected_version:
            raise ConcurrencyConflict(
                f"stream {entry.stream_id.hex} is at version {len(stream)}, not {entry.expected_version}"
            )
        for event in entry.events:
            stored = replace(event, position=len(tables.log) + 1)
            tables.log.append(stored)
            tables.streams.setdefault(entry.stream_id, []).append(stored)
        last_position = len(tables.log) if entry.events else 0
        if entry.work is not None:
            tables.work[entry.stream_id] = replace(entry.work, owner=self.owner)
        elif entry.touches_work:
            tables.work.pop(entry.stream_id, None)
        await asyncio.sleep(0)  # as on a real store, others run before the append returns
        return last_position

    async def events(self, stream_id: UUID, after: int = 0, limit: int | None = None) -> Sequence[RecordedEvent]:
        return _page(self._open_tables().streams.get(stream_id, []), after, limit)

    async def log(self, after: int = 0, limit: int = 1_000) -> Sequence[RecordedEvent]:
        return _page(self._open_tables().log, after, limit)

    async def due(
        self, now: datetime, limit: int, closed_lanes: Sequence[str] = (), skip: Sequence[UUID] = ()
    ) -> Sequence[OpenWork]:
        closed, skipped = frozenset(closed_lanes), frozenset(skip)

        def wants_a_turn(row: OpenWork) -> bool:
            if row.due_at is None or row.due_at > now or row.stream_id in skipped:
                return False
            return row.lane not in closed or (row.deadline_at is not None and row.deadline_at <= now)

        rows = filter(wants_a_turn, self._open_tables().work.values())
        return sorted(rows, key=lambda row: (row.starts_at, row.stream_id))[:limit]

    async def next_due(self, after: datetime) -> datetime | None:
        times = (row.due_at for row in self._open_tables().work.values() if row.due_at is not None)
        return min((due_at for due_at in times if due_at > after), default=None)

    async def claim(self, owner: str, now: datetime) -> int:
        work = self._open_tables().work
        left = [row for row in work.values() if row.in_flight and row.owner != owner]
        for row in left:
            work[row.stream_id] = replace(row, owner=owner, epoch=row.epoch + 1, due_at=now)
        return len(left)

    async def work(self, stream_id: UUID) -> OpenWork | None:
        return self._open_tables().work.get(stream_id)

    async def open_work(self, after: UUID | None = None, limit: int = 1_000) -> Sequence[OpenWork]:
        work = self._open_tables().work
        return [work[stream_id] for stream_id in sorted(work) if after is None or stream_id > after][:limit]

    async def position(self) -> int:
        return len(self._open_tables().log)

    async def close(self) -> None:
        self._closed = True

    def _open_tables(self) -> _Tables:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        return self._tables


def _page(recorded: Sequence[RecordedEvent], after: int, limit: int | None) -> Sequence[RecordedEvent]:
    return recorded[after:] if limit is None else recorded[after : after + limit]
