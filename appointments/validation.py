"""Full validation: a clean copy of the project is set up, run and tested; what came of each step, with versions.

Owns the copy and the processes of the steps; none of them outlives the one that started them, not even when that one
is killed. Must not print.
"""

import asyncio
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from domain.provider import Value
from saga.clock import WallClock

STEP_MAX_S = 3_600.0
ENDS_WITHIN_S = 15.0
"""How long a step may take to end by itself after it was interrupted."""
QUESTION_MAX_S = 60.0
Verdict = Literal["passed", "failed", "not run", "left out"]
BOUND_TO_US = """
import contextlib, os, signal, subprocess, sys, threading

patience, *command = sys.argv[1:]
ours = ("APPOINTMENTS_", "PYTEST_", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX")
clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job would pass on that it is ignored
try:
    step = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, env=clean)
except OSError as fault:
    sys.exit(f"{command[0]}: {fault.strerror}")

def end_with_the_starter():
    os.read(0, 1)
    os.killpg(step.pid, signal.SIGINT)
    threading.Event().wait(float(patience))
    os.killpg(step.pid, signal.SIGKILL)

threading.Thread(target=end_with_the_starter, daemon=True).start()
os.waitid(os.P_PID, step.pid, os.WEXITED | os.WNOWAIT)  # not reaped yet: the group's number is nobody else's
with contextlib.suppress(OSError):
    os.killpg(step.pid, signal.SIGKILL)
code = step.wait()
sys.exit(code if code >= 0 else 128 - code)
"""
"""Runs a command as a process group in an environment without our settings. When standard input, a pipe that nobody
writes to, ends (with whoever holds its other end), the group is interrupted, then killed; so is what a step leaves."""
VERSIONS = """
import importlib.metadata, json, platform, re, sqlite3
found = {re.sub(r"[-_.]+", "-", one.name).lower(): one.version for one in importlib.metadata.distributions()}
told = {"python": platform.python_version(), "platform": platform.platform(), "sqlite": sqlite3.sqlite_version}
print(json.dumps({**told, "installed": found}))
"""
NOT_COPIED = (".git", ".venv", "__pycache__", ".*_cache", "*.egg-info", "*.db*", "calendars*", "validation")
QUICK_TESTS = ("tests/test_post_change.py", "tests/unit")
LOCKED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Step:
    """A command in the copy, and the files of the copy that tell what it did."""

    name: str
    command: tuple[str, ...]
    traces: tuple[str, ...] = ()


class Ended(Value):
    """What came of a step."""

    name: str
    command: str
    verdict: Verdict
    exit_code: int | None = None
    """None: it was not run, or was ended after `STEP_MAX_S`."""
    seconds: float = 0.0
    output: str | None = None
    """The file with what it printed, beside the summary."""
    traces: tuple[str, ...] = ()
    """Files that it wrote, beside the summary."""


class Machine(Value):
    """What the steps ran on."""

    python: str
    platform: str
    sqlite: str
    installed: dict[str, str]


class Summary(Value):
    """What a validation found."""

    generated_at: datetime
    quick: bool
    commit: str | None
    """None: the folder is no git work tree."""
    clean: bool | None
    """The work tree held what its commit holds; what it held beyond that was not validated."""
    machine: Machine | None
    """None: setting up failed."""
    packages: dict[str, str | None]
    """Every locked package; None: not for this platform, or not installed."""
    steps: tuple[Ended, ...]

    @property
    def all_passed(self) -> bool:
        """Every step that was asked for has passed."""
        return all(step.verdict in ("passed", "left out") for step in self.steps)


def steps(quick: bool) -> tuple[Step, ...]:
    """What is run in the copy, in this order, after it was made and set up."""
    tests = ("./run_tests.sh", "--junit-xml=results/tests.xml", *(QUICK_TESTS if quick else ()))
    return (
        Step("cases", (".venv/bin/appointments", "cases"), ("logs/log_post.txt", "results/results_post.json")),
        Step(
            "main-job",
            (".venv/bin/appointments", "demo", "--no-cases"),
            ("logs/main_job.txt", "results/main_job.json", "results/reconciliation.json"),
        ),
        Step("tests", tests, ("results/tests.xml",)),
    )


