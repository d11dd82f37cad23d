"""Tables of a PostgreSQL store: made by one process while others wait, brought up from older ones with their data."""

import asyncio
from uuid import UUID

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, text

from domain.errors import InvalidFields, StoreRefused, StoreUnavailable
from store import postgres_schema
from store.port import Append, RecordedEvent
from store.postgres import PostgresStore
from store.postgres_schema import SCHEMA, bring_up_to_date, revision_of, upgrade
from store.postgres_shard import Shard
from store.tables import metadata, shared
from tests.postgres.server import PostgresServer

pytestmark = pytest.mark.evidence(
    target="tables on PostgreSQL",
    answers=("R7.1", "R7.3"),
    given="a database that is empty, of an older or a newer program, of something else, or on a server that loses data",
    when="a store is opened on it",
    then="the tables are brought up to date once, with their data, or it is refused and left as it was",
    seen_in="state of the store, refusal",
)


@pytest.fixture
def engine(postgres_url: str):
    made = create_engine(postgres_url)
    yield made
    made.dispose()


def event(stream: int, version: int = 1) -> RecordedEvent:
    return RecordedEvent(UUID(int=stream), version, "appointment-requested.v1", b"{}")


def at_revision(engine: Engine, revision: str) -> None:
    with engine.begin() as connection:
        upgrade(connection, revision)


def test_the_revisions_make_the_tables_that_the_program_uses(engine: Engine) -> None:
    bring_up_to_date(engine)
    with engine.connect() as connection:
        of_alembic = {"version_table": "appointments_schema", "compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=of_alembic)
        found = compare_metadata(context, [metadata, shared])  # type: ignore[arg-type]
    gone = [change for change in found if change[0] != "remove_table" or "schema_needed" not in change[1].name]
    assert not gone


async def test_of_eight_that_open_an_empty_database_at_once_one_makes_the_tables(postgres_url: str) -> None:
    opening = [asyncio.to_thread(PostgresStore.open, postgres_url, f"worker-{n}") for n in range(8)]
    stores = await asyncio.gather(*opening)
    entries = [Append(UUID(int=n), 0, (event(n),)) for n in range(8)]
    positions = await asyncio.gather(*(store.append(entry) for store, entry in zip(stores, entries, strict=True)))
    assert sorted(positions) == list(range(1, 9))
    for store in stores:
        await store.close()


async def test_who_opens_waits_for_the_one_that_makes_the_tables(
    engine: Engine, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_schema, "LOCK_TIMEOUT_MS", 300)
    with engine.begin() as connection:
        connection.execute(text(f"SELECT pg_advisory_xact_lock({postgres_schema.UPGRADE_LOCK})"))
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            await asyncio.to_thread(PostgresStore.open, postgres_url, "second")
        assert revision_of(connection) == 0
    await (await asyncio.to_thread(PostgresStore.open, postgres_url, "second")).close()


async def test_control_with_a_lock_of_its_own_it_does_not_wait(
    engine: Engine, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"SELECT pg_advisory_xact_lock({postgres_schema.UPGRADE_LOCK})"))
        monkeypatch.setattr(postgres_schema, "UPGRADE_LOCK", 5)
        await (await asyncio.to_thread(PostgresStore.open, postgres_url, "second")).close()
        assert revision_of(connection) == SCHEMA


@pytest.mark.parametrize("older", range(1, SCHEMA))
async def test_an_older_schema_is_brought_up_to_date_with_its_data(
    older: int, engine: Engine, postgres_url: str
) -> None:
    at_revision(engine, f"{older:04}")
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO events VALUES (1, :id, 1, 'appointment-requested.v1', 0, '{}', '', '\\x00')"),
            {"id": UUID(int=1).bytes},
        )
        connection.execute(text("INSERT INTO checkpoints VALUES ('outbox', 1)"))
    with pytest.raises(StoreRefused, match=f"has schema revision {older}, {SCHEMA} is needed"):
        await asyncio.to_thread(PostgresStore.open, postgres_url, "reader", read_only=True)
    store = await asyncio.to_thread(PostgresStore.open, postgres_url, "worker")
    assert [one.stream_id for one in await store.log()] == [UUID(int=1)]
    assert await store.checkpoint("outbox") == 1
    assert await store.append(Append(UUID(int=1), 1, (event(1, 2),))) == 2
    assert not await store.workers()
    await store.close()


async def test_a_program_goes_on_beside_a_newer_one_that_has_only_added(engine: Engine, postgres_url: str) -> None:
    """Expand and contract: what is new is added first; only what says so by `needs` shuts the older program out."""
    store = await asyncio.to_thread(PostgresStore.open, postgres_url, "old")
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE open_work ADD COLUMN priority integer NOT NULL DEFAULT 0"))
        connection.execute(text(f"UPDATE appointments_schema SET version_num = '{SCHEMA + 1:04}'"))
    assert await store.append(Append(UUID(int=1), 0, (event(1),))) == 1
    await store.close()
    again = await asyncio.to_thread(PostgresStore.open, postgres_url, "old")
    assert await again.append(Append(UUID(int=2), 0, (event(2),))) == 2
    await again.close()
    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO appointments_schema_needed VALUES ({SCHEMA + 1})"))
    with pytest.raises(StoreRefused, match=f"knows schema revision {SCHEMA + 1}, this one knows {SCHEMA}: upgrade it"):
        await asyncio.to_thread(PostgresStore.open, postgres_url, "old")


