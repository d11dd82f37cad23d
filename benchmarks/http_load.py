"""The load: keep-alive connections that send one request after the other, with as little of their own as may be."""

import asyncio
import json
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp

BODY = json.dumps(
    {
        "calendar": "main",
        "start": "2031-03-03T09:00:00Z",
        "end": "2031-03-03T09:30:00Z",
        "time_zone": "Europe/Berlin",
        "summary": "Check-up",
        "attendees": [{"email": "pat@example.org"}],
    }
).encode()


@dataclass(frozen=True)
class Load:
    """What came of it; times in milliseconds."""

    per_s: float
    p50_ms: float
    p99_ms: float
    refused: int


async def post(url: str, token: str, count: int, clients: int, run: str) -> Load:
    """So many bookings, each with a key of its own, by so many clients at once."""
    address = urlsplit(url)
    assert address.hostname is not None
    numbers = iter(range(count))
    took: list[float] = []
    refused = 0
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""

    async def client() -> None:
        nonlocal refused
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        for n in numbers:
            head = (
                f"POST /v1/appointments HTTP/1.1\r\nHost: {address.netloc}\r\n{authorization}"
                f"Idempotency-Key: {run}-{n}\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
            )
            began = time.perf_counter()
            writer.write(head.encode() + BODY)
            answer = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(_length(answer))
            took.append((time.perf_counter() - began) * 1_000)
            refused += not answer.startswith(b"HTTP/1.1 202")
        writer.close()
        await writer.wait_closed()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    lasted = time.perf_counter() - began
    took.sort()
    return Load(per_s=count / lasted, p50_ms=took[count // 2], p99_ms=took[count * 99 // 100], refused=refused)


async def settled(url: str, token: str) -> None:
    """Wait until nothing is on its way any more."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession(headers=headers) as client:
        while True:
            async with client.get(f"{url}/v1/appointments?phase=in_progress&limit=1") as answer:
                if not (await answer.json())["items"]:
                    return
            await asyncio.sleep(0.1)


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0
