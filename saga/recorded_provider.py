"""A provider that answers as the record says it did, in the record's own time; what it must guess, it counts as such.

Stands in for every target of a saga: the calendar's provider and the services behind further steps.
"""

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from domain.provider import (
    BookingDetails,
    BookingStatus,
    Call,
    Capabilities,
    Confirmed,
    Found,
    Missing,
    Page,
    Pending,
    Provider,
    ProviderBooking,
    ReadOutcome,
    Rejected,
    Retryable,
    Unknown,
    WriteOutcome,
)
from saga.clock import Clock
from saga.definition import StepCall
from saga.recording import Answer, Recording

NEAR = timedelta(minutes=5)
"""How far in time another appointment's call may lie to tell how a target behaved."""
NEIGHBOURS_LOOKED_AT = 32
AT_ONCE = timedelta(milliseconds=1)
LATE = timedelta(milliseconds=400)
"""An answer may have been recorded so long after its time: less than a call may overrun."""
SETTLING = (Confirmed, Pending, Rejected)
"""Answers that a repeat of the call would have got as well."""
USUAL = timedelta(milliseconds=50)
"""How long a call takes of which nothing is known."""


class Source(StrEnum):
    """Where an answer came from."""

    RECORDED = "recorded"
    NEIGHBOURS = "neighbours"
    ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class _Given:
    """A write as it went this time: which answer it got, when it began, and what it made of the appointment's own."""

    operation_id: str
    place: int
    answer: Answer
    began: datetime
    cut: bool
    """Its caller did not wait for the answer."""
    source: Source
    own: ProviderBooking | None
    """The booking as this appointment has it, where the answer is another's."""


class Record:
    """All recorded answers, by operation and by target; what the reruns of one log share."""

    def __init__(self, recordings: Iterable[Recording]) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self._by_target: dict[tuple[str, str], list[tuple[datetime, str, Answer]]] = {}
        for recording in recordings:
            self.answers.update(recording.answers)
            for operation_id, answers in recording.answers.items():
                near = self._by_target.setdefault(recording.targets[operation_id], [])
                near.extend((answer.began, operation_id, answer) for answer in answers)
        for near in self._by_target.values():
            near.sort(key=lambda one: one[:2])

    def nearest(self, target: str, operation: str, operation_id: str, at: datetime) -> Answer | None:
        """What another call of this kind got nearest in time; None when none is near.

        A refusal for good is about its own booking, and a cut-off wait about its own patience: neither is passed on.
        """
        near = self._by_target.get((target, operation), [])
        here = bisect_left(near, at, key=lambda one: one[0])
        around = near[max(here - NEIGHBOURS_LOOKED_AT, 0) : here + NEIGHBOURS_LOOKED_AT]
        others = [
            answer
            for began, whose, answer in around
            if whose != operation_id and abs(began - at) <= NEAR and not isinstance(answer.outcome, Rejected)
        ]
        return min(others, key=lambda answer: abs(answer.began - at), default=None)


