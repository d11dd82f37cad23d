"""One pure turn: (state, input, now, plan, gates) to (events, effect, wake). Plain data in, plain data out."""

from datetime import datetime, timedelta
from typing import assert_never

from domain import events as e
from domain.appointment import Appointment
from domain.decide import decide
from domain.definition import SagaPlan
from domain.errors import HistoryError
from domain.evolve import evolve
from domain.provider import Found, Retryable, Unknown
from saga.inputs import Asked, CalledBack, CallEnded, Due, Gates, Input, ReadEnded, Turn, Wake, open_gates
from saga.interpret import call_ended, called_back, read_ended
from saga.process import Launch, View, next_move

DECISIONS_MAX = 50


def turn(state: Appointment, given: Input, now: datetime, plan: SagaPlan, gates: Gates = open_gates) -> Turn:
    """Decide what `given` comes to. Raises `CommandRefused` (nothing recorded) and `HistoryError` (a broken stream)."""
    facts, replayed = _facts(state, given, now, plan)
    if not facts and not isinstance(given, Due | ReadEnded):
        return Turn(state, replayed=replayed, idle=True)
    events = list(facts)
    for fact in facts:
        state = evolve(state, fact)
    not_before = _poll_not_before(given, facts, now, plan)
    for _ in range(DECISIONS_MAX):
        move = next_move(View(state, now, plan, gates, not_before))
        match move:
            case None:
                return Turn(state, tuple(events))
            case Wake():
                return Turn(state, tuple(events), wake=move)
            case Launch(effect=effect, event=started):
                if started is not None:
                    events.append(started)
                    state = evolve(state, started)
                until = state.in_flight.until if state.in_flight else now + timedelta(milliseconds=effect.timeout_ms)
                return Turn(state, tuple(events), effect, Wake(until, effect.target))
            case e.Event():
                events.append(move)
                state = evolve(state, move)
            case _:
                assert_never(move)
    raise HistoryError(f"{state.id}: no rest after {DECISIONS_MAX} decisions")


def _facts(state: Appointment, given: Input, now: datetime, plan: SagaPlan) -> tuple[tuple[e.Event, ...], bool]:
    match given:
        case Asked(command=command, request=request):
            decided = decide(state, command, request, now, plan)
            return decided.events, decided.replayed
        case CallEnded():
            return call_ended(state, given, now, plan), False
        case ReadEnded():
            return read_ended(state, given, now, plan), False
        case CalledBack():
            return called_back(state, given, now, plan), False
        case Due():
            flight = state.in_flight
            if flight is None:
                return (), False
            return (e.CallInterrupted(at=now, step=flight.step, operation=flight.operation),), False
        case _:
            assert_never(given)


def _poll_not_before(given: Input, facts: tuple[e.Event, ...], now: datetime, plan: SagaPlan) -> datetime | None:
    """A poll that brought no news leaves no event, only a later due time."""
    if facts or not isinstance(given, ReadEnded):
        return None
    match given.outcome:
        case Found(poll_after_ms=wait_ms) | Retryable(retry_after_ms=wait_ms) | Unknown(retry_after_ms=wait_ms):
            return now + timedelta(milliseconds=wait_ms or plan.step(given.step).poll_ms)
        case _:
            return now + timedelta(milliseconds=plan.step(given.step).poll_ms)
