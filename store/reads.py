"""The read queries, each bounded by a limit. Owns how they use the indexes; every statement is its own transaction."""

from collections.abc import Collection, Sequence
from datetime import datetime
from operator import attrgetter
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select

from store.port import OpenWork, RecordedEvent
from store.rows import event_of, instant, microseconds, work_of
from store.tables import events, open_work

BACKLOG_MIN = 4_096
"""Due rows from which on they are walked lane by lane in order of start, not collected and sorted."""
LANES_MAX = 1_000
"""Lanes looked at in one backlog query."""

_work = open_work.c


def stream(connection: Connection, stream_id: UUID, after: int, limit: int | None) -> list[RecordedEvent]:
    """One stream from version `after + 1`."""
    query = (
        select(events)
        .where(events.c.stream_id == stream_id.bytes, events.c.version > after)
        .order_by(events.c.version)
        .limit(limit)
    )
    return [event_of(row) for row in connection.execute(query)]


def log(connection: Connection, after: int, limit: int) -> list[RecordedEvent]:
    """The log from position `after + 1`."""
    query = select(events).where(events.c.position > after).order_by(events.c.position).limit(limit)
    return [event_of(row) for row in connection.execute(query)]


def position(connection: Connection) -> int:
    """The last position, 0 in an empty log."""
    return int(connection.execute(select(func.coalesce(func.max(events.c.position), 0))).scalar_one())


def work(connection: Connection, stream_id: UUID) -> OpenWork | None:
    """The row of one stream."""
    row = connection.execute(select(open_work).where(_work.stream_id == stream_id.bytes)).first()
    return None if row is None else work_of(row)


def all_work(connection: Connection, after: UUID | None, limit: int) -> list[OpenWork]:
    """Rows in order of stream id."""
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
    at = microseconds(now)
    is_due: ColumnElement[bool] = _work.due_at <= at
    wanted = limit + len(skip)
    if _many(connection, is_due):
        found = _backlog(connection, at, wanted, frozenset(closed_lanes))
    else:
        if closed_lanes:
            is_due = and_(is_due, or_(_work.lane.not_in(closed_lanes), _work.deadline_at <= at))
        found = _in_order_of_start(connection, is_due, wanted, "open_work_due")
    skipped = frozenset(skip)
    return [row for row in found if row.stream_id not in skipped][:limit]


def _many(connection: Connection, condition: ColumnElement[bool]) -> bool:
    some = select(_work.due_at).where(condition).limit(BACKLOG_MIN).subquery("some")
    return bool(connection.execute(select(func.count()).select_from(some)).scalar_one() >= BACKLOG_MIN)


def _backlog(connection: Connection, at: int, limit: int, closed_lanes: frozenset[str]) -> list[OpenWork]:
    is_due, past_deadline = _work.due_at <= at, _work.deadline_at <= at
    many_past_deadline = bool(closed_lanes) and _many(connection, past_deadline)
    found: list[OpenWork] = []
    for lane in _lanes(connection):
        in_lane = and_(_work.lane == lane, is_due)
        if lane not in closed_lanes:
            found += _in_order_of_start(connection, in_lane, limit, "open_work_lane")
        elif many_past_deadline:
            found += _in_order_of_start(connection, and_(in_lane, past_deadline), limit, "open_work_lane")
    if closed_lanes and not many_past_deadline:
        in_closed_lane = and_(past_deadline, is_due, _work.lane.in_(closed_lanes))
        found += _in_order_of_start(connection, in_closed_lane, limit, "open_work_deadline")
    found.sort(key=attrgetter("starts_at", "stream_id"))
    return found[:limit]


def _in_order_of_start(
    connection: Connection, condition: ColumnElement[bool], limit: int, index: str
) -> list[OpenWork]:
    # Without statistics the planner may choose another index, and walk through every waiting row.
    query = (
        select(open_work)
        .with_hint(open_work, f"INDEXED BY {index}", "sqlite")
        .where(condition)
        .order_by(_work.starts_at, _work.stream_id)
        .limit(limit)
    )
    return [work_of(row) for row in connection.execute(query)]


def _lanes(connection: Connection) -> list[str]:
    """The lanes in use, by one index step for each."""
    lanes: list[str] = []
    lane = connection.execute(select(func.min(_work.lane))).scalar_one()
    while lane is not None and len(lanes) < LANES_MAX:
        lanes.append(lane)
        lane = connection.execute(select(func.min(_work.lane)).where(_work.lane > lane)).scalar_one()
    return lanes
