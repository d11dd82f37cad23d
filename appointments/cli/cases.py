"""`cases`: the canonical cases through the real stack, shown as they come out; writes the results and the log."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.text import Text

from appointments import cases as canonical
from appointments.cli.case_table import shown
from appointments.cli.command import command
from appointments.cli.ending import ExitCode
from appointments.cli.session import Session
from domain.commands import refusal
from domain.errors import InvalidFields
from saga.clock import WallClock

PROJECT = Path(__file__).parents[2]
RESULTS, LOG = "results_post.json", "log_post.txt"


@dataclass(frozen=True, slots=True)
class Places:
    """Where the cases are read, and where what comes of them is written."""

    cases: Path = PROJECT / "data"
    results: Path = Path("results")
    logs: Path = Path("logs")


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    command(app, "cases", "appointments cases --case c04")(cases)


async def cases(
    session: Session,
    case: Annotated[list[str] | None, typer.Option(help="Run only this one, such as c04; may be repeated.")] = None,
    folder: Annotated[Path, typer.Option("--cases", help="The folder with the cases.")] = PROJECT / "data",
    results: Annotated[Path, typer.Option(help="Where results_post.json is written.")] = Path("results"),
    logs: Annotated[Path, typer.Option(help="Where log_post.txt is written.")] = Path("logs"),
) -> ExitCode:
    """Run the canonical cases, each against a fresh provider, and compare with what must come of them."""
    if session.given & {"store", "provider"}:
        raise InvalidFields("cases gives each case a provider and a store of its own: leave out --store and --provider")
    found = await run_cases(session, Places(folder, results, logs), case or [])
    session.answer(found.model_dump(mode="json"), _totals(found, results, logs))
    return ExitCode.FAILED if found.totals.failed else ExitCode.DONE


async def run_cases(session: Session, places: Places, wanted: list[str]) -> canonical.Results:
    """Run the wanted cases (all of them for none) and write results and log. Raises `InvalidFields`."""
    data, expected = _load(places.cases, wanted)
    for folder in (places.results, places.logs):
        folder.mkdir(parents=True, exist_ok=True)
    log = places.logs / LOG
    log.unlink(missing_ok=True)
    done: list[canonical.Result] = []
    with shown(session, data.cases) as show:
        async for result in canonical.run(data, expected, log):
            done.append(result)
            show(result)
    found = canonical.summarise(done, WallClock().now())
    (places.results / RESULTS).write_text(found.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return found


def _load(folder: Path, wanted: list[str]) -> tuple[canonical.TestData, dict[str, canonical.Expected]]:
    try:
        data, expected = canonical.load(folder)
    except (OSError, ValueError) as fault:
        why = refusal(fault).detail if isinstance(fault, ValidationError) else fault
        raise InvalidFields(f"the cases in {folder} cannot be used: {why}", (("/cases", "unusable"),)) from None
    known = [case.id for case in data.cases]
    unknown = [id for id in wanted if id not in known]
    if unknown:
        detail = f"no such case: {', '.join(unknown)}; there are {known[0]} to {known[-1]}"
        raise InvalidFields(detail, (("/case", detail),))
    chosen = [case for case in data.cases if not wanted or case.id in wanted]
    return data.model_copy(update={"cases": chosen}), expected


def _totals(found: canonical.Results, results: Path, logs: Path) -> Text:
    totals = found.totals
    told = f"{totals.passed} of {totals.total} cases passed; results in {results / RESULTS}, log in {logs / LOG}"
    return Text(told, style="green" if not totals.failed else "red")
