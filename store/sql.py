"""What every store in tables does alike: the journal writes, a few threads read."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Concatenate, ParamSpec, TypeVar
from uuid import UUID

from sqlalchemy import Connection, Engine, Table, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from domain.errors import ConcurrencyConflict, StoreUnavailable
from store import reads
from store.journal import Journal
from store.log_writer import AppendEntry, LogWriter, TaskEntry
from store.port import Append, OpenWork, RecordedEvent, Store
from store.rows import check, microseconds, work_row
from store.tables import checkpoints

P = ParamSpec("P")
T = TypeVar("T")


class SqlStore(Store):
    """The log in tables. `journal` None: it is only read."""

    def __init__(self, owner: str, readers: Engine, journal: Journal | None, threads: int) -> None:
        self.owner = owner
        self._readers = readers
        self._closed = False
        self._journal = journal
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="store-reader")
        event.listen(readers, "checkin", self._given_back)

    @property
    def readers(self) -> Engine:
        """Connections that read, for queries beyond the port. Raises StoreUnavailable once the store is closed."""
        if self._closed:
            raise StoreUnavailable("the store is closed")  # the engine itself would connect anew
        return self._readers

    @property
    def journal(self) -> Journal:
        """The only way to write, for what is stored beside the port. Raises StoreUnavailable."""
        if self._journal is None:
            raise StoreUnavailable("the store was opened read-only")
        return self._journal

    def after_commit(self, call: Callable[[], None]) -> Callable[[], None]:
        """Have `call` run in the journal's thread after each commit; returns a function that ends this.

        A read-only store never calls: it cannot see the commits of another process but by looking.
        """
        return _nothing if self._journal is None else self._journal.after_commit(call)

    async def append(self, entry: Append) -> int:
        check(entry)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.journal.submit(self._rows(entry, future))
        return await future

    async def events(self, stream_id: UUID, after: int = 0, limit: int | None = None) -> Sequence[RecordedEvent]:
        return await self._read(reads.stream, stream_id, after, limit)

    async def streams(self, after: UUID | None = None, limit: int = 1_000) -> Sequence[UUID]:
        return await self._read(reads.streams, after, limit)

    async def log(self, after: int = 0, limit: int = 1_000) -> Sequence[RecordedEvent]:
        return await self._read(reads.log, after, limit)

    async def next_due(self, after: datetime) -> datetime | None:
        return await self._read(reads.next_due, after)

    async def sealed_for(self, subject: str) -> Sequence[UUID]:
        return await self._read(reads.sealed_for, subject)

    async def erase(self, subject: str, told: Sequence[Append]) -> None:
        for entry in told:
            check(entry)

        # The walk over the log is a reader's; the writer, for whom everybody waits, looks at what came after it.
        position = await self.position()
        known = set(await self.sealed_for(subject))

        def destroy(writer: LogWriter) -> None:
            since = reads.sealed_for(writer.connection, subject, position)
            untold = known.union(since).difference(entry.stream_id for entry in told)
            if untold:
                raise ConcurrencyConflict(f"{len(untold)} further streams hold something about the subject")
            writer.append_all([self._rows(entry, None) for entry in told])
            writer.destroy_key(subject)

        await self._write(destroy, clean=True)

    async def work(self, stream_id: UUID) -> OpenWork | None:
        return await self._read(reads.work, stream_id)

    async def open_work(self, after: UUID | None = None, limit: int = 1_000) -> Sequence[OpenWork]:
        return await self._read(reads.all_work, after, limit)

    async def position(self) -> int:
        return await self._read(reads.position)

    async def checkpoint(self, consumer: str) -> int | None:
        return await self._read(reads.checkpoint, consumer)

    async def keep_checkpoint(self, consumer: str, position: int) -> None:
        await self._write(lambda writer: keep_checkpoint(writer, consumer, position))

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.close_now)

    def close_now(self) -> None:
        """`close` for callers without an event loop; blocks until what is queued is durable. Twice is once."""
        self._closed = True
        self._threads.shutdown()
        self._readers.dispose()
        if self._journal is not None:
            self._journal.close()

    def _given_back(self, _: object, record: ConnectionPoolEntry) -> None:
        if self._closed:  # by a thread that was still reading: the pool that would have closed it is gone
            record.close()

    def _worker(self) -> str | None:
        """The name under which this handle is one of the workers of a shared store."""
        return None

    def _rows(self, entry: Append, future: "asyncio.Future[int] | None") -> AppendEntry:
        return AppendEntry(
            stream=entry.stream_id.bytes,
            expected=entry.expected_version,
            events=[(e.version, e.type, microseconds(e.at), e.body, e.private) for e in entry.events],
            work=None if entry.work is None else work_row(entry.work, self.owner),
            touches_work=entry.touches_work,
            future=future,
            keeps_owner=entry.keeps_owner,
            worker=self._worker(),
        )

    async def _write(self, change: Callable[[LogWriter], T], clean: bool = False) -> T:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.journal.submit(TaskEntry(change, future, clean=clean))
        return await future

    async def _read(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        def run(again: bool = True) -> T:
            try:
                with self._readers.connect() as connection:
                    return query(connection, *args, **kwargs)
            except DBAPIError as error:
                if error.connection_invalidated and again:  # a server that was started again answers on a new one
                    return run(again=False)
                raise StoreUnavailable(f"nothing was read: {error.orig}") from error

        try:
            waiting = asyncio.get_running_loop().run_in_executor(self._threads, run)
        except RuntimeError as error:  # what an executor that was shut down raises
            raise StoreUnavailable("the store is closed") from error
        return await waiting


def keep_checkpoint(writer: LogWriter, consumer: str, position: int) -> None:
    """Keep how far a consumer has come, within a change of one's own."""
    new = upsert(writer.connection, checkpoints).values(consumer=consumer, position=position)
    writer.connection.execute(new.on_conflict_do_update(index_elements=["consumer"], set_={"position": position}))


def upsert(connection: Connection, table: Table) -> Any:
    """An INSERT that may be given `on_conflict_do_update`, in the words of the connection's database."""
    return (postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert)(table)


def _nothing() -> None:
    """There is nothing to end."""
