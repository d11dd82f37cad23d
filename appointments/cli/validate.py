"""`validate`: full validation in a clean environment, shown step by step while it runs."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from appointments.cli import render
from appointments.cli.command import command
from appointments.cli.ending import ExitCode
from appointments.cli.session import Session
from appointments.validation import Ended, Step, Summary, Validation, steps
from domain.errors import InvalidFields

PROJECT = Path(__file__).parents[2]
STYLES = {"passed": "green", "failed": "bold red", "not run": "red", "left out": "dim"}
LOOKED_EVERY_S = 1.0
STILL_EVERY_S = 60.0
"""Between two plain lines of a step that goes on."""
TAIL_BYTES, TAIL_SHOWN = 400, 60


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    command(app, "validate", "appointments validate --quick")(validate)


async def validate(
    session: Session,
    quick: Annotated[bool, typer.Option("--quick", help="Of the tests, only the cases and the unit tests.")] = False,
    step: Annotated[list[str] | None, typer.Option(help="Only this one of cases, main-job, tests; repeatable.")] = None,
    project: Annotated[Path, typer.Option(help="The project's folder.")] = PROJECT,
    results: Annotated[Path, typer.Option(help="Where validation/ is written.")] = Path("results"),
) -> ExitCode:
    """Set up a clean copy of the project, run cases, main job and tests there, and tell whether all passed."""
    known = [one.name for one in steps(quick)]
    if unknown := [name for name in step or () if name not in known]:
        detail = f"no such step: {', '.join(unknown)}; there are {', '.join(known)}"
        raise InvalidFields(detail, (("/step", detail),))
    if missing := [name for name in ("setup.sh", "run_tests.sh") if not (project / name).is_file()]:
        detail = f"--project {project}: no {' and no '.join(missing)} there; give the folder of a checked-out project"
        raise InvalidFields(detail, (("/project", detail),))
    place = results / "validation"
    validation = Validation(project, place, quick=quick, wanted=step or ())
    with _Shown(session, validation, place).running() as shown:
        summary = await validation.run(shown.begins, shown.ended)
    if summary.clean is False:
        session.note("the work tree holds changes that are not committed; they were not validated")
    session.answer(summary.model_dump(mode="json") | {"all_passed": summary.all_passed}, _verdict(summary, place))
    return ExitCode.DONE if summary.all_passed else ExitCode.FAILED


class _Shown:
    """Shows the steps: a table that fills in on a terminal, plain lines elsewhere."""

    def __init__(self, session: Session, validation: Validation, place: Path) -> None:
        self._session, self._validation, self._place = session, validation, place
        self._done: list[Ended] = []
        self._step: Step | None = None
        self._began = self._told = time.perf_counter()
        self._live: Live | None = None
        if session.out.is_terminal and not session.as_json:
            self._live = Live(self._table(), console=session.out, auto_refresh=False)

    @contextmanager
    def running(self) -> Iterator["_Shown"]:
        looking = asyncio.get_running_loop().create_task(self._keep_looking())
        try:
            if self._live is None:
                yield self
            else:
                with self._live:
                    yield self
        finally:
            looking.cancel()

    def begins(self, step: Step) -> None:
        self._step, self._began = step, time.perf_counter()
        self._told = self._began
        self._say(f"{step.name}: running")

    def ended(self, one: Ended) -> None:
        self._step = None
        self._done.append(one)
        told = f"{one.name}: {one.verdict}"
        if one.output:
            told += f", {one.seconds} s, output in {self._place / one.output}"
        self._say(told)

    def _say(self, line: str) -> None:
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
        else:
            self._session.note(line)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOKED_EVERY_S)
            now = time.perf_counter()
            if self._step is not None and (self._live is not None or now - self._told >= STILL_EVERY_S):
                self._told = now
                self._say(f"{self._step.name}: running for {now - self._began:.0f} s; {self._last_line(self._step)}")

    def _table(self) -> Table:
        made = render.table("step", "verdict", "seconds", "output")
        for number, step in enumerate(self._validation.steps):
            if number < len(self._done):
                one = self._done[number]
                where = str(self._place / one.output) if one.output else ""
                made.add_row(one.name, Text(one.verdict, style=STYLES[one.verdict]), str(one.seconds), Text(where))
            elif step is self._step:
                taken = f"{time.perf_counter() - self._began:.0f}"
                made.add_row(step.name, Text("running", style="dim"), taken, Text(self._last_line(step)))
            else:
                made.add_row(step.name, "", "", "")
        return made

    def _last_line(self, step: Step) -> str:
        told = b""
        with suppress(OSError), self._validation.output_of(step).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            told = file.read()
        return next(reversed(told.decode("utf-8", "replace").split("\n")[-2:-1]), "")[:TAIL_SHOWN]


def _verdict(summary: Summary, place: Path) -> Group:
    lines = [
        f"{one.name} {one.verdict}: see {place / one.output}"
        for one in summary.steps
        if one.verdict == "failed" and one.output
    ]
    told = f"all passed: {'yes' if summary.all_passed else 'no'}"
    style = "green" if summary.all_passed else "bold red"
    return Group(*map(Text, lines), Text(f"summary in {place / 'summary.md'}"), Text(told, style=style))
