"""`outbox`: who is told what happens, how far each subscriber is, and what one of them did not take."""

from typing import Annotated

import typer
from rich.text import Text

from appointments import bootstrap
from appointments.cli import render
from appointments.cli.command import command
from appointments.cli.ending import ExitCode
from appointments.cli.read import reading
from appointments.cli.session import Session
from appointments.outbox.dead_letters import DeadLetter, ask_again, consumer, dead_by_sink, dead_letters
from domain.commands import Reason, parse
from domain.errors import InvalidFields
from domain.provider import Value
from saga.clock import WallClock
from store.port import Store

Sink = Annotated[str | None, typer.Option("--sink", help="Only those of this subscription.")]


class _Why(Value):
    reason: Reason


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    group = typer.Typer(name="outbox", help="Who is told what happens, and what was not taken.")
    group.info.no_args_is_help = True
    command(group, "list", "appointments outbox list --tenant acme")(list_)
    command(group, "dead-letters", "appointments outbox dead-letters --sink crm")(letters)
    command(
        group,
        "redeliver",
        "appointments outbox redeliver 0b0e7e0c-3f0f-5f0a-8d5e-2f8f9b1c1d11-7 --sink crm --reason 'mended there'",
    )(redeliver)
    app.add_typer(group)


async def list_(session: Session) -> ExitCode:
    """List the subscriptions of --tenant: where they are told, how far they are, and their dead letters."""
    tenant = session.settings.tenant
    mine = {name: one for name, one in session.settings.subscriptions.items() if one.tenant == tenant}
    async with reading(session) as store:
        position, dead = await store.position(), await dead_by_sink(store, tenant)
        reached = {name: await store.checkpoint(consumer(name)) for name in mine}
    told = [
        {
            "sink": name,
            "url": one.shown_url,
            "types": list(one.types),
            "checkpoint": reached[name],
            "lag": None if (at := reached[name]) is None else position - at,
            "dead_letters": dead[name],
        }
        for name, one in mine.items()
    ]
    table = render.table("sink", "told at", "checkpoint", "lag", "dead letters")
    for one in told:
        began = ("not begun", "") if one["checkpoint"] is None else (str(one["checkpoint"]), str(one["lag"]))
        table.add_row(*(Text(str(cell)) for cell in (one["sink"], one["url"], *began, one["dead_letters"])))
    nobody = Text(f"nobody is told what happens to tenant {tenant}; docs/outbox.md shows how to subscribe")
    session.answer({"position": position, "sinks": told}, table if told else nobody)
    return ExitCode.DONE


async def letters(
    session: Session,
    sink: Sink = None,
    every: Annotated[bool, typer.Option("--all", help="Also those that were told again since.")] = False,
) -> ExitCode:
    """List the events of --tenant that a subscriber did not take, in the order in which they were given up."""
    async with reading(session) as store:
        found = await _known(session, store, sink)
    found = [one for one in found if every or one.stands != "told again"]
    table = render.table("event", "sink", "given up", "attempts", "why", "now")
    table.columns[0].no_wrap = True
    for one in found:
        given_up = f"{one.abandoned_at:%Y-%m-%d %H:%M:%S} UTC"
        cells = (one.id, one.sink, given_up, one.attempts, one.reason, one.stands)
        table.add_row(*(Text(str(cell)) for cell in cells))
    session.answer([one.model_dump(mode="json") for one in found], table if found else Text("no dead letters"))
    return ExitCode.DONE


async def redeliver(
    session: Session,
    ids: Annotated[list[str] | None, typer.Argument(help="Events, as `outbox dead-letters` shows them.")] = None,
    sink: Sink = None,
    every: Annotated[bool, typer.Option("--all", help="All that were not told again.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the log.")] = "",
) -> ExitCode:
    """Have dead letters told again, under the same ids, by whoever serves this store, or will."""
    if bool(ids) is every:
        raise InvalidFields("name events, or give --all", (("/ids", "missing"),))
    settings, why = session.settings, parse(_Why, {"reason": reason}).reason
    bootstrap.check_exists(settings)
    store = await bootstrap.open_store(settings)
    try:
        asked = _chosen(await _known(session, store, sink), ids)
        for one in asked:
            await ask_again(store, one, settings.tenant, settings.actor, why, WallClock().now())
    finally:
        await store.close()
    told = [{"id": one.id, "sink": one.sink} for one in asked]
    session.answer(told, Text(f"{len(told)} to be told again, by the process that serves this store now or next"))
    for name in sorted({one.sink for one in asked} - settings.subscriptions.keys()):
        session.note(f"{name} is no subscription of these settings: a process that has it is to tell it")
    return ExitCode.DONE


async def _known(session: Session, store: Store, sink: str | None) -> list[DeadLetter]:
    """The tenant's, of this subscription. Raises `InvalidFields` for one that neither the settings nor the log have."""
    settings = session.settings
    found = await dead_letters(store, settings.tenant, sink)
    if sink is not None and not found and sink not in settings.subscriptions:
        named = ", ".join(sorted(settings.subscriptions)) or "none"
        raise InvalidFields(f"{sink} is no subscription; these are: {named}", (("/sink", "unknown"),))
    return found


def _chosen(found: list[DeadLetter], ids: list[str] | None) -> list[DeadLetter]:
    """Those of these ids, or all. Raises `InvalidFields` for an id that is no dead letter, or is asked for already."""
    waiting = [one for one in found if one.stands == "dead"]
    missing = sorted(set(ids or ()).difference(one.id for one in waiting))
    if not missing:
        return [one for one in waiting if not ids or one.id in ids]
    stands = next((one.stands for one in found if one.id == missing[0]), None)
    why = f"{stands} already" if stands else "no dead letter; `appointments outbox dead-letters` shows them"
    raise InvalidFields(f"{missing[0]}: {why}", (("/ids", "unknown"),))