class RecordedProvider(Provider):
    """Answers one rerun. `target` is the lane that it stands for."""

    def __init__(self, target: str, record: Record, clock: Clock, counts: Counter[Source]) -> None:
        self.name, self.capabilities = target, Capabilities()
        self._record, self._clock, self._counts = record, clock, counts
        self._tries: Counter[str] = Counter()
        self._last: dict[str, _Given] = {}
        """The last write of each operation."""
        self._latest: dict[str, _Given] = {}
        """The write for each appointment from which follows what reads see."""

    # -- writes --------------------------------------------------------------------------------------------------

    async def create(self, call: Call, details: BookingDetails) -> WriteOutcome:
        return await self.write("action", call, details)

    async def cancel(self, call: Call, calendar: str, provider_ref: str) -> WriteOutcome:
        return await self.write("compensation", call, None)

    async def reschedule(
        self, call: Call, provider_ref: str, etag: str | None, details: BookingDetails
    ) -> WriteOutcome:
        return await self.write("reschedule", call, details)

    async def act(self, asked: StepCall) -> WriteOutcome:
        """The action of a further step."""
        return await self.write("action", asked.call, None)

    async def undo(self, asked: StepCall) -> WriteOutcome:
        """The compensation of a further step."""
        return await self.write("compensation", asked.call, None)

    async def look(self, asked: StepCall) -> ReadOutcome:
        """The look-up of a further step."""
        return await self.find(asked.call, "")

    def called(self, client_ref: str) -> bool:
        """Whether anything was sent for an appointment: before that nobody can call back about it."""
        return client_ref in self._latest

    async def write(self, operation: str, call: Call, details: BookingDetails | None) -> WriteOutcome:
        """Answer as recorded, or as well as can be guessed."""
        now, place = self._clock.now(), self._tries[call.operation_id]
        answer, source = self._answer(operation, call, details, now)
        patience, recorded_patience = (timedelta(milliseconds=ms) for ms in (call.timeout_ms, answer.timeout_ms))
        timed_out = isinstance(answer.outcome, Unknown) and answer.took >= recorded_patience
        if timed_out and patience > recorded_patience and source is Source.RECORDED:
            # That it did not come in time is recorded; that it would not have come later is not.
            source = Source.ASSUMED
        cut = answer.took > patience and patience < recorded_patience
        own = _made(call, details) if details is not None and source is Source.NEIGHBOURS else None
        given = _Given(call.operation_id, place, answer, now, cut, source, own)
        self._tries[call.operation_id] += not (cut and isinstance(answer.outcome, SETTLING))
        self._last[call.operation_id] = given
        if call.client_ref not in self._latest or _shows(answer, source):
            self._latest[call.client_ref] = given
        self._counts[source] += 1
        until = patience if cut or (timed_out and patience > recorded_patience) else min(answer.took, patience + LATE)
        await asyncio.sleep(until.total_seconds())
        return Unknown(reason="timeout") if cut else _mine(answer.outcome, own)

    def _answer(
        self, operation: str, call: Call, details: BookingDetails | None, now: datetime
    ) -> tuple[Answer, Source]:
        own = self._record.answers.get(call.operation_id, [])
        place = self._tries[call.operation_id]
        before = self._last.get(call.operation_id)
        if before is not None and before.cut and isinstance(before.answer.outcome, SETTLING):
            # The earlier call went on without its caller: this one waits for what is left of it, and hears the same.
            left = max(before.began + before.answer.took - now, AT_ONCE)
            outcome = before.answer.outcome
            if isinstance(outcome, Confirmed):
                outcome = outcome.model_copy(update={"replayed": True})
            return replace(before.answer, took=left, outcome=outcome), Source.RECORDED
        if place < len(own):
            return own[place], Source.RECORDED
        near = self._record.nearest(self.name, operation, call.operation_id, now)
        if near is not None:
            return near, Source.NEIGHBOURS
        if own:
            return own[-1], Source.ASSUMED
        booking = _made(call, details) if details is not None else None
        return Answer(now, USUAL, call.timeout_ms, Confirmed(booking=booking)), Source.ASSUMED

    # -- reads ---------------------------------------------------------------------------------------------------

    async def get(self, call: Call, calendar: str, provider_ref: str) -> ReadOutcome:
        return await self.find(call, calendar)

    async def find(self, call: Call, calendar: str) -> ReadOutcome:
        given = self._latest.get(call.client_ref)
        if given is None:
            self._counts[Source.ASSUMED] += 1
            return Missing()
        outcome, took, source = self._seen(given)
        self._counts[source] += 1
        await asyncio.sleep(min(took, timedelta(milliseconds=call.timeout_ms)).total_seconds())
        return _mine(outcome, given.own)

    def _seen(self, given: _Given) -> tuple[ReadOutcome, timedelta, Source]:
        passed, sights = self._clock.now() - given.began, given.answer.sights
        seen = [sight for sight in sights if sight.after <= passed]
        if seen:
            return seen[-1].outcome, seen[-1].took, given.source
        match given.answer.outcome:
            case Pending(booking=booking):
                # What brought no news has left no event.
                return Found(booking=booking), AT_ONCE, given.source
            case Confirmed(booking=ProviderBooking() as booking) if passed >= given.answer.took:
                return Found(booking=booking), USUAL, Source.ASSUMED
            case Retryable() | Unknown() if sights:
                return sights[0].outcome, sights[0].took, given.source
            case Unknown():
                later = self._record.answers.get(given.operation_id, [])[given.place + 1 :]
                return _told_later(later), USUAL, Source.ASSUMED
            case _:
                return Missing(), USUAL, Source.ASSUMED

    async def listing(self, call: Call, calendar: str, token: str | None = None, limit: int = 100) -> Page:
        return Page(bookings=())

    async def close(self) -> None:
        return


def _shows(answer: Answer, source: Source) -> bool:
    """Whether reads see something else from this answer on: not when nothing was applied, nor on a stranger's doubt."""
    own = source is not Source.NEIGHBOURS
    return isinstance(answer.outcome, Confirmed | Pending) or (
        own and (bool(answer.sights) or isinstance(answer.outcome, Unknown))
    )


def _told_later(answers: Sequence[Answer]) -> ReadOutcome:
    """What later answers say of a call whose own outcome was unknown: a repeat that changed nothing found it there."""
    for answer in answers:
        match answer.outcome:
            case Confirmed(replayed=True, booking=ProviderBooking() as booking) | Pending(booking=booking):
                return Found(booking=booking)
            case Confirmed() | Rejected():
                return Missing()
        for sight in answer.sights:
            if isinstance(sight.outcome, Found | Missing):
                return sight.outcome
    return Missing()


Outcome = TypeVar("Outcome", WriteOutcome, ReadOutcome)


def _mine(outcome: Outcome, own: ProviderBooking | None) -> Outcome:
    """Another's answer as this appointment gets it: what it says of a booking is said of its own."""
    if own is None or not isinstance(outcome, Confirmed | Pending | Found) or outcome.booking is None:
        return outcome
    told = outcome.booking
    return outcome.model_copy(update={"booking": own.model_copy(update={"status": told.status})})


def _made(call: Call, details: BookingDetails) -> ProviderBooking:
    return ProviderBooking(
        provider_ref=f"what-if-{call.client_ref}",
        client_ref=call.client_ref,
        status=BookingStatus.ACCEPTED,
        start=details.start,
        end=details.end,
    )
