"""Breadth first through every course that a small alphabet of inputs can take: no luck involved, no seed needed."""

from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from given_when_then import BOOK, MOVE, NEW_END, NEW_START, booking
from world import World, plan_of

from domain.appointment import StepState
from domain.commands import Act, CancelAppointment, OperatorAction, Repair, ReportBooking, Request
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
)
from saga.inputs import Asked, CalledBack, Due

WORLDS_MAX = 1_500

Input = Callable[[World], None]


def _act(action: OperatorAction) -> Input:
    return lambda world: world.ask(Act(action=action, reason="because"))


def _seen(seen: ProviderBooking | None, repair: Repair) -> Input:
    return lambda world: world.ask(ReportBooking(seen=seen, repair=repair))


def _called_back(status: BookingStatus) -> Input:
    def called_back(world: World) -> None:
        known = world.state.booking
        version = (known.version if known else 0) + 1
        world.give(CalledBack(f"wh-{version}", "bk-1", status, version))

    return called_back


def _confirmed(world: World) -> None:
    known = world.state.booking
    seen = booking(version=(known.version if known else 0) + 1)
    world.call_ends(Confirmed(booking=seen if world.calls[-1].step == "calendar" else None))


def _later(wait_ms: int) -> Input:
    def later(world: World) -> None:
        world.now += timedelta(milliseconds=wait_ms)

    return later


def _gates(held: str) -> Input:
    def gates(world: World) -> None:
        world.holds = dict.fromkeys(("main", "bank", "notify"), held) if held else {}

    return gates


ANSWERS: dict[str, Input] = {
    "confirmed": _confirmed,
    "pending": lambda world: world.call_ends(Pending(booking=booking("pending", version=0))),
    "rejected": lambda world: world.call_ends(Rejected(reason="no")),
    "retryable": lambda world: world.call_ends(Retryable(reason="later")),
    "unknown": lambda world: world.call_ends(Unknown(reason="timeout")),
    "crash": lambda world: world.give(Due()),
}
READS: dict[str, Input] = {
    "found": lambda world: world.read_ends(Found(booking=booking(version=2))),
    "found_moved": lambda world: world.read_ends(Found(booking=booking("accepted", 3, "bk-2", NEW_START, NEW_END))),
    "found_dead": lambda world: world.read_ends(Found(booking=booking("cancelled", 3))),
    "missing": lambda world: world.read_ends(Missing()),
    "unreadable": lambda world: world.read_ends(Unknown(reason="timeout")),
}
ALWAYS: dict[str, Input] = {
    "cancel": lambda world: world.ask(CancelAppointment()),
    "reschedule": lambda world: world.ask(MOVE),
    **{str(action): _act(action) for action in OperatorAction},
    **{f"told_{status}": _called_back(status) for status in BookingStatus},
    **{f"gone_{repair}": _seen(None, repair) for repair in Repair},
    **{f"moved_{repair}": _seen(booking("accepted", 5, "bk-1", NEW_START, NEW_END), repair) for repair in Repair},
    "past_deadline": _later(21_000),
    "past_cleanup": _later(700_000),
    "busy": _gates("busy"),
    "open": _gates(""),
    "circuit_open": _gates("circuit_open"),
}


def inputs(world: World) -> dict[str, Input]:
    """What can happen now."""
    possible = dict(ALWAYS)
    if world.state.in_flight is not None:
        possible |= ANSWERS
    if world.reads:
        possible |= READS
    if world.last.wake is not None:
        possible["due"] = World.due
    return possible


def _past(at: datetime | None, now: datetime) -> bool | None:
    return None if at is None else at <= now


def _step(step: StepState, now: datetime) -> tuple[object, ...]:
    seen = step.booking.status if step.booking else None
    kind = step.failure.kind if step.failure else None
    doubted, due = step.doubt_since is not None, _past(step.due_at, now)
    again = step.round > 0
    return step.name, step.progress, step.spent, doubted, seen, kind, step.give_up, due, again


def outline(world: World) -> tuple[object, ...]:
    """What the course from here depends on; worlds of one outline are explored once."""
    state, now = world.state, world.now
    flight = (state.in_flight.step, state.in_flight.operation) if state.in_flight else None
    return (
        (state.state, state.parked, state.forced, state.astray, flight, state.reason),
        tuple(_step(step, now) for step in (*state.actions, *state.undos)),
        _step(state.move_step, now) if state.move_step else None,
        (_past(state.deadline_at, now), _past(state.cleanup_until, now)),
        _past(state.moving.deadline_at, now) if state.moving else None,
        (tuple(read.purpose for read, _ in world.reads[-1:]), world.holds.get("main")),
    )


PLANS = {
    "resend": (True, True, 0, "resend"),
    "look_first": (False, True, 2_000, "lookup"),
    "blind": (False, False, 0, "neither"),
}


STARTS = {
    "new": (),
    "pending": ("pending",),
    "unknown": ("unknown", "due"),
    "undoing": ("confirmed", "confirmed", "rejected"),
    "confirmed": ("confirmed", "confirmed", "confirmed"),
    "moving": ("confirmed", "confirmed", "confirmed", "reschedule"),
    "move_unknown": ("confirmed", "confirmed", "confirmed", "reschedule", "unknown", "due", "unknown", "due"),
    "restoring": ("confirmed", "confirmed", "confirmed", "moved_restore"),
    "rebooking": ("confirmed", "confirmed", "confirmed", "gone_restore"),
    "rebooking_unknown": ("confirmed", "confirmed", "confirmed", "gone_restore", "unknown", "due", "unknown", "due"),
    "cancelling": ("confirmed", "confirmed", "confirmed", "cancel"),
    "cancelled": ("confirmed", "cancel", "confirmed", "confirmed"),
}
"""Where the search begins, so that the far ends of long courses are searched as well."""


@pytest.mark.evidence(
    target="process manager",
    answers=("R1.1", "R2.1", "G6", "G7"),
    given="a small alphabet of inputs",
    when="every course that they can take is walked, breadth first",
    then="no illegal move, each decision follows again, nobody is without a due time",
    seen_in="printed number of states",
)
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", PLANS)
def test_no_course_breaks_a_rule(name: str, start: str) -> None:
    first = World(plan_of(*PLANS[name]))
    first.give(Asked(BOOK, Request(key="key-0")))
    for label in STARTS[start]:
        happens = inputs(first).get(label)
        if happens is not None:
            happens(first)
    seen, queue = {outline(first)}, deque([(first, ())])
    while queue and len(seen) < WORLDS_MAX:
        world, course = queue.popleft()
        for label, happens in inputs(world).items():
            after = world.copy()
            try:
                happens(after)
            except Exception as fault:
                raise AssertionError(f"from {start} by {', '.join((*course, label))}") from fault
            shape = outline(after)
            if shape not in seen:
                seen.add(shape)
                queue.append((after, (*course, label)))