class Validation:
    """One validation of a project's folder; outputs, traces and summary go into `results`, which it empties first."""

    def __init__(self, project: Path, results: Path, *, quick: bool = False, wanted: Sequence[str] = ()) -> None:
        self._project, self._results, self._quick = project.resolve(), results, quick
        self._wanted = wanted
        clone = ("git", "clone", "--quiet", "--", str(self._project))
        self._copying = Step("copy", clone if (project / ".git").exists() else ("copy",))
        self._setting_up = Step("setup", ("./setup.sh",))
        self.steps = (self._copying, self._setting_up, *steps(quick))

    def output_of(self, step: Step) -> Path:
        """Where what the step prints is written while it runs."""
        return self._results / f"{step.name}.txt"

    async def run(self, begins: Callable[[Step], None], ended: Callable[[Ended], None]) -> Summary:
        """Run the steps; one that fails stops only those that cannot do without it. Hears of each as it comes."""
        self._empty()
        done: list[Ended] = []

        async def carry(step: Step, able: bool) -> bool:
            left_out = self._wanted and step.name not in self._wanted and step not in self.steps[:2]
            if left_out or not able:
                one = Ended(name=step.name, command=_shown(step), verdict="left out" if left_out else "not run")
            else:
                begins(step)
                one = await self._carry(step, copy)
            done.append(one)
            ended(one)
            return one.verdict == "passed"

        with _folder() as folder:
            copy = folder / "project"
            clean = await self._is_clean()
            copied = await carry(self._copying, True)
            ready = await carry(self._setting_up, copied)
            machine = await _machine(copy) if ready else None
            for step in self.steps[2:]:
                await carry(step, ready)
            summary = Summary(
                generated_at=WallClock().now(),
                quick=self._quick,
                commit=await _ask(copy, "git", "rev-parse", "HEAD") if (copy / ".git").exists() else None,
                clean=clean,
                machine=machine,
                packages=_locked(copy, machine),
                steps=tuple(done),
            )
        (self._results / "summary.json").write_text(summary.model_dump_json(indent=2) + "\n", encoding="utf-8")
        (self._results / "summary.md").write_text(markdown(summary), encoding="utf-8")
        return summary

    def _empty(self) -> None:
        self._results.mkdir(parents=True, exist_ok=True)
        names = {"summary.json", "summary.md"}
        for step in self.steps:
            names |= {f"{step.name}.txt", *(Path(trace).name for trace in step.traces)}
        for name in names:
            (self._results / name).unlink(missing_ok=True)

    async def _carry(self, step: Step, copy: Path) -> Ended:
        began, output = time.perf_counter(), self.output_of(step)
        if step is not self._copying:
            code = await run_bound(step.command, copy, output)
        elif step.command[0] == "git":
            code = await run_bound((*step.command, str(copy)), copy.parent, output)
        else:
            code = await asyncio.to_thread(_copied, self._project, copy, output)
        told = output.read_text(encoding="utf-8", errors="replace")
        for place, name in ((copy, "<copy>"), (self._project, "<project>")):
            told = told.replace(str(place), name)
        output.write_text(told, encoding="utf-8")
        kept = tuple(trace for trace in step.traces if (copy / trace).is_file())
        for trace in kept:
            shutil.copyfile(copy / trace, self._results / Path(trace).name)
        return Ended(
            name=step.name,
            command=_shown(step),
            verdict="passed" if code == 0 else "failed",
            exit_code=code,
            seconds=round(time.perf_counter() - began, 1),
            output=output.name,
            traces=tuple(Path(trace).name for trace in kept),
        )

    async def _is_clean(self) -> bool | None:
        if self._copying.command[0] != "git":
            return None
        return await _ask(self._project, "git", "status", "--porcelain") == ""


async def run_bound(command: Sequence[str], folder: Path, output: Path, limit_s: float = STEP_MAX_S) -> int | None:
    """Run a command in a folder, all that it prints into a file; its exit code, None when it took too long.

    However this ends, the command's processes have ended before.
    """
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", BOUND_TO_US, str(ENDS_WITHIN_S), *command),
            cwd=folder,
            stdin=asyncio.subprocess.PIPE,
            stdout=file,
            stderr=file,
            start_new_session=True,  # ^C is for us; we tell it in our own way
        )
    assert process.stdin is not None
    try:
        async with asyncio.timeout(limit_s):
            return await process.wait()
    except TimeoutError:
        return None
    finally:
        process.stdin.close()
        await process.wait()


def markdown(summary: Summary) -> str:
    """The summary for people; its last line is the verdict."""
    machine, commit = summary.machine, summary.commit or "no git work tree"
    lines = ["# Validation", "", "| step | command | verdict | seconds | output | traces |", "| --- " * 6 + "|"]
    for one in summary.steps:
        traces = ", ".join(one.traces)
        lines.append(
            f"| {one.name} | `{one.command}` | {one.verdict} | {one.seconds} | {one.output or ''} | {traces} |"
        )
    facts = {
        "generated at": summary.generated_at.isoformat(timespec="seconds"),
        "tests": "quick" if summary.quick else "whole suite",
        "commit": commit if summary.clean is not False else f"{commit} (the work tree held changes; not validated)",
        "Python": machine.python if machine else "unknown",
        "platform": machine.platform if machine else "unknown",
        "SQLite": machine.sqlite if machine else "unknown",
    }
    lines += ["", "| fact | value |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in facts.items())]
    lines += ["", "| locked package | installed |", "| --- | --- |"]
    lines += [f"| {name} | {version or 'not here'} |" for name, version in summary.packages.items()]
    return "\n".join([*lines, "", f"all passed: {'yes' if summary.all_passed else 'no'}", ""])


def _shown(step: Step) -> str:
    return "git clone" if step.name == "copy" and step.command[0] == "git" else " ".join(step.command)


def _copied(project: Path, copy: Path, output: Path) -> int:
    told, code = "no git work tree: the folder was copied", 0
    try:
        shutil.copytree(project, copy, ignore=shutil.ignore_patterns(*NOT_COPIED), symlinks=True)
    except OSError as fault:
        told, code = str(fault), 1
    output.write_text(f"{told}\n", encoding="utf-8")
    return code


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="appointments-validate-")).resolve()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _machine(copy: Path) -> Machine | None:
    told = await _ask(copy, ".venv/bin/python", "-c", VERSIONS)
    try:
        return TypeAdapter(Machine).validate_json(told or "")
    except ValidationError:
        return None


async def _ask(folder: Path, *command: str) -> str | None:
    """What a short command prints; None when it fails."""
    with tempfile.TemporaryDirectory() as place:
        output = Path(place) / "output"
        code = await run_bound(command, folder, output, QUESTION_MAX_S)
        return output.read_text(encoding="utf-8", errors="replace").strip() if code == 0 else None


def _locked(copy: Path, machine: Machine | None) -> dict[str, str | None]:
    lock = copy / "requirements.lock"
    names = LOCKED.findall(lock.read_text(encoding="utf-8")) if lock.is_file() else []
    installed = machine.installed if machine else {}
    return {name: installed.get(re.sub(r"[-_.]+", "-", name).lower()) for name in names}
