"""Questions: show, list, audit, settings. They open the store read-only, beside the process that holds it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.text import Text

from appointments import bootstrap
from appointments.cli import render
from appointments.cli.command import command
from appointments.cli.ending import ExitCode
from appointments.cli.session import Session
from appointments.cli.times import instant
from appointments.orchestrator import as_it_was, list_page, trail
from appointments.settings import without_password
from appointments.views import Appointment, AppointmentFilter
from domain.commands import parse
from domain.errors import InvalidFields, UnknownAppointment
from domain.lifecycle import Phase, State
from projections.current_state import PAGE_MAX
from projections.views import Views
from store.port import Store

TIMES = "RFC 3339; UTC without an offset."

Id = Annotated[str, typer.Argument(help="The appointment's id.", metavar="ID")]


def register(app: typer.Typer) -> None:
    """Add the questions to the command line."""
    command(app, "show", "appointments show 0b0e7e0c-3f0f-5f0a-8d5e-2f8f9b1c1d11")(show)
    command(app, "list", "appointments list --state confirmed --calendar main --q check-up")(list_)
    command(app, "audit", "appointments audit 0b0e7e0c-3f0f-5f0a-8d5e-2f8f9b1c1d11 --version 3")(audit)
    command(app, "settings", "appointments settings --store sqlite:///data/clinic.db")(settings)


async def show(session: Session, id: Id) -> ExitCode:
    """Show one appointment as it stands now."""
    async with reading(session) as store:
        seen = await appointment_now(store, uuid(id), session.settings.tenant)
    session.answer(seen.model_dump(mode="json"), render.appointment(seen))
    return ExitCode.DONE


async def list_(
    session: Session,
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    phase: Annotated[Phase | None, typer.Option(help="Only those in this phase.")] = None,
    calendar: Annotated[str | None, typer.Option(help="Only those of this calendar.")] = None,
    parked: Annotated[bool | None, typer.Option("--parked/--not-parked", help="Only those that are (not).")] = None,
    from_: Annotated[str | None, typer.Option("--from", help=f"Only those that end after this time: {TIMES}")] = None,
    to: Annotated[str | None, typer.Option(help="Only those that start before this time.")] = None,
    q: Annotated[str | None, typer.Option(help="Part of the summary, the location or the id.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on from where a list with the same options ended.")] = None,
) -> ExitCode:
    """List appointments, newest first."""
    fields = {"tenant": session.settings.tenant, "state": state, "phase": phase, "calendar": calendar, "parked": parked}
    times = {
        "from": instant(from_, "UTC", "--from") if from_ else None,
        "to": instant(to, "UTC", "--to") if to else None,
    }
    wanted = parse(AppointmentFilter, {**fields, **times, "q": q, "cursor": cursor})
    async with reading_views(session) as views:
        found, next_cursor = await _pages(views, wanted, limit)
    items = [one.model_dump(mode="json") for one in found]
    session.answer({"items": items, "next_cursor": next_cursor}, render.listed(found))
    if next_cursor is not None and not session.as_json:
        session.note(f"there are more: the same again with --cursor {next_cursor}")
    return ExitCode.DONE


async def _pages(views: Views, wanted: AppointmentFilter, limit: int) -> tuple[list[Appointment], str | None]:
    """As many pages as it takes."""
    found: list[Appointment] = []
    while True:
        some = {"limit": min(PAGE_MAX, limit - len(found))}
        page = await list_page(views, wanted.model_copy(update=some))
        found += page.items
        if page.next_cursor is None or len(found) == limit:
            return found, page.next_cursor
        wanted = wanted.model_copy(update={"cursor": page.next_cursor})


async def audit(
    session: Session,
    id: Id,
    version: Annotated[int | None, typer.Option(min=1, help="Show the appointment as of this version.")] = None,
    at: Annotated[str | None, typer.Option(help="Show it as of this time: RFC 3339, or local to it.")] = None,
) -> ExitCode:
    """Show what happened to an appointment: each event with who, when, why and its cause. Or the state back then."""
    if version is not None and at is not None:
        raise InvalidFields("give --version or --at, not both", (("/at", "excludes /version"),))
    tenant, appointment = session.settings.tenant, uuid(id)
    async with reading(session) as store:
        now = await as_it_was(store, appointment, tenant, None, None)
        if version is not None or at is not None:
            instant_: datetime | None = None if at is None else instant(at, now.time_zone, "--at")
            then = await as_it_was(store, appointment, tenant, version, instant_)
            session.answer(then.model_dump(mode="json"), render.appointment(then))
            return ExitCode.DONE
        events = await trail(store, appointment, tenant)
    items = [event.model_dump(mode="json") for event in events]
    session.answer({"items": items, "next_cursor": None}, render.trail(events, now.time_zone))
    return ExitCode.DONE


async def settings(session: Session) -> ExitCode:
    """Print the settings in force, secrets masked."""
    told = session.settings.model_dump(mode="json").items()
    shown = {name: _masked(value) for name, value in told}
    made = render.table("setting", "value", "environment variable")
    for name, value in shown.items():
        made.add_row(name, Text("" if value is None else str(value)), f"APPOINTMENTS_{name.upper()}")
    session.answer(shown, made)
    return ExitCode.DONE


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _masked(one) for name, one in value.items()}
    return without_password(value) if isinstance(value, str) else value


async def appointment_now(store: Store, id: UUID, tenant: str) -> Appointment:
    """The appointment as of the last event, with its next due time. Raises `UnknownAppointment`."""
    seen = await as_it_was(store, id, tenant, None, None)
    work = await store.work(id)
    return seen.model_copy(update={"next_action_at": work.due_at if work else None})


def uuid(text: str) -> UUID:
    """An appointment's id as it was typed. Raises `UnknownAppointment`."""
    try:
        return UUID(text)
    except ValueError:
        raise UnknownAppointment(f"{text!r} is no appointment id (a UUID); `appointments list` shows them") from None


@asynccontextmanager
async def reading(session: Session) -> AsyncIterator[Store]:
    """The store of this session, read-only."""
    store = await bootstrap.open_store(session.settings, read_only=True)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def reading_views(session: Session) -> AsyncIterator[Views]:
    """The read models of this session's store; they are caught up from here as well as by the process that books."""
    async with reading(session) as store:
        views = bootstrap.make_views(session.settings, store)
        try:
            yield views
        finally:
            await views.close()