async def test_a_database_of_something_else_is_refused_and_left_as_it_was(engine: Engine, postgres_url: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE open_work (theirs text)"))
    with pytest.raises(StoreRefused, match="has a table 'open_work' of something else"):
        await asyncio.to_thread(PostgresStore.open, postgres_url, "worker")
    with engine.connect() as connection:
        assert revision_of(connection) == 0
        tables = connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).scalars().all()
        assert list(tables) == ["open_work"]


async def test_a_reader_makes_no_tables(engine: Engine, postgres_url: str) -> None:
    with pytest.raises(StoreRefused, match="holds no store yet"):
        await asyncio.to_thread(PostgresStore.open, postgres_url, "reader", read_only=True)
    with engine.connect() as connection:
        assert revision_of(connection) == 0


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_loses_acknowledged_commits_is_refused(setting: str) -> None:
    with PostgresServer(**{setting: "off"}) as server:
        server.new_database("store")
        with pytest.raises(StoreRefused, match=f"has {setting} = off and loses acknowledged bookings"):
            PostgresStore.open(server.url("store"), "worker")


@pytest.mark.parametrize("place", ["ROLE appointments", "DATABASE {database}"])
async def test_asynchronous_commits_are_refused_wherever_they_are_set(
    postgres_server: PostgresServer, postgres_database: str, postgres_url: str, place: str
) -> None:
    store = await asyncio.to_thread(PostgresStore.open, postgres_url, "worker")
    whose = place.format(database=f'"{postgres_database}"')
    admin = create_engine(postgres_server.admin_url(), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"ALTER {whose} SET synchronous_commit = off"))
    try:
        with pytest.raises(StoreRefused, match="has synchronous_commit = off"):
            await asyncio.to_thread(PostgresStore.open, postgres_url, "second")
        with admin.connect() as connection:
            connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%journal'")
            )
        for _ in range(2):  # what was connected before notices at the next connection
            with pytest.raises(StoreUnavailable):
                await store.append(Append(UUID(int=1), 0, (event(1),)))
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"ALTER {whose} RESET synchronous_commit"))
        admin.dispose()
    assert await store.append(Append(UUID(int=1), 0, (event(1),))) == 1
    await store.close()


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://",
        "postgresql://host",
        "postgres//host/db",
        "postgresql://host:port/db",
        "postgresql://h/db?hosts=x",
    ],
)
def test_an_address_that_is_none_is_refused_without_showing_it(address: str) -> None:
    with pytest.raises(InvalidFields) as refused:
        PostgresStore.open(address.replace("//", "//user:secret@", 1), "worker")
    assert "secret" not in str(refused.value)


def test_a_server_that_is_not_there_is_told_without_the_password() -> None:
    with pytest.raises(StoreUnavailable, match=r"postgresql://user:\*\*\*@127.0.0.1:1/db cannot be opened") as told:
        PostgresStore.open("postgresql://user:secret@127.0.0.1:1/db", "worker")
    assert "secret" not in str(told.value)


NORTH, SOUTH = Shard.of("north", ("south", "north")), Shard.of("south", ("north", "south"))


async def test_a_new_database_is_the_shard_that_it_was_first_opened_as(postgres_url: str) -> None:
    for read_only in (False, True):
        opened = PostgresStore.open(postgres_url, "worker", read_only=read_only, shard=NORTH)
        await opened.close()
        for other in (SOUTH, Shard.of("north", ("north", "south", "west")), None):
            with pytest.raises(StoreRefused, match="the database is shard north of north, south, not"):
                PostgresStore.open(postgres_url, "worker", read_only=read_only, shard=other)


async def test_a_shard_takes_no_program_that_knows_of_none(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await PostgresStore.open(postgres_url, "worker", shard=NORTH).close()
    monkeypatch.setattr(postgres_schema, "SCHEMA", 2)
    with pytest.raises(StoreRefused, match="needs a program that knows schema revision 3"):
        PostgresStore.open(postgres_url, "older", shard=NORTH)


async def test_a_database_with_a_log_becomes_no_shard(postgres_url: str) -> None:
    before = PostgresStore.open(postgres_url, "worker")
    await before.append(Append(UUID(int=1), 0, (event(1),)))
    await before.close()
    with pytest.raises(StoreRefused, match="holds a log already"):
        PostgresStore.open(postgres_url, "worker", shard=NORTH)
    after = PostgresStore.open(postgres_url, "worker")
    assert await after.position() == 1
    await after.close()


async def test_of_two_that_open_a_new_database_under_other_names_one_is_refused(postgres_url: str) -> None:
    opening = [asyncio.to_thread(PostgresStore.open, postgres_url, "w", shard=shard) for shard in (NORTH, SOUTH) * 3]
    found = await asyncio.gather(*opening, return_exceptions=True)
    stores = [one for one in found if isinstance(one, PostgresStore)]
    assert len(stores) == 3
    assert all(isinstance(one, StoreRefused) for one in found if one not in stores)
    for store in stores:
        await store.close()
