"""Health: is the log whole, and does every unfinished appointment have a due time that will come?"""

from collections.abc import Collection
from datetime import datetime, timedelta
from uuid import UUID

from pydantic import ValidationError

from domain.appointment import Appointment, evolve
from domain.definition import SagaPlan
from domain.errors import HistoryError
from domain.events import OUTSIDE_APPOINTMENTS, DefinitionRegistered
from domain.lifecycle import SETTLED
from domain.provider import Value
from store.mapper import decode
from store.port import OpenWork, Store, whole_log

Runs = tuple[str, int, str]
"""A saga's name, its version, and the provider that it books at."""

OVERDUE_AFTER = timedelta(seconds=60)
SHOWN_MAX = 100


class Finding(Value):
    """Something that an operator should look at."""

    kind: str
    """gap | undecodable | unowned | overdue | parked | stale | nobody_runs | leftover."""
    subject: str
    detail: str


class Health(Value):
    """What a check of the whole store found. `ok`: nothing is wrong; parked ones are listed, and are no fault."""

    ok: bool
    events: int
    appointments: int
    unfinished: int
    parked: int
    findings: tuple[Finding, ...]


async def health(store: Store, now: datetime, runs: Collection[Runs]) -> Health:
    """Check the whole store; `runs` says which sagas a process can carry out, and at which providers."""
    states, plans, findings, events = await _fold(store)
    definitions = {digest for digest, plan in plans.items() if (plan.name, plan.version, plan.provider) in runs}
    rows = await _rows(store)
    unfinished = {id: state for id, state in states.items() if state.state not in SETTLED or state.parked}
    for id, state in unfinished.items():
        findings += _about(state, rows.pop(id, None), now, definitions)
    findings += [
        Finding(kind="leftover", subject=str(id), detail="open work for an appointment that has ended")
        for id in rows
        if id in states
    ]
    findings += [
        Finding(kind="undecodable", subject=str(id), detail="set aside: its stream cannot be read")
        for id in rows
        if id not in states
    ]
    parked = sum(state.parked for state in states.values())
    ok = all(finding.kind == "parked" for finding in findings)
    return Health(
        ok=ok,
        events=events,
        appointments=len(states),
        unfinished=len(unfinished),
        parked=parked,
        findings=tuple(findings[:SHOWN_MAX]),
    )


async def _fold(store: Store) -> tuple[dict[UUID, Appointment], dict[str, SagaPlan], list[Finding], int]:
    states: dict[UUID, Appointment] = {}
    plans: dict[str, SagaPlan] = {}
    broken: set[UUID] = set()
    findings: list[Finding] = []
    expected = 1
    async for recorded in whole_log(store):
        if recorded.position != expected:
            gap = f"positions {expected} to {recorded.position - 1} are missing"
            findings.append(Finding(kind="gap", subject="log", detail=gap))
        expected = recorded.position + 1
        if recorded.stream_id in broken:
            continue
        try:
            event = decode(recorded)
            if isinstance(event, DefinitionRegistered):
                plans[event.digest] = SagaPlan.model_validate(event.plan)
            if isinstance(event, OUTSIDE_APPOINTMENTS):
                continue
            before = states.get(recorded.stream_id) or Appointment(recorded.stream_id)
            if recorded.version != before.version + 1:
                raise HistoryError(f"version {recorded.version} follows {before.version}")
            states[recorded.stream_id] = evolve(before, event)
        except (HistoryError, ValidationError) as fault:
            broken.add(recorded.stream_id)
            states.pop(recorded.stream_id, None)
            findings.append(Finding(kind="undecodable", subject=str(recorded.stream_id), detail=str(fault)[:300]))
    return states, plans, findings, expected - 1


async def _rows(store: Store) -> dict[UUID, OpenWork]:
    rows: dict[UUID, OpenWork] = {}
    after: UUID | None = None
    while batch := await store.open_work(after):
        rows.update((row.stream_id, row) for row in batch)
        after = batch[-1].stream_id
    return rows


def _about(state: Appointment, row: OpenWork | None, now: datetime, definitions: Collection[str]) -> list[Finding]:
    subject = str(state.id)
    if row is None:
        return [Finding(kind="unowned", subject=subject, detail=f"{state.state}, but no open work: it would never end")]
    if state.parked:
        return [Finding(kind="parked", subject=subject, detail=state.parked_reason)]
    if state.definition not in definitions:
        return [Finding(kind="nobody_runs", subject=subject, detail=f"bound to {state.definition}")]
    if row.version != state.version:
        return [Finding(kind="stale", subject=subject, detail=f"row at {row.version}, stream at {state.version}")]
    if row.due_at is None or row.due_at + OVERDUE_AFTER < now:
        return [Finding(kind="overdue", subject=subject, detail=f"{state.state}, was due at {row.due_at}")]
    return []
