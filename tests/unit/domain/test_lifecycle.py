"""The table of moves: what is in it happens, what is not raises and leaves the state as it was."""

import pytest

from domain import events as e
from domain.appointment import Appointment
from domain.evolve import evolve
from domain.identity import appointment_id
from domain.lifecycle import BACKWARD, ENDED, FORWARD, MOVES, PHASES, SETTLED, IllegalMove, State, move

ILLEGAL = [(state, event) for state in State for event in e.REGISTRY.values() if event not in MOVES[state]]
LEGAL = [(state, event, after) for state, row in MOVES.items() for event, after in row.items()]


def names(value: object) -> str:
    return value.__name__ if isinstance(value, type) else str(value)


@pytest.mark.parametrize(("state", "event"), ILLEGAL, ids=names)
def test_what_is_not_in_the_table_raises_and_changes_nothing(state: State, event: type[e.Event]) -> None:
    with pytest.raises(IllegalMove, match=f"{event.type} is not legal in state {state}"):
        move(state, event)
    before = Appointment(appointment_id("default", "k"), version=7, state=state)
    with pytest.raises(IllegalMove):
        evolve(before, event.model_construct())
    assert before == Appointment(before.id, version=7, state=state)


@pytest.mark.parametrize(("state", "event", "after"), LEGAL, ids=names)
def test_what_is_in_the_table_leads_where_it_says(state: State, event: type[e.Event], after: State) -> None:
    assert move(state, event) is after


def test_every_state_has_a_row_and_a_phase() -> None:
    assert set(MOVES) == set(PHASES) == set(State)


def test_every_state_can_be_reached_and_left_but_for_the_ends() -> None:
    reached = {after for _, _, after in LEGAL}
    assert reached == set(State) - {State.INIT}
    for state in set(State) - ENDED:
        assert any(after is not state for after in MOVES[state].values()), state


def test_an_ended_appointment_takes_callbacks_reports_a_late_success_and_an_erasure_and_nothing_else() -> None:
    for state in ENDED:
        assert set(MOVES[state]) == {e.BookingObserved, e.CallbackReceived, e.LateSuccess, e.PersonalDataErased}


def test_every_event_of_an_appointment_is_legal_somewhere_and_the_others_nowhere() -> None:
    legal = {event for row in MOVES.values() for event in row}
    assert legal == {*e.FACTS, *e.DECISIONS}
    assert not legal & set(e.OUTSIDE_APPOINTMENTS)


def test_the_groups_of_states_do_not_overlap() -> None:
    assert not FORWARD & BACKWARD
    assert not (FORWARD | BACKWARD) & SETTLED
    assert ENDED < SETTLED


def test_what_goes_back_never_goes_forward_again() -> None:
    for state in BACKWARD:
        assert set(MOVES[state].values()) <= {state, *ENDED}


def test_only_a_late_success_leads_out_of_an_end() -> None:
    for state in ENDED:
        assert [event for event, after in MOVES[state].items() if after is not state] == [e.LateSuccess]
