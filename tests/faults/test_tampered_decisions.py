"""Replay finds what was done to a decision: changed, dropped or put in, in streams that the simulation recorded."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from simulation.simulate import simulate
from simulation.world import World

from domain import events as e
from domain.definition import SagaPlan
from saga.replay import replay
from store.mapper import decode, encode
from store.port import RecordedEvent

SEEDS = range(60)
EACH = 12
"""Streams in which decisions of one type are broken."""
MAY_COME_LATER = {(e.StepStarted, "at")}
"""A call may wait for its lane, and nothing in the log says for how long: only the hash chain tells of it."""


def streams(world: World) -> Iterator[tuple[UUID, list[e.Event]]]:
    """The appointments of a world."""
    for id, recorded in world.medium._tables.streams.items():
        events = [decode(one) for one in recorded]
        if isinstance(events[0], e.AppointmentRequested):
            yield id, events


def stored(id: UUID, events: list[e.Event]) -> list[RecordedEvent]:
    """As one who can write to the file would leave it: versions without a gap."""
    return [encode(id, version, event) for version, event in enumerate(events, 1)]


def another(value: Any) -> Any:
    """Another value of the same kind."""
    match value:
        case bool():
            return not value
        case Enum():
            return next(one for one in type(value) if one is not value)
        case datetime():
            return value + timedelta(milliseconds=1)
        case int():
            return value + 1
        case None:
            return e.EndReason.CONFLICT
        case _:
            return f"{value}x"


def broken(events: list[e.Event], at: int) -> Iterator[tuple[str, list[e.Event]]]:
    """The stream with one decision changed in each field, dropped, or put in twice."""
    decision = events[at]
    for name in type(decision).model_fields:
        if (type(decision), name) not in MAY_COME_LATER:
            changed = decision.model_copy(update={name: another(getattr(decision, name))})
            yield f"{name} changed", [*events[:at], changed, *events[at + 1 :]]
    yield "dropped", [*events[:at], *events[at + 1 :]]
    yield "put in twice", [*events[: at + 1], decision, *events[at + 1 :]]


@pytest.fixture(scope="module")
def recorded() -> list[tuple[UUID, list[e.Event], SagaPlan]]:
    """Streams of many worlds, each with the plan that it went by."""
    worlds = [simulate(seed).world for seed in SEEDS]
    return [(id, events, world.plan) for world in worlds for id, events in streams(world)]


@pytest.mark.evidence(
    target="replay",
    answers=("R3.2", "G7"),
    given="recorded streams",
    when="a decision of each type is changed, dropped or put in twice",
    then="replay finds it and names the version",
    seen_in="divergences",
)
@pytest.mark.parametrize("kind", e.DECISIONS, ids=lambda kind: kind.type)
def test_a_decision_that_was_tampered_with_is_found(
    recorded: list[tuple[UUID, list[e.Event], SagaPlan]], kind: type[e.Event]
) -> None:
    with_one = [(id, events, plan) for id, events, plan in recorded if any(type(event) is kind for event in events)]
    assert with_one, f"no stream holds {kind.type}"
    tried = 0
    for id, events, plan in with_one[:EACH]:
        assert replay(stored(id, events), plan).matches
        for at in (place for place, event in enumerate(events) if type(event) is kind):
            for what, changed in broken(events, at):
                found = replay(stored(id, changed), plan)
                assert not found.matches, f"{kind.type} at version {at + 1} of {id}: {what}, and not found"
                tried += 1
    print(f"{kind.type}: {tried} changes in {min(len(with_one), EACH)} streams")


def test_the_divergence_names_the_version_and_the_fields_that_differ(
    recorded: list[tuple[UUID, list[e.Event], SagaPlan]],
) -> None:
    id, events, plan = next(one for one in recorded if any(isinstance(event, e.RetryScheduled) for event in one[1]))
    at = next(place for place, event in enumerate(events) if isinstance(event, e.RetryScheduled))
    decision = events[at]
    assert isinstance(decision, e.RetryScheduled)
    late = decision.model_copy(update={"due_at": decision.due_at + timedelta(hours=1)})
    first = replay(stored(id, [*events[:at], late, *events[at + 1 :]]), plan).divergences[0]
    assert first.version == at + 1
    assert first.expected is not None
    assert first.found is not None
    assert set(first.expected) == set(first.found) == {"type", "due_at"}
