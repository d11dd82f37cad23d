"""One appointment in a world that answers as it likes, and what must hold after every single turn of it."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from given_when_then import DEPOSIT, ID, NOTIFY, T0, THREE, with_calendar

from domain import events as e
from domain.appointment import Appointment
from domain.commands import Request
from domain.definition import SagaPlan
from domain.errors import CommandRefused
from domain.evolve import evolve
from domain.lifecycle import ENDED, SETTLED
from saga.inputs import Asked, CallEnded, Due, Hold, Input, Read, ReadEnded, Turn, Write, open_gates
from saga.process import Launch, View, next_move
from saga.turn import turn


def plan_of(resend: bool, lookup: bool, settle_ms: int, paid: str) -> SagaPlan:
    """Three steps; `paid` says what may be done when the outcome of the middle one is unknown."""
    deposit = DEPOSIT.model_copy(
        update={"resend": paid == "resend", "lookup": paid == "lookup", "settle_ms": settle_ms}
    )
    plan = THREE.model_copy(update={"steps": (THREE.steps[0], deposit, NOTIFY), "deadline_ms": 20_000})
    return with_calendar(plan, resend=resend, lookup=lookup, settle_ms=settle_ms)


@dataclass
class World:
    """Gives inputs to one appointment and checks each turn."""

    plan: SagaPlan
    now: datetime = T0
    state: Appointment = field(default_factory=lambda: Appointment(ID))
    last: Turn = field(default_factory=lambda: Turn(Appointment(ID)))
    calls: tuple[Write, ...] = ()
    reads: tuple[tuple[Read, datetime], ...] = ()
    holds: dict[str, str] = field(default_factory=dict)
    confirmations: int = 0
    ends: int = 0
    late: int = 0
    rebookings: int = 0
    keys: int = 0

    def copy(self) -> "World":
        """The same world, to go another way from here."""
        return replace(self, holds=dict(self.holds))

    def gates(self, lane: str) -> Hold | None:
        match self.holds.get(lane):
            case "circuit_open":
                return Hold("circuit_open", self.now + timedelta(seconds=5))
            case "busy":
                return Hold("busy")
        return None

    def ask(self, command: Any, key: str = "fresh") -> None:
        """Give a command; a refusal records nothing."""
        before = self.state
        self.keys += 1
        try:
            self.give(Asked(command, Request(key=f"key-{self.keys}" if key == "fresh" else key)))
        except CommandRefused:
            assert self.state is before

    def call_ends(self, outcome: Any, pick: int = -1) -> None:
        """The call in flight (-1), or one before it, answers."""
        call = self.calls[max(pick, -len(self.calls))]
        self.give(CallEnded(call.step, call.operation, call.operation_id, call.attempt, outcome))

    def read_ends(self, outcome: Any, pick: int = -1) -> None:
        """A read that is under way answers."""
        asked, began = self.reads[max(pick, -len(self.reads))]
        self.reads = tuple(read for read in self.reads if read != (asked, began))
        self.give(ReadEnded(asked.step, asked.purpose, outcome, began))

    def due(self) -> None:
        """The due time comes."""
        assert self.last.wake is not None
        self.now = max(self.now, self.last.wake.at)
        self.give(Due())

    def give(self, given: Input) -> None:
        before = self.state
        turned = turn(before, given, self.now, self.plan, self.gates)
        if turned.idle:
            assert turned.state == before
            return
        self.replayed(before, turned)
        self.state, self.last = turned.state, turned
        if isinstance(turned.effect, Write):
            assert turned.state.in_flight is not None
            self.calls = (*self.calls[-1:], turned.effect)
        elif isinstance(turned.effect, Read):
            self.reads = (*self.reads[-1:], (turned.effect, self.now))
        self.nobody_is_forgotten(turned)
        self.nothing_spins(given, turned)
        self.ends_once(turned)

    def replayed(self, before: Appointment, turned: Turn) -> None:
        """Versions go up by one, and each decision follows again from the state before it."""
        state = before
        for place, event in enumerate(turned.events):
            after = turned.events[place - 1] if place else None
            told_so = isinstance(event, e.AppointmentParked) and isinstance(after, e.CallbackReceived)
            if isinstance(event, e.DECISIONS) and not told_so:
                again = next_move(View(state, event.at, self.plan, open_gates))
                assert (again.event if isinstance(again, Launch) else again) == event
            state = evolve(state, event)
            assert state.version == before.version + place + 1
        assert state == turned.state

    def nobody_is_forgotten(self, turned: Turn) -> None:
        state = turned.state
        if state.state in SETTLED or state.parked:
            assert turned.wake is None
            assert turned.effect is None
        else:
            assert turned.wake is not None

    def nothing_spins(self, given: Input, turned: Turn) -> None:
        """A due time that brought nothing is not due again at once, unless a lane will say when it is free."""
        wake = turned.wake
        if isinstance(given, Due) and not turned.events and turned.effect is None and wake is not None:
            assert wake.at > self.now or (wake.lane and (wake.deadline_at is None or wake.deadline_at > self.now))

    def ends_once(self, turned: Turn) -> None:
        self.late += sum(isinstance(event, e.LateSuccess) for event in turned.events)
        self.ends += sum(isinstance(event, e.AppointmentFailed | e.AppointmentCancelled) for event in turned.events)
        self.confirmations += sum(isinstance(event, e.AppointmentConfirmed) for event in turned.events)
        assert self.ends <= 1 + self.late
        self.rebookings += sum(isinstance(event, e.RebookingRequested) for event in turned.events)
        assert self.confirmations <= 1 + self.rebookings
        if turned.state.state in ENDED:
            assert turned.state.reason is not None
