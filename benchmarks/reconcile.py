"""Reconcile a calendar of the mock provider in a process of its own: time and memory, at once and over what changed.

`python -m benchmarks.reconcile --help`. The provider is a real HTTP server in another process.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from appointments import Orchestrator, Settings
from domain.provider import Call
from projections.reconciliation.bookmarks import Bookmarks
from projections.reconciliation.run import Wanted, reconcile
from projections.reconciliation.survey import Sides
from providers.api_v2 import ApiV2Provider
from saga.clock import WallClock
from store.sqlite import SqliteStore

START = datetime(2031, 3, 3, 9, tzinfo=UTC)
CLIENTS = 64
SERVE = "import asyncio; from mocks.server import serve; asyncio.run(serve(port=0, control_port=0))"


@contextmanager
def _provider() -> Iterator[str]:
    with subprocess.Popen([sys.executable, "-c", SERVE], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().split()[1]
        finally:
            server.terminate()


async def _fill(log: Path, url: str, count: int, broken: int) -> None:
    """Book so many, then cancel some of them at the provider alone."""
    settings = Settings(store=f"sqlite:///{log}", provider=url, log_level="warning")
    numbers, refs = iter(range(count)), dict[int, tuple[str, str]]()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("booking", total=count)
        async with Orchestrator.open(settings) as desk:

            async def client() -> None:
                for n in numbers:
                    start = START + timedelta(minutes=n)
                    wanted = {"calendar": "main", "start": start, "end": start + timedelta(hours=1)}
                    made = await desk.book(
                        {**wanted, "time_zone": "UTC", "summary": f"Check-up {n}"}, key=f"key-{n}", wait=60
                    )
                    assert made.state == "confirmed", made
                    refs[n] = (str(made.id), str(made.provider_ref))
                    progress.advance(task)

            await asyncio.gather(*(client() for _ in range(CLIENTS)))
        provider = ApiV2Provider("main", url)
        for n in range(broken):
            call = Call(operation_id=f"by-hand-{n}", client_ref=refs[n][0], timeout_ms=5_000)
            await provider.cancel(call, "main", refs[n][1])
        await provider.close()


async def _measure(log: Path, url: str, changes: bool) -> dict[str, Any]:
    store = SqliteStore.open(log, owner="benchmark", read_only=True)
    provider = ApiV2Provider("main", url, settle_ms=0)
    bookmarks = Bookmarks(log.with_name(f"{log.name}.views") / "reconciliation.json")
    await provider.listing(Call(operation_id="warm", client_ref="warm", timeout_ms=5_000), "main", limit=1)
    before, began = _peak_mb(), time.perf_counter()
    report = await reconcile(
        Sides(store, provider, WallClock().now), Wanted(calendar="main", changes=changes), bookmarks
    )
    seconds, after = time.perf_counter() - began, _peak_mb()
    await provider.close()
    await store.close()
    return {
        "seconds": round(seconds, 2),
        "memory_added_mb": round(after - before, 1),
        "memory_peak_mb": round(after, 1),
        "listed": report.listed,
        "checked_again": report.checked_again,
        "counts": {kind: count for kind, count in report.counts.items() if count},
        "mode": report.mode,
    }


def _peak_mb() -> float:
    # `ru_maxrss` is inherited from the process that started this one; the kernel's high-water mark is not.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1_024


def _in_its_own_process(log: Path, url: str, *more: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.reconcile", "--measure", str(log), url, *more]
    measured = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(measured.stdout))


def main() -> None:
    """Run the measurements, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bookings", type=int, default=10_000)
    parser.add_argument("--broken", type=int, default=100, help="cancelled at the provider alone")
    parser.add_argument("--output", type=Path, default=Path("results/benchmark_reconcile.json"))
    parser.add_argument("--measure", nargs=2, metavar=("LOG", "URL"), help=argparse.SUPPRESS)
    parser.add_argument("--changes", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        log, url = given.measure
        print(json.dumps(asyncio.run(_measure(Path(log), url, given.changes))))
        return
    with TemporaryDirectory() as folder, _provider() as url:
        log = Path(folder) / "log.db"
        asyncio.run(_fill(log, url, given.bookings, given.broken))
        figures = {
            "bookings": given.bookings,
            "full": _in_its_own_process(log, url),
            "changes": _in_its_own_process(log, url, "--changes"),
        }
    table = Table("reconciliation", "full", "changes", title=f"{given.bookings:,} bookings, {given.broken} differ")
    for name in figures["full"]:
        table.add_row(name, str(figures["full"][name]), str(figures["changes"][name]))
    Console().print(table)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
