"""Parked work in groups of the same failure, and one action for a whole group: asked one by one, at a pace."""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from appointments.console.jobs import Job, Row
from appointments.views import Appointment
from domain.errors import CommandRefused, ConcurrencyConflict, HistoryError, StoreUnavailable

PACE_S = 0.1
"""Between two appointments of one group: a provider that is just up again is not run down."""
_CHANGING = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+")

Act = Callable[[Appointment], Awaitable[Appointment]]


@dataclass(frozen=True, slots=True)
class Group:
    """Appointments that were parked for the same reason in the same state."""

    key: str
    state: str
    reason: str
    items: tuple[Appointment, ...]


def groups(parked: Iterable[Appointment]) -> tuple[Group, ...]:
    """The largest group first, of each the one that starts first. Numbers and ids make no difference of reasons."""
    found: dict[tuple[str, str], list[Appointment]] = {}
    for one in parked:
        found.setdefault((one.state, _CHANGING.sub("…", one.parked_reason or "")), []).append(one)
    made = (
        Group(_key(state, reason), state, reason, tuple(sorted(items, key=lambda one: one.start)))
        for (state, reason), items in found.items()
    )
    return tuple(sorted(made, key=lambda group: (-len(group.items), group.key)))


def _key(state: str, reason: str) -> str:
    return hashlib.sha256(f"{state}\x00{reason}".encode()).hexdigest()[:16]


async def ask_each(job: Job, items: Sequence[Appointment], act: Act) -> None:
    """Ask one after the other; one that refuses stops no other."""
    for place, one in enumerate(items):
        job.tell("asked", place, len(items))
        if place:
            await asyncio.sleep(PACE_S)
        try:
            done = await act(one)
            tone = "warn" if done.parked else "good"
            job.rows.append(Row(one.id, "still parked" if done.parked else "done", tone, f"now {done.state}"))
        except (CommandRefused, ConcurrencyConflict, HistoryError, StoreUnavailable) as fault:
            job.rows.append(Row(one.id, "refused", "bad", str(fault)))
    job.tell("asked", len(items), len(items))
