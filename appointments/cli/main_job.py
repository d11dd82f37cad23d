"""`demo`: the main job, what it found as tables, and the canonical cases after it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from appointments import demo as job
from appointments.cases import Results
from appointments.cli import cases, render
from appointments.cli.book_file import exit_code
from appointments.cli.bulk import IN_FLIGHT
from appointments.cli.command import command
from appointments.cli.ending import ExitCode
from appointments.cli.session import Session
from appointments.proof import Proof
from domain.errors import InvalidFields

REASONS_SHOWN = 12


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    command(app, "demo", "appointments demo --fresh --all")(demo)


async def demo(
    session: Session,
    data: Annotated[Path, typer.Option(help="Holds the server, the calendar and the log.")] = Path("data"),
    results: Annotated[Path, typer.Option(help="Where reports are written.")] = Path("results"),
    logs: Annotated[Path, typer.Option(help="Where logs are written.")] = Path("logs"),
    corpus: Annotated[Path | None, typer.Option(help="A folder of .ics files of your own.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what earlier runs booked.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Print a line for each item that was not booked.")] = False,
    with_cases: Annotated[bool, typer.Option("--cases/--no-cases", help="Then run the canonical cases.")] = True,
    in_flight: Annotated[int, typer.Option(min=1, max=1_000, help="How many appointments at once.")] = IN_FLIGHT,
) -> ExitCode:
    """Do the main job: book real calendar files into a real CalDAV server, and check. A killed run is gone on with."""
    if session.given & {"store", "provider"}:
        raise InvalidFields("demo keeps a server and a store of its own; choose their folder with --data")
    files = job.corpus_files(corpus)
    if not files:
        raise InvalidFields(f"--corpus {corpus}: no .ics files there", (("/corpus", "no .ics files"),))
    places = job.Places(data, results, logs)
    if fresh:
        await job.start_anew(session.settings, places)
    if not session.as_json:
        session.out.print(Text(f"Booking {len(files)} files into Radicale below {places.home}"))
    report = await job.run(session, places, files, in_flight)
    if not session.as_json:
        session.out.print(_shown(report, places, everything))
    ended = await cases.run_cases(session, cases.Places(results=results, logs=logs), []) if with_cases else None
    whole = {"main_job": report.model_dump(mode="json"), "cases": ended and ended.totals.model_dump(mode="json")}
    session.answer(whole, _verdict(report, ended))
    return _code(report, ended)


def _shown(report: job.Report, places: job.Places, everything: bool) -> RenderableType:
    store = f"--store sqlite:///{places.store}"
    counts = [(name.replace("_", " "), str(count)) for name, count in report.counts.items()]
    facts = (
        *counts,
        ("took", f"{report.seconds} s"),
        ("report", places.report),
        ("log", places.log),
        ("reconciliation", places.results / "reconciliation.html"),
        ("audit trail", f"appointments audit {report.example or 'ID'} {store}"),
        ("the list", f"appointments list {store}"),
    )
    reasons = render.table("items", "refused because")
    for reason, count in list(report.refused_because.items())[:REASONS_SHOWN]:
        reasons.add_row(str(count), Text(reason))
    more = len(report.refused_because) - REASONS_SHOWN
    each = f"{more} further reasons; " if more > 0 else ""
    lines = Text(places.refusals.read_text(encoding="utf-8") if everything else "")
    return Group(
        Text(""), render.pairs(facts), Text(""), reasons, Text(f"{each}one line each: {places.refusals}"), lines
    )


def _verdict(report: job.Report, ended: Results | None) -> RenderableType:
    found = report.calendar
    agrees = "yes" if found.agrees else "no"
    told = Text(f"calendar agrees: {agrees} ({found.events} events there, {found.confirmed} appointments confirmed)")
    told.stylize("green" if found.agrees else "bold red")
    lines = [told, *(Text(difference) for difference in found.differences), *_proven(report.proof)]
    if ended is not None:
        lines.append(Text(f"canonical cases: {ended.totals.passed} of {ended.totals.total} passed"))
    return Group(*lines)


def _proven(proof: Proof) -> Iterator[Text]:
    counts = ", ".join(f"{count} {kind}" for kind, count in proof.reconciled.items() if count)
    yield _judged("reconciliation", proof.agrees, counts or "nothing there, nothing intended")
    streams = f"{proof.decisions} decisions of {proof.streams} streams decided again, {proof.diverging} otherwise"
    whole = not (proof.diverging or proof.broken_chains)
    yield _judged("replay", whole, f"{streams}; {proof.broken_chains} broken hash chains")
    yield _judged("check", not proof.findings, f"{len(proof.findings)} findings")
    yield from (Text(f"  {finding}") for finding in proof.findings[:REASONS_SHOWN])
    if proof.success_rate is not None and proof.booking_p50_ms is not None and proof.booking_p95_ms is not None:
        took = f"p50 {proof.booking_p50_ms:,.0f} ms, p95 {proof.booking_p95_ms:,.0f} ms from request to end"
        yield Text(f"figures: {proof.success_rate:.1%} of the bookings that ended were confirmed; {took}")


def _judged(what: str, well: bool, detail: str) -> Text:
    return Text(f"{what}: {'well' if well else 'NOT WELL'} ({detail})", style="green" if well else "bold red")


def _code(report: job.Report, ended: Results | None) -> ExitCode:
    if not report.calendar.agrees or not report.proof.holds or (ended is not None and ended.totals.failed):
        return ExitCode.FAILED
    return exit_code(report.counts)
