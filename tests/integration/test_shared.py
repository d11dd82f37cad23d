"""The comparison of the legacy system with this one, run as people run it, in a copy of the project's files."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
from pydantic import BaseModel

from appointments.cases import Results, Send, load
from mocks import MockProvider
from Shared.harness.judging import wanted
from Shared.harness.legacy_cases import click
from Shared.harness.metrics import percentile
from Shared.harness.models import LegacyExpectedData, LegacyResults, Metrics
from Shared.harness.suites import KNOWN_FAILURES, read_junit, read_tap

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT / "Shared"
CASES, EXPECTED = load(ROOT / "data")
LEGACY = LegacyExpectedData.model_validate_json((SHARED / "expected_prechange.json").read_bytes()).cases
JSON_RESULTS: dict[str, type[BaseModel]] = {
    "results_pre.json": LegacyResults,
    "results_post.json": Results,
    "aggregated_metrics.json": Metrics,
}
ALL_RESULTS = {*JSON_RESULTS, "compare_report.md", "correctness.svg", "latency.svg"}
AGGREGATED = {
    *("total", "passed", "failed", "case_pass_rate", "booking_success_rate", "attempts", "retries", "latency"),
    *("breaker_opened", "compensations", "idempotency"),
}
PER_CASE = {
    *("id", "phase", "state", "reason", "attempts", "retries", "provider_calls", "idempotent_hits", "compensated"),
    *("live_bookings", "breaker_opened", "duration_ms", "verdict", "differences"),
}
ENDS_WITHIN_S = 60


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What the comparison reads, in a folder of its own: no results, no environment."""
    project = tmp_path / "project"
    shutil.copytree(SHARED, project / "Shared", ignore=shutil.ignore_patterns("results", "__pycache__"))
    shutil.copytree(ROOT / "data", project / "data", ignore=shutil.ignore_patterns("calendars*", "*.db*"))
    (project / "tests").mkdir()
    for file in ("test_post_change.py", "conftest.py"):
        shutil.copy(ROOT / "tests" / file, project / "tests")
    shutil.copytree(ROOT / "tests" / "postgres", project / "tests" / "postgres")
    shutil.copy(ROOT / "pyproject.toml", project)
    return project


def compare(project: Path, *arguments: str, repeat: int = 0) -> "subprocess.CompletedProcess[str]":
    """Run it by its shell script, from somewhere else."""
    command = [str(project / "Shared" / "run_all.sh"), "--repeat", str(repeat), *arguments]
    return subprocess.run(
        command,
        cwd=project.parent,
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN_S,
        check=False,
    )


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.evidence(
    target="comparison",
    answers=("R6.4",),
    given="the legacy system and this one, a copy of the project",
    when="`Shared/run_all.sh` is run from another directory",
    then="both are judged, every result is written anew, exit code 0",
    seen_in="Shared/results",
)
def test_a_run_judges_both_and_writes_every_result_again_after_they_were_deleted(copy: Path) -> None:
    results = copy / "Shared" / "results"
    chosen = ("--case=c01", "--case=c05", "--case=c20")
    for _ in range(2):
        shutil.rmtree(results, ignore_errors=True)
        ended = compare(copy, *chosen, repeat=2)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert {path.name for path in results.iterdir()} == ALL_RESULTS
    for name, model in JSON_RESULTS.items():
        found = json.loads((results / name).read_text())
        jsonschema.validate(found, model.model_json_schema(mode="serialization"))
        model.model_validate(found)
    metrics = json.loads((results / "aggregated_metrics.json").read_text())
    assert all(set(metrics[side]) >= AGGREGATED for side in "ab")
    for name in ("results_pre.json", "results_post.json"):
        assert all(set(case) >= PER_CASE for case in json.loads((results / name).read_text())["cases"])
    for chart in results.glob("*.svg"):
        assert ElementTree.parse(chart).getroot().get("role") == "img"


def test_what_a_run_finds_is_in_its_figures(copy: Path, tmp_path: Path) -> None:
    ended = compare(copy, "--case=c01", "--case=c12", "--case=c14", "--case=c20", "--output", str(tmp_path / "out"))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = Metrics.model_validate_json((tmp_path / "out" / "aggregated_metrics.json").read_bytes())
    assert set(found.a.suite.failures) == KNOWN_FAILURES
    assert (found.a.passed, found.b.passed, found.a.total, found.b.total) == (1, 4, 4, 4)
    assert (found.a.unwanted_bookings, found.b.unwanted_bookings) == (2, 0)
    assert (found.a.booking_success_rate, found.b.booking_success_rate) == (0.3333, 1.0)
    assert (found.a.idempotency.passed, found.b.idempotency.passed, found.b.idempotency.total) == (0, 4, 4)
    assert (found.a.retries.max, found.b.retries.max) == (0, 1)
    assert found.a.told == {"booked": 5, "exception": 1}
    report = (tmp_path / "out" / "compare_report.md").read_text()
    assert "| c14 lost response | exception, booked | 2 | confirmed | 1 |" in report
    assert "Right altogether: c01." in report


