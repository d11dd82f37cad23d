"""Shadow: what this system would have made of the legacy system's traffic. It calls nobody and writes nothing.

Owns the judgement. Each wish is decided by the same pure heart that books, on a virtual clock, with the answers that
the provider gave the legacy system then.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import Field

from appointments.migration.traffic import BROKEN, Record, Wish
from domain.commands import BookAppointment, Request, parse
from domain.definition import SagaPlan
from domain.errors import InvalidFields
from domain.events import Operation
from domain.identity import appointment_id, operation_id
from domain.lifecycle import State
from domain.provider import (
    BookingStatus,
    Confirmed,
    Found,
    Missing,
    Pending,
    ProviderBooking,
    Rejected,
    Retryable,
    Unknown,
    Value,
    WriteOutcome,
)
from saga.changes import Changes
from saga.inputs import Asked
from saga.lanes import LimitPolicy
from saga.recorded_provider import Source
from saga.recording import Answer, End, Recording, Sight
from saga.what_if import rerun

EXAMPLES_MAX = 5
NO_LIMIT_MS = 86_400_000
"""The legacy system's patience."""
NOT_APPLIED = (423, 425, 429)
UNKNOWN_CONTENT: dict[str, Any] = {"calendar_id": "unknown", "time_zone": "UTC", "summary": "unknown"}


class Kind(StrEnum):
    """In what both differ."""

    BOOKED_TWICE = "booked twice"
    ERROR_YET_BOOKED = "told an error, yet booked"
    TOLD_TOO_EARLY = "told booked too early"
    TOLD_FALSELY = "told booked, and it was not"
    HUNG = "left without an answer"
    REFUSED = "refused here, booked there"
    BOOKED = "booked here, not there"
    NOT_BOOKED = "not booked here, booked there"
    PARKED = "left to an operator here"


class Example(Value):
    """One wish in which both differ."""

    line: int
    at: str
    legacy: str
    ours: str


class Report(Value):
    """What a shadow has seen so far."""

    lines: int = 0
    unreadable: int = 0
    passed_over: int = 0
    """Requests that book nothing."""
    wishes: int = 0
    clicks: int = 0
    differing: int = 0
    without_content: int = 0
    """Wishes whose body was not written down: what would be refused of them is not known."""
    kinds: dict[Kind, int] = Field(default_factory=dict)
    examples: dict[Kind, tuple[Example, ...]] = Field(default_factory=dict)
    calls_legacy: int = 0
    calls_ours: int = 0
    answers: dict[Source, int] = Field(default_factory=dict)
    faults: tuple[str, ...] = ()
    """The first lines that could not be read, and why."""


@dataclass(slots=True)
class Shadow:
    """Judges wishes and keeps count. `plan` is the one that new bookings would run under."""

    plan: SagaPlan
    limits: LimitPolicy
    patience: timedelta = timedelta(seconds=10)
    """A user who has waited so long has been left without an answer."""
    _counts: Counter[str] = field(default_factory=Counter)
    _kinds: Counter[Kind] = field(default_factory=Counter)
    _answers: Counter[Source] = field(default_factory=Counter)
    _examples: dict[Kind, list[Example]] = field(default_factory=dict)
    _faults: list[str] = field(default_factory=list)

    def line(self, fault: str | None = None, passed_over: bool = False) -> None:
        """A line was read."""
        self._counts["lines"] += 1
        self._counts["passed_over"] += passed_over
        if fault is not None:
            self._counts["unreadable"] += 1
            if len(self._faults) < EXAMPLES_MAX:
                self._faults.append(fault)

    def judge(self, wishes: Sequence[Wish]) -> None:
        """Decide what was wanted, all of it in its own time. Runs an event loop of its own; not for a coroutine."""
        refused: dict[int, str] = {}
        recordings: dict[int, Recording] = {}
        for wish in wishes:
            try:
                recordings[wish.line] = self._recording(wish)
            except InvalidFields as fault:
                refused[wish.line] = fault.detail
        course = rerun(list(recordings.values()), {self.plan.digest: self.plan}, Changes(), self.limits)
        booking_call = f"{self.plan.booking_step.name} {Operation.ACTION}"
        self._counts["calls_ours"] += course.calls[booking_call]
        self._answers.update(course.answers)
        for wish in wishes:
            recording = recordings.get(wish.line)
            end = course.ends.get(recording.id) if recording else None
            self._tell(wish, end, refused.get(wish.line))

    def report(self) -> Report:
        """What was seen so far."""
        examples = {kind: tuple(self._examples[kind]) for kind in Kind if kind in self._examples}
        kinds = {kind: self._kinds[kind] for kind in Kind if self._kinds[kind]}
        answers = {source: self._answers[source] for source in Source}
        told = {"kinds": kinds, "examples": examples, "answers": answers, "faults": tuple(self._faults)}
        return Report.model_validate({**self._counts, **told})

    def _recording(self, wish: Wish) -> Recording:
        first = wish.clicks[0]
        command = _command(first)
        id = appointment_id("shadow", f"{first.at.isoformat()} {wish.line}")
        call = operation_id(id, self.plan.booking_step.name, Operation.ACTION)
        made = Recording(id, self.plan.digest, command.calendar)
        # The further clicks carry the same key: they come to nothing.
        made.asked.append((first.at, Asked(command, Request(tenant="shadow", key=str(wish.line)))))
        made.answers[call] = _answers(wish, id)
        made.targets[call] = (self.plan.booking_step.target, Operation.ACTION)
        return made

    def _tell(self, wish: Wish, end: End | None, refusal: str | None) -> None:
        kinds = set(self._legacy_wrongs(wish)) | _other_end(wish, end, refusal)
        self._counts.update(wishes=1, clicks=len(wish.clicks), calls_legacy=len(wish.clicks), differing=bool(kinds))
        self._counts["without_content"] += wish.clicks[0].body is None
        self._kinds.update(kinds)
        legacy = ", ".join(f"{click.heard} ({click.status or 'no answer'})" for click in wish.clicks)
        ours = f"refused: {refusal}" if refusal else str(end)
        made = f"{legacy}; {len(wish.bookings)} bookings"
        example = Example(line=wish.line, at=wish.clicks[0].at.isoformat(), legacy=made, ours=ours)
        for kind in kinds:
            shown = self._examples.setdefault(kind, [])
            if len(shown) < EXAMPLES_MAX:
                shown.append(example)

    def _legacy_wrongs(self, wish: Wish) -> list[Kind]:
        """What was told or done there that would not be here, whatever the end."""
        wrongs = [Kind.BOOKED_TWICE] if len(wish.bookings) > 1 else []
        for click in wish.clicks:
            waited = timedelta(milliseconds=click.duration_ms or 0)
            if click.heard == "hung" or waited > self.patience:
                wrongs.append(Kind.HUNG)
            if click.heard in BROKEN and click.made is not None:
                wrongs.append(Kind.ERROR_YET_BOOKED)
            if click.heard == "booked" and click.status == 202:
                wrongs.append(Kind.TOLD_FALSELY if click.settled in ("rejected", "cancelled") else Kind.TOLD_TOO_EARLY)
        return wrongs


