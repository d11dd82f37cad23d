"""iCalendar files: which events of a file are bookings, and which of several that share a UID counts (RFC 5545, 5546).

A UID stands for one event. Of several revisions in a file the latest counts, by SEQUENCE, then DTSTAMP. A series whose
occurrences the file changes is refused whole, since booking its rule alone would book occurrences that were moved; a
changed occurrence whose series is not in the file is an appointment of its own. The same UID in another file has the
same key: with the same content it is the same booking, with other content the desk refuses the reused key.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from appointments.intake.components import Component, components
from appointments.intake.event import Event
from appointments.intake.items import FileRefused, Intake, Item, Refusal, Scope, label, printable
from appointments.intake.zones import Zones
from domain.commands import BookAppointment
from domain.errors import InvalidFields

BOOKING_METHODS = frozenset({"", "PUBLISH", "REQUEST"})
"""iTIP methods (RFC 5546) that announce events; the others answer or take back."""
_FURNITURE = frozenset({"VTIMEZONE"})


@dataclass(slots=True)
class Candidate:
    """An event of the file: the booking it asks for, or the reason why it asks for none."""

    event: Event
    command: BookAppointment | None = None
    reason: str = ""

    def refuse(self, reason: str) -> None:
        """Keep the reason that was there first."""
        self.command, self.reason = None, self.reason or reason


def read(text: str, scope: Scope) -> Iterator[Item]:
    """The items of an iCalendar file, in its order; raises `FileRefused` after those that stand before the break."""
    entries: list[Candidate | Refusal] = []
    broken: FileRefused | None = None
    try:
        for top in components(text):
            entries += _entries(top, scope)
    except FileRefused as refused:
        broken = refused
    _settle([entry for entry in entries if isinstance(entry, Candidate)])
    for entry in entries:
        yield entry if isinstance(entry, Refusal) else _item(entry, scope)
    if broken is not None:
        raise broken


def _entries(top: Component, scope: Scope) -> Iterator[Candidate | Refusal]:
    """The events of one outermost component: a VCALENDAR, or an event that stands alone."""
    if top.name != "VCALENDAR":
        yield _entry(top, Zones(scope.default_zone), scope, "")
        return
    zones = Zones.of(top, scope.default_zone)
    given = top.properties()[0].get("METHOD", [])
    method = given[0].value.strip().upper() if given else ""
    for inner in top.inner:
        if inner.name not in _FURNITURE:
            yield _entry(inner, zones, scope, method)
    if not top.closed:
        yield Refusal(scope.source, "", "", f"line {top.line}: the file breaks off inside this VCALENDAR")


def _entry(component: Component, zones: Zones, scope: Scope, method: str) -> Candidate | Refusal:
    if component.name != "VEVENT":
        reason = f"{label(component.name) or 'a component without a name'} is not an event"
        return Refusal(scope.source, f"line {component.line}", "", reason)
    candidate = Candidate(Event(component, zones))
    try:
        candidate.command = candidate.event.command(scope.calendar)
    except InvalidFields as refused:
        candidate.refuse(refused.detail)
    except Exception as fault:  # the parser is not ours and its input not trusted: one event must not stop the file
        candidate.refuse(f"cannot be read: {type(fault).__name__}")
    if method not in BOOKING_METHODS:
        candidate.refuse(f"METHOD is {label(method)}: it books nothing")
    return candidate


def _settle(candidates: list[Candidate]) -> None:
    """Decide between the events of one UID."""
    series: dict[str, list[Candidate]] = defaultdict(list)
    same: dict[tuple[str, ...], list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        event = candidate.event
        if event.uid is not None:
            series[event.uid].append(candidate)
            same["uid", event.uid, event.recurrence_id or ""].append(candidate)
        elif candidate.command is not None:
            same["content", event.key(candidate.command)].append(candidate)
    for revisions in same.values():
        _keep_latest(revisions)
    for group in series.values():
        _refuse_changed_series(group)


def _keep_latest(revisions: list[Candidate]) -> None:
    if len(revisions) == 1:
        return
    latest = max(candidate.event.revision for candidate in revisions)
    current = [candidate for candidate in revisions if candidate.event.revision == latest]
    for candidate in revisions:
        if candidate.event.revision != latest:
            candidate.refuse("a later revision of this event stands in the file")
    if any(candidate.command != current[0].command for candidate in current):
        for candidate in current:
            candidate.refuse(f"this UID stands for {len(current)} different events in the file")
    for candidate in current[1:]:
        candidate.refuse("the same event stands in the file before")


def _refuse_changed_series(group: list[Candidate]) -> None:
    changes = [candidate for candidate in group if candidate.event.recurrence_id is not None]
    if not changes or len(changes) == len(group):
        return
    for candidate in group:
        if candidate.event.recurrence_id is None:
            candidate.refuse(f"a series with {len(changes)} changed occurrences: a booking cannot carry them")
        else:
            candidate.refuse("changes an occurrence of a series in this file: a booking cannot carry that")


def _item(candidate: Candidate, scope: Scope) -> Item:
    event = candidate.event
    if candidate.command is None:
        return Refusal(scope.source, event.name, label(event.summary), printable(candidate.reason))
    return Intake(event.key(candidate.command), candidate.command, scope.source, event.name)