def test_control_a_that_fails_otherwise_is_noticed(copy: Path) -> None:
    """Here it is mended: its own suite passes, and the click of c05 is seen."""
    mended = 'event.get("target") or event.get("srcElement") or {}'
    change(copy / "Shared" / "legacy" / "labels.py", 'event.get("target") or {}', mended)
    ended = compare(copy, "--case=c05")
    assert ended.returncode == 1
    assert "6 tests, 0 failed" in ended.stdout
    assert "NOT AS EXPECTED" in ended.stdout
    assert "A fails exactly as expected: no; B passes: yes" in ended.stdout


def test_control_one_failing_case_of_ours_is_noticed(copy: Path) -> None:
    change(copy / "data" / "expected_postchange.json", '"live_bookings": 1', '"live_bookings": 2')
    ended = compare(copy, "--case=c01")
    assert ended.returncode == 1
    assert "live_bookings: expected 2, found 1" in ended.stdout
    assert "B passes: no" in ended.stdout


def test_control_one_failing_test_of_ours_is_noticed(copy: Path) -> None:
    with (copy / "tests" / "test_post_change.py").open("a", encoding="utf-8") as file:
        file.write("\n\ndef test_planted_c19() -> None:\n    raise AssertionError\n")
    ended = compare(copy, "--case=c19")
    assert ended.returncode == 1
    assert "A fails exactly as expected: yes; B passes: no" in ended.stdout


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [("Shared/test_data.json", "Check-up", "Check-down"), ("Shared/expected_prechange.json", '"c20"', '"c21"')],
)
def test_input_that_does_not_fit_is_refused_with_what_to_do(copy: Path, file: str, old: str, new: str) -> None:
    change(copy / file, old, new)
    ended = compare(copy)
    assert ended.returncode == 2
    assert Path(file).name in ended.stderr
    assert not (copy / "Shared" / "results").exists()


def test_an_unknown_case_is_refused(copy: Path) -> None:
    ended = compare(copy, "--case=c99")
    assert (ended.returncode, ended.stderr) == (2, "no such case: c99; there are c01 to c20\n")


def test_results_that_cannot_be_written_are_told_of_before_anything_is_run(copy: Path) -> None:
    ended = compare(copy, "--output", str(copy / "pyproject.toml" / "results"))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "pyproject.toml" in ended.stderr


def test_both_copies_of_the_cases_are_equal() -> None:
    assert (SHARED / "test_data.json").read_bytes() == (ROOT / "data" / "test_data.json").read_bytes()


def test_something_is_expected_of_the_legacy_system_at_every_command_of_every_case() -> None:
    assert {case.id: len(case.commands) for case in CASES.cases} == {id: len(e.told) for id, e in LEGACY.items()}
    assert wanted(CASES.cases[9], EXPECTED["c10"]) == ["booked", "cancelled"]
    assert wanted(CASES.cases[19], EXPECTED["c20"]) == ["booked", "error"]


def test_the_legacy_system_uses_the_standard_library_alone() -> None:
    imported = set()
    for path in (SHARED / "legacy").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module))
    foreign = {name for name in imported if name.partition(".")[0] not in sys.stdlib_module_names}
    assert foreign == {"Shared.legacy.booking", "Shared.legacy.front", "Shared.legacy.labels"}


async def test_a_click_that_never_ends_is_stopped_and_counts_as_hung() -> None:
    send = Send(command="book", key="key-0001", payload=CASES.cases[0].commands[0].payload)
    async with MockProvider(lenient=True) as mock:
        mock.script("create", "timeout", times=-1)
        assert (await click(send, mock.url, watchdog_s=1.0)).told == "hung"
        mock.clear_scripts()
        assert (await click(send, mock.url)).told == "booked"


def tap(*failures: str, plan: int = 3) -> str:
    lines = ["ok 1 - fine", *(f"not ok {number} - {name}" for number, name in enumerate(failures, 2))]
    return "\n".join([f"1..{plan}", *lines])


def test_only_exactly_the_two_known_failures_are_as_expected() -> None:
    one, other = sorted(KNOWN_FAILURES)
    assert read_tap(tap(one, other), 1).as_expected
    for output, exit_code in [
        (tap(one, other), 0),
        (tap(one, other, "a third"), 1),
        (tap(one, other, "a third", plan=4), 1),
        (tap(one, plan=2), 1),
        (tap(one, "another name"), 1),
        (tap(one, other, plan=9), 1),
        ("", 1),
    ]:
        assert not read_tap(output, exit_code).as_expected


def test_no_tests_at_all_are_no_pass() -> None:
    one = "<testsuites><testsuite><testcase classname='t' name='a'>{}</testcase></testsuite></testsuites>"
    assert read_junit(one.format(""), 0).as_expected
    assert not read_junit(one.format("<failure/>"), 1).as_expected
    assert not read_junit("<testsuites/>", 0).as_expected
    assert not read_junit(one.format(""), 3).as_expected


def test_percentiles_are_by_nearest_rank() -> None:
    hundred = list(range(100, 0, -1))
    assert [percentile(hundred, percent) for percent in (50, 95, 99)] == [50, 95, 99]
    assert [percentile([7], percent) for percent in (50, 99)] == [7, 7]
    assert percentile([1, 2, 3], 99) == 3
