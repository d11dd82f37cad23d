"""Listens, and serves an application until it is told to stop; what runs then is finished first."""

import asyncio
import gc
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from appointments.http.connection import BoundedConnection
from appointments.http.door import Door
from domain.errors import InvalidFields

GRACE_S = 10
"""How long requests that run are waited for at the end."""
BACKLOG = 1_024
CYCLES = (50_000, 20, 10)
"""After how many new objects cycles are searched for (`gc`): what is served makes many objects and next to no cycle,
and at Python's 700 the search took a third of the process's time."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `InvalidFields` for an address that cannot be had."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, proto)
    except OSError as fault:
        raise InvalidFields(f"cannot listen on {host}: {fault.strerror}", (("/host", "no address"),)) from None
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(BACKLOG)
    except OSError as fault:
        opened.close()
        raise InvalidFields(
            f"cannot listen on {host} port {port}: {fault.strerror}; choose another with --port", (("/port", "taken"),)
        ) from None
    return opened


def url(opened: socket.socket) -> str:
    """Its address, as a browser takes it."""
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(app: FastAPI, opened: socket.socket, up: Callable[[], None] = lambda: None, drain_s: float = 0) -> None:
    """Serve until cancelled; `up` is called once requests are taken.

    At the end it first takes no new commands and says so at /readyz, for `drain_s` seconds; then it lets what runs end.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # its warnings are what strangers send
    config = uvicorn.Config(
        app,
        http=BoundedConnection,
        ws="none",
        proxy_headers=False,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        backlog=BACKLOG,
    )
    server = _Server(config, up)
    serving = asyncio.create_task(server.serve(sockets=[opened]))
    try:
        with _few_searches():
            await asyncio.shield(serving)
    except asyncio.CancelledError:
        door: Door = app.state.door
        door.standing.stop()
        try:
            await asyncio.sleep(drain_s)
        finally:
            for one in door.all:
                one.follower.end()
            server.should_exit = True
            await serving
        raise


@contextmanager
def _few_searches() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*CYCLES)
    try:
        yield
    finally:
        gc.set_threshold(*before)


class _Server(uvicorn.Server):
    """One that leaves signals to the command line."""

    def __init__(self, config: uvicorn.Config, up: Callable[[], None]) -> None:
        super().__init__(config)
        self._up = up

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take requests."""
        await super().startup(sockets)
        self._up()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None is caught."""
        yield
