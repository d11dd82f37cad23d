"""Event streams over a connection: where they begin, that nothing is missing or twice over a resume, how they end."""

import asyncio
import json
import random
import re

import pytest

from tests.unit.http.wire import BOOKING, JSON, ask, head, post, serving

SEED = 20261125
EVENT = re.compile(rb"id: (\d+)\ndata: (.*)\n\n")
WITHIN_S = 10


async def book(port: int, n: int) -> str:
    booked = await ask(port, post(json.dumps(BOOKING).encode(), JSON, "Prefer: wait=5", key=f"k{n}"))
    assert booked.status == 201
    return booked.headers["location"]


async def watch(port: int, target: str, after: int | None, until: int, at_most: int = 10_000) -> list[int]:
    """The positions that a stream tells, up to one, or so many; then the client goes without a word."""
    lines = () if after is None else (f"Last-Event-ID: {after}",)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head("GET", target, *lines))
    came, seen = b"", list[int]()
    try:
        async with asyncio.timeout(WITHIN_S):
            while len(seen) < at_most and (not seen or seen[-1] < until):
                some = await reader.read(4_096)
                assert some, came
                came += some
                seen = [int(position) for position, _ in EVENT.findall(_without_chunks(came))]
    finally:
        writer.transport.abort()
    return seen[:at_most]


def _without_chunks(came: bytes) -> bytes:
    return re.sub(rb"(?:^|\r\n)[0-9a-f]+\r\n", b"", came.partition(b"\r\n\r\n")[2])


async def last(port: int) -> int:
    """The place of the last event in the log."""
    (told,) = re.findall(rb"appointments_log_position ([0-9.]+)", (await ask(port, head("GET", "/metrics"))).body)
    return int(float(told))


async def test_over_resumes_while_others_book_nothing_is_missing_and_nothing_comes_twice() -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    async with serving() as port:
        await book(port, 0)
        booking = asyncio.gather(*(book(port, n) for n in range(1, 30)))
        seen: list[int] = []
        while not booking.done() or seen[-1] < await last(port):
            after = seen[-1] if seen else 0
            seen += await watch(port, "/v1/stream", after, await last(port), chance.randrange(1, 12))
        await booking
        whole = await watch(port, "/v1/stream", 0, await last(port))
        assert seen == whole
        assert len(whole) >= 30 * 4


async def test_control_whoever_forgets_where_it_was_gets_everything_again() -> None:
    async with serving() as port:
        await book(port, 0)
        first = await watch(port, "/v1/stream", 0, await last(port), 3)
        assert (await watch(port, "/v1/stream", 0, await last(port)))[:3] == first


async def test_of_one_appointment_only_its_own_is_told() -> None:
    async with serving() as port:
        await book(port, 0)
        before = await last(port)
        here = await book(port, 1)
        await book(port, 2)
        seen = await watch(port, f"{here}/stream", 0, before + 4, 4)
        trail = json.loads((await ask(port, head("GET", f"{here}/events"))).body)["items"]
        assert seen == [event["position"] for event in trail][:4]


async def test_a_stream_ends_in_order_when_its_process_does() -> None:
    async with asyncio.timeout(WITHIN_S):
        async with serving() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head("GET", "/v1/stream"))
            assert b"text/event-stream" in await reader.readuntil(b"\r\n\r\n")
        assert (await reader.read()).endswith(b"\r\n0\r\n\r\n")
        writer.close()


async def test_a_stream_of_an_appointment_that_is_not_there_is_refused() -> None:
    async with serving() as port:
        nobody = "/v1/appointments/00000000-0000-4000-8000-000000000000/stream"
        assert (await ask(port, head("GET", nobody))).problem == "unknown-appointment"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):  # without Last-Event-ID it begins with what comes next
                await watch(port, "/v1/stream", None, 1)
