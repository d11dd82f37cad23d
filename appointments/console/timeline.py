"""One appointment's history as a drawing to scale: what was asked, every call, every wait. Pure: places, no markup.

Within a chapter time is to scale. Where nothing happened for long a new chapter begins, and the pause between them is
told in words: a move after three days would otherwise press the whole booking into one point.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from appointments.views import AuditEvent

WIDTH = 1_000.0
"""Of the drawing, in its own units."""
LANE = 30.0
PAUSE = 26.0
PAUSE_AFTER = timedelta(seconds=40)
"""The longest wait between two attempts, and a little."""
CHAPTERS_MAX = 8
TICK_MIN = 78.0
TICKS = tuple(
    timedelta(microseconds=unit * n)
    for unit, factors in ((1_000, (1, 2, 5, 10, 20, 50, 100, 200, 500)), (1_000_000, (1, 2, 5, 10, 15, 30)))
    for n in factors
)
ASKED, DECIDED, WAITING = "asked", "decided", "waiting"
OPERATIONS = {"action": "", "compensation": " (undo)", "reschedule": " (move)"}
OUTCOMES = {
    "step-succeeded": "done",
    "step-pending": "pending",
    "step-attempt-failed": "failed",
    "call-interrupted": "interrupted",
}
WAITS = {
    "retry-scheduled": ("due_at", "waits to try again"),
    "call-deferred": ("until", "waits for the breaker"),
    "step-pending": ("poll_at", "waits for the provider"),
    "booking-missing": ("look_at", "waits to look again"),
    "lookup-failed": ("look_at", "waits to look again"),
}
FACTS_ASKED = (
    "appointment-requested",
    "appointment-imported",
    "cancellation-requested",
    "reschedule-requested",
    "operator-acted",
    "booking-observed",
    "callback-received",
    "personal-data-erased",
)


@dataclass(frozen=True, slots=True)
class Mark:
    """One event."""

    version: int
    name: str
    lane: int
    x: float


@dataclass(frozen=True, slots=True)
class Bar:
    """Something that lasted: a call with its outcome, or a wait. `planned`: its end lies ahead."""

    version: int
    kind: str
    label: str
    lane: int
    x: float
    width: float
    planned: bool = False


@dataclass(frozen=True, slots=True)
class Tick:
    """A place on the scale, and how long after the chapter's beginning it is."""

    x: float
    label: str


@dataclass(frozen=True, slots=True)
class Chapter:
    """A stretch of time that is to scale; `pause` is how long nothing happened before it."""

    since: datetime
    until: datetime
    x: float
    width: float
    pause: str
    ticks: tuple[Tick, ...]

    def place(self, at: datetime) -> float:
        """Where an instant of this chapter stands."""
        whole = (self.until - self.since) / timedelta(microseconds=1)
        share = ((at - self.since) / timedelta(microseconds=1)) / whole if whole else 0.5
        return round(self.x + self.width * min(max(share, 0.0), 1.0), 2)


@dataclass(frozen=True, slots=True)
class Timeline:
    """The drawing. Lanes from top to bottom; marks and bars say by number in which they stand."""

    lanes: tuple[str, ...]
    chapters: tuple[Chapter, ...]
    bars: tuple[Bar, ...]
    marks: tuple[Mark, ...]

    @property
    def height(self) -> float:
        """Of the lanes together."""
        return LANE * len(self.lanes)


def timeline(events: Sequence[AuditEvent], next_action_at: datetime | None = None) -> Timeline:
    """Draw a trail; `next_action_at` is where it goes on by itself."""
    spans = tuple(_spans(events, next_action_at))
    chapters = _chapters(sorted({event.recorded_at for event in events} | {span.until for span in spans}), len(events))
    lanes = tuple(dict.fromkeys((ASKED, *(span.lane for span in spans if span.lane != WAITING), WAITING, DECIDED)))

    def x(at: datetime) -> float:
        return next((one for one in reversed(chapters) if one.since <= at), chapters[0]).place(at)

    bars = tuple(
        Bar(
            span.version,
            span.kind,
            span.label,
            lanes.index(span.lane),
            x(span.since),
            round(max(x(span.until) - x(span.since), 2.0), 2),
            span.planned,
        )
        for span in spans
    )
    marks = tuple(
        Mark(event.version, name, lanes.index(lane), x(event.recorded_at)) for event, name, lane in _points(events)
    )
    return Timeline(lanes, chapters, bars, marks)


