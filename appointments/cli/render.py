"""What people see: tables and panels. Times are shown in the appointment's own zone."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from appointments.views import Appointment, AuditEvent

STYLES = {"confirmed": "green", "failed": "red", "cancelled": "yellow"}


def table(*columns: str, title: str | None = None) -> Table:
    """An empty table as all of ours look."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def pairs(rows: Iterable[tuple[str, Any]]) -> Table:
    """Names and values, one to a line; what is not there is left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        if value not in (None, "", (), {}):
            grid.add_row(name, value if isinstance(value, Text) else Text(str(value)))
    return grid


def local(instant: datetime, zone: str, seconds: bool = False) -> str:
    """An instant on the wall clock of a zone, with the zone's abbreviation."""
    shape = "%Y-%m-%d %H:%M:%S.%f" if seconds else "%Y-%m-%d %H:%M"
    at = instant.astimezone(ZoneInfo(zone))
    return f"{at.strftime(shape)[: 23 if seconds else None]} {at.tzname()}"


def state(one: Appointment) -> Text:
    """The state, with its end reason and the flag."""
    words = str(one.state) + (f" ({one.reason})" if one.reason else "")
    text = Text(words, style=STYLES.get(one.state, ""))
    return text.append(" parked", style="bold red") if one.parked else text


def appointment(one: Appointment) -> RenderableType:
    """One appointment."""
    zone = one.time_zone
    times = f"{local(one.start, zone)} to {local(one.end, zone)}"
    people = ", ".join(party.email for party in one.attendees)
    calls = f"attempts {one.attempts}, retries {one.retries}"
    shown = pairs(
        (
            ("state", state(one)),
            ("why", one.detail),
            ("notice", one.notice),
            ("calendar", one.calendar),
            ("when", f"{times}, {zone}" if zone != "UTC" else times),
            ("where", one.location),
            ("organizer", one.organizer.email if one.organizer else None),
            ("attendees", people),
            ("at the provider", one.provider_ref),
            ("calls", calls if one.attempts else None),
            ("next action", local(one.next_action_at, zone, seconds=True) if one.next_action_at else None),
            ("requested", local(one.created_at, zone, seconds=True)),
            ("version", one.version),
        )
    )
    return Group(Text(str(one.id)), Panel(shown, title=Text(one.summary), title_align="left", expand=False))


def listed(found: Sequence[Appointment]) -> RenderableType:
    """Many appointments, one to a line."""
    made = table("id", "state", "start", "calendar", "summary")
    made.columns[0].no_wrap = True
    for one in found:
        start = local(one.start, one.time_zone)
        made.add_row(Text(str(one.id)), state(one), Text(start), Text(one.calendar), Text(one.summary))
    return made if found else Text("no appointments")


def trail(events: Sequence[AuditEvent], zone: str) -> RenderableType:
    """The audit trail: what, when, by whom, why, because of which version; and the conversation, where it changes."""
    made = table("version", "when", "type", "who", "why", "cause")
    conversations = {event.correlation_id for event in events}
    if len(conversations) > 1:
        made.add_column("correlation")
    for event in events:
        when, cause = local(event.recorded_at, zone, seconds=True), event.cause or ""
        cells = [event.version, when, event.type, event.actor or "", why(event.type, event.data), cause]
        cells += [event.correlation_id] if len(conversations) > 1 else []
        made.add_row(*(Text(str(cell)) for cell in cells))
    return made if len(conversations) > 1 else Group(made, Text(f"correlation {conversations.pop()}"))


def why(type_: str, data: Mapping[str, Any]) -> str:
    """The reason that an event carries, in its own words; for a step, which one and how."""
    about = [str(data[name]) for name in ("step", "operation", "action", "kind", "status") if data.get(name)]
    if data.get("attempt"):
        about.append(f"attempt {data['attempt']}")
    told = [str(data[name]) for name in ("reason", "detail") if data.get(name)]
    due = [f"at {data[name]}" for name in ("due_at", "look_at", "poll_at", "until") if data.get(name)]
    if type_.startswith("appointment-requested"):
        told.append(str(data.get("details", {}).get("summary", "")))
    return ": ".join(filter(None, (" ".join(about), "; ".join((*told, *due)))))
