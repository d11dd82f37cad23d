"""Full validation, on a small project that stands in for this one: the cases are real, the rest are scripts."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from appointments.cli.app import app
from appointments.validation import LOCKED, Summary

ROOT = Path(__file__).resolve().parents[2]
ENDS_WITHIN_S = 60
SETUP = f"""#!/usr/bin/env bash
set -eu
mkdir -p .venv/bin
ln -s {shlex.quote(sys.executable)} .venv/bin/python
cat > .venv/bin/appointments <<'END'
#!/usr/bin/env bash
[ "$1" = cases ] || {{ . ./main_job.sh; exit; }}
PYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(sys.executable)} -m appointments.cli "$@" --case c01
END
chmod +x .venv/bin/appointments
pwd
"""
VERDICTS = {"copy": "passed", "setup": "passed", "cases": "passed", "main-job": "passed", "tests": "passed"}


class Project:
    """A project's folder, and where its validation is written."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.results = folder / "project", folder / "results"
        self.temporary = folder / "temporary"
        for made in (self.folder, self.temporary):
            made.mkdir()
        self.script("setup.sh", SETUP)
        self.script("run_tests.sh", 'echo "tests of: $*"; echo "settings: ${APPOINTMENTS_TENANT:-none}"')
        self.script("main_job.sh", "echo booked")
        (self.folder / "requirements.lock").write_text("pydantic==0 \\\n    --hash=sha256:0\nno-such-package==1\n")

    def script(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text if text.startswith("#!") else f"#!/usr/bin/env bash\n{text}\n")
        path.chmod(0o755)

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
        command = ["git", "-C", str(self.folder), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def begin(self, *options: str) -> "subprocess.Popen[str]":
        places = ("--project", str(self.folder), "--results", str(self.results))
        return subprocess.Popen(
            [sys.executable, "-m", "appointments.cli", "validate", *places, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=os.environ | {"TMPDIR": str(self.temporary)},
            start_new_session=True,
        )

    def validate(self, *options: str) -> tuple[int, str]:
        places = ("--project", str(self.folder), "--results", str(self.results))
        ended = CliRunner().invoke(app, ["validate", *places, *options])
        return ended.exit_code, ended.output

    def summary(self) -> Summary:
        return Summary.model_validate_json((self.results / "validation" / "summary.json").read_bytes())

    def verdicts(self) -> dict[str, str]:
        return {step.name: step.verdict for step in self.summary().steps}

    def written(self, name: str) -> str:
        return (self.results / "validation" / name).read_text()

    def last_line(self) -> str:
        return self.written("summary.md").splitlines()[-1]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    made = Project(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(made.temporary))
    monkeypatch.setenv("APPOINTMENTS_TENANT", "ours")
    yield made
    assert list(made.temporary.iterdir()) == [], "the copy was left behind"


@pytest.mark.evidence(
    target="validation",
    answers=("R6.5",),
    given="a project whose steps pass",
    when="`appointments validate` is run",
    then="it says all passed: yes, with versions",
    seen_in="summary file",
)
def test_a_project_whose_steps_all_pass_is_told_so(project: Project) -> None:
    project.git("init", "--quiet")
    project.git("add", ".")
    project.git("commit", "--quiet", "-m", "a project")
    code, out = project.validate("--quick")
    assert (code, project.last_line(), out.splitlines()[-1]) == (0, "all passed: yes", "all passed: yes"), out
    assert project.verdicts() == VERDICTS
    summary = project.summary()
    assert (summary.commit, summary.clean) == (project.git("rev-parse", "HEAD"), True)
    assert summary.packages["no-such-package"] is None
    assert re.fullmatch(r"\d+\.\d+.*", summary.packages["pydantic"] or "")
    assert summary.machine is not None
    assert summary.machine.python == sys.version.split()[0]
    assert json.loads(project.written("log_post.txt").splitlines()[0])
    assert json.loads(project.written("results_post.json"))["totals"]["passed"] == 1
    assert "1 of 1 cases passed" in project.written("cases.txt")
    assert project.written("tests.txt").splitlines() == [
        "tests of: --junit-xml=results/tests.xml tests/test_post_change.py tests/unit",
        "settings: none",
    ]
    assert project.written("setup.txt") == "<copy>\n"
    assert not (project.folder / ".venv").exists()


def test_what_is_not_committed_is_not_validated_and_that_is_said(project: Project) -> None:
    project.git("init", "--quiet")
    project.git("add", ".")
    project.git("commit", "--quiet", "-m", "a project")
    project.script("run_tests.sh", "exit 1")
    code, out = project.validate("--step", "tests")
    assert code == 0
    assert "changes that are not committed" in out
    assert project.summary().clean is False
    assert project.verdicts() == VERDICTS | {"cases": "left out", "main-job": "left out"}


def test_control_a_failing_step_is_told_and_the_later_ones_still_run(project: Project) -> None:
    """No git here: the folder itself is copied."""
    project.script("main_job.sh", "echo the calendar differs; exit 1")
    code, out = project.validate("--step", "main-job", "--step", "tests")
    assert (code, project.last_line(), out.splitlines()[-1]) == (1, "all passed: no", "all passed: no"), out
    assert project.verdicts() == VERDICTS | {"cases": "left out", "main-job": "failed"}
    assert project.written("main-job.txt") == "the calendar differs\n"
    assert f"see {project.results / 'validation' / 'main-job.txt'}" in out
    assert (project.summary().commit, project.summary().clean) == (None, None)


def test_without_an_environment_nothing_else_is_run(project: Project) -> None:
    project.script("setup.sh", "exit 3")
    code, _ = project.validate()
    assert (code, project.last_line()) == (1, "all passed: no")
    assert project.verdicts() == VERDICTS | dict.fromkeys(("cases", "main-job", "tests"), "not run") | {
        "setup": "failed"
    }
    assert project.summary().machine is None


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_of_it_outlives_it(project: Project, tmp_path: Path, how: signal.Signals) -> None:
    """A step with a process in its background, like a server."""
    told = tmp_path / "pids"
    project.script("run_tests.sh", f"sleep 300 & echo $$ $! > {told}.new; mv {told}.new {told}; sleep 300")
    with project.begin("--step", "tests") as process:
        wait_until(told.exists)
        pids = [int(pid) for pid in told.read_text().split()]
        assert all(map(alive, pids))
        process.send_signal(how)
        out, _ = process.communicate(timeout=ENDS_WITHIN_S)
    assert process.returncode == (3 if how is not signal.SIGKILL else -how), out
    assert "Traceback" not in out
    assert not (project.results / "validation" / "summary.md").exists()
    wait_until(lambda: not any(map(alive, pids)))
    for left in project.temporary.iterdir() if how is signal.SIGKILL else ():
        subprocess.run(["rm", "-r", str(left)], check=True)


@pytest.mark.parametrize("options", [("--step", "none"), ("--project", "docs")])
def test_what_cannot_be_validated_is_refused_and_changes_nothing(tmp_path: Path, options: tuple[str, ...]) -> None:
    results = tmp_path / "results"
    ended = CliRunner().invoke(app, ["validate", "--results", str(results), *options])
    assert ended.exit_code == 2
    assert options[1] in ended.output
    assert not results.exists()


def test_requirements_are_those_of_the_lock() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    wanted = [line.removesuffix("\\").rstrip() for line in lock.splitlines() if LOCKED.match(line)]
    exported = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert exported.splitlines() == wanted
    assert len(wanted) > 50
    assert "--" not in exported


def alive(pid: int) -> bool:
    """A process that has ended and that nobody has asked for yet is not alive."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat").read_text() if Path("/proc/self").exists() else ")"
    except (ProcessLookupError, FileNotFoundError):
        return False
    return not stat.rpartition(")")[2].startswith(" Z")


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + ENDS_WITHIN_S
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)  # what another process does has no event to wait for
