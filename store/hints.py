"""Tells the processes on one database of each other's commits, by LISTEN and NOTIFY; a hint, which may be lost.

A notification is sent after the commit and outside of it, for one inside holds up all commits of the server; many fast
ones are one. While the server does not answer nobody is told, and whoever waits looks by itself now and then.
"""

import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress

import psycopg
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

CHANNEL = "appointments_log"
TOLD_AT_MOST_EVERY_S = 0.02
RECONNECT_S = 1.0


class Hints:
    """Runs from the start to `close`, in a thread with a connection of its own. `call` runs in that thread."""

    def __init__(self, engine: Engine, call: Callable[[], None]) -> None:
        self._engine, self._call = engine, call
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._committed = False
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hints", daemon=True)
        self._thread.start()

    def tell(self) -> None:
        """Something was committed here. Callable from any thread until `close`."""
        if not self._committed:
            self._committed = True
            self._wake()

    def close(self) -> None:
        """Stop; blocks until the connection is closed. Twice is once."""
        if self._ending.is_set():
            return
        self._ending.set()
        self._wake()
        self._thread.join()
        self._ours.close()
        self._theirs.close()

    def _wake(self) -> None:
        with suppress(BlockingIOError):
            self._ours.send(b"!")

    def _run(self) -> None:
        while not self._ending.is_set():
            with suppress(psycopg.Error, DBAPIError, OSError), ExitStack() as stack:
                pooled = self._engine.raw_connection()
                stack.callback(pooled.invalidate)
                connection = pooled.driver_connection
                assert isinstance(connection, psycopg.Connection)
                self._follow(connection)
            self._ending.wait(RECONNECT_S)

    def _follow(self, connection: "psycopg.Connection[tuple[object, ...]]") -> None:
        connection.autocommit = True
        connection.execute(f"LISTEN {CHANNEL}")
        with selectors.DefaultSelector() as selector:
            selector.register(connection.fileno(), selectors.EVENT_READ)
            selector.register(self._theirs, selectors.EVENT_READ)
            self._call()  # what was committed while nobody listened
            while not self._ending.is_set():
                ready = {key.fileobj for key, _ in selector.select()}
                if self._theirs in ready:
                    self._theirs.recv(64)
                if connection.fileno() in ready and self._told_by_others(connection):
                    self._call()
                if self._committed:
                    self._committed = False
                    connection.execute(f"NOTIFY {CHANNEL}")
                    self._ending.wait(TOLD_AT_MOST_EVERY_S)

    def _told_by_others(self, connection: "psycopg.Connection[tuple[object, ...]]") -> bool:
        """Whether another process told of a commit; its own are known here. Raises psycopg.OperationalError."""
        own = connection.info.backend_pid
        others = [told for told in connection.notifies(timeout=0) if told.pid != own]
        return bool(others)
