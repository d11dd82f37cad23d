"""`worker` and `workers`: more processes that carry out the work of one database, and who they are."""

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any

import typer
from rich.console import RenderableType

from appointments import bootstrap
from appointments.cli import render
from appointments.cli.command import command
from appointments.cli.ending import ExitCode, uncancel
from appointments.cli.read import reading
from appointments.cli.session import Session
from appointments.settings import Settings, without_password
from domain.errors import InvalidFields
from saga.membership import run_of


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    command(app, "worker", "appointments worker --store postgresql://appointments:…@db.internal/appointments")(worker)
    command(app, "workers", "appointments workers --store postgresql://appointments:…@db.internal/appointments")(
        workers
    )


async def worker(session: Session) -> ExitCode:
    """Carry out what is unfinished in a database that is shared with others, until interrupted.

    As many as there is work for, on any machine that reaches the database, beside any number of `serve`. One that dies
    or stands still loses what it had in hand to the others within two leases (APPOINTMENTS_LEASE_MS). SIGTERM or Ctrl-C
    takes up nothing more and gives calls that are out APPOINTMENTS_DRAIN_MS to end; a second one ends it at once.
    With shards it works on all of them, with --store NAME on that one.
    """
    settings = session.settings
    _check_shared(settings, "a worker shares its store with others")
    each = [settings] if "store" in session.given else list(settings.each_shard().values())
    async with AsyncExitStack() as stack:
        runtimes = []
        for one in each:
            parts = await bootstrap.build(one)
            stack.push_async_callback(parts.close)
            runtimes.append(parts.runtime)
            session.note(f"worker    {parts.runtime.name}")
            session.note(f"store     {one.shard or without_password(one.store)}")
            session.note(f"runs      {', '.join(_shown_runs(parts.runtime.runs))}")
            session.note(f"took over {parts.runtime.recovered} calls")
        session.note("Ctrl-C ends it, and the others go on")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            uncancel()
            session.note("stopping: what is out may end, the rest is handed over")
            await asyncio.gather(*(runtime.drain(settings.drain_ms / 1_000) for runtime in runtimes))
    session.note("stopped")
    return ExitCode.DONE


async def workers(session: Session) -> ExitCode:
    """Show who is at work on a shared database: since when silent, and what each carries out.

    Exit code 1 when nobody is.
    """
    _check_shared(session.settings, "only a shared store has workers")
    async with reading(session) as store:
        now, found = await store.now(), await store.workers()
    assert now is not None
    rows: list[dict[str, Any]] = [
        {
            "worker": one.owner,
            "silent_s": round(max(0.0, (now - one.beat_at).total_seconds()), 1),
            "runs": _shown_runs(map(run_of, one.runs)),
        }
        for one in found
    ]
    session.answer({"workers": rows}, _shown(rows))
    return ExitCode.DONE if rows else ExitCode.FAILED


def _check_shared(settings: Settings, why: str) -> None:
    if not bootstrap.is_database(settings):
        raise InvalidFields(
            f"{why}, and {without_password(settings.store)} belongs to one process: name a database with"
            " --store postgresql://user:password@host/database, or run `appointments serve`",
            (("/store", "not a PostgreSQL database"),),
        )


def _shown_runs(runs: Iterable[tuple[str, int, str]]) -> list[str]:
    return [f"{name} v{version} at {provider}" for name, version, provider in sorted(runs)]


def _shown(rows: list[dict[str, Any]]) -> RenderableType:
    if not rows:
        return render.pairs((("workers", "none: start `appointments worker` or `appointments serve`"),))
    table = render.table("worker", "silent for", "runs")
    for row in rows:
        table.add_row(row["worker"], f"{row['silent_s']} s", "; ".join(row["runs"]))
    return table
