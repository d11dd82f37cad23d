"""Fixtures of every room: a real PostgreSQL server, started by the first test that asks for it."""

import re
from collections.abc import Iterator
from itertools import count

import pytest

from tests.postgres.server import PostgresServer

NUMBERS = count(1)
LOG_KEPT = 20_000
"""So many characters of the server's log are shown with a test that failed."""
STARTED_AT = pytest.StashKey[int]()


@pytest.fixture(scope="session")
def started_postgres() -> Iterator[PostgresServer]:
    """The server of this session; tests ask for `postgres_server`."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgres_server(started_postgres: PostgresServer, request: pytest.FixtureRequest) -> PostgresServer:
    """The server, running whatever the test before has done to it."""
    request.node.stash[STARTED_AT] = started_postgres.log_size()
    if not started_postgres.running:
        started_postgres.start()
    return started_postgres


@pytest.fixture
def postgres_database(postgres_server: PostgresServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of an empty database of this test alone."""
    name = f"{re.sub(r'[^a-z0-9]+', '_', request.node.name.lower())[:40]}_{next(NUMBERS)}"
    postgres_server.new_database(name)
    yield name
    if postgres_server.running:
        postgres_server.drop_database(name)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, postgres_database: str) -> str:
    """The address of an empty database of this test alone."""
    return postgres_server.url(postgres_database)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """With a test that failed, show what the server has logged meanwhile."""
    report = yield
    server = getattr(item, "funcargs", {}).get("postgres_server")
    if report.failed and server is not None and STARTED_AT in item.stash:
        report.sections.append(("PostgreSQL's log", server.log_since(item.stash[STARTED_AT])[-LOG_KEPT:]))
    return report
