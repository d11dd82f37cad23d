"""`figures`: how often, how well and how fast, as a table for people, as JSON, or as OpenMetrics for a scraper."""

from enum import StrEnum
from functools import partial
from typing import Annotated

import typer

from appointments.cli.command import command
from appointments.cli.ending import ExitCode
from appointments.cli.figures_table import ASCII_BARS, UTF_BARS, shown
from appointments.cli.read import reading_views
from appointments.cli.session import Session
from appointments.cli.times import instant
from domain.errors import InvalidFields
from projections.figures import Figures
from projections.figures_openmetrics import openmetrics
from projections.figures_query import read


class Format(StrEnum):
    """How the figures are printed."""

    TABLE = "table"
    JSON = "json"
    OPENMETRICS = "openmetrics"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    command(app, "figures", "appointments figures --since 2026-11-24T00:00:00Z")(figures)


async def figures(
    session: Session,
    since: Annotated[str | None, typer.Option(help="From this time on: RFC 3339; UTC without an offset.")] = None,
    until: Annotated[str | None, typer.Option(help="Up to this time.")] = None,
    all_tenants: Annotated[bool, typer.Option("--all-tenants", help="Of all tenants together.")] = False,
    format: Annotated[Format, typer.Option(help="How to print them; --json is short for json.")] = Format.TABLE,
) -> ExitCode:
    """Show success rate, attempts, retries, compensations and latencies per provider and step, from the log alone.

    A window is widened to whole hours (UTC). What stands now knows no window.
    """
    if format is Format.OPENMETRICS and (since or until):
        raise InvalidFields("counters only grow: leave out --since and --until with --format openmetrics")
    if format is Format.OPENMETRICS and session.as_json:
        raise InvalidFields("--json and --format openmetrics exclude each other: leave one out")
    session.as_json = session.as_json or format is Format.JSON
    first = instant(since, "UTC", "--since") if since else None
    last = instant(until, "UTC", "--until") if until else None
    tenant = None if all_tenants else session.settings.tenant
    async with reading_views(session) as views:
        report, _ = await views.read(Figures.name, partial(read, since=first, until=last, tenant=tenant))
    if format is Format.OPENMETRICS:
        session.out.file.write(openmetrics(report))
    else:
        bars = UTF_BARS if session.out.encoding.startswith("utf") else ASCII_BARS
        session.answer(report.model_dump(mode="json"), shown(report, bars))
    return ExitCode.DONE
