"""Figures: how often, how well and how fast, by the hour (UTC), tenant, provider and step. Owns their tables.

Every table adds up: rows of two batches are summed, so the batches leave no trace. See `figures_fold.py` for what an
event counts as, and `figures_report.py` for what is read out of it.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    bindparam,
    delete,
    select,
)
from sqlalchemy.dialects.sqlite import dialect, insert

from projections.figures_fold import Fold, Span, carried
from projections.projection import Change, Projection
from store.rows import instant, microseconds

STREAMS_PER_QUERY = 500
_INT64 = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData()


def _key(name: str, type_: Any = Text) -> Column[Any]:
    return Column(name, type_, primary_key=True)


def _sum(name: str) -> Column[int]:
    return Column(name, _INT64, nullable=False)


counters = Table(
    "counters",
    metadata,
    *(_key("hour", Integer), _key("tenant"), _key("provider"), _key("step"), _key("what"), _key("detail")),
    _sum("n"),
    sqlite_with_rowid=False,
)
latencies = Table(
    "latencies",
    metadata,
    *(_key("hour", Integer), _key("tenant"), _key("provider"), _key("step"), _key("operation"), _key("outcome")),
    _key("bucket", Integer),
    *(_sum("n"), _sum("total_us")),
    sqlite_with_rowid=False,
)
standing = Table(
    "standing",
    metadata,
    *(_key("tenant"), _key("provider"), _key("state"), _key("parked", Boolean)),
    _sum("n"),
    sqlite_with_rowid=False,
)
"""How many appointments stand in each state now."""

openings = Table(
    "openings",
    metadata,
    *(_key("target"), _key("until_us", _INT64), _key("tenant")),
    Column("hour", Integer, nullable=False),
    sqlite_with_rowid=False,
)
"""A breaker's openings, one for each end of the open time; `hour` is that of the first call that it held up."""

targets = Table(
    "targets",
    metadata,
    *(_key("definition"), _key("step")),
    Column("target", Text, nullable=False),
    sqlite_with_rowid=False,
)
"""Whom a step calls, as its definition in the log says."""

spans = Table(
    "spans",
    metadata,
    *(_key("stream_id", LargeBinary(16)), _key("slot")),
    Column("kind", Text, nullable=False),
    Column("since_us", _INT64, nullable=False),
    sqlite_with_rowid=False,
)
"""What has begun and not ended, from one batch to the next."""


# Compiled once, and given plain rows: at some thousand rows a second the statement's own cost would be the most of it.
def _adding(table: Table) -> str:
    statement = insert(table)
    sums = [column.name for column in table.columns if not column.primary_key]
    added = {name: table.c[name] + statement.excluded[name] for name in sums}
    return _sql(statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=added))


def _sql(statement: Any) -> str:
    return str(statement.compile(dialect=dialect()))


_COUNT, _TIME, _STAND = map(_adding, (counters, latencies, standing))
_OPEN, _TARGET = (_sql(insert(table).on_conflict_do_nothing()) for table in (openings, targets))
_BEGIN = _sql(insert(spans))
_FORGET = _sql(delete(spans).where(spans.c.stream_id == bindparam("id"), spans.c.slot == bindparam("of")))


class Figures(Projection):
    """The figures of the whole log, as sums."""

    name = "figures"
    version = 2
    metadata = metadata

    def apply(self, connection: Connection, changes: Sequence[Change]) -> None:
        """Fold a batch, in order of position, inside the caller's transaction."""
        before = _spans(connection, carried(changes))
        fold = Fold(dict(before))
        fold.take(changes)
        after = fold.spans
        took = ((*where, *what, bucket, *sums) for (where, what, bucket), sums in fold.timed.items())
        for statement, rows in (
            (_COUNT, ((*where, *told, n) for (where, told), n in fold.counters.items())),
            (_TIME, took),
            (_STAND, ((*key, n) for key, n in fold.standing.items())),
            (_TARGET, ((*key, target) for key, target in fold.targets.items())),
            (_OPEN, _openings(connection, fold)),
            (_FORGET, ((_bytes(id), slot) for id, slot in before if after.get((id, slot)) != before[id, slot])),
            (_BEGIN, (_span_row(key, *span) for key, span in after.items() if before.get(key) != span)),
        ):
            values = list(rows)
            if values:
                connection.exec_driver_sql(statement, values)


def _span_row(key: Span, kind: str, since: datetime) -> tuple[bytes, str, str, int]:
    return _bytes(key[0]), key[1], kind, microseconds(since)


def _spans(connection: Connection, streams: set[int]) -> dict[Span, tuple[str, datetime]]:
    found: dict[Span, tuple[str, datetime]] = {}
    for ids in _portions([_bytes(id) for id in streams]):
        for id, slot, kind, since in connection.execute(select(spans).where(spans.c.stream_id.in_(ids))):
            found[int.from_bytes(id), slot] = (kind, instant(since))
    return found


def _bytes(id: int) -> bytes:
    return id.to_bytes(16)


def _portions(ids: list[bytes]) -> Iterator[list[bytes]]:
    return (ids[at : at + STREAMS_PER_QUERY] for at in range(0, len(ids), STREAMS_PER_QUERY))


def _openings(connection: Connection, fold: Fold) -> Iterator[tuple[str, int, str, int]]:
    if not fold.deferrals:
        return
    definitions = {definition for _, definition, _, _ in fold.deferrals}
    known = select(targets).where(targets.c.definition.in_(definitions))
    whom = {(definition, step): target for definition, step, target in connection.execute(known)}
    for (tenant, definition, step, until), hour in fold.deferrals.items():
        yield whom.get((definition, step), step), microseconds(until), tenant, hour
