"""What-if on what the simulation recorded in bad worlds: how much of it the record reproduces, and why not the rest."""

import pytest
from simulation.simulate import simulate
from simulation.world import BREAKER_OPEN_MS, World

from domain import events as e
from saga.breaker import BreakerPolicy
from saga.changes import Changes
from saga.lanes import LimitPolicy
from saga.recorded_provider import Source
from saga.recording import Recording, record
from saga.what_if import rerun
from store.mapper import decode

SEEDS = range(150)


def recordings(world: World) -> dict[bool, list[Recording]]:
    """The appointments of a world, by whether the process died, or could not write, during one of their calls."""
    found: dict[bool, list[Recording]] = {False: [], True: []}
    for id, stream in world.medium._tables.streams.items():
        events = [decode(one) for one in stream]
        if isinstance(events[0], e.AppointmentRequested):
            cut_off = any(isinstance(event, e.CallInterrupted) for event in events)
            found[cut_off].append(record(id, events, world.plan))
    return found


@pytest.mark.evidence(
    target="what-if",
    answers=("R8.4",),
    given="streams recorded in seeded bad worlds",
    when="they are lived through again under the recorded policies",
    then="the recorded ends come out, but for what the death of the process did",
    seen_in="printed share",
)
def test_bad_worlds_are_reproduced_but_for_what_the_process_s_own_death_did() -> None:
    """A rerun does not die: a call that was cut off then is answered now, and what follows may differ."""
    equal, seen, answers = {False: 0, True: 0}, {False: 0, True: 0}, dict.fromkeys(Source, 0)
    for seed in SEEDS:
        world = simulate(seed).world
        limits = LimitPolicy(concurrency=world.concurrency, breaker=BreakerPolicy(open_ms=BREAKER_OPEN_MS))
        groups = recordings(world)
        course = rerun([*groups[False], *groups[True]], {world.plan.digest: world.plan}, Changes(), limits)
        for cut_off, group in groups.items():
            seen[cut_off] += len(group)
            equal[cut_off] += sum(course.ends[one.id] == one.end for one in group)
        for source, count in course.answers.items():
            answers[source] += count
    print(
        f"seeds {SEEDS}: {equal[False]} of {seen[False]} reproduced; cut off: {equal[True]} of {seen[True]}; {answers}"
    )
    assert equal[False] >= 0.97 * seen[False]
    assert equal[True] >= 0.75 * seen[True]


def test_the_control_answers_of_another_appointment_reproduce_little() -> None:
    """Were the answers not the recorded ones, the share would show it."""
    equal = seen = 0
    for seed in SEEDS[:20]:
        world = simulate(seed).world
        group = [one for part in recordings(world).values() for one in part]
        for one in group:
            one.answers.clear()
        course = rerun(group, {world.plan.digest: world.plan}, Changes(), LimitPolicy())
        seen += len(group)
        equal += sum(course.ends[one.id] == one.end for one in group)
    print(f"{equal} of {seen}")
    assert equal < 0.8 * seen
