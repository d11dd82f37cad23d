"""A server in this process, and what a client writes to it byte by byte: what no client library would send."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from appointments import Orchestrator, Settings
from appointments.access.access import Access
from appointments.access.roles import Principal, Role
from appointments.access.throttle import Throttle
from appointments.access.tokens import TokenFile
from appointments.http.app import application
from appointments.http.problems import TABLE, URN
from appointments.http.server import listen, serve
from domain.provider import Provider
from saga.clock import WallClock

ROOT = Path(__file__).resolve().parents[3]
WITHIN_S = 20
SECRET = "whsec_bW9jay1wcm92aWRlci1jYWxsYmFjay1zZWNyZXQ="
BOOKING = {
    "calendar": "main",
    "start": "2031-03-03T09:00:00Z",
    "end": "2031-03-03T09:30:00Z",
    "time_zone": "Europe/Berlin",
    "summary": "Check-up",
}
JSON = "Content-Type: application/json"
NOW = WallClock().now


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, which is JSON."""
        return json.loads(self.body)

    @property
    def problem(self) -> str:
        """The name of the problem that it tells, once everything about it is as RFC 9457 and the table have it."""
        assert self.headers["content-type"] == "application/problem+json", self
        told: dict[str, Any] = json.loads(self.body)
        name = told["type"].removeprefix(URN)
        assert (told["status"], told["title"]) == TABLE[name]
        assert told["status"] == self.status
        assert b"Traceback" not in self.body
        assert b".py" not in self.body
        return str(name)


def head(method: str, target: str, *lines: str, length: int | None = None) -> bytes:
    """The head of a request after whose answer the connection ends."""
    sized = () if length is None else (f"Content-Length: {length}",)
    return "\r\n".join((f"{method} {target} HTTP/1.1", "Host: x", "Connection: close", *lines, *sized, "", "")).encode()


def post(body: bytes, *lines: str, target: str = "/v1/appointments", key: str = "k") -> bytes:
    """A command with this body."""
    return head("POST", target, f"Idempotency-Key: {key}", *(lines or (JSON,)), length=len(body)) + body


def answer(came: bytes) -> Answer:
    """The first answer in what came."""
    top, _, body = came.partition(b"\r\n\r\n")
    status, *lines = top.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Answer(int(status.split(" ")[1]), headers, body)


async def exchange(port: int, sent: bytes, within_s: float = WITHIN_S) -> bytes:
    """Everything that comes back until the server ends the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    came = b""
    try:
        async with asyncio.timeout(within_s):
            writing = asyncio.create_task(_write(writer, sent))
            with suppress(ConnectionError):
                while some := await reader.read(65_536):
                    came += some
            await writing
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
    return came


async def ask(port: int, sent: bytes) -> Answer:
    """The answer to one request."""
    return answer(await exchange(port, sent))


async def _write(writer: asyncio.StreamWriter, sent: bytes) -> None:
    with suppress(ConnectionError):
        for n in range(0, len(sent), 65_536):
            writer.write(sent[n : n + 65_536])
            await writer.drain()


@asynccontextmanager
async def serving(
    *,
    provider: Provider | None = None,
    tokens: TokenFile | None = None,
    rate: float | None = None,
    burst: int = 1,
    store: str = "memory:",
    now: Callable[[], datetime] = NOW,
) -> AsyncIterator[int]:
    """The port of the whole application in this process; without `tokens` it asks for none. `now`: of its door."""
    settings = Settings(store=store, provider="local:", log_level="error", callback_secret=SECRET)
    up = asyncio.Event()
    everybody = None if tokens else Principal(tenant="default", actor="tester", role=Role.ADMIN)
    with listen("127.0.0.1", 0) as opened, closing(tokens or TokenFile(None)) as known:
        providers = (provider,) if provider else ()
        async with Orchestrator.open(settings, providers=providers, listen=False) as desk:
            access = Access(known, Throttle(rate, burst), now, everybody)
            task = asyncio.create_task(serve(application(desk, access, now), opened, up.set))
            await up.wait()
            try:
                yield opened.getsockname()[1]
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


@dataclass
class Served:
    """`appointments serve` as a process of its own."""

    process: asyncio.subprocess.Process
    port: int


@asynccontextmanager
async def served(folder: Path, *words: str, **settings: str) -> AsyncIterator[Served]:
    """It serves without tokens; at the end it is told to stop, unless it has ended, and has printed nothing else."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("APPOINTMENTS_")}
    environment |= {f"APPOINTMENTS_{name.upper()}": value for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "appointments.cli", "serve", "--dev", "--port", "0", *words),
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    said, rest = "", b""
    try:
        async with asyncio.timeout(WITHIN_S):
            while "Ctrl-C" not in said:
                line = await process.stderr.readline()
                assert line, said
                said += line.decode()
        found = re.search(r"console +http://[^:]+:(\d+)", said)
        assert found is not None, said
        yield Served(process, int(found[1]))
    finally:
        if process.returncode is None:
            process.terminate()
        _, rest = await process.communicate()
    assert rest.decode().strip() in ("stopped", "")
