"""Measure the heart on PostgreSQL: worker processes on one database, one client alone, and the server's own limit.

The server is started for the run, with PostgreSQL's defaults for durability, on this machine: it shares the cores.
`python -m benchmarks.postgres --help`.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.sagas import Figures, book
from benchmarks.waiting import DUE_SOON, measure
from benchmarks.waiting import rows as waiting_rows
from tests.postgres.server import PostgresServer

SAGAS_MIN = 200
ROWS_AT_ONCE = 200
EVENTS_PER_SAGA = 6


def _workers(url: str, workers: int, sagas: int, clients: int) -> dict[str, Any]:
    """So many processes at once, each with its share; the rate is of all, from the first begin to the last end."""
    each = sagas // workers
    command = [sys.executable, "-m", "benchmarks.postgres", "--as-worker", url]
    running = [
        subprocess.Popen([*command, str(n), str(each), str(clients // workers)], stdout=subprocess.PIPE, text=True)
        for n in range(workers)
    ]
    told = [json.loads(process.communicate()[0]) for process in running]
    assert all(process.returncode == 0 for process in running)
    seconds = max(one["ended"] for one in told) - min(one["began"] for one in told)
    return {
        "workers": workers,
        "clients": clients,
        "sagas_per_s": each * workers / seconds,
        "cpu_s_per_1000": sum(one["cpu_s_per_1000"] for one in told) / workers,
        **{f"p{n}_ms": max(one[f"p{n}_ms"] for one in told) for n in (50, 95, 99)},
    }


def _as_worker(url: str, number: int, sagas: int, clients: int) -> None:
    began = time.time()
    figures = asyncio.run(book(url, sagas, clients, first=number * 10_000_000, owner=f"worker-{number}"))
    print(json.dumps({"began": began, "ended": time.time(), **asdict(figures)}))


def _limit(server: PostgresServer) -> float:
    """Rows a second that the server takes from one connection which does nothing else, `ROWS_AT_ONCE` a commit."""
    server.new_database("alone")
    with psycopg.connect(server.conninfo("alone"), autocommit=True) as connection:
        connection.execute("CREATE TABLE rows (id bigint PRIMARY KEY, one bytea, other bytea)")
        insert = "INSERT INTO rows SELECT * FROM unnest(%b::bigint[], %b::bytea[], %b::bytea[])"
        began, commits = time.perf_counter(), 100
        for n in range(commits):
            ids = list(range(n * ROWS_AT_ONCE, (n + 1) * ROWS_AT_ONCE))
            bodies = [os.urandom(200)] * ROWS_AT_ONCE
            connection.execute(insert, (ids, bodies, bodies))
        return commits * ROWS_AT_ONCE / (time.perf_counter() - began)


def _measure(sagas: int, waiting: int, progress: Progress) -> dict[str, Any]:
    task = progress.add_task("measuring", total=7)
    found: dict[str, Any] = {}
    with PostgresServer(shared_buffers="128MB", max_wal_size="1GB") as server:
        found["server_rows_per_s"] = _limit(server)
        progress.advance(task)
        for workers, clients, count in ((1, 1, sagas // 10), (1, 32, sagas), (1, 256, sagas), (2, 256, sagas)):
            url = server.new_database(f"bench_{workers}_{clients}")
            found[f"workers_{workers}_clients_{clients}"] = _workers(url, workers, count, clients)
            progress.advance(task)
        found["bytes_per_saga"] = _bytes(server, "bench_1_256") / sagas
        if waiting:
            found["waiting"] = {"appointments": waiting, **measure(server.new_database("waiting"), waiting)}
        progress.advance(task)
    with TemporaryDirectory(prefix="appointments-benchmark-") as folder:
        sqlite: Figures = asyncio.run(book(Path(folder) / "log.db", sagas, 256))
        found["sqlite_clients_256"] = asdict(sqlite)
        progress.advance(task)
    return found


def _bytes(server: PostgresServer, database: str) -> int:
    """What is in the tables and their indexes."""
    with psycopg.connect(server.conninfo(database), autocommit=True) as connection:
        connection.execute("VACUUM FULL")
        row = connection.execute(
            "SELECT sum(pg_total_relation_size(oid)) FROM pg_class"
            " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        ).fetchone()
    assert row is not None
    return int(row[0])


def _rows(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    one, two = found["workers_1_clients_1"], found["workers_2_clients_256"]
    rate = two["sagas_per_s"]
    share = rate * EVENTS_PER_SAGA / found["server_rows_per_s"]
    return [
        ("sagas/s, 2 workers, 256 clients", f"{rate:,.0f}", "1,500"),
        ("sagas/s, 1 worker, 256 clients", f"{found['workers_1_clients_256']['sagas_per_s']:,.0f}", ""),
        ("sagas/s, 1 worker, 32 clients", f"{found['workers_1_clients_32']['sagas_per_s']:,.0f}", ""),
        ("… of SQLite in the same run, 256 clients", f"{found['sqlite_clients_256']['sagas_per_s']:,.0f}", ""),
        ("one client, submit to durable end, p50 / p95 / p99 ms", _points(one), "p50 4.0"),
        ("2 workers, 256 clients, p50 / p95 / p99 ms", _points(two), ""),
        ("CPU seconds of the workers per 1,000 sagas", f"{two['cpu_s_per_1000']:.2f}", ""),
        ("events/s of 2 workers / rows/s of the server alone", f"{share:.2f}", ""),
        ("bytes stored per saga", f"{found['bytes_per_saga']:,.0f}", "1,500"),
        *(waiting_rows(found["waiting"]) if "waiting" in found else ()),
    ]


def _points(figures: dict[str, Any]) -> str:
    return f"{figures['p50_ms']:.2f} / {figures['p95_ms']:.2f} / {figures['p99_ms']:.2f}"


def main() -> None:
    """Run the measurements, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sagas", type=int, default=5_000, help="sagas for each run with many clients")
    parser.add_argument("--waiting", type=int, default=1_000_000, help="waiting appointments (0: leave out)")
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks-postgres.json"))
    parser.add_argument("--as-worker", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.as_worker:
        url, *numbers = arguments.as_worker
        return _as_worker(url, *map(int, numbers))
    if arguments.sagas < SAGAS_MIN:
        parser.error(f"--sagas must be at least {SAGAS_MIN}")
    if arguments.waiting != 0 and arguments.waiting < DUE_SOON:
        parser.error(f"--waiting must be 0 or at least {DUE_SOON}")
    with Progress(transient=True) as progress:
        found = _measure(arguments.sagas, arguments.waiting, progress)
    table = Table("what", "measured", "target", title="PostgreSQL and its workers on this machine")
    for row in _rows(found):
        table.add_row(*row)
    Console().print(table)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(found, indent=2) + "\n")
    return None


if __name__ == "__main__":
    main()
