"""Reads the figures of a window out of their tables."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Table, func, select

from domain.commands import Instant, parse
from domain.errors import InvalidFields
from domain.lifecycle import SETTLED, State
from domain.provider import Value
from projections.figures import counters, latencies, openings, standing
from projections.figures_fold import BOOKING, CANCEL, CLEANUP, HOUR_US, MOVE, REBOOKING
from projections.figures_report import (
    UNANSWERED,
    BreakerFigures,
    FiguresReport,
    HourFigures,
    OperationFigures,
    ProviderFigures,
    StepFigures,
    Took,
)
from projections.histogram import latency
from store.rows import instant, microseconds

EVERYBODY = "*"
"""The name of the total over all providers."""


def read(
    connection: Connection,
    since: datetime | None = None,
    until: datetime | None = None,
    tenant: str | None = None,
) -> FiguresReport:
    """The figures between two instants, widened to whole hours (UTC). Raises `InvalidFields`."""
    first, last = _hours(since, until)
    return FiguresReport(
        since=None if first is None else instant(first * HOUR_US),
        until=None if last is None else instant(last * HOUR_US),
        tenant=tenant,
        **_Sums(connection, first, last, tenant).all(),
    )


class _Window(Value):
    since: Instant | None
    until: Instant | None


def hours(connection: Connection, since: datetime, tenant: str | None = None) -> tuple[HourFigures, ...]:
    """The hours from `since` on in which something ended, in order. Raises `InvalidFields`."""
    first, _ = _hours(since, None)
    c = counters.c
    query = select(c.hour, c.what, func.sum(c.n)).where(c.what.in_(("confirmed", "failed")), c.hour >= first)
    if tenant is not None:
        query = query.where(c.tenant == tenant)
    found: dict[int, dict[str, int]] = defaultdict(lambda: {"confirmed": 0, "failed": 0})
    for hour, what, n in connection.execute(query.group_by(c.hour, c.what)):
        found[hour][what] = n
    return tuple(HourFigures(hour=instant(hour * HOUR_US), **found[hour]) for hour in sorted(found))


def _hours(since: datetime | None, until: datetime | None) -> tuple[int | None, int | None]:
    """The first hour of the window, and the first after it."""
    window = parse(_Window, {"since": since, "until": until})
    since, until = window.since, window.until
    if since is not None and until is not None and since >= until:
        raise InvalidFields("until must be later than since", (("/until", "not later than since"),))
    first = None if since is None else microseconds(since) // HOUR_US
    return first, None if until is None else -(-microseconds(until) // HOUR_US)


Counts = dict[str, Counter[str]]
"""n by what and detail."""
Times = dict[tuple[str, str], tuple[Counter[int], list[int]]]
"""By (operation, outcome): n by bucket, and [the sum of microseconds]."""


class _Sums:
    """The rows of a window, summed by provider and step."""

    def __init__(self, connection: Connection, first: int | None, last: int | None, tenant: str | None) -> None:
        self._connection, self._first, self._last, self._tenant = connection, first, last, tenant
        self.counts: dict[tuple[str, str], Counts] = defaultdict(lambda: defaultdict(Counter))
        self.times: dict[tuple[str, str], Times] = defaultdict(dict)
        self.now: dict[str, Counter[tuple[str, bool]]] = defaultdict(Counter)
        c, t, s = counters.c, latencies.c, standing.c
        for provider, step, what, detail, n in self._rows(counters, (c.provider, c.step, c.what, c.detail), c.n):
            for whose in (provider, EVERYBODY):
                self.counts[whose, step][what][detail] += n
                if step:
                    self.counts[whose, ""][what][detail] += n
        keys = (t.provider, t.step, t.operation, t.outcome, t.bucket)
        for provider, step, operation, outcome, bucket, n, total_us in self._rows(latencies, keys, t.n, t.total_us):
            for whose in (provider, EVERYBODY):
                buckets, total = self.times[whose, step].setdefault((operation, outcome), (Counter(), [0]))
                buckets[bucket] += n
                total[0] += total_us
        for provider, state, parked, n in self._rows(standing, (s.provider, s.state, s.parked), s.n):
            for whose in (provider, EVERYBODY):
                self.now[whose][state, parked] += n

    def all(self) -> dict[str, Any]:
        names = sorted({name for name, _ in self.counts} | set(self.now))
        steps = sorted({key for key in (*self.counts, *self.times) if key[0] != EVERYBODY and key[1]})
        return {
            "total": self._provider(EVERYBODY),
            "providers": tuple(self._provider(name) for name in names if name != EVERYBODY),
            "steps": tuple(self._step(provider, step) for provider, step in steps),
            "breakers": self._breakers(),
        }

    def _provider(self, name: str) -> ProviderFigures:
        n, times = self.counts[name, ""], self.times[name, ""]
        confirmed, failed = n["confirmed"].total(), n["failed"].total()
        now: Counter[str] = Counter()
        for (state, _), number in self.now[name].items():
            now[state] += number
        return ProviderFigures(
            provider=name,
            requested=n["requested"].total(),
            imported=n["imported"].total(),
            confirmed=confirmed,
            failed=_plain(n["failed"]),
            withdrawn=n["withdrawn"].total(),
            cancelled=n["cancelled"].total(),
            success_rate=round(confirmed / (confirmed + failed), 6) if confirmed + failed else None,
            forced=n["forced"].total(),
            rescheduled=n["rescheduled"].total(),
            reschedules_failed=_plain(n["reschedules_failed"]),
            rebooked=n["rebooked"].total(),
            rebookings_failed=_plain(n["rebookings_failed"]),
            repairs=_plain(n["repairs"]),
            attempts=n["first_attempts"].total() + n["retries"].total(),
            retries=n["retries"].total(),
            compensations=_plain(n["compensations"]),
            undo_calls=n["first_attempts"]["compensation"] + n["retries"]["compensation"],
            lookups_failed=n["lookups"]["failed"],
            deferred=n["deferred"].total(),
            callbacks=n["callbacks"].total(),
            orphan_callbacks=n["orphan_callbacks"].total(),
            late_successes=n["late_successes"].total(),
            parked=n["parked"].total(),
            operator_actions=_plain(n["operator_actions"]),
            booking=_took(times, BOOKING),
            rebooking=_took(times, REBOOKING),
            move=_took(times, MOVE),
            cancel=_took(times, CANCEL),
            cleanup=_took(times, CLEANUP),
            now=_plain(now),
            unfinished=sum(number for state, number in now.items() if State(state) not in SETTLED),
            parked_now=sum(number for (_, parked), number in self.now[name].items() if parked),
        )

    def _step(self, provider: str, step: str) -> StepFigures:
        n, times = self.counts[provider, step], self.times[provider, step]
        first, again = n["first_attempts"], n["retries"]
        operations = sorted({*first, *again, *(operation for operation, _ in times)})
        return StepFigures(
            provider=provider,
            step=step,
            operations=tuple(
                OperationFigures(
                    operation=operation,
                    attempts=first[operation] + again[operation],
                    retries=again[operation],
                    took=_took(times, operation),
                )
                for operation in operations
            ),
            lookups=_plain(n["lookups"]),
            in_doubt=n["in_doubt"].total(),
            deferred=n["deferred"].total(),
        )

    def _breakers(self) -> tuple[BreakerFigures, ...]:
        o = openings.c
        first = select(o.target, o.until_us, func.min(o.hour).label("hour")).group_by(o.target, o.until_us)
        if self._tenant is not None:
            first = first.where(o.tenant == self._tenant)
        seen = first.subquery()
        query = select(seen.c.target, func.count()).where(*self._within(seen.c.hour)).group_by(seen.c.target)
        found = self._connection.execute(query.order_by(seen.c.target))
        return tuple(BreakerFigures(target=target, openings=number) for target, number in found)

    def _rows(self, table: Table, keys: tuple[Column[Any], ...], *sums: Column[int]) -> Iterable[Any]:
        query = select(*keys, *(func.sum(column) for column in sums)).group_by(*keys)
        if "hour" in table.c:
            query = query.where(*self._within(table.c.hour))
        if self._tenant is not None:
            query = query.where(table.c.tenant == self._tenant)
        return self._connection.execute(query)

    def _within(self, hour: ColumnElement[int]) -> list[ColumnElement[bool]]:
        since = [] if self._first is None else [hour >= self._first]
        return since if self._last is None else [*since, hour < self._last]


def _took(times: Times, wanted: str) -> Took:
    everything: Counter[int] = Counter()
    everything_us, by_outcome = 0, {}
    for (operation, outcome), (buckets, (total_us,)) in sorted(times.items(), key=lambda item: item[0]):
        if operation == wanted:
            by_outcome[outcome] = latency(buckets, total_us)
            if outcome != UNANSWERED:
                everything.update(buckets)
                everything_us += total_us
    return Took(all=latency(everything, everything_us), by_outcome=by_outcome)


def _plain(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: n for name, n in sorted(counts.items()) if n}