@dataclass(frozen=True, slots=True)
class _Span:
    version: int
    kind: str
    label: str
    lane: str
    since: datetime
    until: datetime
    planned: bool = False


def kind_of(event: AuditEvent) -> str:
    """The name of an event's type, without the version of its form."""
    return event.type.rpartition(".")[0]


def _spans(events: Sequence[AuditEvent], next_action_at: datetime | None) -> Iterable[_Span]:
    called: AuditEvent | None = None
    for place, event in enumerate(events):
        name = kind_of(event)
        if name == "step-started":
            called = event
            if place + 1 == len(events):
                until = event.recorded_at + timedelta(milliseconds=event.data["timeout_ms"])
                yield _Span(
                    event.version, "running", _call(event, "running"), _lane(event), event.recorded_at, until, True
                )
        elif called is not None and name in OUTCOMES:
            outcome = str(event.data.get("kind", OUTCOMES[name]))
            label = _call(called, outcome, str(event.data.get("reason", "")))
            yield _Span(called.version, outcome, label, _lane(called), called.recorded_at, event.recorded_at)
            called = None
        if name in WAITS:
            field, label = WAITS[name]
            due_at = datetime.fromisoformat(event.data[field])
            after = events[place + 1].recorded_at if place + 1 < len(events) else None
            until = after or max(next_action_at or due_at, event.recorded_at)
            if until > event.recorded_at:
                yield _Span(event.version, "wait", label, WAITING, event.recorded_at, until, after is None)


def _call(started: AuditEvent, outcome: str, reason: str = "") -> str:
    operation = OPERATIONS[started.data.get("operation", "action")]
    told = f": {reason}" if reason else ""
    return f"{started.data['step']}{operation}, attempt {started.data['attempt']}: {outcome}{told}"


def _lane(started: AuditEvent) -> str:
    return f"{started.data['step']}{OPERATIONS[started.data.get('operation', 'action')]}"


def _points(events: Sequence[AuditEvent]) -> Iterable[tuple[AuditEvent, str, str]]:
    for event in events:
        name = kind_of(event)
        if name in FACTS_ASKED:
            yield event, name, ASKED
        elif name != "step-started" and name not in OUTCOMES and name not in WAITS:
            yield event, name, DECIDED


def _chapters(instants: Sequence[datetime], weight: int) -> tuple[Chapter, ...]:
    gaps = sorted(((b - a, b) for a, b in pairwise(instants) if b - a > PAUSE_AFTER), reverse=True)
    begins = sorted(at for _, at in gaps[: CHAPTERS_MAX - 1])
    bounds: list[list[datetime]] = [[]]
    for at in instants:
        if at in begins:
            bounds.append([])
        bounds[-1].append(at)
    room = WIDTH - PAUSE * (len(bounds) - 1)
    chapters: list[Chapter] = []
    x = 0.0
    for found in bounds:
        width = room * len(found) / len(instants)
        pause = _words(found[0] - chapters[-1].until) if chapters else ""
        x = chapters[-1].x + chapters[-1].width + PAUSE if chapters else 0.0
        chapters.append(_chapter(found[0], found[-1], x, width, pause))
    return tuple(chapters)


def _chapter(since: datetime, until: datetime, x: float, width: float, pause: str) -> Chapter:
    length = until - since
    step = next((tick for tick in TICKS if length and width * (tick / length) >= TICK_MIN), None)
    ticks = [Tick(round(x, 2), "0")] if length else []
    if step is not None:
        count = int(length / step)
        ticks += [Tick(round(x + width * (n * step / length), 2), f"+{_words(n * step)}") for n in range(1, count + 1)]
    return Chapter(since, until, round(x, 2), round(width, 2), pause, tuple(ticks))


def _words(span: timedelta) -> str:
    seconds = span.total_seconds()
    if seconds < 1:
        return f"{seconds * 1_000:.0f} ms"
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s"
