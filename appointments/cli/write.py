"""Commands on one appointment: book, cancel, reschedule, act. They open the store for writing, and wait for the end.

What can be checked without the store is checked first: opening it takes up what others left unfinished.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any
from uuid import uuid5

import typer

from appointments import bootstrap
from appointments.cli import render
from appointments.cli.book_file import BulkOptions, book_file
from appointments.cli.bulk import IN_FLIGHT
from appointments.cli.command import command
from appointments.cli.ending import ExitCode
from appointments.cli.read import Id, uuid
from appointments.cli.session import Session
from appointments.cli.times import instant
from appointments.orchestrator import Orchestrator
from appointments.views import Appointment
from domain.commands import Act, BookAppointment, CancelAppointment, OperatorAction, Request, parse
from domain.errors import InvalidFields
from domain.lifecycle import Phase, State

WAIT_S = 30.0
"""How long a command waits for the end of one appointment, unless told otherwise."""

Wait = Annotated[
    float,
    typer.Option(min=0, max=86_400, help="Wait so many seconds for the end; exit 3 when it has not come by then."),
]
Key = Annotated[
    str | None, typer.Option(help="Your name for this command: the same key again changes nothing a second time.")
]
Start = Annotated[str | None, typer.Option(help="RFC 3339, or a local time such as 2027-03-01T09:00.")]
End = Annotated[str | None, typer.Option(help="As --start.")]
ZoneName = Annotated[str | None, typer.Option(help="IANA time zone, such as Europe/Berlin.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    booked = "--start 2027-03-01T09:00 --end 2027-03-01T09:30 --time-zone Europe/Berlin --summary Check-up"
    id = "0b0e7e0c-3f0f-5f0a-8d5e-2f8f9b1c1d11"
    command(app, "book", f"appointments book --calendar main {booked} --key order-4711")(book)
    command(app, "cancel", f'appointments cancel {id} --reason "caller asked"')(cancel)
    command(app, "reschedule", f"appointments reschedule {id} --start 2027-03-02T09:00 --end 2027-03-02T09:30")(
        reschedule
    )
    command(app, "act", f'appointments act {id} retry --reason "provider fixed" --actor dana')(act)


async def book(
    session: Session,
    calendar: Annotated[str | None, typer.Option(help="The calendar; with --file: where a file names none.")] = None,
    start: Start = None,
    end: End = None,
    time_zone: ZoneName = None,
    summary: Annotated[str | None, typer.Option(help="What it is.")] = None,
    key: Key = None,
    location: Annotated[str | None, typer.Option(help="Where it is.")] = None,
    organizer: Annotated[str | None, typer.Option(help="E-mail address.")] = None,
    attendee: Annotated[list[str] | None, typer.Option(help="E-mail address; give it once for each.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; give it once for each.")] = None,
    deadline_ms: Annotated[
        int | None, typer.Option(min=100, max=86_400_000, help="Fails when not confirmed by then.")
    ] = None,
    wait: Annotated[float | None, typer.Option(min=0, max=86_400, help=f"Seconds; {WAIT_S:.0f} for one.")] = None,
    file: Annotated[str | None, typer.Option(help="Book everything in this .ics, .jsonl or .csv file.")] = None,
    in_flight: Annotated[int, typer.Option(min=1, max=1_000, help="With --file: how many at once.")] = IN_FLIGHT,
) -> ExitCode:
    """Book one appointment, or everything in a file. A rerun books nothing twice: the key decides."""
    one: dict[str, Any] = {
        "start": start,
        "end": end,
        "summary": summary,
        "key": key,
        "location": location,
        "organizer": organizer,
    }
    one |= {"attendee": attendee or None, "metadata": metadata or None}
    if file is not None:
        extra = [f"--{name}" for name, value in one.items() if value is not None]
        if extra:
            raise InvalidFields(f"with --file, the file says it: leave out {', '.join(extra)}")
        check_request(session, key)
        return await book_file(session, file, BulkOptions(calendar or "main", time_zone, deadline_ms, wait, in_flight))
    _ask_for_the_rest({"calendar": calendar, **{name: one[name] for name in ("start", "end", "summary", "key")}})
    asked = _booking(calendar, time_zone, {**one, "deadline_ms": deadline_ms})
    check_request(session, key)
    async with Orchestrator.open(session.settings) as desk:
        seen = await desk.book(asked, key=str(key), wait=WAIT_S if wait is None else wait)
    return _told(session, seen, _unfinished(seen) or (ExitCode.FAILED if seen.phase is not Phase.COMPLETED else None))


async def cancel(
    session: Session,
    id: Id,
    reason: Annotated[str, typer.Option(help="Why, for the audit trail.")] = "",
    key: Key = None,
    wait: Wait = WAIT_S,
) -> ExitCode:
    """Cancel an appointment, whatever its provider says by then. Without --key, cancelling twice is cancelling once."""
    appointment = uuid(id)
    parse(CancelAppointment, {"reason": reason})
    key = key or f"cancel-{uuid5(appointment, reason)}"
    async with _desk(session, key) as desk:
        seen = await desk.cancel(appointment, key=key, reason=reason, wait=wait)
    return _told(session, seen, _unfinished(seen))


async def reschedule(
    session: Session,
    id: Id,
    start: Start = None,
    end: End = None,
    time_zone: ZoneName = None,
    key: Key = None,
    wait: Wait = WAIT_S,
) -> ExitCode:
    """Move an appointment to another time. Local times are read in its own zone unless --time-zone names another."""
    _ask_for_the_rest({"start": start, "end": end})
    assert start is not None
    assert end is not None
    appointment = uuid(id)
    _times(start, end, time_zone or "UTC")
    async with _desk(session, key) as desk:
        before = await desk.show(appointment)
        times = _times(start, end, time_zone or before.time_zone)
        key = (
            key or f"reschedule-{times['start'].isoformat()}-{times['end'].isoformat()}-{await _at_rest(desk, before)}"
        )
        seen = await desk.reschedule(before.id, **times, time_zone=time_zone, key=key, wait=wait)
    moved = (seen.start, seen.end) == (times["start"], times["end"])
    return _told(session, seen, _unfinished(seen) or (None if moved else ExitCode.FAILED))


async def act(
    session: Session,
    id: Id,
    action: Annotated[OperatorAction, typer.Argument(help="What to do by hand.")],
    reason: Annotated[str, typer.Option(help="Why, for the audit trail.")],
    step: Annotated[str | None, typer.Option(help="The step to skip, where it is not the one that is due.")] = None,
    key: Key = None,
    wait: Wait = WAIT_S,
) -> ExitCode:
    """Do by hand what the orchestrator would not do by itself; recorded with who and why."""
    actor, appointment = session.settings.actor, uuid(id)
    parse(Act, {"action": action, "reason": reason, "step": step})
    async with _desk(session, key) as desk:
        given = key or f"act-{action}-{(await desk.show(appointment)).version}"
        seen = await desk.act(appointment, action, actor=actor, reason=reason, step=step, key=given, wait=wait)
    meant = action is OperatorAction.PARK and seen.parked
    return _told(session, seen, None if meant else _unfinished(seen), None if key else given)


def check_request(session: Session, key: str | None) -> None:
    """Raise `InvalidFields` for a key, a tenant or an actor that cannot be."""
    parse(Request, {"key": key or "derived", "tenant": session.settings.tenant, "actor": session.settings.actor})


@asynccontextmanager
async def _desk(session: Session, key: str | None) -> AsyncIterator[Orchestrator]:
    """The desk of a store that is there already: what is asked about an appointment makes none."""
    check_request(session, key)
    bootstrap.check_exists(session.settings)
    async with Orchestrator.open(session.settings) as desk:
        yield desk


def _times(start: str, end: str, zone: str) -> dict[str, datetime]:
    return {"start": instant(start, zone, "--start"), "end": instant(end, zone, "--end")}


async def _at_rest(desk: Orchestrator, before: Appointment) -> int:
    """The version that a move starts from; so that the same move, asked for while it is under way, is that one."""
    if before.state is not State.RESCHEDULING:
        return before.version
    trail = await desk.events(before.id)
    return max(event.version for event in trail if event.type.startswith("reschedule-requested")) - 1


def _told(session: Session, seen: Appointment, bad: ExitCode | None, key: str | None = None) -> ExitCode:
    """Answer; `key` is what the command has to be given to be the same command when it is run again."""
    session.answer(seen.model_dump(mode="json"), render.appointment(seen))
    if bad is ExitCode.IN_PROGRESS and not session.as_json:
        look = session.again("show", str(seen.id))
        session.note(f"still in progress; it goes on while a process has this store open. To look at it: {look}")
        session.note(f"to wait on, run the same command again{f' with --key {key}' if key else ''}")
    if bad is ExitCode.FAILED and not session.as_json:
        session.note(f"what happened: {session.again('audit', str(seen.id))}")
    return ExitCode.DONE if bad is None else bad


def _unfinished(seen: Appointment) -> ExitCode | None:
    if seen.parked:
        return ExitCode.FAILED
    return ExitCode.IN_PROGRESS if seen.phase is Phase.IN_PROGRESS else None


def _ask_for_the_rest(given: dict[str, Any]) -> None:
    missing = [name for name, value in given.items() if value is None]
    if missing:
        why = (
            "; the key makes a repeat safe: choose one for each booking, such as order-4711" if "key" in missing else ""
        )
        options = ", ".join(f"--{name}" for name in missing)
        raise InvalidFields(f"missing: {options}{why}", tuple((f"/{name}", "Field required") for name in missing))


def _booking(calendar: str | None, time_zone: str | None, one: dict[str, Any]) -> BookAppointment:
    fields = {
        "calendar": calendar,
        "start": instant(one["start"], time_zone, "--start"),
        "end": instant(one["end"], time_zone, "--end"),
        "time_zone": time_zone or "UTC",
        "summary": one["summary"],
        "location": one["location"],
        "organizer": one["organizer"] and {"email": one["organizer"]},
        "attendees": one["attendee"] and tuple({"email": email} for email in one["attendee"]),
        "metadata": one["metadata"] and _metadata(one["metadata"]),
        "deadline_ms": one["deadline_ms"],
    }
    return parse(BookAppointment, {name: value for name, value in fields.items() if value is not None})


def _metadata(given: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    if any(not equals for _, equals, _ in pairs):
        raise InvalidFields("--metadata takes NAME=VALUE", (("/metadata", "NAME=VALUE expected"),))
    return {name: value for name, _, value in pairs}
