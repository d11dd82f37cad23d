"""Measure the read side: rebuilds of all projections, and pages of the list. `python -m benchmarks.rebuild --help`."""

import argparse
import asyncio
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.sagas import COMMAND, book
from domain import events as e
from domain.commands import Request
from domain.identity import appointment_id, fingerprint
from domain.provider import BookingDetails
from projections.current_state import AppointmentFilter, page
from projections.views import PROJECTIONS, Views, views_folder
from store.mapper import encode
from store.port import Append
from store.sqlite import SqliteStore

EVENTS_PER_SAGA = 6
CLIENTS = 256
AT_ONCE = 4_096
PAGES = 200
FILTERS: dict[str, dict[str, Any]] = {
    "all, page of 50": {},
    "all, page of 200": {"limit": 200},
    "state, 1 in 100": {"state": "failed"},
    "phase, 99 in 100": {"phase": "in_progress"},
    "calendar, 1 in 1,000": {"calendar": "room-7"},
    "calendar and state": {"calendar": "room-7", "state": "failed"},
    "parked, none is": {"parked": True},
    "one day": {"from": "2031-03-10T00:00:00Z", "to": "2031-03-11T00:00:00Z"},
    "text, 1 in 100": {"q": "VISIT 7"},
    "text that nothing holds": {"q": "nowhere"},
}


async def _rebuild(file: Path, runs: int) -> dict[str, Any]:
    """Rebuilds in a process of their own, as the command line does them; rates by the clock and by CPU time."""
    store = SqliteStore.open(file, owner="benchmark", read_only=True)
    views, events = Views(store, views_folder(file)), await store.position()
    await views.catch_up()
    wall, cpu = [], []
    for _ in range(runs):
        began, began_cpu = time.perf_counter(), time.process_time()
        await views.rebuild()
        wall.append(events / (time.perf_counter() - began))
        cpu.append(events / (time.process_time() - began_cpu))
    await views.close()
    await store.close()
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
    return {"events": events, "events_per_s": wall, "events_per_cpu_s": cpu, "rss_max_mb": rss_mb}


def _rebuilt(file: Path, runs: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.rebuild", "--rebuild", str(file), "--runs", str(runs)]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


async def _fill(file: Path, count: int) -> None:
    """So many appointments of one day each second, one in a hundred of them failed."""
    store = SqliteStore.open(file, owner="benchmark")
    began = datetime(2031, 3, 3, 8, tzinfo=UTC)
    for start in range(0, count, AT_ONCE):
        some = range(start, min(start + AT_ONCE, count))
        await asyncio.gather(*(store.append(_appointment(n, began + timedelta(seconds=n * 10))) for n in some))
    await store.close()


def _appointment(n: int, at: datetime) -> Append:
    id, request = appointment_id("default", f"key-{n}"), Request(key=f"key-{n}")
    details = BookingDetails.model_validate(
        {
            **COMMAND.model_dump(include={"time_zone", "attendees"}),
            "calendar": f"room-{n % 1_000}",
            "start": at,
            "end": at + timedelta(minutes=30),
            "summary": f"Visit {n % 100}.",
        }
    )
    events: list[e.Event] = [
        e.AppointmentRequested(
            at=at,
            key=request.key,
            fingerprint=fingerprint(COMMAND),
            tenant="default",
            definition="booking/1@0",
            provider="main",
            details=details,
            deadline_at=at,
        )
    ]
    if n % 100 == 7:
        reason = e.EndReason.REJECTED
        events.append(e.CompensationBegun(at=at, reason=reason, cleanup_until=at))
        events.append(e.AppointmentFailed(at=at, reason=reason))
    return Append(id, 0, tuple(encode(id, version, event) for version, event in enumerate(events, 1)))


async def _pages(file: Path) -> dict[str, list[float]]:
    store = SqliteStore.open(file, owner="benchmark", read_only=True)
    views = Views(store, views_folder(file))
    await views.catch_up()
    took = {name: [await _page(views, fields) for _ in range(PAGES)] for name, fields in FILTERS.items()}
    took["all, page of 50, half way"] = await _walk(views)
    await views.close()
    await store.close()
    return took


async def _page(views: Views, fields: dict[str, Any]) -> float:
    wanted = AppointmentFilter.model_validate(fields)
    began = time.perf_counter()
    await views.read("current_state", lambda connection: page(connection, wanted))
    return (time.perf_counter() - began) * 1_000


async def _walk(views: Views) -> list[float]:
    took, wanted = [], AppointmentFilter(limit=50)
    while True:
        began = time.perf_counter()
        found, _ = await views.read("current_state", lambda connection, wanted=wanted: page(connection, wanted))
        took.append((time.perf_counter() - began) * 1_000)
        if found.next_cursor is None:
            return took
        wanted = wanted.model_copy(update={"cursor": found.next_cursor})


def main() -> None:
    """Run the measurements, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000, help="events in the log that is rebuilt from")
    parser.add_argument("--appointments", type=int, default=100_000, help="appointments in the list")
    parser.add_argument("--runs", type=int, default=5, help="rebuilds")
    parser.add_argument("--output", type=Path, default=Path("results/rebuild.json"))
    parser.add_argument("--rebuild", type=Path, help="rebuild from this log alone, and print the figures")
    arguments = parser.parse_args()
    if arguments.rebuild is not None:
        print(json.dumps(asyncio.run(_rebuild(arguments.rebuild, arguments.runs))))
        return
    with TemporaryDirectory(prefix="appointments-benchmark-") as name, Progress(transient=True) as progress:
        folder, task = Path(name), progress.add_task("measuring", total=4)
        asyncio.run(book(folder / "log.db", arguments.events // EVENTS_PER_SAGA, CLIENTS))
        progress.advance(task)
        rebuilt = _rebuilt(folder / "log.db", arguments.runs)
        progress.advance(task)
        asyncio.run(_fill(folder / "list.db", arguments.appointments))
        progress.advance(task)
        pages = asyncio.run(_pages(folder / "list.db"))
        progress.advance(task)
    table = Table("what", "measured", "target", title=f"{platform.python_version()}, {platform.machine()}")
    names = ", ".join(projection.name for projection in PROJECTIONS)
    wall, cpu = statistics.median(rebuilt["events_per_s"]), statistics.median(rebuilt["events_per_cpu_s"])
    table.add_row(f"rebuild of {names}, events/s, p50", f"{wall:,.0f}", "40,000")
    table.add_row("… per CPU second, whatever else the machine does", f"{cpu:,.0f}", "")
    table.add_row("… most memory, MB", f"{rebuilt['rss_max_mb']:.0f}", "")
    points = {name: statistics.quantiles(took, n=100) for name, took in pages.items()}
    for name, at in points.items():
        table.add_row(f"list: {name}, p50 / p95 / p99 ms", f"{at[49]:.1f} / {at[94]:.1f} / {at[98]:.1f}", "")
    Console().print(table)
    figures = {
        "rebuild": {"projections": names, **rebuilt},
        "list": {
            "appointments": arguments.appointments,
            "p50_p95_p99_ms": {name: [at[49], at[94], at[98]] for name, at in points.items()},
        },
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
