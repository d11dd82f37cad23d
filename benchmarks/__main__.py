"""Measure everything that has a target, one after the other, and hold it against the targets. `python -m benchmarks`.

Each measurement is a module of its own, which prints its own table too; run several times on a machine that does
nothing else before a figure is believed.
"""

import argparse
import json
import operator
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table


class Measurement(NamedTuple):
    """A module, and what it is to be told; `quick`: to see that it runs."""

    module: str
    words: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()


class Target(NamedTuple):
    """What is to be reached; None: nothing was promised, less is better."""

    what: str
    of: str
    figure: Callable[[Any], float]
    reached: Callable[[float, float], bool] = operator.le
    target: float | None = None


MEASUREMENTS = {
    "sqlite": Measurement("run", quick=("--sagas", "500", "--waiting", "1000")),
    "postgresql": Measurement("postgres", quick=("--sagas", "500", "--waiting", "1000")),
    "http": Measurement("http", quick=("--bookings", "300", "--rounds", "1", "--watchers", "20", "--keys", "1000")),
    "rebuild": Measurement("rebuild", quick=("--events", "5000", "--appointments", "2000", "--runs", "2")),
    "growth-sqlite": Measurement("growth", quick=("--streams", "10000", "--sagas", "300")),
    "growth-postgresql": Measurement("growth", ("--on", "postgresql"), ("--streams", "10000", "--sagas", "300")),
    "fairness": Measurement("fairness", quick=("--appointments", "500", "--bookings", "120")),
    "outbox": Measurement("outbox", quick=("--bookings", "200", "--rounds", "1", "--log", "200")),
}


def _grown(found: Any) -> float:
    first, last = found["stages"][0], found["stages"][-1]
    return float(last["cpu_s_per_1000"] / first["cpu_s_per_1000"])


def _disturbed(found: dict[str, dict[str, float]]) -> float:
    quiet, *others = (one["p50_ms"] for one in found.values())
    return max(others) / quiet


TARGETS = (
    Target("sagas/s, 256 clients", "sqlite", lambda f: f["clients_256"]["sagas_per_s"], operator.ge, 2_000),
    Target(
        "… times `eventsourcing` used directly",
        "sqlite",
        lambda f: f["clients_256"]["sagas_per_s"] / f["eventsourcing_direct_sagas_per_s"]["6"],
        operator.ge,
        4,
    ),
    Target("one client, p50 to the durable end, ms", "sqlite", lambda f: f["clients_1"]["p50_ms"], target=2.0),
    Target("CPU seconds per 1,000 sagas", "sqlite", lambda f: f["clients_256"]["cpu_s_per_1000"], target=0.5),
    Target("bytes stored per saga", "sqlite", lambda f: f["clients_256"]["bytes_per_saga"], target=1_500),
    Target("waiting: memory added, MB", "sqlite", lambda f: f["waiting"]["rss_added_mb"], target=64),
    Target("waiting: start, s", "sqlite", lambda f: f["waiting"]["start_s"], target=2),
    Target("waiting: due ones begin after, s", "sqlite", lambda f: f["waiting"]["due_begin_s_max"], target=1),
    Target(
        "sagas/s, 2 workers, 256 clients",
        "postgresql",
        lambda f: f["workers_2_clients_256"]["sagas_per_s"],
        operator.ge,
        1_500,
    ),
    Target("one client, p50, ms", "postgresql", lambda f: f["workers_1_clients_1"]["p50_ms"], target=4.0),
    Target("bytes stored per saga", "postgresql", lambda f: f["bytes_per_saga"], target=1_500),
    Target("waiting: memory added, MB", "postgresql", lambda f: f["waiting"]["rss_added_mb"], target=64),
    Target("waiting: start, s", "postgresql", lambda f: f["waiting"]["start_s"], target=2),
    Target("waiting: due ones begin after, s", "postgresql", lambda f: f["waiting"]["due_begin_s_max"], target=1),
    Target("bookings acknowledged a second", "http", lambda f: f["product"]["per_s"], operator.ge, 1_000),
    Target("memory added by different keys, MB", "http", lambda f: f["keys"]["rss_added_mb"], target=64),
    Target("events/s, p50", "rebuild", lambda f: median(f["rebuild"]["events_per_s"]), operator.ge, 40_000),
    Target("CPU of a saga, largest log to smallest", "growth-sqlite", _grown),
    Target("CPU of a saga, largest log to smallest", "growth-postgresql", _grown),
    Target("a small tenant's p50 beside others, to alone", "fairness", _disturbed),
    Target("bookings/s with a webhook, to without", "outbox", lambda f: f["share_of_nobody"]["webhook"]),
)


def _measured(names: list[str], folder: Path, quick: bool) -> Iterator[tuple[str, Any]]:
    for name in names:
        one = MEASUREMENTS[name]
        output = folder / f"{name}.json"
        command = [sys.executable, "-m", f"benchmarks.{one.module}", *one.words, *(one.quick if quick else ())]
        subprocess.run([*command, "--output", str(output)], check=True)
        yield name, json.loads(output.read_text(encoding="utf-8"))


def _row(one: Target, found: Any) -> tuple[str, str, str, str, str]:
    figure = one.figure(found)
    shown = f"{figure:,.0f}" if figure >= 100 else f"{figure:.2f}"
    if one.target is None:
        return one.of, one.what, shown, "", ""
    bound = f"{'≥' if one.reached is operator.ge else '≤'} {one.target:,}"
    return one.of, one.what, shown, bound, "yes" if one.reached(figure, one.target) else "no"


def main() -> None:
    """Run the measurements, print what came of them beside the targets, write all of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, epilog="Example: python -m benchmarks sqlite postgresql")
    parser.add_argument("names", nargs="*", choices=[[], *MEASUREMENTS], help="which; none: all of them")
    parser.add_argument("--quick", action="store_true", help="only to see that they run: the figures say nothing")
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks"), help="a folder")
    asked = parser.parse_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    before = os.getloadavg()[0]
    found = dict(_measured(asked.names or list(MEASUREMENTS), asked.output, asked.quick))
    title = f"{os.cpu_count()} cores, load {before:.1f} at the beginning"
    table = Table("of", "what", "measured", "target", "reached", title=title)
    for one in TARGETS:
        if one.of in found:
            table.add_row(*_row(one, found[one.of]))
    Console().print(table)
    whole = {"load_average": before, "quick": asked.quick, **found}
    (asked.output / "all.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
