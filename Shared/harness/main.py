"""`run_all.py`: runs both systems, judges them, writes the results. Exit 0 only if A fails as expected and B passes."""

import argparse
import asyncio
import sys
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from appointments.cases import Case, Result, compare, load, run_case, summarise
from saga.clock import WallClock
from Shared.harness import charts
from Shared.harness.latency import fast, repeat
from Shared.harness.legacy_cases import ROOT, WATCHDOG_S, play
from Shared.harness.machine import commit, machine
from Shared.harness.metrics import side, told
from Shared.harness.models import (
    Given,
    Latency,
    LegacyExpectedData,
    LegacyResult,
    LegacyResults,
    LegacyTotals,
    Metrics,
)
from Shared.harness.report import report
from Shared.harness.suites import run_legacy_suite, run_our_tests

SHARED = ROOT / "Shared"
REPEATS, REPEATS_MAX = 100, 10_000


class Unusable(Exception):
    """What the comparison was given cannot be used; says what to do."""


def main(arguments: list[str]) -> int:
    """Run the comparison. 0: A failed exactly as expected and B passed everything; 1: not so; 2: unusable input."""
    asked = _parser().parse_args(arguments)
    try:
        given = read(asked.case or [])
        asked.output.mkdir(parents=True, exist_ok=True)
    except (Unusable, OSError) as fault:
        print(fault, file=sys.stderr)
        return 2
    where, code = machine(), commit(ROOT)
    _told("1/5 A's own suite")
    suite = run_legacy_suite()
    _told(f"    {suite.tests} tests, {len(suite.failures)} failed: {', '.join(suite.failures) or 'none'}")
    _told("2/5 B's tests")
    tests = run_our_tests(asked.case or [], asked.full)
    legacy, ours = asyncio.run(_cases(given))
    spent = asyncio.run(_latencies(given, legacy, ours, asked.repeat))
    cases, at = given.data.cases, WallClock().now()
    metrics = Metrics(
        generated_at=at,
        commit=code,
        machine=where,
        repeats=asked.repeat,
        watchdog_s=WATCHDOG_S,
        a=side(cases, given.expected, legacy, suite, spent[0]),
        b=side(cases, given.expected, ours, tests, spent[1]),
        a_fails_as_expected=suite.as_expected and not any(result.surprises for result in legacy),
        b_passes=tests.as_expected and all(result.verdict == "passed" for result in ours),
    )
    write(asked.output, at, metrics, legacy, ours)
    _told(f"A fails exactly as expected: {_yes(metrics.a_fails_as_expected)}; B passes: {_yes(metrics.b_passes)}")
    _told(f"results in {asked.output}")
    return 0 if metrics.a_fails_as_expected and metrics.b_passes else 1


def read(chosen: list[str]) -> Given:
    """The cases and both expectations, checked; none chosen: all. Raises `Unusable`."""
    try:
        data, expected = load(ROOT / "data")
        legacy = LegacyExpectedData.model_validate_json((SHARED / "expected_prechange.json").read_bytes()).cases
        if (SHARED / "test_data.json").read_bytes() != (ROOT / "data" / "test_data.json").read_bytes():
            raise Unusable("Shared/test_data.json is not data/test_data.json: copy that one here")
    except (OSError, ValidationError, ValueError) as fault:
        raise Unusable(f"the cases cannot be used: {fault}") from None
    known = {case.id for case in data.cases}
    if known != set(legacy):
        raise Unusable(f"expected_prechange.json must name each case once: {', '.join(sorted(known ^ set(legacy)))}")
    if unknown := [id for id in chosen if id not in known]:
        raise Unusable(f"no such case: {', '.join(unknown)}; there are {min(known)} to {max(known)}")
    kept = [case for case in data.cases if not chosen or case.id in chosen]
    return Given(data=data.model_copy(update={"cases": kept}), expected=expected, legacy=legacy)


def write(folder: Path, at: datetime, metrics: Metrics, legacy: list[LegacyResult], ours: list[Result]) -> None:
    """Every result of a run; a chart that this run has no figures for is removed."""
    passed = sum(result.verdict == "passed" for result in legacy)
    totals = LegacyTotals(total=len(legacy), passed=passed, failed=len(legacy) - passed)
    pre = LegacyResults(generated_at=at, suite=metrics.a.suite, totals=totals, cases=legacy)
    files = {
        "results_pre.json": pre.model_dump_json(indent=2) + "\n",
        "results_post.json": summarise(ours, at).model_dump_json(indent=2) + "\n",
        "aggregated_metrics.json": metrics.model_dump_json(indent=2) + "\n",
        "compare_report.md": report(metrics, legacy, ours),
        "correctness.svg": charts.correctness(legacy, ours),
    }
    (folder / "latency.svg").unlink(missing_ok=True)
    if metrics.a.latency and metrics.b.latency:
        files["latency.svg"] = charts.latency(metrics.a.latency, metrics.b.latency)
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")


async def _cases(given: Given) -> tuple[list[LegacyResult], list[Result]]:
    _told("3/5 A's cases")
    legacy = [await _of_a(case, given) for case in given.data.cases]
    _told("4/5 B's cases")
    return legacy, [await _of_b(case, given) for case in given.data.cases]


async def _latencies(
    given: Given, legacy: list[LegacyResult], ours: list[Result], times: int
) -> tuple[Latency | None, Latency | None]:
    chosen = fast(given.data.cases, legacy, ours)
    _told(f"5/5 latency: {len(chosen)} fast cases, {times} repetitions")
    return await repeat(chosen, given, times, lambda line: _told(f"    {line}"))


async def _of_a(case: Case, given: Given) -> LegacyResult:
    result = await play(case, given.expected[case.id], given.legacy[case.id])
    said = ", ".join(told(result))
    unlike = f"  NOT AS EXPECTED: {'; '.join(result.surprises)}" if result.surprises else ""
    _told(f"    {case.id} {case.title:<18} {said:<22} live {result.live_bookings}  {result.verdict}{unlike}")
    return result


async def _of_b(case: Case, given: Given) -> Result:
    result = compare(await run_case(case, given.data.settings), given.expected[case.id])
    said = ", ".join(told(result))
    wrong = f"  {'; '.join(result.differences)}" if result.differences else ""
    _told(f"    {case.id} {case.title:<18} {said:<45} live {result.live_bookings}  {result.verdict}{wrong}")
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run_all", description="Compare the legacy system (A) with this one (B).")
    parser.add_argument("--full", action="store_true", help="run every test of B, not the acceptance cases alone")
    parser.add_argument("--case", action="append", help="only this case, such as c04; may be repeated")
    parser.add_argument("--output", type=Path, default=SHARED / "results", help="where the results are written")
    parser.add_argument(
        "--repeat", type=_count, default=REPEATS, help=f"repetitions of the fast cases (default {REPEATS}; 0: none)"
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) > REPEATS_MAX:
        raise argparse.ArgumentTypeError(f"must be 0 to {REPEATS_MAX}")
    return int(text)


def _told(line: str) -> None:
    print(line, flush=True)


def _yes(so: bool) -> str:
    return "yes" if so else "no"
