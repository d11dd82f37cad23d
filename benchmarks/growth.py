"""What a saga costs as the log grows: the same sagas beside a thousand, and beside a million finished appointments."""

import argparse
import asyncio
import json
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID, uuid5

import psycopg
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.sagas import book, open_store
from domain.identity import appointment_id
from store.port import Append, RecordedEvent
from tests.postgres.server import PostgresServer

STREAMS = (1_000, 10_000, 100_000, 1_000_000)
CLIENTS = 32
AT_ONCE = 4_096
ROOM = UUID("8c5b9b1e-6f0e-4d0e-9a55-0a52b0f8f2a1")


@dataclass(frozen=True)
class Stage:
    """What was measured beside so many streams."""

    streams: int
    sagas_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_s_per_1000: float
    size_mb: float


async def _fill(place: Path | str, since: int, until: int, told: Progress) -> None:
    """Copies of one finished stream, each under an id of its own."""
    store = open_store(place, "filler")
    try:
        events = await store.events(appointment_id("default", "key-0"))
        task = told.add_task(f"up to {until:,} streams", total=until - since)
        for n in range(since, until, AT_ONCE):
            numbers = range(n, min(n + AT_ONCE, until))
            await asyncio.gather(*(store.append(_copy(events, number)) for number in numbers))
            told.advance(task, len(numbers))
        told.remove_task(task)
    finally:
        await store.close()


def _copy(events: Sequence[RecordedEvent], number: int) -> Append:
    id = uuid5(ROOM, str(number))
    return Append(id, 0, tuple(replace(event, stream_id=id) for event in events), touches_work=False)


def measure(place: Path | str, until: int, sagas: int, size: Callable[[], int], told: Progress) -> list[Stage]:
    """Each stage up to so many streams; `size`: of the store, in bytes."""
    stages, since = [], 0
    asyncio.run(book(place, sagas, CLIENTS))  # warm, and there is something to copy
    for streams in (stage for stage in STREAMS if stage <= until):
        asyncio.run(_fill(place, since, streams, told))
        since = streams
        found = asyncio.run(book(place, sagas, CLIENTS, first=10 * streams))
        cost = (found.sagas_per_s, found.p50_ms, found.p99_ms, found.cpu_s_per_1000)
        stages.append(Stage(streams, *cost, round(size() / 2**20, 1)))
    return stages


def _on_sqlite(until: int, sagas: int, told: Progress) -> list[Stage]:
    with TemporaryDirectory(prefix="appointments-growth-") as name:
        file = Path(name) / "log.db"
        return measure(file, until, sagas, lambda: sum(one.stat().st_size for one in Path(name).iterdir()), told)


def _on_postgresql(until: int, sagas: int, told: Progress) -> list[Stage]:
    with PostgresServer(shared_buffers="512MB", max_wal_size="4GB") as server:

        def size() -> int:
            with psycopg.connect(server.conninfo("growth"), autocommit=True) as connection:
                row = connection.execute("SELECT pg_database_size('growth')").fetchone()
            assert row is not None
            return int(row[0])

        return measure(server.new_database("growth"), until, sagas, size, told)


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=STREAMS[-1], help="the largest log")
    parser.add_argument("--sagas", type=int, default=2_000, help="sagas measured beside each")
    parser.add_argument("--on", choices=("sqlite", "postgresql"), default="sqlite", help="which store")
    parser.add_argument("--output", type=Path, help="results/growth-<store>.json")
    asked = parser.parse_args()
    with Progress(transient=True) as told:
        stages = (_on_sqlite if asked.on == "sqlite" else _on_postgresql)(asked.streams, asked.sagas, told)
    table = Table(
        "streams", "sagas/s", "p50 ms", "p99 ms", "CPU s per 1,000", "MB", title=f"{asked.on}, {CLIENTS} clients"
    )
    for one in stages:
        cost = (f"{one.sagas_per_s:,.0f}", f"{one.p50_ms:.2f}", f"{one.p99_ms:.2f}", f"{one.cpu_s_per_1000:.2f}")
        table.add_row(f"{one.streams:,}", *cost, f"{one.size_mb:,.0f}")
    Console().print(table)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
    output = asked.output or Path(f"results/growth-{asked.on}.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    told_of = {"stages": [asdict(one) for one in stages], "rss_peak_mb": round(peak_mb), "python": sys.version}
    output.write_text(json.dumps(told_of, indent=2) + "\n")


if __name__ == "__main__":
    main()
