"""Connections to a PostgreSQL server: how they are made, what they bear, and which servers are refused.

Owns what keeps an acknowledged commit safe on the server's side, and how soon a dead peer is noticed.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool, QueuePool

from domain.errors import InvalidFields, StoreRefused

READERS_MAX = 4
"""Connections that read and claim at once, in one process."""
SERVER_MIN = 140_000
WRITER_IDLE_MS = 3_000
"""A writer that stands still in the middle of a batch holds up all others: the server ends its session, at the latest
after half a lease."""
READER_IDLE_MS = 60_000
LOCK_WAIT_MS = 30_000
NETWORK: Mapping[str, int] = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""A peer that is gone is noticed within eleven seconds, not after minutes. Seconds; `tcp_user_timeout` milliseconds."""

_SESSION = (
    "SET TimeZone = 'UTC'",
    "SET jit = off",  # its estimates are of long reports, not of these
    f"SET lock_timeout = {LOCK_WAIT_MS}",
)
_READS = (*_SESSION, f"SET idle_in_transaction_session_timeout = {READER_IDLE_MS}")
_WRITES = (
    *_SESSION,
    # A plan that is made while the tables are empty would walk through them when they no longer are.
    "SET enable_seqscan = off",
)


def address(given: str) -> URL:
    """The address of a database, `postgresql://user:password@host:port/name`. Raises `InvalidFields`."""
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        url = None
    if url is None or url.get_backend_name() != "postgresql" or not url.database:
        raise InvalidFields(
            "cannot open the store: write postgresql://user:password@host:5432/database",
            (("/store", "not postgresql://user:password@host:port/database"),),
        )
    if unknown := set(url.query) - {"sslmode", "sslrootcert", "sslcert", "sslkey", "host", "port", "options"}:
        raise InvalidFields(
            f"the address of the store has {', '.join(sorted(unknown))}: leave it out",
            (("/store", "an option that is none"),),
        )
    return url.set(drivername="postgresql+psycopg")


def told(url: URL) -> str:
    """An address fit to be shown."""
    return url.set(drivername="postgresql").render_as_string(hide_password=True)


def reading_engine(url: URL, read_only: bool) -> Engine:
    """Connections on which each statement is a transaction of its own, unless one is begun."""
    only = ("SET default_transaction_read_only = on",) if read_only else ()
    engine = create_engine(
        url,
        connect_args={**NETWORK, "application_name": "appointments"},
        isolation_level="AUTOCOMMIT",
        poolclass=QueuePool,
        pool_size=READERS_MAX + 1,  # one listens
        max_overflow=0,
    )
    _at_connect(engine, (*_READS, *only))
    return engine


def writing_engine(url: URL, lease_s: float) -> Engine:
    """Makes the journal's connection, a new one each time."""
    engine = create_engine(
        url,
        connect_args={**NETWORK, "application_name": "appointments journal"},
        isolation_level="READ COMMITTED",
        poolclass=NullPool,
    )
    idle_ms = min(WRITER_IDLE_MS, round(lease_s * 500))
    _at_connect(engine, (*_WRITES, f"SET idle_in_transaction_session_timeout = {idle_ms}"))
    return engine


def check_server(connection: Connection) -> None:
    """Raise StoreRefused for a server that loses what it has acknowledged, or cannot be written to."""
    rows = connection.exec_driver_sql(
        "SELECT name, setting FROM pg_settings WHERE name IN"
        " ('fsync', 'full_page_writes', 'synchronous_commit', 'server_version_num', 'server_encoding')"
    )
    found = {row.name: row.setting for row in rows}
    for name in ("fsync", "full_page_writes", "synchronous_commit"):
        if found[name] == "off":
            raise StoreRefused(
                f"the server has {name} = off and loses acknowledged bookings when it crashes: switch it on"
            )
    if int(found["server_version_num"]) < SERVER_MIN:
        raise StoreRefused(f"the server is PostgreSQL {connection.dialect.server_version_info}: 14 or newer is needed")
    if found["server_encoding"] != "UTF8":
        raise StoreRefused(f"the database is encoded in {found['server_encoding']}: make one with ENCODING 'UTF8'")
    if connection.exec_driver_sql("SELECT pg_is_in_recovery()").scalar_one():
        raise StoreRefused("the server is a standby, which takes no bookings: name the primary")


def _at_connect(engine: Engine, statements: tuple[str, ...]) -> None:
    def prepare(connection: Any, _record: Any) -> None:
        try:
            autocommit, connection.autocommit = connection.autocommit, True
            connection.execute("; ".join(statements))
            connection.autocommit = autocommit
        except BaseException:
            connection.close()  # which the pool, that has not got it yet, leaves to the collector
            raise

    event.listen(engine, "connect", prepare)
