"""The store on a PostgreSQL database, shared by any number of workers.

Owns who is at work, and who has which row: a worker that was silent for longer than its lease is struck from the
workers, in the order of the log, and whatever it writes from then on is refused.
"""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, Self, TypeVar
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Connection, Engine, delete, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

from domain.errors import LeaseLost, StoreUnavailable
from store import reads
from store.hints import Hints
from store.journal import Journal
from store.log_writer import LogWriter
from store.port import Lane, OpenWork, Worker
from store.postgres_schema import bring_up_to_date, check_up_to_date
from store.postgres_server import READERS_MAX, address, check_server, reading_engine, told, writing_engine
from store.postgres_shard import Shard, check_shard, make_shard
from store.postgres_writer import PostgresLogWriter
from store.rows import instant, microseconds
from store.sql import SqlStore, keep_checkpoint
from store.tables import held_names, lanes, open_work, workers

LEASE_S = 15.0
"""How long a worker may be silent before it is declared dead."""

_IN_FLIGHT = open_work.c.in_flight
_RUNS: TypeAdapter[tuple[str, ...]] = TypeAdapter(tuple[str, ...])
HAND_BACK = """
UPDATE open_work SET owner = '', due_at = %b
  FROM unnest(%b::bytea[], %b::int[]) AS handed(stream_id, epoch)
 WHERE open_work.stream_id = handed.stream_id AND open_work.epoch = handed.epoch AND owner = %s
"""
T = TypeVar("T")

NOW = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"


class PostgresStore(SqlStore):
    """The log in one database. Make it by `open`, end it by `close`."""

    def __init__(self, owner: str, readers: Engine, journal: Journal | None, lease_s: float) -> None:
        super().__init__(owner, readers, journal, READERS_MAX)
        self.lease_s: float | None = lease_s
        self._joined = False
        self._called: tuple[Callable[[], None], ...] = ()
        self._hints = Hints(readers, self._tell_all)
        if journal is not None:
            journal.after_commit(self._committed)

    @classmethod
    def open(
        cls, url: str, owner: str, *, read_only: bool = False, lease_s: float = LEASE_S, shard: Shard | None = None
    ) -> Self:
        """Open the database at `postgresql://…`, its tables made or brought up to date; `owner` as in `claim`.

        `shard`: which of several databases it is to be. Raises `InvalidFields` (no such address), `StoreRefused` (a
        server that loses data, tables that are not ours or newer, another shard), `StoreUnavailable` (no answer).
        """
        where = address(url)
        readers, writers = reading_engine(where, read_only), writing_engine(where, lease_s)

        def open_writer() -> LogWriter:
            connection = writers.connect()
            try:
                check_server(connection)
                connection.rollback()
            except BaseException:
                connection.close()
                raise
            return PostgresLogWriter(connection)

        journal: Journal | None = None
        try:
            if read_only:
                check_up_to_date(readers)
                check_shard(readers, shard)
            else:
                with writers.connect() as connection:
                    check_server(connection)
                bring_up_to_date(readers)
                make_shard(readers, shard)
                journal = Journal(open_writer)
        except BaseException as error:
            readers.dispose()
            if isinstance(error, DBAPIError):
                reason = str(error.orig).strip().replace("\n", "; ")
                raise StoreUnavailable(f"{told(where)} cannot be opened: {reason}") from error
            raise
        return cls(owner, readers, journal, lease_s)

    # -- who is at work --------------------------------------------------------------------------------------------

    async def claim(self, owner: str, now: datetime, runs: Sequence[str] = ()) -> int:
        assert self.lease_s is not None
        lease, joined_before = round(self.lease_s * 1_000_000), self._joined and self.owner == owner
        described = json.dumps(list(runs))

        def beat(writer: LogWriter) -> int | None:
            run, at = writer.connection.execute, _now(writer.connection)
            run(delete(workers).where(workers.c.beat_at < at - lease))
            if joined_before and run(select(workers).where(workers.c.owner == owner)).first() is None:
                return None
            joining = postgresql.insert(workers).values(owner=owner, beat_at=at, runs=described)
            told = {"beat_at": joining.excluded.beat_at, "runs": joining.excluded.runs}
            run(joining.on_conflict_do_update(index_elements=[workers.c.owner], set_=told))
            left = _IN_FLIGHT & open_work.c.owner.not_in(select(workers.c.owner))
            taken = {"owner": owner, "epoch": open_work.c.epoch + 1, "due_at": microseconds(now)}
            return run(update(open_work).where(left).values(taken)).rowcount

        taken = await self._write(beat)
        if taken is None:
            raise LeaseLost(f"{owner} was silent for longer than {self.lease_s} s")
        self._joined, self.owner = True, owner
        return taken

    async def leave(self) -> None:
        owner = self.owner

        def go(writer: LogWriter) -> None:
            run = writer.connection.execute
            run(delete(workers).where(workers.c.owner == owner))
            run(delete(held_names).where(held_names.c.owner == owner))
            handed_over = {"owner": "", "epoch": open_work.c.epoch + 1, "due_at": _now(writer.connection)}
            run(update(open_work).where(_IN_FLIGHT, open_work.c.owner == owner).values(handed_over))

        await self._write_as_worker(go)

    async def workers(self) -> Sequence[Worker]:
        return await self._read(_workers)

    async def now(self) -> datetime | None:
        return await self._read(lambda connection: instant(_now(connection)))

    def _worker(self) -> str | None:
        return self.owner if self._joined else None

    # -- who has which row -----------------------------------------------------------------------------------------

    async def due(
        self, now: datetime, limit: int, closed_lanes: Sequence[str] = (), skip: Sequence[UUID] = ()
    ) -> Sequence[OpenWork]:
        assert self.lease_s is not None
        owner, worker = self.owner, self._worker()
        until = microseconds(now) + round(self.lease_s * 1_000_000)

        def hand_out(connection: Connection) -> list[OpenWork]:
            connection.exec_driver_sql("BEGIN")
            _check_alive(connection, worker)
            found = reads.free(connection, now, limit, closed_lanes, skip)
            if found:
                ids = [row.stream_id.bytes for row in found]
                handed = {"owner": owner, "epoch": open_work.c.epoch + 1, "due_at": until}
                connection.execute(update(open_work).where(open_work.c.stream_id.in_(ids)).values(handed))
            connection.commit()
            return [replace(row, owner=owner, epoch=row.epoch + 1, due_at=instant(until)) for row in found]

        return await self._read(hand_out)

    async def overdue(self, before: datetime, limit: int) -> Sequence[OpenWork]:
        return await self._read(reads.due, before, limit, (), ())

    async def hand_back(self, rows: Sequence[OpenWork], due_at: datetime) -> None:
        if not rows:
            return
        owner, at = self.owner, microseconds(due_at)

        def give_back(writer: LogWriter) -> None:
            handed = [row.stream_id.bytes for row in rows], [row.epoch for row in rows]
            writer.connection.exec_driver_sql(HAND_BACK, (at, *handed, owner))

        await self._write_as_worker(give_back)

    # -- what is known and held together ---------------------------------------------------------------------------

    async def lanes(self) -> Sequence[Lane]:
        return await self._read(_lanes)

    async def change_lane(self, lane: Lane) -> bool:
        worker, row = self._worker(), _lane_row(replace(lane, version=lane.version + 1))

        def change(connection: Connection) -> bool:
            connection.exec_driver_sql("BEGIN")
            _check_alive(connection, worker)
            if lane.version:
                as_read = lanes.c.target == lane.target, lanes.c.version == lane.version
                changed = connection.execute(update(lanes).where(*as_read).values(row).returning(lanes.c.target))
            else:
                new = postgresql.insert(lanes).values(row).on_conflict_do_nothing()
                changed = connection.execute(new.returning(lanes.c.target))
            was_first = changed.first() is not None
            connection.commit()
            return was_first

        return await self._read(change)

    async def keep_checkpoint(self, consumer: str, position: int) -> None:
        await self._write_as_worker(lambda writer: keep_checkpoint(writer, consumer, position))

    @asynccontextmanager
    async def exclusive(self, name: str) -> AsyncIterator[bool]:
        owner = self.owner

        def take(writer: LogWriter) -> bool:
            new = postgresql.insert(held_names).values(name=name, owner=owner)
            free = held_names.c.owner.not_in(select(workers.c.owner)) | (held_names.c.owner == owner)
            taken = new.on_conflict_do_update(index_elements=[held_names.c.name], set_={"owner": owner}, where=free)
            return writer.connection.execute(taken.returning(held_names.c.name)).first() is not None

        def let_go(writer: LogWriter) -> None:
            ours = held_names.c.name == name, held_names.c.owner == owner
            writer.connection.execute(delete(held_names).where(*ours))

        ours = await self._write_as_worker(take)
        try:
            yield ours
        finally:
            if ours:
                with suppress(StoreUnavailable):  # a store that does not answer, or is closed: it goes with the lease
                    await self._write(let_go)

    # -- the rest --------------------------------------------------------------------------------------------------

    def after_commit(self, call: Callable[[], None]) -> Callable[[], None]:
        """Have `call` run in a thread of the store's after a commit here, or one that another process told of."""
        self._called = (*self._called, call)

        def end() -> None:
            self._called = tuple(other for other in self._called if other is not call)

        return end

    def _committed(self) -> None:
        self._tell_all()
        self._hints.tell()

    def _tell_all(self) -> None:
        for call in self._called:
            with suppress(Exception):  # a listener is only woken; its own fault must not stop the others
                call()

    def close_now(self) -> None:
        super().close_now()
        self._hints.close()
        self._readers.dispose()

    async def _write_as_worker(self, change: Callable[[LogWriter], T]) -> T:
        worker = self._worker()

        def checked(writer: LogWriter) -> T:
            _check_alive(writer.connection, worker)
            return change(writer)

        return await self._write(checked)


