"""Measure the heart on SQLite beside `eventsourcing` used directly, in one run. `python -m benchmarks.run --help`."""

import argparse
import asyncio
import json
import platform
import time
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.direct import open_desk
from benchmarks.sagas import Figures, book
from benchmarks.waiting import DUE_SOON, measure
from benchmarks.waiting import rows as waiting_rows

SAGAS_MIN = 200
"""Fewer say nothing of a 99th percentile."""


def _direct(file: Path, sagas: int, saves: int) -> float:
    desk = open_desk(file)
    began = time.perf_counter()
    for n in range(sagas):
        desk.book(n, saves)
    rate = sagas / (time.perf_counter() - began)
    desk.close()
    return rate


def _rows(
    many: Figures, some: Figures, one: Figures, direct: dict[int, float], waiting: dict[str, float]
) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("sagas/s, 256 clients", f"{many.sagas_per_s:,.0f}", "2,000"),
        ("… times `eventsourcing` direct, one save a transition", f"{many.sagas_per_s / direct[6]:.1f}", "4"),
        ("`eventsourcing` direct, one save a transition / three saves a saga", _both(direct), ""),
        ("sagas/s, 32 clients", f"{some.sagas_per_s:,.0f}", ""),
        ("sagas/s, one client", f"{one.sagas_per_s:,.0f}", ""),
        ("one client, submit to durable end, p50 / p95 / p99 ms", _points(one), "p50 2.0"),
        ("256 clients, p50 / p95 / p99 ms", _points(many), ""),
        ("CPU seconds per 1,000 sagas", f"{many.cpu_s_per_1000:.2f}", "0.5"),
        ("bytes stored per saga", f"{many.bytes_per_saga:,.0f}", "1,500"),
    ]
    return [*rows, *waiting_rows(waiting)] if waiting else rows


def _both(direct: dict[int, float]) -> str:
    return f"{direct[6]:,.0f} / {direct[3]:,.0f}"


def _points(figures: Figures) -> str:
    return f"{figures.p50_ms:.2f} / {figures.p95_ms:.2f} / {figures.p99_ms:.2f}"


def main() -> None:
    """Run the measurements, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sagas", type=int, default=5_000, help="sagas for each run with many clients")
    parser.add_argument("--waiting", type=int, default=1_000_000, help="waiting appointments (0: leave out)")
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks.json"))
    arguments = parser.parse_args()
    if arguments.sagas < SAGAS_MIN:
        parser.error(f"--sagas must be at least {SAGAS_MIN}")
    if arguments.waiting != 0 and arguments.waiting < DUE_SOON:
        parser.error(f"--waiting must be 0 or at least {DUE_SOON}")
    with TemporaryDirectory(prefix="appointments-benchmark-") as name, Progress(transient=True) as progress:
        folder, task = Path(name), progress.add_task("measuring", total=5)
        few = max(SAGAS_MIN, arguments.sagas // 10)
        direct = {saves: _direct(folder / f"direct-{saves}.db", few, saves) for saves in (6, 3)}
        progress.advance(task)
        runs = []
        for clients, sagas in ((256, arguments.sagas), (32, arguments.sagas), (1, few)):
            runs.append(asyncio.run(book(folder / f"ours-{clients}.db", sagas, clients)))
            progress.advance(task)
        waiting = measure(folder / "waiting.db", arguments.waiting) if arguments.waiting else {}
        progress.advance(task)
    table = Table("what", "measured", "target", title=f"{platform.python_version()}, {platform.machine()}")
    for row in _rows(runs[0], runs[1], runs[2], direct, waiting):
        table.add_row(*row)
    Console().print(table)
    figures = {
        "clients_256": asdict(runs[0]),
        "clients_32": asdict(runs[1]),
        "clients_1": asdict(runs[2]),
        "eventsourcing_direct_sagas_per_s": direct,
        "waiting": {"appointments": arguments.waiting, **waiting},
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
