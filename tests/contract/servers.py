"""Real CalDAV servers on loopback, and ports that refuse or stay silent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from appointments.radicale import HOST, LoopbackServer, RadicaleServer, free_port

USER = "user"
PASSWORD = "secret: with, signs"


@asynccontextmanager
async def radicale(folder: Path) -> AsyncIterator[str]:
    """A calendar home on Radicale."""
    async with RadicaleServer(folder, USER, PASSWORD) as server:
        yield server.url


@asynccontextmanager
async def xandikos(folder: Path) -> AsyncIterator[str]:
    """A calendar home on Xandikos."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    arguments = ["xandikos", "serve", "-d", str(folder / "data"), "--state-dir", str(folder / "state")]
    arguments += ["--defaults", "--current-user-principal", f"/{USER}/", "--no-detect-systemd"]
    server = LoopbackServer([*arguments, "-l", HOST, "-p", str(port)], port, folder / "xandikos.log")
    await server.start()
    try:
        yield f"http://{HOST}:{port}/{USER}/calendars/"
    finally:
        await server.stop()


@asynccontextmanager
async def silent_port() -> AsyncIterator[str]:
    """A server that takes connections and requests, and never answers."""
    ended = asyncio.Event()

    async def listen(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    server = await asyncio.start_server(listen, HOST, 0)
    try:
        yield f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
    finally:
        ended.set()
        server.close()
        await server.wait_closed()