def _other_end(wish: Wish, end: End | None, refusal: str | None) -> set[Kind]:
    there = any(click.made is not None and click.settled in (None, "accepted") for click in wish.clicks)
    if refusal is not None:
        return {Kind.REFUSED} if there else set()
    if end is None or end.parked:
        return {Kind.PARKED}
    if (end.state is State.CONFIRMED) == there:
        return set()
    return {Kind.NOT_BOOKED if there else Kind.BOOKED}


def _command(record: Record) -> BookAppointment:
    """The command that the request would have been. Raises `InvalidFields`."""
    if record.body is None:
        start = record.at + timedelta(days=30)
        fields = UNKNOWN_CONTENT | {"start": start, "end": start + timedelta(hours=1)}
    else:
        fields = dict(record.body)
    fields["calendar"] = fields.pop("calendar_id", None)
    return parse(BookAppointment, {name: value for name, value in fields.items() if value is not None})


def _answers(wish: Wish, id: UUID) -> list[Answer]:
    """What the provider would have answered to each attempt: what it answered to the clicks, until one has booked."""
    answers: list[Answer] = []
    for click in wish.clicks:
        took = timedelta(milliseconds=NO_LIMIT_MS if click.status is None else click.duration_ms or 0)
        booking = _booking(click, id)
        sight = Sight(timedelta(0), Found(booking=booking) if booking else Missing())
        answers.append(Answer(click.at, took, NO_LIMIT_MS, _outcome(click, booking), [sight] if booking else []))
        if booking is not None:
            # An attempt after that carries the same key: it is told of the same booking.
            again = Confirmed(booking=booking, replayed=True)
            answers.append(Answer(click.at, timedelta(milliseconds=1), NO_LIMIT_MS, again, [sight]))
            break
    return answers


def _booking(click: Record, id: UUID) -> ProviderBooking | None:
    if click.made is None:
        return None
    status = BookingStatus(click.settled) if click.settled else BookingStatus.ACCEPTED
    return ProviderBooking(provider_ref=click.made, client_ref=str(id), status=status)


def _outcome(click: Record, booking: ProviderBooking | None) -> WriteOutcome:
    status, reason = click.status, f"{click.status or 'no answer'}"
    if booking is not None and status == 202:
        return Pending(booking=booking.model_copy(update={"status": BookingStatus.PENDING}))
    if booking is not None and status is not None and status // 100 == 2 and click.heard == "booked":
        return Confirmed(booking=booking)
    if status is None or status >= 500 or status == 408 or status < 400:
        return Unknown(reason=reason)
    if status in NOT_APPLIED:
        return Retryable(reason=reason, throttled=status != 425)
    return Rejected(reason=reason, conflict=status == 409)
