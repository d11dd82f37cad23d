"""Measure everything that answers from a log, on one of 100,000 events. `python -m benchmarks.knowledge --help`."""

import argparse
import asyncio
import json
import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.sagas import book

EVENTS_PER_SAGA = 6
IN_FORCE = {"APPOINTMENTS_CONCURRENCY": "1000", "APPOINTMENTS_TENANT_CONCURRENCY": "1000"}
"""The limits under which the log is written; it does not hold them, and a what-if is told them."""
CLIENTS = 256
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("rebuild",),
    ("list", "--limit", "50"),
    ("figures",),
    ("check",),
    ("checkpoint",),
    ("check",),
    ("replay", "--all"),
    ("replay", "--all", "--processes", "1"),
    ("what-if", "--retry", "attempts=5"),
    ("export", "--all", "--output"),
    ("settings",),
)
"""`settings` reads no log: what a command costs before it does anything."""


@dataclass(frozen=True)
class Took:
    """One command as a process of its own: seconds, processor seconds, and the most memory that it had."""

    command: str
    seconds: float
    cpu_s: float
    peak_mb: float
    code: int


def run(words: tuple[str, ...], store: Path) -> Took:
    """Run a command of the command line to its end."""
    file = [str(store.with_suffix(".jsonl"))] if words[-1] == "--output" else []
    command = [sys.executable, "-m", "appointments.cli", *words, *file, "--store", f"sqlite:///{store}"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "env": {**os.environ, **IN_FORCE}}
    ended = subprocess.run(command, check=False, text=True, **quiet)  # type: ignore[call-overload]
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode:
        print(ended.stderr, file=sys.stderr)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(" ".join(words), seconds, cpu, after.ru_maxrss / 1_024, ended.returncode)


def main() -> None:
    """Write the log, run each command on it, print a table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    given = parser.parse_args()
    if given.events < EVENTS_PER_SAGA * CLIENTS:
        parser.error(f"--events: at least {EVENTS_PER_SAGA * CLIENTS}")
    with TemporaryDirectory() as folder, Progress(console=Console(stderr=True), transient=True) as progress:
        store = Path(folder) / "log.db"
        task = progress.add_task("writing the log", total=len(COMMANDS))
        asyncio.run(book(store, given.events // EVENTS_PER_SAGA, CLIENTS))
        took = []
        for words in COMMANDS:
            progress.update(task, description=" ".join(words))
            took.append(run(words, store))
            progress.advance(task)
    table = Table("command", "seconds", "CPU s", "peak MB", "exit")
    for one in took:
        table.add_row(one.command, f"{one.seconds:.1f}", f"{one.cpu_s:.1f}", f"{one.peak_mb:.0f}", str(one.code))
    console = Console()
    console.print(f"{given.events:,} events, {platform.machine()}, Python {platform.python_version()}")
    console.print(table)
    console.print("peak: the most that any process up to that line had")
    if given.json is not None:
        given.json.write_text(json.dumps({"events": given.events, "commands": [asdict(one) for one in took]}, indent=2))


if __name__ == "__main__":
    main()
