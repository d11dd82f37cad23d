"""Measure what one process takes over HTTP: bookings a second, watchers of the stream, memory after many keys.

The client shares the cores with the process that it measures; an empty FastAPI endpoint, measured in the same run by
the same client, tells what the rest costs. `python -m benchmarks.http --help`.
"""

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.http_load import Load, post, settled
from benchmarks.http_watching import Watched, watch

BOOKINGS_MIN = 200
WARM_UP = 2_000
"""Bookings before anything is measured; figures of a process that has just begun say little."""
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measured:
    """A process that serves, and how to ask it."""

    url: str
    token: str
    pid: int

    def rss_mb(self) -> float:
        """What it holds in memory now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def cpu_s(self) -> float:
        """What it has computed so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def serving(*words: str) -> Iterator[Measured]:
    """One of the servers, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.http_serve", *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            url, token, pid = process.stdout.readline().rstrip("\n").split(" ")
            yield Measured(url, token, int(pid))
        finally:
            process.stdin.close()


def _booked(measured: Measured, count: int, clients: int, run: str) -> dict[str, Any]:
    before = measured.cpu_s()
    load: Load = asyncio.run(post(measured.url, measured.token, count, clients, run))
    return {**asdict(load), "cpu_ms_each": (measured.cpu_s() - before) * 1_000 / count}


def _measure(folder: Path, asked: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    task = progress.add_task("measuring", total=3 if asked.keys else 2)
    found: dict[str, Any] = {"clients": asked.clients, "load_average": os.getloadavg()[0]}
    with serving("empty") as empty, serving("product", "--store", str(folder / "log.db"), "--token") as product:
        for one in (empty, product):
            _booked(one, WARM_UP, asked.clients, "warm-up")
        runs = [  # in turns, so that both have their share of what else this machine does
            (
                _booked(empty, asked.bookings, asked.clients, ""),
                _booked(product, asked.bookings, asked.clients, f"r{n}"),
            )
            for n in range(asked.rounds)
        ]
        found["empty"] = max((one for one, _ in runs), key=lambda run: run["per_s"])
        found["product"] = max((one for _, one in runs), key=lambda run: run["per_s"])
        found["rounds"] = [{"empty": one["per_s"], "product": other["per_s"]} for one, other in runs]
        progress.advance(task)
        asyncio.run(settled(product.url, product.token))
        before = product.rss_mb()
        watched: Watched = asyncio.run(
            watch(product.url, product.token, asked.watchers, asked.watched, asked.every_ms / 1_000)
        )
        found["stream"] = {**asdict(watched), "rss_added_mb": product.rss_mb() - before}
        progress.advance(task)
    if asked.keys:
        with serving("product", "--store", str(folder / "keys.db")) as product:
            _booked(product, WARM_UP, asked.clients, "warm-up")
            before = product.rss_mb()
            load = _booked(product, asked.keys, asked.clients, "key")
            asyncio.run(settled(product.url, product.token))
            found["keys"] = {"keys": asked.keys, **load, "rss_mb": before, "rss_added_mb": product.rss_mb() - before}
        progress.advance(task)
    return found


def _rows(found: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    ours, bare, stream = found["product"], found["empty"], found["stream"]
    yield f"bookings acknowledged a second, {found['clients']} clients", f"{ours['per_s']:,.0f}", "1,000"
    yield "… p50 / p99 ms", f"{ours['p50_ms']:.1f} / {ours['p99_ms']:.1f}", ""
    yield "… CPU of the process for each, ms", f"{ours['cpu_ms_each']:.2f}", ""
    yield "an empty endpoint with the same body, a second", f"{bare['per_s']:,.0f}", ""
    yield "… p50 / p99 ms", f"{bare['p50_ms']:.1f} / {bare['p99_ms']:.1f}", ""
    yield "… CPU of the process for each, ms", f"{bare['cpu_ms_each']:.2f}", ""
    yield "bookings, as a share of the empty endpoint", f"{ours['per_s'] / bare['per_s']:.2f}", ""
    yield "clients of the stream / events to each", f"{stream['clients']:,} / {stream['events']:,}", "1,000"
    yield "… events that did not arrive", f"{stream['missing']:,}", "0"
    yield "… from the event to its client, p50 / p99 ms", f"{stream['p50_ms']:.0f} / {stream['p99_ms']:.0f}", ""
    yield "… memory added, MB", f"{stream['rss_added_mb']:.0f}", ""
    if keys := found.get("keys"):
        yield f"memory added by {keys['keys']:,} keys, MB", f"{keys['rss_added_mb']:.0f}", "64"
        yield "… bookings acknowledged a second meanwhile", f"{keys['per_s']:,.0f}", ""


def main() -> None:
    """Run the measurements, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bookings", type=int, default=5_000, help="bookings a round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the best of them is told, all are written")
    parser.add_argument("--clients", type=int, default=64, help="connections at once")
    parser.add_argument("--watchers", type=int, default=1_000, help="clients of the stream of events")
    parser.add_argument("--watched", type=int, default=20, help="bookings while they watch")
    parser.add_argument("--every-ms", type=int, default=250, help="and how far apart")
    parser.add_argument("--keys", type=int, default=100_000, help="different keys, for the memory (0: leave out)")
    parser.add_argument("--output", type=Path, default=Path("results/benchmark_http.json"))
    asked = parser.parse_args()
    if asked.bookings < BOOKINGS_MIN:
        parser.error(f"--bookings must be at least {BOOKINGS_MIN}")
    with TemporaryDirectory(prefix="appointments-benchmark-") as name, Progress(transient=True) as progress:
        found = _measure(Path(name), asked, progress)
    table = Table("what", "measured", "target", title=f"{platform.python_version()}, {os.cpu_count()} cores")
    for row in _rows(found):
        table.add_row(*row)
    Console().print(table)
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
