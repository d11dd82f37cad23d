"""A server that answers with given bytes: what a peer can do on the wire, and what it saw."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Answering = Callable[[int, bytes], bytes | None]
"""Given the number of the request and its head, the bytes to answer; None closes without a byte."""


@dataclass
class Wire:
    """Where it listens and what it was sent."""

    url: str = ""
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0


def answer(status: int, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    """One HTTP/1.1 answer; `length` announces another length than the body's."""
    size = len(body) if length is None else length
    lines = [f"HTTP/1.1 {status} Answer", f"Content-Length: {size}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def wire(answering: Answering) -> AsyncIterator[Wire]:
    """Serve until the block ends."""
    seen = Wire()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(_length(head))
                seen.heads.append(head)
                told = answering(len(seen.heads), head)
                if told is None:
                    return
                writer.write(told)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    seen.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield seen
    finally:
        server.close()
        await server.wait_closed()


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
