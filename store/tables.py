"""The tables of the log, in SQLAlchemy Core, for every SQL backend.

Owns names, columns and indexes. Times are integer microseconds since 1970 (UTC), ids are 16 bytes: a saga of six
events and its row must stay below 1,500 bytes, indexes included.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
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

metadata = MetaData()

events = Table(
    "events",
    metadata,
    Column("position", _INT64, primary_key=True, autoincrement=False),
    Column("stream_id", LargeBinary(16), nullable=False),
    Column("version", Integer, nullable=False),
    Column("type", Text, nullable=False),
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
    Column("tenant", Text, nullable=False),
    Column("lane", Text, nullable=False),
    Column("due_at", _INT64),
    Column("starts_at", _INT64, nullable=False),
    Column("deadline_at", _INT64),
    Column("in_flight", Boolean, nullable=False),
    Column("parked", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
    Column("owner", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    sqlite_with_rowid=False,
)

IN_FLIGHT: ColumnElement[bool] = literal_column("in_flight = 1")
"""Written as a literal, because a partial index serves only a condition that repeats its own text."""

Index("open_work_due", open_work.c.due_at, sqlite_where=literal_column("due_at IS NOT NULL"))
Index("open_work_lane", open_work.c.lane, open_work.c.starts_at, open_work.c.due_at)
Index("open_work_deadline", open_work.c.deadline_at, sqlite_where=literal_column("deadline_at IS NOT NULL"))
Index("open_work_in_flight", open_work.c.owner, sqlite_where=IN_FLIGHT)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("consumer", Text, primary_key=True),
    Column("position", _INT64, nullable=False),
    sqlite_with_rowid=False,
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("stream_id", LargeBinary(16), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("type", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
"""Deletable cache of the `eventsourcing` library's applications; nothing else reads it."""
