"""Faults around a command over HTTP: an answer that is lost on the way, a disk that is full, a fault of our own."""

import asyncio
import json
import random
import resource
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path

import pytest

from appointments import Orchestrator
from providers.local import LocalProvider
from tests.unit.http.wire import BOOKING, JSON, Answer, ask, head, post, served, serving

pytestmark = pytest.mark.evidence(
    target="HTTP API",
    answers=("R4.2", "G1", "G2", "G5"),
    given="a process that serves",
    when="answers are lost on the way, its disk takes no more, or it has a fault of its own",
    then="a repeat with the same key has one effect, a refusal tells when to come again, nothing tells of the inside",
    seen_in="answers, calendar",
)

SEED = 20261125
BODY = json.dumps(BOOKING).encode()
COMMANDS, CLIENTS, LOST = 1_000, 16, 0.05
RST = struct.pack("ii", 1, 0)
FULL_BYTES = 1_500_000
RESUMES_WITHIN_S = 5


class Resetting:
    """A TCP proxy that resets a share of its connections when the answer comes: it was done, and nobody was told."""

    def __init__(self, port: int) -> None:
        self._port, self._chance = port, random.Random(SEED)
        self.port = 0
        self.lost = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_connection("127.0.0.1", self._port)
        sent = await reader.readuntil(b"\r\n\r\n")
        here.write(sent + await reader.readexactly(len(BODY)))
        came = await there.read()
        if self._chance.random() < LOST:
            self.lost += 1
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
        else:
            writer.write(came)
        for end in (here, writer):
            end.close()
            with suppress(ConnectionError):
                await end.wait_closed()


async def book(port: int, key: str) -> Answer | None:
    """What is answered; None where the connection is reset."""
    try:
        return await ask(port, post(BODY, JSON, key=key))
    except (OSError, IndexError):
        return None


@pytest.mark.parametrize("same_key", [True, False], ids=["the same key", "control: a new key"])
async def test_whatever_answer_is_lost_a_repeat_with_the_same_key_has_one_effect(same_key: bool) -> None:
    print(f"seed {SEED}")
    calendar, numbers = LocalProvider("main"), iter(range(COMMANDS))
    async with serving(provider=calendar) as port:
        proxy = Resetting(port)

        async def client(through: int) -> None:
            for n in numbers:
                for attempt in count():
                    if (answer := await book(through, f"k{n}" if same_key else f"k{n}-{attempt}")) is not None:
                        break
                assert answer is not None
                assert answer.status == (202 if attempt == 0 or not same_key else 200)

        async with proxy.running() as through:
            await asyncio.gather(*(client(through) for _ in range(CLIENTS)))
        async with asyncio.timeout(10):
            while json.loads((await ask(port, head("GET", "/v1/appointments?phase=in_progress"))).body)["items"]:
                await asyncio.sleep(0.05)
    print(f"{proxy.lost} answers lost")
    assert proxy.lost > COMMANDS * LOST / 2
    assert len(calendar.live("main")) == COMMANDS + (0 if same_key else proxy.lost)


async def test_a_full_disk_is_told_reads_go_on_and_writes_resume_by_themselves(tmp_path: Path) -> None:
    acknowledged: dict[str, str] = {}
    async with served(tmp_path, "--provider", "local:", http_drain_ms="0", log_level="error") as it:
        port, (_, most) = it.port, resource.prlimit(it.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(it.process.pid, resource.RLIMIT_FSIZE, (FULL_BYTES, most))
        for n in count():
            answer = await ask(port, post(BODY, JSON, key=f"k{n}"))
            if answer.status != 202:
                break
            acknowledged[f"k{n}"] = answer.headers["location"]
        assert (answer.problem, answer.headers["retry-after"]) == ("store-unavailable", "1")
        ready = await ask(port, head("GET", "/readyz"))
        assert (ready.problem, ready.headers["retry-after"]) == ("store-unavailable", "5")
        assert (await ask(port, head("GET", acknowledged["k0"]))).status == 200

        resource.prlimit(it.process.pid, resource.RLIMIT_FSIZE, (most, most))
        async with asyncio.timeout(RESUMES_WITHIN_S):
            while (again := await ask(port, post(BODY, JSON, key=f"k{n}"))).status == 503:
                await asyncio.sleep(0.1)
        assert (again.status, "idempotency-replayed" in again.headers) == (202, False), "nothing had been done"
        for key, here in acknowledged.items():
            known = await ask(port, post(BODY, JSON, key=key))
            assert (known.status, known.headers["location"]) == (200, here)
        print(f"{len(acknowledged)} acknowledged before")


async def test_a_fault_of_our_own_is_told_by_its_name_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a secret")

    async with serving() as port:
        for name, request in (
            ("show", head("GET", "/v1/appointments/00000000-0000-4000-8000-000000000000")),
            ("list", head("GET", "/v1/appointments")),
            ("book", post(BODY, JSON)),
        ):
            with monkeypatch.context() as changed:
                changed.setattr(Orchestrator, name, broken)
                answer = await ask(port, request)
            assert answer.problem == "internal-error"
            assert b"secret" not in answer.body
        assert [str(context["exception"]) for context in told] == ["a secret"] * 3
        assert (await ask(port, post(BODY, JSON))).status == 202