def _check_alive(connection: Connection, worker: str | None) -> None:
    """Raise `LeaseLost` for one that was struck; from here to the end of the transaction it cannot be."""
    if worker is None:
        return
    alive = select(workers.c.owner).where(workers.c.owner == worker).with_for_update(read=True, key_share=True)
    if connection.execute(alive).first() is None:
        raise LeaseLost(f"{worker} was declared dead")


def _now(connection: Connection) -> int:
    return int(connection.exec_driver_sql(NOW).scalar_one())


def _workers(connection: Connection) -> list[Worker]:
    found = connection.execute(select(workers).order_by(workers.c.owner))
    try:
        return [Worker(owner, instant(beat_at), _RUNS.validate_json(runs)) for owner, beat_at, runs in found]
    except (ValidationError, OverflowError) as fault:
        raise StoreUnavailable(f"the table of workers cannot be read: {fault}") from None


def _lanes(connection: Connection) -> list[Lane]:
    def at(value: int | None) -> datetime | None:
        return None if value is None else instant(value)

    return [
        Lane(
            row.target,
            row.failures,
            at(row.failed_at),
            row.opened,
            at(row.open_until),
            at(row.probe_until),
            at(row.theoretical_at),
            row.version,
        )
        for row in connection.execute(select(lanes).order_by(lanes.c.target))
    ]


def _lane_row(lane: Lane) -> dict[str, Any]:
    row = asdict(lane)
    return {name: microseconds(value) if isinstance(value, datetime) else value for name, value in row.items()}
