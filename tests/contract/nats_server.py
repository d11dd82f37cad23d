"""A real NATS server with JetStream, on loopback, in a folder of its own."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
from nats.aio.client import Client
from nats.js.api import StreamConfig

PROGRAM = Path(sys.executable).with_name("nats-server")
STREAM = "EVENTS"
SUBJECT = "appointments"
PAYLOAD_MAX = 4_096
START_WITHIN_S = 10


def free_port() -> int:
    """A port that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def nats_server(folder: Path, port: int) -> AsyncIterator[str]:
    """Its address; what its streams hold is in `folder`, for the next one."""
    process = await asyncio.create_subprocess_exec(
        str(PROGRAM), "-js", "-sd", str(folder), "-a", "127.0.0.1", "-p", str(port), "-l", str(folder / "log")
    )
    try:
        async with asyncio.timeout(START_WITHIN_S):
            while not await _listens(port):
                await asyncio.sleep(0.02)
        yield f"nats://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Client]:
    """Somebody else at the broker."""
    connected = await nats.connect(url, allow_reconnect=False)
    try:
        yield connected
    finally:
        await connected.close()


async def make_stream(url: str, max_msg_size: int = PAYLOAD_MAX) -> None:
    """The stream that keeps what is told."""
    async with client(url) as connected:
        await connected.jetstream().add_stream(
            StreamConfig(name=STREAM, subjects=[f"{SUBJECT}.>"], max_msg_size=max_msg_size)
        )


async def messages(url: str) -> list[tuple[str, dict[str, str], bytes]]:
    """What the stream holds: subject, headers, body."""
    async with client(url) as connected:
        stream = connected.jetstream()
        kept = (await stream.stream_info(STREAM)).state.last_seq
        found = [await stream.get_msg(STREAM, number) for number in range(1, kept + 1)]
    return [(one.subject or "", one.headers or {}, one.data or b"") for one in found]


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
