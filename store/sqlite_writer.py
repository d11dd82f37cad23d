"""How a batch is written to one SQLite file.

It runs on the only writing connection, so what it remembers (the last position, the heads of recent streams, keys) is
true until a transaction is rolled back.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect

from store.chain import START
from store.log_writer import LogWriter
from store.rows import EventRow, WorkRow
from store.sealing import SubjectKey, hashed
from store.tables import events, open_work, subject_keys

HEADS_MAX = 32_768
"""Heads of streams remembered, about 6 MB; the head of any other stream is read from the index."""
HEADS_PER_QUERY = 64
KEYS_MAX = 16_384
"""Subjects' keys remembered, about 4 MB."""

_dialect = sqlite_dialect(paramstyle="qmark")


def _text(statement: Any) -> str:
    return str(statement.compile(dialect=_dialect))


INSERT_EVENT = _text(insert(events))
PUT_WORK = _text(insert(open_work).prefix_with("OR REPLACE"))
DELETE_WORK = _text(delete(open_work).where(open_work.c.stream_id == bindparam("stream_id")))
LAST_POSITION = _text(select(func.max(events.c.position)))
HEADS = _text(
    # SQLite gives the other columns of the row that holds the maximum.
    select(events.c.stream_id, func.max(events.c.version), events.c.digest)
    .where(events.c.stream_id.in_([bindparam(f"id_{n}") for n in range(HEADS_PER_QUERY)]))
    .group_by(events.c.stream_id)
)
KEY_OF = _text(select(subject_keys.c.ref, subject_keys.c.key).where(subject_keys.c.name == bindparam("name")))
INSERT_KEY = _text(insert(subject_keys))


class SqliteLogWriter(LogWriter):
    """Statements for SQLite, and what is remembered between batches."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._heads: OrderedDict[bytes, tuple[int, bytes]] = OrderedDict()
        self._keys: OrderedDict[str, SubjectKey] = OrderedDict()
        self._forget()
        connection.rollback()

    def begin(self) -> None:
        """Take the write lock at once: a transaction that upgrades later fails whatever the timeout."""
        self.connection.exec_driver_sql("BEGIN IMMEDIATE")

    def is_stored(self, row: EventRow) -> bool:
        """Whether it is there, and synced: what is visible may not be. A full checkpoint syncs and copies the log."""
        found = self._stored_row(row[0])
        self.connection.rollback()
        if found != row:
            return False
        busy = self.connection.exec_driver_sql("PRAGMA wal_checkpoint(FULL)").scalar_one()
        self.connection.rollback()
        return not busy

    def clean_up(self, wait: bool) -> bool:
        """Copy the write-ahead log into the file and cut it to nothing; False while a reader is in the way."""
        patience_ms = self.connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
        try:
            self.connection.exec_driver_sql(f"PRAGMA busy_timeout={patience_ms if wait else 0}")
            busy = self.connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar_one()
        finally:
            self.connection.exec_driver_sql(f"PRAGMA busy_timeout={patience_ms}")
            self.connection.rollback()
        return not busy

    def destroy_key(self, subject: str) -> None:
        """Delete a subject's key; its bytes are overwritten in the page."""
        super().destroy_key(subject)
        self._keys.pop(subject, None)

    def _key_of(self, subject: str) -> SubjectKey:
        known = self._keys.get(subject)
        if known is not None:
            self._keys.move_to_end(subject)
            return known
        name = hashed(subject)
        stored = self.connection.exec_driver_sql(KEY_OF, (name,)).first()
        key = SubjectKey.new() if stored is None else SubjectKey(stored.ref, stored.key)
        if stored is None:
            self.connection.exec_driver_sql(INSERT_KEY, (name, key.ref, key.key))
        self._keys[subject] = key
        if len(self._keys) > KEYS_MAX:
            self._keys.popitem(last=False)
        return key

    def _put(self, rows: Sequence[EventRow], works: Sequence[tuple[WorkRow, bool]], finished: Sequence[bytes]) -> None:
        if rows:
            self.connection.exec_driver_sql(INSERT_EVENT, list(rows))
        if works:
            self.connection.exec_driver_sql(PUT_WORK, [work for work, _ in works])
        if finished:
            self.connection.exec_driver_sql(DELETE_WORK, [(stream,) for stream in finished])

    def _look_up(self, streams: Sequence[bytes], subjects: Iterable[str]) -> None:
        """Read the heads that are not remembered; none of these streams' own is let go of. Keys are read as needed."""
        missing: dict[bytes, None] = {}
        for stream in streams:
            if stream in self._heads:
                self._heads.move_to_end(stream)
            else:
                missing[stream] = None
        unread = list(missing)
        for start in range(0, len(unread), HEADS_PER_QUERY):
            some = unread[start : start + HEADS_PER_QUERY]
            padded = some + some[-1:] * (HEADS_PER_QUERY - len(some))
            found = self.connection.exec_driver_sql(HEADS, tuple(padded)).all()
            self._heads.update(dict.fromkeys(some, (0, START)))
            self._heads.update((stream, (version, digest)) for stream, version, digest in found)
        while len(self._heads) > max(HEADS_MAX, len(streams)):
            self._heads.popitem(last=False)

    def _forget(self) -> None:
        self._heads.clear()
        self._keys.clear()
        self._last_position = self.connection.exec_driver_sql(LAST_POSITION).scalar_one() or 0
