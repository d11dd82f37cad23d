"""The tables of the log, in SQLAlchemy Core, for every SQL backend.

Owns names, columns and indexes; how PostgreSQL comes to have them is in `store/migrations`. Times are integer
microseconds since 1970 (UTC), ids are 16 bytes: a saga of six events and its row must stay below 1,500 bytes, indexes
included.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
)

APPLICATION_ID = 0x41505054
"""`PRAGMA application_id` of a SQLite file of ours: "APPT"."""
SCHEMA_VERSION = 2
"""`PRAGMA user_version`: the version of the tables below."""

_INT64 = BigInteger().with_variant(Integer(), "sqlite")
_TEXT = Text().with_variant(Text(collation="C"), "postgresql")

metadata = MetaData()

events = Table(
    "events",
    metadata,
    Column("position", _INT64, primary_key=True, autoincrement=False),
    Column("stream_id", LargeBinary(16), nullable=False),
    Column("version", Integer, nullable=False),
    Column("type", _TEXT, nullable=False),
    Column("at", _INT64, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("digest", LargeBinary(16), nullable=False),
    UniqueConstraint("stream_id", "version"),
)
"""The log. `sealed` holds what is private of an event (`store/sealing.py`), `digest` chains it (`store/chain.py`)."""

subject_keys = Table(
    "subject_keys",
    metadata,
    Column("name", LargeBinary(16), primary_key=True),
    Column("ref", LargeBinary(8), nullable=False, unique=True),
    Column("key", LargeBinary(32), nullable=False),
    sqlite_with_rowid=False,
)
"""A key for each subject, under a hash of its name. To delete the row is to erase what the log says of the subject."""

open_work = Table(
    "open_work",
    metadata,
    Column("stream_id", LargeBinary(16), primary_key=True),
    Column("tenant", _TEXT, nullable=False),
    Column("lane", _TEXT, nullable=False),
    Column("due_at", _INT64),
    Column("starts_at", _INT64, nullable=False),
    Column("deadline_at", _INT64),
    Column("in_flight", Boolean, nullable=False),
    Column("parked", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
    Column("owner", _TEXT, nullable=False),
    Column("epoch", Integer, nullable=False),
    sqlite_with_rowid=False,
)

IN_FLIGHT: ColumnElement[bool] = literal_column("in_flight = 1")
"""Written as a literal, because a partial index serves only a condition that repeats its own text."""

_DUE: ColumnElement[bool] = literal_column("due_at IS NOT NULL")
_DEADLINE: ColumnElement[bool] = literal_column("deadline_at IS NOT NULL")
Index("open_work_due", open_work.c.due_at, sqlite_where=_DUE, postgresql_where=_DUE)
Index("open_work_lane", open_work.c.lane, open_work.c.starts_at, open_work.c.due_at)
Index("open_work_deadline", open_work.c.deadline_at, sqlite_where=_DEADLINE, postgresql_where=_DEADLINE)
Index("open_work_in_flight", open_work.c.owner, sqlite_where=IN_FLIGHT, postgresql_where=literal_column("in_flight"))

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("consumer", _TEXT, primary_key=True),
    Column("position", _INT64, nullable=False),
    sqlite_with_rowid=False,
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("stream_id", LargeBinary(16), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("type", _TEXT, nullable=False),
    Column("body", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
"""Deletable cache of the `eventsourcing` library's applications; nothing else reads it."""

shared = MetaData()
"""What only a store has that many workers share."""

workers = Table(
    "workers",
    shared,
    Column("owner", _TEXT, primary_key=True),
    Column("beat_at", _INT64, nullable=False),
    Column("runs", _TEXT, nullable=False),
)
"""Who is at work; `runs` is a JSON list. A row is struck when it was silent for longer than a lease."""

lanes = Table(
    "lanes",
    shared,
    Column("target", _TEXT, primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("failed_at", _INT64),
    Column("opened", Integer, nullable=False),
    Column("open_until", _INT64),
    Column("probe_until", _INT64),
    Column("theoretical_at", _INT64),
    Column("version", Integer, nullable=False),
)
"""What the workers know together of each target."""

held_names = Table(
    "held_names",
    shared,
    Column("name", _TEXT, primary_key=True),
    Column("owner", _TEXT, nullable=False),
)
"""Names that one worker alone holds, as long as it is among the workers."""

shard = Table(
    "shard",
    shared,
    Column("alone", Boolean, CheckConstraint("alone"), primary_key=True),
    Column("name", _TEXT, nullable=False),
    Column("names", _TEXT, nullable=False),
)
"""Which of several databases this is; `names` is a JSON list of them all. No row: it is the only one."""
