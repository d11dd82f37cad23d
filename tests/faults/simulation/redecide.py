"""Decide again: from the recorded facts of each turn, the recorded decisions must follow."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from uuid import UUID

from domain import events as e
from domain.appointment import Appointment, evolve
from domain.definition import SagaPlan
from domain.errors import HistoryError
from saga.inputs import Hold
from saga.process import Launch, View, next_move


def turns(events: Sequence[e.Event]) -> Iterator[tuple[e.Event, ...]]:
    """The events of one turn share their instant; should two turns share it too, a call or a new fact parts them."""
    begin = 0
    for end in range(1, len(events) + 1):
        if end == len(events) or events[end].at != events[begin].at or _parts(events[end - 1], events[end]):
            yield tuple(events[begin:end])
            begin = end


def _parts(before: e.Event, after: e.Event) -> bool:
    if isinstance(before, e.StepStarted | e.CallDeferred):
        return True
    return isinstance(before, e.DECISIONS) and isinstance(after, e.FACTS) and not isinstance(after, e.CallDeferred)


def redecide(
    appointment: UUID, events: Sequence[e.Event], plan: SagaPlan, held: set[tuple[str, datetime]]
) -> list[str]:
    """Every divergence. `held` says when a lane let nothing through without a word in the log."""
    state, divergences = Appointment(appointment), list[str]()
    for turn in turns(events):
        try:
            evolved = _fold(state, turn)
        except HistoryError as fault:
            return [*divergences, f"{appointment} cannot be folded: {fault}"]
        facts, decisions = split(turn)
        divergence = _follow(_fold(state, facts), decisions, plan, held)
        if divergence:
            divergences.append(
                f"{appointment} at {turn[0].at:%H:%M:%S.%f}, after version {state.version}: {divergence}"
            )
        state = evolved
    return divergences


def _fold(state: Appointment, events: tuple[e.Event, ...]) -> Appointment:
    for event in events:
        state = evolve(state, event)
    return state


def split(turn: tuple[e.Event, ...]) -> tuple[tuple[e.Event, ...], tuple[e.Event, ...]]:
    """Facts come first. A gate's answer is a fact that a decision asked for; a callback may park."""
    at = 0
    while at < len(turn):
        told = isinstance(turn[at], e.AppointmentParked) and at > 0 and isinstance(turn[at - 1], e.CallbackReceived)
        if not told and (not isinstance(turn[at], e.FACTS) or isinstance(turn[at], e.CallDeferred)):
            break
        at += 1
    return turn[:at], turn[at:]


def _follow(state: Appointment, decisions: tuple[e.Event, ...], plan: SagaPlan, held: set[tuple[str, datetime]]) -> str:
    now = state.updated_at
    if decisions:
        now = decisions[0].at
    assert now is not None
    for recorded in decisions:

        def gates(_target: str, recorded: e.Event = recorded) -> Hold | None:
            return Hold("circuit_open", recorded.until) if isinstance(recorded, e.CallDeferred) else None

        move = next_move(View(state, now, plan, gates))
        decided = move.event if isinstance(move, Launch) else move
        if decided != recorded:
            return f"recorded {recorded!r}, decided {decided!r}"
        state = evolve(state, recorded)
        if isinstance(move, Launch):
            return "" if recorded is decisions[-1] else f"events after {recorded.type}"
    move = next_move(View(state, now, plan, lambda _target: None))
    if isinstance(move, e.Event):
        return f"recorded nothing more, decided {move!r}"
    if isinstance(move, Launch) and move.event is not None and (move.effect.target, now) not in held:
        return f"recorded nothing more, decided {move.event!r}"
    return ""
