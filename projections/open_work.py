"""Whether a row of open work says what the stream says. Pure."""

from collections.abc import Collection, Iterator
from datetime import datetime, timedelta

from domain.appointment import Appointment
from domain.definition import SagaPlan
from domain.lifecycle import SETTLED
from projections.findings import Finding
from store.port import OpenWork

OVERDUE_AFTER = timedelta(seconds=60)
WAIT_MAX = timedelta(days=8)
"""No wait is longer: the budget for cleaning up is seven days at most, every other wait a day."""


def unfinished(state: Appointment) -> bool:
    """Whether it must have a row."""
    return state.state not in SETTLED or state.parked


def about(
    state: Appointment,
    row: OpenWork | None,
    now: datetime,
    plan: SagaPlan | None,
    runs: Collection[tuple[str, int, str]],
) -> Iterator[Finding]:
    """What is wrong with the row of an appointment, or with its absence; and whether it is parked, or nobody runs it.

    `plan`: the one that the stream names, None when the log has none. `runs`: what a process can carry out.
    """
    subject = str(state.id)
    if not unfinished(state):
        if row is not None:
            yield Finding(kind="leftover", subject=subject, detail="open work for an appointment that has ended")
        return
    if row is None:
        yield Finding(kind="unowned", subject=subject, detail=f"{state.state}, but no open work: it would never end")
        return
    if row.version != state.version:
        yield Finding(kind="stale", subject=subject, detail=f"row at {row.version}, stream at {state.version}")
        return
    for detail in _contradictions(state, row, now, plan):
        yield Finding(kind="contradiction", subject=subject, detail=f"open work: {detail}")
    if state.parked:
        yield Finding(kind="parked", subject=subject, detail=state.parked_reason)
    elif plan is None or (plan.name, plan.version, plan.provider) not in runs:
        yield Finding(kind="nobody_runs", subject=subject, detail=f"bound to {state.definition}")
    elif row.due_at is None or row.due_at + OVERDUE_AFTER < now:
        yield Finding(kind="overdue", subject=subject, detail=f"{state.state}, was due at {row.due_at}")


def _contradictions(state: Appointment, row: OpenWork, now: datetime, plan: SagaPlan | None) -> Iterator[str]:
    assert state.details is not None
    if row.tenant != state.tenant:
        yield f"tenant {row.tenant!r}, the stream says {state.tenant!r}"
    if row.starts_at != state.details.start:
        yield f"starts at {row.starts_at}, the stream says {state.details.start}"
    if row.parked != state.parked:
        yield f"{_parked(row.parked)}, the stream says {_parked(state.parked)}"
    if row.epoch < 0:
        yield f"epoch {row.epoch}"
    yield from _flight(state, row, now)
    if row.lane and not _is_lane(row.lane, state.tenant, plan):
        yield f"lane {row.lane!r}: the plan calls nobody of that name for tenant {state.tenant!r}"
    if row.deadline_at is not None and row.deadline_at not in _deadlines(state, plan):
        yield f"a deadline at {row.deadline_at}, the stream knows none then"
    if row.due_at is None:
        return
    if row.deadline_at is not None and row.due_at > max(row.deadline_at, now):
        yield f"due at {row.due_at}, after its deadline at {row.deadline_at}"
    if row.due_at > max(state.updated_at or now, now) + WAIT_MAX:
        yield f"due only at {row.due_at}: no wait is that long"
    if row.parked and not row.in_flight:  # one in flight is due at once when another process takes over
        yield f"parked, and due at {row.due_at}"


def _flight(state: Appointment, row: OpenWork, now: datetime) -> Iterator[str]:
    """A call in flight is due when its time is over; a row that was put off says that none is, and is due later."""
    flight = state.in_flight
    if flight is None:
        if row.in_flight:
            yield "a call in flight, the stream says none is"
    elif row.due_at is not None:
        if row.in_flight and row.due_at > max(flight.until, now):
            yield f"due at {row.due_at}, its call in flight is over at {flight.until}"
        if not row.in_flight and row.due_at == flight.until:
            yield "no call in flight, the stream says that one is"


def _is_lane(lane: str, tenant: str, plan: SagaPlan | None) -> bool:
    if plan is not None and lane == plan.left_lane:
        return True
    target = lane.removesuffix(f"/{tenant}")
    return target != lane and (plan is None or any(step.target == target for step in plan.steps))


def _deadlines(state: Appointment, plan: SagaPlan | None) -> set[datetime | None]:
    moving = state.moving
    known = {state.deadline_at, state.cleanup_until}
    if moving is not None:
        known |= {moving.deadline_at, moving.look_until}
        if plan is not None:
            known.add(moving.deadline_at + timedelta(milliseconds=plan.cleanup_ms))
    return known


def _parked(parked: bool) -> str:
    return "parked" if parked else "not parked"
