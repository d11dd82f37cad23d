"""Brings the tables of a PostgreSQL database up to date, and refuses a database that is not this program's.

One process upgrades, the others wait for it; all revisions that are missing are one transaction.
"""

from pathlib import Path

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import ProgrammingError

from domain.errors import StoreRefused

SCHEMA = 3
"""The newest revision that this program knows."""
UPGRADE_LOCK = 0x41505054_00000002
"""The advisory lock of whoever changes the tables."""
LOCK_TIMEOUT_MS = 60_000
"""How long a change waits for those who use the tables, and they for it."""


def bring_up_to_date(engine: Engine) -> None:
    """Have the tables be those that this program knows, or newer ones that it may use.

    Raises StoreRefused: made by something else, or by a newer program that has taken away what this one needs.
    """
    with engine.connect() as connection:
        if revision_of(connection) >= SCHEMA:
            _check_usable(connection)
            return
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection, connection.begin():
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({UPGRADE_LOCK})")
        if revision_of(connection) < SCHEMA:
            upgrade(connection, f"{SCHEMA:04}")
        _check_usable(connection)


def check_up_to_date(engine: Engine) -> None:
    """As `bring_up_to_date`, changing nothing. Raises StoreRefused also for tables that are missing or older."""
    with engine.connect() as connection:
        revision = revision_of(connection)
        if revision < SCHEMA:
            if not revision:
                raise StoreRefused("the database holds no store yet: whatever books something makes one")
            raise StoreRefused(
                f"the database has schema revision {revision}, {SCHEMA} is needed: start `serve` or `worker` on it"
            )
        _check_usable(connection)


def revision_of(connection: Connection) -> int:
    """The revision of the tables, 0 where there are none."""
    if connection.exec_driver_sql("SELECT to_regclass('appointments_schema')").scalar_one() is None:
        return 0
    return int(connection.exec_driver_sql("SELECT max(version_num) FROM appointments_schema").scalar_one() or 0)


def upgrade(connection: Connection, revision: str) -> None:
    """Run what is missing up to a revision, in the connection's transaction."""
    # Loaded here alone: it costs a start a tenth of a second, and hardly ever runs.
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    try:
        command.upgrade(config, revision)
    except ProgrammingError as error:
        if "already exists" not in str(error.orig):
            raise
        table = str(error.orig).split('"')[1]
        raise StoreRefused(
            f"the database has a table {table!r} of something else: use a database of its own for the store"
        ) from error


def _check_usable(connection: Connection) -> None:
    needed = int(
        connection.exec_driver_sql("SELECT coalesce(max(revision), 0) FROM appointments_schema_needed").scalar_one()
    )
    if needed > SCHEMA:
        raise StoreRefused(
            f"the database needs a program that knows schema revision {needed}, this one knows {SCHEMA}: upgrade it"
        )
