"""The read queries, each bounded by a limit. Owns how they use the indexes."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import datetime
from operator import attrgetter
from typing import Any
from uuid import UUID

from sqlalchemy import Column, ColumnElement, Connection, LargeBinary, and_, func, literal, literal_column, or_, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import Select
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from domain.errors import HistoryError
from store.port import OpenWork, RecordedEvent
from store.rows import event_of, instant, microseconds, uuid_of, work_of
from store.sealing import hashed, refs_in
from store.tables import checkpoints, events, open_work, subject_keys

BACKLOG_MIN = 4_096
"""Due rows from which on they are walked lane by lane in order of start, not collected and sorted."""
LANES_MAX = 1_000
"""Lanes up to which a backlog is walked lane by lane; with more, collecting and sorting is the faster way again."""

REFS_PER_QUERY = 500

_work = open_work.c


class _FoundAt(FunctionElement[int]):
    """The 1-based place of some bytes in others, 0 where they are not."""

    name = "found_at"
    inherit_cache = True


@compiles(_FoundAt)
def _instr(element: _FoundAt, compiler: SQLCompiler, **kwargs: Any) -> str:
    return f"instr({compiler.process(element.clauses, **kwargs)})"


@compiles(_FoundAt, "postgresql")
def _position(element: _FoundAt, compiler: SQLCompiler, **kwargs: Any) -> str:
    where, what = (compiler.process(part, **kwargs) for part in element.clauses)
    return f"position({what} in {where})"


def stream(connection: Connection, stream_id: UUID, after: int, limit: int | None) -> list[RecordedEvent]:
    """One stream from version `after + 1`."""
    query = (
        select(events)
        .where(events.c.stream_id == stream_id.bytes, events.c.version > after)
        .order_by(events.c.version)
        .limit(limit)
    )
    return _events(connection, query)


def streams(connection: Connection, after: UUID | None, limit: int) -> list[UUID]:
    """Stream ids in order, from the index alone; raises `HistoryError` for one that is no id."""
    query = select(events.c.stream_id).distinct().order_by(events.c.stream_id).limit(limit)
    if after is not None:
        query = query.where(events.c.stream_id > after.bytes)
    try:
        return [uuid_of(stream) for (stream,) in connection.execute(query)]
    except (ValueError, TypeError) as fault:
        raise HistoryError(f"a stream behind {after} has an id that is none: {fault}") from None


def log(connection: Connection, after: int, limit: int) -> list[RecordedEvent]:
    """The log from position `after + 1`."""
    query = select(events).where(events.c.position > after).order_by(events.c.position).limit(limit)
    return _events(connection, query)


def _events(connection: Connection, query: Select[Any]) -> list[RecordedEvent]:
    """Rows as events, opened by the keys that are kept. Keys are read last: what was erased meanwhile stays shut."""
    rows = connection.execute(query).all()
    refs = sorted({ref for row in rows if (sealed := row.sealed) for ref in refs_in(sealed)})
    keys: dict[bytes, bytes] = {}
    for start in range(0, len(refs), REFS_PER_QUERY):
        some = refs[start : start + REFS_PER_QUERY]
        kept = select(subject_keys.c.ref, subject_keys.c.key).where(subject_keys.c.ref.in_(some))
        keys.update((ref, key) for ref, key in connection.execute(kept))
    streams: dict[bytes, UUID] = {}
    return [event_of(row, keys, streams) for row in rows]


def sealed_for(connection: Connection, subject: str, after: int = 0) -> list[UUID]:
    """The streams with something about a subject from position `after + 1`: a walk over the log."""
    name = select(subject_keys.c.ref).where(subject_keys.c.name == hashed(subject))
    ref = connection.execute(name).scalar_one_or_none()
    if ref is None:
        return []
    about = _FoundAt(events.c.sealed, literal(ref, LargeBinary())) > 0
    query = select(events.c.stream_id).where(events.c.position > after, about).distinct()
    return sorted(uuid_of(stream) for (stream,) in connection.execute(query))


def position(connection: Connection) -> int:
    """The last position, 0 in an empty log."""
    return int(connection.execute(select(func.coalesce(func.max(events.c.position), 0))).scalar_one())


def checkpoint(connection: Connection, consumer: str) -> int | None:
    """How far a consumer has come."""
    query = select(checkpoints.c.position).where(checkpoints.c.consumer == consumer)
    found = connection.execute(query).scalar_one_or_none()
    return None if found is None else int(found)


def work(connection: Connection, stream_id: UUID) -> OpenWork | None:
    """The row of one stream."""
    row = connection.execute(select(open_work).where(_work.stream_id == stream_id.bytes)).first()
    return None if row is None else work_of(row)


def all_work(connection: Connection, after: UUID | None, limit: int) -> list[OpenWork]:
    """Rows in order of stream id; raises `HistoryError` for one that cannot be read."""
    query = select(open_work).order_by(_work.stream_id).limit(limit)
    if after is not None:
        query = query.where(_work.stream_id > after.bytes)
    return [work_of(row) for row in connection.execute(query)]


def next_due(connection: Connection, after: datetime) -> datetime | None:
    """The earliest due time later than `after`."""
    query = select(func.min(_work.due_at)).where(_work.due_at > microseconds(after))
    found = connection.execute(query).scalar_one()
    return None if found is None else instant(found)


def due(
    connection: Connection, now: datetime, limit: int, closed_lanes: Sequence[str], skip: Collection[UUID]
) -> list[OpenWork]:
    """Due rows in order of start. With few due, the due index finds them; in a backlog, the lane index orders them."""
    # One snapshot for all statements: a row that moves to another lane meanwhile is neither missed nor found twice.
    connection.exec_driver_sql("BEGIN")
    try:
        return free(connection, now, limit, closed_lanes, skip)
    finally:
        connection.rollback()


def free(
    connection: Connection, now: datetime, limit: int, closed_lanes: Sequence[str], skip: Collection[UUID]
) -> list[OpenWork]:
    """As `due`, in the transaction that is open; where rows can be locked, those that are free, and they are now."""
    at, wanted = microseconds(now), limit + len(skip)
    lanes = _lanes(connection) if _many(connection, _work.due_at <= at) else []
    if 0 < len(lanes) <= LANES_MAX:
        found = _backlog(connection, at, wanted, lanes, frozenset(closed_lanes))
    else:
        found = _collected(connection, at, wanted, closed_lanes)
    skipped = frozenset(skip)
    return [row for row in found if row.stream_id not in skipped][:limit]


def _many(connection: Connection, condition: ColumnElement[bool]) -> bool:
    some = select(_work.due_at).where(condition).limit(BACKLOG_MIN).subquery("some")
    return bool(connection.execute(select(func.count()).select_from(some)).scalar_one() >= BACKLOG_MIN)


def _collected(connection: Connection, at: int, limit: int, closed_lanes: Sequence[str]) -> list[OpenWork]:
    is_due: ColumnElement[bool] = _work.due_at <= at
    if closed_lanes:
        is_due = and_(is_due, or_(_work.lane.not_in(closed_lanes), _work.deadline_at <= at))
    return _in_order_of_start(connection, is_due, limit)


def _backlog(
    connection: Connection, at: int, limit: int, lanes: Sequence[str], closed_lanes: frozenset[str]
) -> list[OpenWork]:
    is_due, past_deadline = _unindexed(_work.due_at) <= at, _work.deadline_at <= at
    many_past_deadline = bool(closed_lanes) and _many(connection, past_deadline)
    found: list[OpenWork] = []
    for lane in lanes:
        in_lane = and_(_work.lane == lane, is_due)
        if lane not in closed_lanes:
            found += _in_order_of_start(connection, in_lane, limit)
        elif many_past_deadline:
            found += _in_order_of_start(connection, and_(in_lane, _unindexed(_work.deadline_at) <= at), limit)
    if closed_lanes and not many_past_deadline:
        in_closed_lane = and_(past_deadline, is_due, _unindexed(_work.lane).in_(closed_lanes))
        found += _in_order_of_start(connection, in_closed_lane, limit)
    found.sort(key=attrgetter("starts_at", "stream_id"))
    return found[:limit]


def _in_order_of_start(connection: Connection, condition: ColumnElement[bool], limit: int) -> list[OpenWork]:
    query = select(open_work).where(condition).order_by(_work.starts_at, _work.stream_id).limit(limit)
    found: list[OpenWork] = []
    for row in connection.execute(query.with_for_update(skip_locked=True)):  # SQLite, of one process, locks no rows
        with suppress(HistoryError):  # one that cannot be read keeps no other from its turn; `all_work` tells of it
            found.append(work_of(row))
    return found


def _unindexed(column: Column[Any]) -> ColumnElement[Any]:
    """The column behind a unary plus, which no index serves: the planner would walk through every row of a lane."""
    return literal_column(f"+open_work.{column.name}", column.type)


def _lanes(connection: Connection) -> list[str]:
    """The lanes in use, by one index step for each; one more than `LANES_MAX` when there are too many."""
    lanes: list[str] = []
    lane = connection.execute(select(func.min(_work.lane))).scalar_one()
    while lane is not None and len(lanes) <= LANES_MAX:
        lanes.append(lane)
        lane = connection.execute(select(func.min(_work.lane)).where(_work.lane > lane)).scalar_one()
    return lanes
