"""What an operator wants to know every second: what is under way, parked, overdue, and whose breaker is open.

Cheap whatever the length of the log; whether everything is as it should be takes a whole check (`projections.health`).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from domain.provider import Value
from projections.open_work import OVERDUE_AFTER
from store.port import OpenWork, Store

OVERDUE_MAX = 1_000
"""Overdue rows that are counted; from there on it is enough to know that there are more."""


class BreakerState(Value):
    """One target's breaker in this process."""

    target: str
    state: Literal["closed", "open", "half_open"]
    failures: int
    """In a row."""
    opened: int
    """How often, since the process started."""
    open_until: datetime | None


class Pulse(Value):
    """How it goes now, as of `position` of the log."""

    at: datetime
    position: int
    by_state: dict[str, int]
    unfinished: int
    parked: int
    overdue: int
    overdue_more: bool
    """There are more than were counted."""
    breakers: tuple[BreakerState, ...]


async def overdue(store: Store, now: datetime, tenant: str) -> Sequence[OpenWork]:
    """The tenant's rows that were due a minute ago, of the first `OVERDUE_MAX` of all tenants."""
    rows = await store.due(now - OVERDUE_AFTER, OVERDUE_MAX)
    return [row for row in rows if row.tenant == tenant]
