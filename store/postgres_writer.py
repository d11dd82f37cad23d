"""How a batch is written to a PostgreSQL database that others write to as well.

One advisory lock is held from before the first look to the commit: the order of positions is the order of commits, so
that a reader who asks for what comes after a position misses nothing. Nothing is remembered between two batches, for
others have written meanwhile; a batch is one statement that looks up all that it needs, and one that writes it.
"""

from collections.abc import Iterable, Sequence

from domain.errors import LeaseLost
from store.chain import START
from store.log_writer import AppendEntry, LogWriter
from store.rows import EventRow, WorkRow
from store.sealing import SubjectKey, hashed
from store.tables import events, open_work

APPEND_LOCK = 0x41505054_00000001
"""The advisory lock of whoever appends."""

_EVENT_ARRAYS = ["bigint", "bytea", "int", "text", "bigint", "bytea", "bytea", "bytea"]
_WORK_ARRAYS = ["bytea", "text", "text", "bigint", "bigint", "bigint", "boolean", "boolean", "int", "text", "int"]

COLUMNS = open_work.c.keys()


def _unnest(types: Sequence[str]) -> str:
    return f"SELECT * FROM unnest({', '.join(f'%b::{type}[]' for type in types)})"  # noqa: S608, constants only


def _put_work(columns_left_alone: set[str]) -> str:
    changed = [name for name in COLUMNS if name not in columns_left_alone | {"stream_id"}]
    return (
        f"INSERT INTO open_work ({', '.join(COLUMNS)}) {_unnest(_WORK_ARRAYS)}"
        f" ON CONFLICT (stream_id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in changed)}"
    )


LOOK_UP = """
SELECT 0 AS kind, ''::bytea AS id, coalesce(max(position), 0) AS number, ''::bytea AS one, ''::bytea AS other
  FROM events
UNION ALL
SELECT 1, asked.id, head.version, head.digest, ''
  FROM unnest(%b::bytea[]) AS asked(id)
 CROSS JOIN LATERAL (
       SELECT version, digest FROM events WHERE stream_id = asked.id ORDER BY version DESC LIMIT 1) AS head
UNION ALL
SELECT 2, name, 0, ref, key FROM subject_keys WHERE name = ANY(%b::bytea[])
UNION ALL
SELECT 3, convert_to(owner, 'UTF8'), 0, '', '' FROM workers
"""
# A row that was handed to a worker meanwhile has a later epoch than whoever writes it now has read.
PUT = f"""
WITH keys AS (INSERT INTO subject_keys (name, ref, key) {_unnest(["bytea"] * 3)}),
     events AS (INSERT INTO events ({", ".join(events.c.keys())}) {_unnest(_EVENT_ARRAYS)}),
     kept AS ({_put_work({"epoch"})}),
     finished AS (DELETE FROM open_work WHERE stream_id = ANY(%b::bytea[]))
SELECT 1
"""  # noqa: S608, constants only
PUT_UNDER_ITS_OWNER = _put_work({"epoch", "owner"})


class PostgresLogWriter(LogWriter):
    """Statements for PostgreSQL, and what the batch that is being written has looked up."""

    _keys: dict[bytes, SubjectKey]
    _workers: frozenset[str] = frozenset()

    def begin(self) -> None:
        """Wait for the lock of those who append; it ends with the transaction."""
        self.connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({APPEND_LOCK})")

    def is_stored(self, row: EventRow) -> bool:
        """Whether it is there once the transaction that may still be committing has ended, and with it its lock."""
        self.begin()
        found = self._stored_row(row[0])
        self.connection.rollback()
        return found == row

    def clean_up(self, wait: bool) -> bool:
        """Nothing: the server's own vacuum does."""
        return True

    def _look_up(self, streams: Sequence[bytes], subjects: Iterable[str]) -> None:
        names = [hashed(subject) for subject in subjects]
        self._heads, self._keys, workers = dict.fromkeys(streams, (0, START)), {}, set()
        for kind, id, number, one, other in self.connection.exec_driver_sql(LOOK_UP, (list(self._heads), names)):
            if kind == 0:
                self._last_position = number
            elif kind == 1:
                self._heads[id] = number, one
            elif kind == 2:
                self._keys[id] = SubjectKey(one, other)
            else:
                workers.add(id.decode())
        self._workers, self._made = frozenset(workers), dict[bytes, SubjectKey]()

    def _refusal(self, entry: AppendEntry) -> Exception | None:
        if entry.worker is None or entry.worker in self._workers:
            return None
        return LeaseLost(f"{entry.worker} was declared dead")

    def _key_of(self, subject: str) -> SubjectKey:
        name = hashed(subject)
        known = self._keys.get(name)
        if known is None:
            known = self._keys[name] = self._made[name] = SubjectKey.new()
        return known

    def _put(self, rows: Sequence[EventRow], works: Sequence[tuple[WorkRow, bool]], finished: Sequence[bytes]) -> None:
        given = [work for work, keeps_owner in works if not keeps_owner]
        keeping = [work for work, keeps_owner in works if keeps_owner]
        made = [(name, key.ref, key.key) for name, key in self._made.items()]
        if made or rows or given or finished:
            arrays = (*_columns(made, 3), *_columns(rows, len(_EVENT_ARRAYS)), *_columns(given, len(_WORK_ARRAYS)))
            self.connection.exec_driver_sql(PUT, (*arrays, list(finished)))
        if keeping:
            self.connection.exec_driver_sql(PUT_UNDER_ITS_OWNER, tuple(_columns(keeping, len(_WORK_ARRAYS))))

    def _forget(self) -> None:
        """Nothing is remembered."""


def _columns(rows: Sequence[tuple[object, ...]], count: int) -> Iterable[list[object]]:
    """The rows as one array for each column."""
    return map(list, zip(*rows, strict=True)) if rows else ([] for _ in range(count))
