"""What an alarm needs to know of the running process and its store, over all tenants: no name of any of them is told.

Reads a few indexed rows; only what is overdue is counted, and that up to a limit.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from appointments.outbox.dead_letters import consumer
from domain.lifecycle import SETTLED, State
from projections.figures import Figures
from projections.figures_query import read as read_figures
from projections.open_work import OVERDUE_AFTER
from projections.pulse import OVERDUE_MAX
from saga.breaker import standing
from store.port import BEGINNING

if TYPE_CHECKING:
    from appointments.bootstrap import Parts


@dataclass(frozen=True, slots=True)
class Vitals:
    """How it goes, as of `position` of the log."""

    position: int
    lag: dict[str, int]
    """By read model: how many positions it is behind."""
    outbox_lag: dict[str, int]
    """By subscriber: how many positions its checkpoint is behind."""
    outbox_told: dict[str, dict[str, int]]
    """By subscriber: how often this process told it an event, by what came of it."""
    unsettled: dict[str, int]
    """Appointments under way, by state."""
    parked: int
    overdue: int
    """Rows of open work that were due a minute ago, up to `OVERDUE_MAX`."""
    oldest_due_s: float
    """For how long the row that has waited longest has been due; 0 when none is."""
    breakers: dict[str, str]
    """By target: closed, open or half_open."""
    running: dict[str, int]
    """By target: calls that run."""


async def vitals(parts: "Parts") -> Vitals:
    """Look. Raises `StoreUnavailable`."""
    store, now = parts.store, parts.clock.now()
    position = await store.position()
    lag = {name: max(0, position - reached) for name, reached in (await parts.views.reached()).items()}
    outbox_told = {} if parts.outbox is None else parts.outbox.told
    told = {name: await store.checkpoint(consumer(name)) for name in parts.settings.subscriptions.keys() | outbox_told}
    # Catches up: what was behind has been seen above.
    report, _ = await parts.views.read(Figures.name, partial(read_figures, since=now))
    earliest = await store.next_due(BEGINNING)
    for provider in parts.providers:
        parts.lanes.target(provider)  # shown before it is first called
    breakers = parts.lanes.breakers()
    return Vitals(
        position=position,
        lag=lag,
        outbox_lag={name: max(0, position - kept) for name, kept in told.items() if kept is not None},
        outbox_told=outbox_told,
        unsettled={state: report.total.now.get(state, 0) for state in State if state not in (*SETTLED, State.INIT)},
        parked=report.total.parked_now,
        overdue=len(await store.due(now - OVERDUE_AFTER, OVERDUE_MAX)),
        oldest_due_s=0.0 if earliest is None else max(0.0, (now - earliest).total_seconds()),
        breakers={name: standing(one, now) for name, one in sorted(breakers.items())},
        running={name: parts.lanes.target(name).running for name in sorted(breakers)},
    )


def together(looked: Mapping[str | None, Vitals]) -> Vitals:
    """Those of every shard as one: counts are added; a target is told by shard, for each has a breaker of its own."""
    if len(looked) == 1:
        return next(iter(looked.values()))
    each = looked.values()
    return Vitals(
        position=sum(one.position for one in each),
        lag=added(one.lag for one in each),
        outbox_lag=added(one.outbox_lag for one in each),
        outbox_told={name: told for one in each for name, told in one.outbox_told.items()},
        unsettled=added(one.unsettled for one in each),
        parked=sum(one.parked for one in each),
        overdue=sum(one.overdue for one in each),
        oldest_due_s=max(one.oldest_due_s for one in each),
        breakers={f"{shard}/{name}": told for shard, one in looked.items() for name, told in one.breakers.items()},
        running={f"{shard}/{name}": n for shard, one in looked.items() for name, n in one.running.items()},
    )


def added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Counts by name, each the sum of those of that name."""
    total = Counter[str]()
    for one in counts:
        total.update(one)
    return dict(total)
