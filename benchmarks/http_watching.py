"""The watchers: so many clients of the stream of events, who note when each event reaches them."""

import asyncio
import json
import resource
import statistics
import time
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

from benchmarks.http_load import post

EVENTS_PER_BOOKING = 6
WITHIN_S = 60


@dataclass(frozen=True)
class Watched:
    """What reached whom; times in milliseconds, from the instant that an event carries."""

    clients: int
    events: int
    missing: int
    """Events that did not reach a client, over all clients."""
    p50_ms: float
    p99_ms: float


@dataclass
class _Watcher:
    delays_ms: list[float] = field(default_factory=list)
    positions: set[int] = field(default_factory=set)


async def watch(url: str, token: str, clients: int, bookings: int, every_s: float) -> Watched:
    """Book one after the other while so many watch. Raises `TimeoutError` where nobody is told for a while."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    watchers = [_Watcher() for _ in range(clients)]
    awaited = bookings * EVENTS_PER_BOOKING
    beginning = asyncio.Semaphore(64)
    begun = asyncio.Barrier(clients + 1)
    watching = [asyncio.create_task(_watch(url, token, one, awaited, beginning, begun)) for one in watchers]
    await begun.wait()
    for n in range(bookings):
        await post(url, token, 1, 1, f"watched-{n}")
        await asyncio.sleep(every_s)
    async with asyncio.timeout(WITHIN_S):
        await asyncio.gather(*watching)
    points = statistics.quantiles([ms for one in watchers for ms in one.delays_ms], n=100)
    missing = sum(awaited - len(one.positions) for one in watchers)
    return Watched(clients, awaited, missing, points[49], points[98])


async def _watch(
    url: str, token: str, seen: _Watcher, awaited: int, beginning: asyncio.Semaphore, begun: asyncio.Barrier
) -> None:
    address = urlsplit(url)
    async with beginning:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        writer.write(f"GET /v1/stream HTTP/1.1\r\nHost: {address.netloc}\r\n{authorization}\r\n".encode())
        await reader.readuntil(b"\n\n")
    await begun.wait()
    while len(seen.positions) < awaited:
        line = await reader.readline()
        if not line.startswith(b"data: "):
            continue
        told = json.loads(line.removeprefix(b"data: "))
        seen.delays_ms.append((time.time() - datetime.fromisoformat(told["recorded_at"]).timestamp()) * 1_000)
        seen.positions.add(told["position"])
    writer.transport.abort()
