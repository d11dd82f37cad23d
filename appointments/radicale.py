"""Radicale as a subprocess on loopback: a real CalDAV server with its files below one folder, for a first start.

Owns the process and its configuration file; it knows nothing of calendars (`CalDavProvider.ensure_calendar`). The
process never outlives the one that started it, not even when that one is killed.
"""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
READY_TIMEOUT_S = 20.0
READY_POLL_S = 0.02
STOP_TIMEOUT_S = 5.0
CONNECTIONS_MAX = 100
BOUND_TO_US = """
import os, runpy, sys, threading

def end_with_the_starter():
    os.read(0, 1)
    os._exit(1)

threading.Thread(target=end_with_the_starter, daemon=True).start()
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""Runs a module until standard input, a pipe that nobody writes to, ends: with whoever holds its other end."""
CONFIGURATION = """[server]
hosts = {host}:{port}
max_connections = {connections_max}
[auth]
type = htpasswd
htpasswd_filename = {users}
htpasswd_encryption = plain
[rights]
type = owner_only
[storage]
filesystem_folder = {collections}
use_mtime_and_size_for_item_cache = True
[web]
type = none
[logging]
level = warning
"""


class ServerFailed(RuntimeError):
    """The server ended, or did not answer in time; the text ends with the last lines of its log."""


class LoopbackServer:
    """A server program (a module and its arguments) that listens on a loopback port, from ready to ended."""

    def __init__(self, arguments: Sequence[str], port: int, log: Path) -> None:
        self._arguments = arguments
        self._port = port
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until its port takes connections. Raises `ServerFailed`."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                BOUND_TO_US,
                *self._arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                while not await _listens(self._port):
                    if self._process.returncode is not None:
                        raise ServerFailed(f"ended with {self._process.returncode}: {self._last_lines()}")
                    await asyncio.sleep(READY_POLL_S)
        except TimeoutError:
            await self.stop()
            raise ServerFailed(f"not ready in {READY_TIMEOUT_S:.0f} s: {self._last_lines()}") from None
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End it: politely, then by force."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def _last_lines(self) -> str:
        return self._log.read_text(errors="replace")[-1_000:]


class RadicaleServer:
    """Radicale for one user: `async with RadicaleServer(folder, user, password) as server: server.url`.

    `url` is the user's calendar home. The password stands in a file that only this account reads, as it does in the
    settings of whoever starts the server; hashing it would cost each request more than the request.
    """

    def __init__(self, folder: Path, user: str, password: str, port: int = 0) -> None:
        self.port = port or free_port()
        self.url = f"http://{HOST}:{self.port}/{user}/"
        self._folder = folder
        self._login = f"{user}:{password}\n"
        self._server = LoopbackServer(["radicale", "-C", str(folder / "radicale.conf")], self.port, self._log())

    async def __aenter__(self) -> Self:
        """Write the configuration, start, wait until ready. Raises `ServerFailed`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        users = self._folder / "users"
        users.touch(mode=0o600)
        users.write_text(self._login)
        (self._folder / "radicale.conf").write_text(
            CONFIGURATION.format(
                host=HOST,
                port=self.port,
                connections_max=CONNECTIONS_MAX,
                users=users.resolve(),
                collections=(self._folder / "collections").resolve(),
            )
        )
        await self._server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the server."""
        await self._server.stop()

    def _log(self) -> Path:
        return self._folder / "radicale.log"


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


async def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection(HOST, port)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True
    return False
