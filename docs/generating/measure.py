"""Measures what docs/analysis/07-acceptance.md tells of service levels: `python -m docs.generating.measure`.

Runs the acceptance tests and the benchmarks, one after the other, and writes docs/analysis/measured.json with the
machine, its load and the commit. About a minute and a half.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

from saga.clock import WallClock
from Shared.harness.machine import commit, machine

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "docs" / "analysis" / "measured.json"


def acceptance(folder: Path) -> dict[str, Any]:
    """How many criteria there were, how many passed, and how long they took."""
    report = folder / "acceptance.xml"
    command = [sys.executable, "-m", "pytest", "tests/acceptance", f"--junitxml={report}"]
    subprocess.run(command, cwd=ROOT, check=False)  # noqa: S603 -- of our own making, as is what it writes
    suite = next(ElementTree.parse(report).getroot().iter("testsuite"))  # noqa: S314
    tests, bad = int(suite.get("tests", 0)), int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    return {"tests": tests, "passed": tests - bad, "seconds": round(float(suite.get("time", 0)), 1)}


def benchmarks(folder: Path, sagas: int, waiting: int) -> dict[str, Any]:
    """What `benchmarks.run` writes."""
    output = folder / "benchmarks.json"
    command = ["-m", "benchmarks.run", "--sagas", str(sagas), "--waiting", str(waiting), "--output", str(output)]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)  # noqa: S603 -- of our own making
    figures: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    return {"sagas": sagas, **figures}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sagas", type=int, default=5_000)
    parser.add_argument("--waiting", type=int, default=1_000_000)
    asked = parser.parse_args()
    told: dict[str, Any] = {"at": WallClock().now().isoformat(timespec="seconds"), "commit": commit(ROOT)}
    told["machine"] = machine().model_dump(mode="json")
    with TemporaryDirectory(prefix="appointments-measured-") as name:
        told["benchmarks"] = benchmarks(Path(name), asked.sagas, asked.waiting)
        told["acceptance"] = acceptance(Path(name))
    told["machine"]["load_after"] = machine().load_before
    OUTPUT.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    print(f"written: {OUTPUT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
