"""Runs the two test suites: that of A, which must fail with two failures known by name, and the tests of B."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from Shared.harness.legacy_cases import ROOT, STANDARD_LIBRARY_ALONE
from Shared.harness.models import Suite

KNOWN_FAILURES = {
    "IE11-style events expose attributes only via srcElement",
    "dataset fallback should read from srcElement",
}
ACCEPTANCE = "tests/test_post_change.py"
LINE = re.compile(r"^(ok|not ok) \d+ - (.+)$", re.MULTILINE)
SUITE_ENDS_WITHIN_S = 60


def run_legacy_suite() -> Suite:
    """A's own suite. As expected: exit 1 with exactly the known failures."""
    command = [sys.executable, *STANDARD_LIBRARY_ALONE, "-m", "Shared.legacy.suite"]
    ended = subprocess.run(  # noqa: S603 -- arguments of our own
        command, cwd=ROOT, capture_output=True, text=True, timeout=SUITE_ENDS_WITHIN_S, check=False
    )
    return read_tap(ended.stdout, ended.returncode)


def read_tap(output: str, exit_code: int) -> Suite:
    """A suite from what it printed in the Test Anything Protocol."""
    lines = LINE.findall(output)
    failures = [name for said, name in lines if said == "not ok"]
    right = exit_code == 1 and sorted(failures) == sorted(KNOWN_FAILURES) and f"1..{len(lines)}" in output.splitlines()
    return Suite(tests=len(lines), failures=failures, exit_code=exit_code, as_expected=right)


def run_our_tests(cases: list[str], whole: bool) -> Suite:
    """The acceptance cases by pytest (of the chosen cases; none chosen: all), or every test. Its output is shown."""
    with tempfile.TemporaryDirectory(prefix="comparison-") as folder:
        report = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "junit_family=xunit2"]
        command += [f"--junitxml={report}", *([] if whole else [ACCEPTANCE])]
        command += ["-k", " or ".join(cases)] if cases else []
        ended = subprocess.run(command, cwd=ROOT, check=False)  # noqa: S603 -- arguments of our own
        return read_junit(report.read_text(encoding="utf-8") if report.exists() else "<testsuites/>", ended.returncode)


def read_junit(report: str, exit_code: int) -> Suite:
    """A suite from the report that pytest wrote. As expected: everything passed, and there was something to pass."""
    tests = list(ElementTree.fromstring(report).iter("testcase"))  # noqa: S314 -- written by our own pytest
    broken = [t for t in tests if t.find("failure") is not None or t.find("error") is not None]
    failures = [f"{test.get('classname')}::{test.get('name')}" for test in broken]
    right = exit_code == 0 and bool(tests) and not failures
    return Suite(tests=len(tests), failures=failures, exit_code=exit_code, as_expected=right)
