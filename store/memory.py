"""The store in memory: a double for users' tests and for the simulation. Plain asyncio, no threads, no durability."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Self
from uuid import UUID

from domain.errors import ConcurrencyConflict, StoreUnavailable
from store.chain import START, digest_of
from store.port import Append, OpenWork, RecordedEvent, Store
from store.rows import check
from store.sealing import SubjectKey, refs_in, seal, unseal


@dataclass(slots=True)
class _Tables:
    log: list[RecordedEvent] = field(default_factory=list)
    streams: dict[UUID, list[RecordedEvent]] = field(default_factory=dict)
    work: dict[UUID, OpenWork] = field(default_factory=dict)
    keys: dict[str, SubjectKey] = field(default_factory=dict)

    def store(self, event: RecordedEvent) -> None:
        """Seal, chain and keep one event; its private parts are read as they will be from the sealed ones."""
        stream = self.streams.setdefault(event.stream_id, [])
        sealed = seal(event.private, self._key_of, event.stream_id, event.version) if event.private else b""
        placed = replace(event, position=len(self.log) + 1, sealed=sealed, digest=b"")
        stored = replace(placed, digest=digest_of(stream[-1].digest if stream else START, placed))
        self.log.append(stored)
        stream.append(stored)

    def reopen(self, subject: str) -> None:
        """Read every sealed part anew, without the key that was destroyed."""
        gone = self.keys.pop(subject).ref
        kept = {key.ref: key.key for key in self.keys.values()}
        for at, event in enumerate(self.log):
            if gone in refs_in(event.sealed):
                opened = replace(event, private=unseal(event.sealed, kept, event.stream_id, event.version))
                self.log[at] = self.streams[event.stream_id][event.version - 1] = opened

    def _key_of(self, subject: str) -> SubjectKey:
        if subject not in self.keys:
            self.keys[subject] = SubjectKey.new()
        return self.keys[subject]


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
        _check_version(tables, entry)
        self._apply(tables, entry)
        last_position = len(tables.log) if entry.events else 0
        await asyncio.sleep(0)  # as on a real store, others run before the append returns
        return last_position

    def _apply(self, tables: _Tables, entry: Append) -> None:
        for event in entry.events:
            tables.store(event)
        if entry.work is not None:
            tables.work[entry.stream_id] = replace(entry.work, owner=self.owner)
        elif entry.touches_work:
            tables.work.pop(entry.stream_id, None)

    async def sealed_for(self, subject: str) -> Sequence[UUID]:
        tables = self._open_tables()
        ref = tables.keys[subject].ref if subject in tables.keys else None
        return sorted({event.stream_id for event in tables.log if ref in refs_in(event.sealed)})

    async def erase(self, subject: str, told: Sequence[Append]) -> None:
        untold = set(await self.sealed_for(subject)).difference(entry.stream_id for entry in told)
        if untold:
            raise ConcurrencyConflict(f"{len(untold)} further streams hold something about the subject")
        tables = self._open_tables()
        for entry in told:
            check(entry)
            _check_version(tables, entry)
        for entry in told:
            self._apply(tables, entry)
        if subject in tables.keys:
            tables.reopen(subject)

    async def events(self, stream_id: UUID, after: int = 0, limit: int | None = None) -> Sequence[RecordedEvent]:
        return _page(self._open_tables().streams.get(stream_id, []), after, limit)

    async def streams(self, after: UUID | None = None, limit: int = 1_000) -> Sequence[UUID]:
        return [stream for stream in sorted(self._open_tables().streams) if after is None or stream > after][:limit]

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


def _check_version(tables: _Tables, entry: Append) -> None:
    version = len(tables.streams.get(entry.stream_id, ()))
    if version != entry.expected_version:
        raise ConcurrencyConflict(f"stream {entry.stream_id.hex} is at version {version}, not {entry.expected_version}")


def _page(recorded: Sequence[RecordedEvent], after: int, limit: int | None) -> Sequence[RecordedEvent]:
    return recorded[after:] if limit is None else recorded[after : after + limit]
