"""The store in memory: a double for users' tests and for the simulation. Plain asyncio, no threads, no durability.

With a lease it is a shared store: each worker has a `sibling` of its own on the same tables.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Self
from uuid import UUID

from domain.errors import ConcurrencyConflict, LeaseLost, StoreUnavailable
from store.chain import START, digest_of
from store.port import Append, Lane, OpenWork, RecordedEvent, Store, Worker
from store.rows import check
from store.sealing import SubjectKey, refs_in, seal, unseal


@dataclass(slots=True)
class _Tables:
    log: list[RecordedEvent] = field(default_factory=list)
    streams: dict[UUID, list[RecordedEvent]] = field(default_factory=dict)
    work: dict[UUID, OpenWork] = field(default_factory=dict)
    keys: dict[str, SubjectKey] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)
    lanes: dict[str, Lane] = field(default_factory=dict)
    checkpoints: dict[str, int] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    """Which worker of a shared store holds a name exclusively."""

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

    def __init__(
        self, owner: str = "memory", *, lease_s: float | None = None, clock: Callable[[], datetime] | None = None
    ) -> None:
        """`lease_s`: many workers share it. `clock`: the store's own, by which all of them live."""
        self.owner, self.lease_s = owner, lease_s
        self._clock = clock
        self._joined = False
        self._tables = _Tables()
        self._closed = False

    def sibling(self, owner: str) -> "MemoryStore":
        """Another worker's handle on the same shared store."""
        other = MemoryStore(owner, lease_s=self.lease_s, clock=self._clock)
        other._tables = self._tables
        return other

    def reopen(self, owner: str) -> Self:
        """What another process would find; this store is closed, as if its process had died."""
        successor = type(self)(owner)
        successor._tables = self._tables
        self._closed = True
        return successor

    async def append(self, entry: Append) -> int:
        check(entry)
        tables = self._own_tables()
        _check_version(tables, entry)
        self._apply(tables, entry)
        last_position = len(tables.log) if entry.events else 0
        await asyncio.sleep(0)  # as on a real store, others run before the append returns
        return last_position

    def _apply(self, tables: _Tables, entry: Append) -> None:
        for event in entry.events:
            tables.store(event)
        if entry.work is not None:
            before = tables.work.get(entry.stream_id) if self.lease_s is not None else None
            owner = before.owner if before is not None and entry.keeps_owner else self.owner
            epoch = entry.work.epoch if before is None else before.epoch
            tables.work[entry.stream_id] = replace(entry.work, owner=owner, epoch=epoch)
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
        tables = self._own_tables()
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
        found = self._due(now, limit, closed_lanes, skip)
        if self.lease_s is None:
            return found
        work, due_at = self._own_tables().work, now + timedelta(seconds=self.lease_s)
        handed = [replace(row, owner=self.owner, epoch=row.epoch + 1, due_at=due_at) for row in found]
        work.update((row.stream_id, row) for row in handed)
        return handed

    async def overdue(self, before: datetime, limit: int) -> Sequence[OpenWork]:
        return self._due(before, limit, (), ())

    def _due(self, now: datetime, limit: int, closed_lanes: Sequence[str], skip: Sequence[UUID]) -> Sequence[OpenWork]:
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

    async def hand_back(self, rows: Sequence[OpenWork], due_at: datetime) -> None:
        work = self._own_tables().work
        for row in rows:
            stored = work.get(row.stream_id)
            if stored is not None and (stored.owner, stored.epoch) == (self.owner, row.epoch):
                work[row.stream_id] = replace(stored, owner="", due_at=due_at)

    async def claim(self, owner: str, now: datetime, runs: Sequence[str] = ()) -> int:
        alive = {owner} if self.lease_s is None else self._beat(owner, self._clock() if self._clock else now, runs)
        work = self._open_tables().work
        left = [row for row in work.values() if row.in_flight and row.owner not in alive]
        for row in left:
            work[row.stream_id] = replace(row, owner=owner, epoch=row.epoch + 1, due_at=now)
        return len(left)

    def _beat(self, owner: str, now: datetime, runs: Sequence[str]) -> frozenset[str]:
        """Those who are alive, this owner among them."""
        assert self.lease_s is not None
        workers, silent_since = self._open_tables().workers, now - timedelta(seconds=self.lease_s)
        for dead in [worker.owner for worker in workers.values() if worker.beat_at < silent_since]:
            del workers[dead]
        if self._joined and self.owner == owner and owner not in workers:
            raise LeaseLost(f"{owner} was silent for longer than {self.lease_s} s")
        self._joined, self.owner = True, owner
        workers[owner] = Worker(owner, now, tuple(runs))
        return frozenset(workers)

    async def leave(self) -> None:
        if self.lease_s is None:
            return
        tables = self._own_tables()
        tables.workers.pop(self.owner, None)
        for row in tables.work.values():
            if row.in_flight and row.owner == self.owner:
                now = self._clock() if self._clock else row.due_at
                tables.work[row.stream_id] = replace(row, owner="", epoch=row.epoch + 1, due_at=now)

    async def workers(self) -> Sequence[Worker]:
        workers = self._open_tables().workers
        return [workers[owner] for owner in sorted(workers)]

    async def now(self) -> datetime | None:
        return self._clock() if self._clock else None

    async def lanes(self) -> Sequence[Lane]:
        return list(self._open_tables().lanes.values())

    async def change_lane(self, lane: Lane) -> bool:
        lanes = self._own_tables().lanes
        stored = lanes.get(lane.target)
        if (stored.version if stored else 0) != lane.version:
            return False
        lanes[lane.target] = replace(lane, version=lane.version + 1)
        return True

    async def work(self, stream_id: UUID) -> OpenWork | None:
        return self._open_tables().work.get(stream_id)

    async def open_work(self, after: UUID | None = None, limit: int = 1_000) -> Sequence[OpenWork]:
        work = self._open_tables().work
        return [work[stream_id] for stream_id in sorted(work) if after is None or stream_id > after][:limit]

    async def position(self) -> int:
        return len(self._open_tables().log)

    async def checkpoint(self, consumer: str) -> int | None:
        return self._open_tables().checkpoints.get(consumer)

    async def keep_checkpoint(self, consumer: str, position: int) -> None:
        self._own_tables().checkpoints[consumer] = position

    @asynccontextmanager
    async def exclusive(self, name: str) -> AsyncIterator[bool]:
        tables, owner = self._own_tables(), self.owner
        if self.lease_s is not None:
            if tables.held.get(name) in tables.workers.keys() - {owner}:
                yield False
                return
            tables.held[name] = owner
        try:
            yield True
        finally:
            if tables.held.get(name) == owner:
                del tables.held[name]

    async def close(self) -> None:
        self._closed = True

    def _own_tables(self) -> _Tables:
        """The tables, to write to. Raises `LeaseLost` for a worker that was declared dead."""
        tables = self._open_tables()
        if self._joined and self.owner not in tables.workers:
            raise LeaseLost(f"{self.owner} was declared dead")
        return tables

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
