"""The due queries: the same answer with few rows due and in a backlog, and by an index in both."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from uuid import UUID

import pytest
from sqlalchemy import Connection, event, insert

from domain.errors import HistoryError
from store import reads
from store.port import OpenWork, Private
from store.rows import work_row
from store.sqlite_file import reading_engine, writing_connection
from store.sqlite_writer import SqliteLogWriter
from store.tables import open_work

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
SEED = 4711


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    opened = writing_connection(tmp_path / "log.db")
    yield opened
    opened.close()


def random_rows(random: Random, count: int) -> list[OpenWork]:
    def about_noon() -> datetime:
        return NOON + timedelta(minutes=random.randint(-3, 3))

    return [
        OpenWork(
            stream_id=UUID(int=random.getrandbits(128)),
            tenant="acme",
            lane=random.choice(["", "main", "other", "broken"]),
            due_at=random.choice([None, about_noon(), about_noon()]),
            starts_at=about_noon(),
            deadline_at=random.choice([None, about_noon()]),
            in_flight=random.random() < 0.1,
        )
        for _ in range(count)
    ]


def put(connection: Connection, rows: list[OpenWork]) -> None:
    columns = open_work.c.keys()
    connection.execute(insert(open_work), [dict(zip(columns, work_row(row, ""), strict=True)) for row in rows])
    connection.commit()


def as_defined(rows: list[OpenWork], limit: int, closed: tuple[str, ...], skip: list[UUID]) -> list[UUID]:
    """The definition of `due`, said by a list."""
    found = [
        row
        for row in rows
        if row.due_at is not None
        and row.due_at <= NOON
        and row.stream_id not in skip
        and (row.lane not in closed or (row.deadline_at is not None and row.deadline_at <= NOON))
    ]
    found.sort(key=lambda row: (row.starts_at, row.stream_id))
    return [row.stream_id for row in found[:limit]]


@pytest.mark.parametrize(("backlog_min", "lanes_max"), [(0, 4), (160, 1_000), (0, 3), (1_000_000, 1_000)], ids=str)
@pytest.mark.parametrize("closed", [(), ("broken",), ("main", "broken", "unknown", "")])
def test_due_is_what_its_definition_says(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, backlog_min: int, lanes_max: int, closed: tuple[str, ...]
) -> None:
    print(f"seed {SEED}")
    random = Random(SEED)
    monkeypatch.setattr(reads, "BACKLOG_MIN", backlog_min)
    monkeypatch.setattr(reads, "LANES_MAX", lanes_max)
    rows = random_rows(random, 500)
    put(connection, rows)
    skip = [row.stream_id for row in random.sample(rows, 50)]
    for limit in (1, 20, 1_000):
        found = reads.due(connection, NOON, limit, closed, skip)
        assert [row.stream_id for row in found] == as_defined(rows, limit, closed, skip)


def test_a_row_that_changes_its_lane_meanwhile_is_found_once(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "BACKLOG_MIN", 1)
    moving, other = (OpenWork(UUID(int=n), "acme", lane, NOON, NOON, None) for n, lane in ((1, "a"), (2, "b")))
    put(connection, [moving, other])
    moved: list[None] = []

    def move(used, cursor, statement: str, parameters, context, many) -> None:
        if "starts_at" in statement and not moved:
            moved.append(connection.exec_driver_sql("UPDATE open_work SET lane = 'b'").close())

    engine = reading_engine(tmp_path / "log.db")
    with engine.connect() as reader:
        event.listen(reader, "after_cursor_execute", move)
        found = reads.due(reader, NOON, 10, [], [])
    engine.dispose()
    assert moved
    assert [row.stream_id.int for row in found] == [1, 2]


@pytest.mark.parametrize("backlog_min", [0, 1_000_000])
@pytest.mark.parametrize(
    "fault",
    [
        "starts_at = 'soon'",
        "deadline_at = 9223372036854775807",
        "lane = x'ff'",
        "due_at = 1.5",
        "owner = 7, version = 'two'",
        "stream_id = x'01'",
    ],
)
def test_a_row_that_cannot_be_read_is_told_of_and_holds_no_other_up(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, fault: str, backlog_min: int
) -> None:
    monkeypatch.setattr(reads, "BACKLOG_MIN", backlog_min)
    put(connection, [OpenWork(UUID(int=n), "acme", "main", NOON, NOON, None) for n in (1, 2, 3)])
    connection.exec_driver_sql(f"UPDATE open_work SET {fault} WHERE stream_id = ?", (UUID(int=2).bytes,))
    assert [row.stream_id.int for row in reads.due(connection, NOON, 10, [], [])] == [1, 3]
    with pytest.raises(HistoryError, match=r"the open work of stream b'.*' cannot be read"):
        reads.all_work(connection, None, 10)


@pytest.mark.parametrize(
    "fault",
    ["stream_id = x'01'", "at = 9223372036854775807", "at = 'then'", "sealed = 'text'", "version = -1"],
)
def test_an_event_in_a_row_that_cannot_be_one_is_a_fault_of_the_history(connection: Connection, fault: str) -> None:
    writer = SqliteLogWriter(connection)
    writer.begin()
    part = Private(("somebody",), b"{}")
    writer.insert_events([(UUID(int=n).bytes, (1, "opened.v1", 0, b"{}", (part,))) for n in (1, 2)])
    connection.commit()
    connection.exec_driver_sql(f"UPDATE events SET {fault} WHERE position = 2")
    with pytest.raises(HistoryError, match="position 2 of the log cannot be read"):
        reads.log(connection, 1, 10)
    assert [event.position for event in reads.log(connection, 0, 1)] == [1], "what is before it can be read"


def test_each_part_of_a_backlog_is_read_by_its_own_index(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(connection, random_rows(Random(SEED), 500))
    used: list[str] = []

    def explain(_used, cursor, statement: str, parameters, context, many) -> None:
        if "starts_at" in statement:
            steps = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            used.append(next(steps)[3].partition("INDEX ")[2].split()[0])

    event.listen(connection, "before_cursor_execute", explain)
    reads.due(connection, NOON, 10, ["broken"], [])
    assert used == ["open_work_due"]
    monkeypatch.setattr(reads, "BACKLOG_MIN", 1)
    used.clear()
    reads.due(connection, NOON, 10, ["broken"], [])
    assert set(used) == {"open_work_lane"}, "many past their deadline"
    connection.exec_driver_sql("UPDATE open_work SET deadline_at = NULL")
    used.clear()
    reads.due(connection, NOON, 10, ["broken"], [])
    assert used == [*["open_work_lane"] * 3, "open_work_deadline"], "few past their deadline: not every row of the lane"


@pytest.mark.parametrize("backlog_min", [0, 160, 1_000_000])
def test_no_read_walks_through_all_rows(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, backlog_min: int
) -> None:
    monkeypatch.setattr(reads, "BACKLOG_MIN", backlog_min)
    put(connection, random_rows(Random(SEED), 2_000))
    plans: list[str] = []

    def explain(used, cursor, statement: str, parameters, context, many) -> None:
        if statement.startswith("SELECT"):
            steps = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(f"{step[3]} | {statement}" for step in steps)

    event.listen(connection, "before_cursor_execute", explain)
    reads.due(connection, NOON, 10, ["broken"], [])
    reads.due(connection, NOON, 10, [], [])
    reads.next_due(connection, NOON)
    reads.work(connection, UUID(int=1))
    reads.all_work(connection, UUID(int=1), 10)
    reads.stream(connection, UUID(int=1), 0, None)
    reads.log(connection, 5, 10)
    reads.position(connection)
    assert len(plans) > 8
    assert [plan for plan in plans if plan.startswith("SCAN") and not plan.startswith("SCAN some")] == []
