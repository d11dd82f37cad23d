"""What a saga costs as the log grows: the same sagas beside a thousand, and beside a million finished appointments."""

import argparse
import asyncio
import json
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID, uuid5

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.sagas import book
from domain.identity import appointment_id
from store.port import Append, RecordedEvent
from store.sqlite import SqliteStore

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
    file_mb: float


async def _fill(file: Path, since: int, until: int, told: Progress) -> None:
    """Copies of one finished stream, each under an id of its own."""
    store = SqliteStore.open(file, owner="filler")
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


def measure(file: Path, until: int, sagas: int, told: Progress) -> list[Stage]:
    """Each stage up to so many streams."""
    stages, since = [], 0
    asyncio.run(book(file, sagas, CLIENTS))  # warm, and there is something to copy
    for streams in (stage for stage in STREAMS if stage <= until):
        asyncio.run(_fill(file, since, streams, told))
        since = streams
        found = asyncio.run(book(file, sagas, CLIENTS, first=10 * streams))
        size = sum(one.stat().st_size for one in file.parent.glob(f"{file.name}*")) / 2**20
        stages.append(
            Stage(streams, found.sagas_per_s, found.p50_ms, found.p99_ms, found.cpu_s_per_1000, round(size, 1))
        )
    return stages


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=STREAMS[-1], help="the largest log")
    parser.add_argument("--sagas", type=int, default=2_000, help="sagas measured beside each")
    parser.add_argument("--output", type=Path, default=Path("results/growth.json"))
    asked = parser.parse_args()
    with TemporaryDirectory(prefix="appointments-growth-") as name, Progress(transient=True) as told:
        stages = measure(Path(name) / "log.db", asked.streams, asked.sagas, told)
    table = Table("streams", "sagas/s", "p50 ms", "p99 ms", "CPU s per 1,000", "file MB", title=f"{CLIENTS} clients")
    for one in stages:
        cost = (f"{one.sagas_per_s:,.0f}", f"{one.p50_ms:.2f}", f"{one.p99_ms:.2f}", f"{one.cpu_s_per_1000:.2f}")
        table.add_row(f"{one.streams:,}", *cost, f"{one.file_mb:,.0f}")
    Console().print(table)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    told_of = {"stages": [asdict(one) for one in stages], "rss_peak_mb": round(peak_mb), "python": sys.version}
    asked.output.write_text(json.dumps(told_of, indent=2) + "\n")


if __name__ == "__main__":
    main()
