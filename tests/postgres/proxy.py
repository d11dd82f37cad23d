"""A TCP proxy before a PostgreSQL server that loses the answer to a COMMIT: it was done, and nobody was told.

Reads no more of the protocol than the length of a message and its tag (PostgreSQL, "Message Formats").
"""

import random
import socket
import struct
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

RST = struct.pack("ii", 1, 0)
"""SO_LINGER of nothing: a close is a reset."""
COMMITTED = b"C" + struct.pack("!i", 4 + len(b"COMMIT\0")) + b"COMMIT\0"


class LossyProxy:
    """Passes everything on; told to `lose`, it drops a share of the answers to COMMIT, and resets both connections."""

    def __init__(self, port: int, seed: int) -> None:
        self._server, self._lost, self._chance = port, 0.0, random.Random(seed)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.cut = 0
        """How many commits were done and not told of."""

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, _: TracebackType | None) -> None:
        self._listening.close()

    def lose(self, share: float) -> None:
        """Drop this share of them from now on."""
        self._lost = share

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._server))
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._pass_on, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(server, client, True), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if answers and COMMITTED in data and self._chance.random() < self._lost:
                    self.cut += 1
                    for end in (target, source):
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
                    break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
