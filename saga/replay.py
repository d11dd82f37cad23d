"""Audit replay: the process manager decides again on the recorded facts, and each recorded decision is compared.

Owns the verdict on one stream. It judges what is there and raises nothing for it: a stream that cannot be read, or
that tells of what cannot be, is a finding with a version.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic_core import to_jsonable_python

from domain import events as e
from domain.appointment import Appointment, Progress
from domain.definition import SagaPlan
from domain.errors import HistoryError, UnknownAppointment
from domain.evolve import evolve
from domain.personal import ERASED
from domain.provider import Value
from saga.inputs import CalledBack, Hold
from saga.interpret import called_back
from saga.process import Launch, View, next_move
from store.mapper import decode
from store.port import RecordedEvent

Told = tuple[int, e.Event]
"""An event with its version."""
ANSWERS = (e.StepSucceeded, e.StepPending, e.StepAttemptFailed, e.CallInterrupted)


class BrokenAt(Value):
    """The hash chain does not hold from this version on."""

    broken_at: int


class Divergence(Value):
    """What the log says and what follows from it, where the two differ. Fields that agree are left out."""

    version: int
    expected: dict[str, Any] | None
    """What was decided again; None: nothing, or nothing that can be said."""
    found: dict[str, Any] | None
    """What was recorded; None: nothing."""
    detail: str


class Replay(Value):
    """The verdict on one stream. `decisions` counts those that were decided again and compared."""

    appointment: UUID
    events: int
    decisions: int
    matches: bool
    divergences: tuple[Divergence, ...] = ()
    chain: Literal["ok"] | BrokenAt = "ok"

    @property
    def ok(self) -> bool:
        """Every decision follows, and nothing was changed since."""
        return self.matches and self.chain == "ok"


def replay(
    recorded: Sequence[RecordedEvent],
    plan: SagaPlan | HistoryError,
    held: AbstractSet[tuple[str, datetime]] | None = None,
    broken_at: int | None = None,
) -> Replay:
    """Judge a whole stream, in order of version. Raises `UnknownAppointment` for an empty one.

    `plan`: the definition that the stream names, or why there is none. `held`: (target, instant) at which a lane let
    nothing through without a word in the log; where that is not known, a call that was not made is no divergence.
    `broken_at`: the verdict on the hash chain.
    """
    if not recorded:
        raise UnknownAppointment("there is no such appointment: its stream is empty")
    again = _Again(recorded[0].stream_id, held)
    events = tuple(again.read(recorded))
    if isinstance(plan, SagaPlan):
        again.judge(events, plan)
    elif events:  # else it has been told already that the first event, which names the plan, cannot be read
        again.diverges(1, None, None, str(plan))
    return Replay(
        appointment=recorded[0].stream_id,
        events=len(recorded),
        decisions=again.decisions,
        matches=not again.divergences,
        divergences=tuple(sorted(again.divergences, key=lambda one: one.version)),
        chain="ok" if broken_at is None else BrokenAt(broken_at=broken_at),
    )


def turns(events: Sequence[Told]) -> Iterator[Sequence[Told]]:
    """The events of one turn share their instant; should two turns share it too, a call or a new fact parts them."""
    begin = 0
    for end in range(1, len(events) + 1):
        if end == len(events) or _parts(events[end - 1][1], events[end][1]):
            yield events[begin:end]
            begin = end


def _parts(before: e.Event, after: e.Event) -> bool:
    if after.at != before.at or isinstance(before, e.StepStarted | e.CallDeferred):
        return True
    return isinstance(before, e.DECISIONS) and isinstance(after, e.FACTS) and not isinstance(after, e.CallDeferred)


class _Again:
    def __init__(self, appointment: UUID, held: AbstractSet[tuple[str, datetime]] | None) -> None:
        self.state, self.held = Appointment(appointment), held
        self.divergences: list[Divergence] = []
        self.decisions = 0

    def diverges(self, version: int, expected: e.Event | None, found: e.Event | None, detail: str) -> None:
        told, said = _fields(expected), _fields(found)
        if told is not None and said is not None and told["type"] == said["type"]:
            apart = [name for name in told if told[name] != said.get(name)]
            told, said = ({"type": one["type"], **{n: one.get(n) for n in apart}} for one in (told, said))
            detail = f"{detail}: {', '.join(apart)}"
        self.divergences.append(Divergence(version=version, expected=told, found=said, detail=detail))

    def read(self, recorded: Sequence[RecordedEvent]) -> Iterator[Told]:
        """The stream as far as it can be read."""
        for place, one in enumerate(recorded, 1):
            if one.version != place:
                self.diverges(one.version, None, None, f"version {place} was expected here, not {one.version}")
                return
            try:
                yield one.version, decode(one)
            except HistoryError as fault:
                self.diverges(one.version, None, None, str(fault))
                return

    def judge(self, events: Sequence[Told], plan: SagaPlan) -> None:
        for turn in turns(events):
            version = turn[0][0]
            try:
                rest = self._facts(turn, plan)
                for version, found in rest:
                    self._decision(version, found, plan)
                self._rest(*turn[-1], plan)
            except HistoryError as fault:
                self.diverges(self.state.version + 1, None, turn[self.state.version + 1 - turn[0][0]][1], str(fault))
                return
            except Exception as fault:
                # What was tampered with breaks what takes its facts for granted; where it does is the finding.
                self.diverges(version, None, None, f"nothing can be decided on this: {fault!r}")
                return

    def _facts(self, turn: Sequence[Told], plan: SagaPlan) -> Sequence[Told]:
        """Fold the facts, which come first; returns the decisions."""
        consequences: tuple[e.Event, ...] = ()
        before: e.Event | None = None
        for place, (version, fact) in enumerate(turn):
            if isinstance(fact, e.DECISIONS):
                # A callback may park, before anything is decided.
                told = isinstance(before, e.CallbackReceived) and any(_same(one, fact) for one in consequences)
                if not told:
                    return turn[place:]
                self.decisions += 1
            elif isinstance(fact, e.CallDeferred):
                # A gate's answer is a fact that a decision asked for.
                return turn[place:]
            elif isinstance(fact, e.CallbackReceived):
                heard = CalledBack(fact.webhook_id, fact.provider_ref, fact.status, fact.version)
                consequences = called_back(self.state, heard, fact.at, plan)
                follower = turn[place + 1][1] if place + 1 < len(turn) else None
                for one in consequences:
                    if isinstance(one, e.AppointmentParked) and not _same(one, follower or fact):
                        self.diverges(version + 1, one, None, f"{one.type} was to follow at the same instant")
            elif isinstance(fact, ANSWERS) and not self._announced(fact, before):
                self.diverges(version, None, fact, f"{fact.type} answers a call that was not announced")
            self.state = evolve(self.state, fact)
            before = fact
        return ()

    def _announced(self, fact: e.Event, before: e.Event | None) -> bool:
        """Whether a call was out, or something else than a call can have told of it."""
        flight = self.state.in_flight
        if flight is not None and (flight.step, flight.operation) == (
            getattr(fact, "step", None),
            getattr(fact, "operation", e.Operation.ACTION),
        ):
            return True
        polled = self.state.action(getattr(fact, "step", "")).progress is Progress.PENDING
        if isinstance(fact, e.StepAttemptFailed):
            return fact.kind == "rejected" and (polled or isinstance(before, e.BookingFound | e.CallbackReceived))
        match getattr(fact, "via", "call"):
            case "poll":
                return polled
            case "callback":
                return isinstance(before, e.CallbackReceived)
            case "lookup":
                return isinstance(before, e.BookingFound)
            case _:
                return False

    def _decision(self, version: int, found: e.Event, plan: SagaPlan) -> None:
        self.decisions += 1
        move = next_move(View(self.state, found.at, plan, lambda _target: _hold(found)))
        decided = move.event if isinstance(move, Launch) else move if isinstance(move, e.Event) else None
        if not _same(decided, found):
            self.diverges(version, decided, found, "another decision" if decided else "nothing was to be decided here")
        self.state = evolve(self.state, found)

    def _rest(self, version: int, last: e.Event, plan: SagaPlan) -> None:
        """After the last decision of a turn there must have been none left to take."""
        if isinstance(last, e.PersonalDataErased):
            return  # nobody decides anything on that
        move = next_move(View(self.state, last.at, plan, lambda _target: _hold(last)))
        expected = move if isinstance(move, e.Event) else None
        if isinstance(move, Launch) and self.held is not None and (move.effect.target, last.at) not in self.held:
            expected = move.event
        if expected is not None:
            self.diverges(version + 1, expected, None, f"{expected.type} was to follow at the same instant")


def _hold(recorded: e.Event) -> Hold | None:
    return Hold("circuit_open", recorded.until) if isinstance(recorded, e.CallDeferred) else None


def _same(decided: e.Event | None, found: e.Event) -> bool:
    if decided == found:
        return True
    if type(decided) is not type(found):
        return False
    return all(_agree(getattr(decided, name), getattr(found, name)) for name in type(found).model_fields)


def _agree(decided: object, found: object) -> bool:
    """A text that was erased, or that was put together from one that was, agrees with everything."""
    return decided == found or found == ERASED or (isinstance(decided, str) and ERASED in decided)


def _fields(event: e.Event | None) -> dict[str, Any] | None:
    return None if event is None else {"type": event.type, **to_jsonable_python(event.model_dump())}
