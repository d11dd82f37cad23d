"""Service levels beside what a run measured: read from `docs/analysis/measured.json`, which `measure.py` writes."""

import json
from pathlib import Path
from typing import Any

from generating.markdown import table

MEASURED = Path(__file__).resolve().parents[1] / "analysis" / "measured.json"


def service_levels() -> str:
    """Each level with its load, its target and what was measured; a miss says so."""
    told = json.loads(MEASURED.read_text(encoding="utf-8"))
    figures, machine = told["benchmarks"], told["machine"]
    many, one, waiting = figures["clients_256"], figures["clients_1"], figures["waiting"]
    busy = f"{figures['sagas']:,} bookings by 256 clients"
    ratio = many["sagas_per_s"] / figures["eventsourcing_direct_sagas_per_s"]["6"]
    count = f"{waiting['appointments']:,} waiting appointments"
    rows = [
        _row(
            "SL1",
            "bookings driven to their end",
            busy,
            "at least 2,000 a second",
            many["sagas_per_s"] >= 2_000,
            f"{many['sagas_per_s']:,.0f} a second",
        ),
        _row(
            "SL2",
            "the same, beside `eventsourcing` used directly with one save a transition",
            busy,
            "at least 4 times",
            ratio >= 4,
            f"{ratio:.1f} times",
        ),
        _row(
            "SL3",
            "from the command to its durable end, p50",
            "one client",
            "at most 2.0 ms",
            one["p50_ms"] <= 2,
            _points(one),
        ),
        _row(
            "SL4",
            "CPU for 1,000 bookings",
            busy,
            "at most 0.5 s",
            many["cpu_s_per_1000"] <= 0.5,
            f"{many['cpu_s_per_1000']:.2f} s",
        ),
        _row(
            "SL5",
            "stored for a booking",
            busy,
            "at most 1,500 bytes",
            many["bytes_per_saga"] <= 1_500,
            f"{many['bytes_per_saga']:,.0f} bytes",
        ),
        _row(
            "SL6",
            "memory added",
            count,
            "at most 64 MB",
            waiting["rss_added_mb"] <= 64,
            f"{waiting['rss_added_mb']:.0f} MB",
        ),
        _row("SL7", "start of the desk", count, "at most 2 s", waiting["start_s"] <= 2, f"{waiting['start_s']:.2f} s"),
        _row(
            "SL8",
            "what is due begins, slowest",
            count,
            "within 1 s",
            waiting["due_begin_s_max"] <= 1,
            f"{waiting['due_begin_s_max']:.2f} s",
        ),
    ]
    passed = told["acceptance"]
    rows.append(
        _row(
            "SL9",
            "acceptance tests, all",
            "one run",
            "all pass, below 60 s",
            passed["passed"] == passed["tests"] and passed["seconds"] < 60,
            f"{passed['passed']} of {passed['tests']}, {passed['seconds']:.0f} s",
        )
    )
    where = (
        f"Measured {told['at']}, commit {told['commit']}: {machine['processor']}, {machine['cores']} cores, "
        f"{machine['system']}, Python {machine['python']}, load before {machine['load_before']} and after "
        f"{machine['load_after']}. Local provider in the process, SQLite file with `synchronous=FULL`."
    )
    return f"{where}\n\n{table(('no.', 'level', 'load', 'target', 'measured', 'met'), rows)}"


def _row(number: str, level: str, load: str, target: str, met: Any, measured: str) -> tuple[str, ...]:
    return number, level, load, target, measured, "yes" if met else "**no**"


def _points(figures: dict[str, float]) -> str:
    return f"p50 {figures['p50_ms']:.2f}, p95 {figures['p95_ms']:.2f}, p99 {figures['p99_ms']:.2f} ms"
