"""The list: filters, paging that is stable under writes, and cursors that cannot be bent."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError
from sqlalchemy import Connection, create_engine, event

from domain import events as e
from domain.appointment import Appointment
from domain.errors import InvalidFields
from domain.evolve import evolve
from domain.identity import appointment_id
from domain.lifecycle import Phase, State
from domain.provider import BookingDetails, BookingStatus, ProviderBooking
from projections.current_state import PAGE_MAX, AppointmentFilter, CurrentState, CurrentStates, current, metadata, page
from projections.projection import Change
from store.mapper import encode

NINE = datetime(2031, 3, 3, 9, tzinfo=UTC)
CANCELLED = (
    e.CancellationRequested(at=NINE, key="c", fingerprint="f", cleanup_until=NINE),
    e.AppointmentCancelled(at=NINE),
)


class List:
    """The projection on a database in memory, fed event by event."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.states: dict[UUID, Appointment] = {}
        self.position = 0

    def tell(self, key: str, *events: e.Event) -> UUID:
        """These events happen to the appointment."""
        id, changes = appointment_id("default", key), []
        for told in events:
            self.position += 1
            before = self.states.get(id, Appointment(id))
            after = self.states[id] = evolve(before, told)
            recorded = replace(encode(id, after.version, told), position=self.position)
            changes.append(Change(recorded, told, before, after))
        CurrentStates().apply(self.connection, changes)
        return id

    def book(self, key: str, *more: e.Event, tenant: str = "default", **fields: Any) -> UUID:
        """An appointment is asked for, and these events follow."""
        start = fields.pop("start", NINE)
        details = {"calendar": "main", "end": start + timedelta(hours=1), "time_zone": "UTC", "summary": key, **fields}
        wanted = BookingDetails.model_validate({**details, "start": start})
        request = e.AppointmentRequested(
            at=NINE,
            key=key,
            fingerprint="f",
            tenant=tenant,
            definition="booking/1@0",
            provider="main",
            details=wanted,
            deadline_at=NINE,
        )
        return self.tell(key, request, *more)

    def found(self, **wanted: Any) -> list[str]:
        """The summaries on the page."""
        return [one.details.summary for one in page(self.connection, AppointmentFilter(**wanted)).items]


@pytest.fixture
def listed() -> Iterator[List]:
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.connect() as connection:
        yield List(connection)
    engine.dispose()


def test_a_row_gives_back_what_the_state_says(listed: List) -> None:
    booking = ProviderBooking(provider_ref="ref-1", client_ref="c", status=BookingStatus.ACCEPTED)
    party = {"email": "pat@example.org", "name": "Pat"}
    id = listed.book(
        "one",
        e.StepStarted(at=NINE, step="calendar", operation_id="o", attempt=2, timeout_ms=1_000),
        e.StepSucceeded(at=NINE + timedelta(microseconds=1), step="calendar", booking=booking),
        e.AppointmentParked(at=NINE, reason="look"),
        location="Hall 7",
        attendees=[party],
        metadata={"a": "b"},
        time_zone="Europe/Berlin",
    )
    (seen,) = page(listed.connection, AppointmentFilter()).items
    assert seen == current(listed.states[id], 1)
    assert (seen.attempts, seen.provider_ref, seen.parked_reason) == (2, "ref-1", "look")
    assert CurrentState.model_validate(seen.model_dump()) == seen


def test_filters(listed: List) -> None:
    listed.book("one")
    listed.book("two", *CANCELLED, summary="Dentist")
    three = listed.book("three", e.AppointmentParked(at=NINE, reason="r"), calendar="room", location="Saal GRÜN")
    listed.book("four", tenant="other")
    assert listed.found() == ["three", "Dentist", "one"]
    assert listed.found(tenant="other") == ["four"]
    assert listed.found(state=State.CANCELLED) == listed.found(phase=Phase.CANCELLED) == ["Dentist"]
    assert listed.found(phase="in_progress") == ["three", "one"]
    assert listed.found(calendar="room") == listed.found(parked=True) == ["three"]
    assert listed.found(parked=False) == ["Dentist", "one"]
    assert listed.found(q="dENT") == ["Dentist"]
    assert listed.found(q="grün") == listed.found(q=str(three).upper()) == ["three"]
    assert listed.found(q="%") == []
    assert listed.found(calendar="room", state="cancelled") == []


def test_times_are_overlap_with_open_ends(listed: List) -> None:
    for hour in (9, 10, 11):
        listed.book(str(hour), start=NINE.replace(hour=hour))
    ten = NINE.replace(hour=10)
    assert listed.found(from_=ten) == ["11", "10"]
    assert listed.found(to=ten) == ["9"]
    assert listed.found(from_=ten, to=ten + timedelta(minutes=1)) == ["10"]
    wanted = AppointmentFilter.model_validate({"from": "2031-03-03T11:30:00+01:00", "to": "2031-03-03T10:40:00Z"})
    assert [one.details.summary for one in page(listed.connection, wanted).items] == ["10"]


@pytest.mark.parametrize(
    "fields",
    [
        {"limit": 0},
        {"limit": PAGE_MAX + 1},
        {"from": "2031-03-03T09:00:00"},
        {"from": NINE, "to": NINE},
        {"q": "x" * 256},
        {"state": "lost"},
        {"colour": "red"},
    ],
    ids=str,
)
def test_a_filter_with_what_cannot_be_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AppointmentFilter.model_validate(fields)


def walk(listed: List, limit: int, meanwhile: Any = None, **wanted: Any) -> list[str]:
    """Every page in turn; `meanwhile` happens after each."""
    seen: list[str] = []
    cursor = None
    while True:
        found = page(listed.connection, AppointmentFilter(limit=limit, cursor=cursor, **wanted))
        seen += [one.details.summary for one in found.items]
        cursor = found.next_cursor
        if cursor is None:
            return seen
        assert len(found.items) == limit
        if meanwhile is not None:
            meanwhile(len(seen))


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7])
def test_a_walk_sees_everything_once_in_order(listed: List, limit: int) -> None:
    for n in range(6):
        listed.book(str(n))
    assert walk(listed, limit) == ["5", "4", "3", "2", "1", "0"]


def test_a_walk_under_writes_neither_skips_nor_repeats(listed: List) -> None:
    for n in range(6):
        listed.book(str(n))

    def meanwhile(seen: int) -> None:
        listed.book(f"new-{seen}")
        for n in range(6):
            listed.tell(str(n), e.AppointmentParked(at=NINE, reason=str(seen)))

    assert walk(listed, 2, meanwhile) == ["5", "4", "3", "2", "1", "0"]


def test_another_page_size_may_go_on_from_a_cursor(listed: List) -> None:
    for n in range(6):
        listed.book(str(n))
    cursor = page(listed.connection, AppointmentFilter(limit=2)).next_cursor
    assert listed.found(limit=3, cursor=cursor) == ["3", "2", "1"]


def test_a_cursor_of_another_filter_or_of_nobody_is_refused(listed: List) -> None:
    for n in range(3):
        listed.book(str(n))
        listed.book(f"other-{n}", tenant="other")
    cursor = page(listed.connection, AppointmentFilter(limit=1)).next_cursor
    assert cursor is not None
    bent = "A" + cursor[1:] if cursor[0] != "A" else "B" + cursor[1:]
    cut, padded, spaced = cursor[:-1], cursor + "====", f" {cursor}"
    for wrong in ("", "x", "ü", "=" * 24, cut, padded, spaced, bent[::-1], "x" * 64):
        with pytest.raises(InvalidFields, match="cursor") as refused:
            listed.found(cursor=wrong)
        assert refused.value.errors[0][0] == "/cursor"
    for other in ({"tenant": "other"}, {"q": "a"}, {"parked": False}, {"from_": NINE}):
        with pytest.raises(InvalidFields):
            listed.found(cursor=cursor, **other)


def test_what_cannot_be_read_any_more_is_not_shown(listed: List) -> None:
    one, _ = listed.book("one"), listed.book("two")
    CurrentStates().forget(listed.connection, [one])
    assert listed.found() == ["two"]


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ({}, "appointments_scan"),
        ({"state": "failed"}, "appointments_state"),
        ({"phase": "failed"}, "appointments_phase"),
        ({"calendar": "main"}, "appointments_calendar"),
        ({"parked": True}, "appointments_parked"),
        ({"q": "x"}, "appointments_scan"),
        ({"from_": NINE, "to": NINE + timedelta(hours=1)}, "appointments_scan"),
    ],
    ids=str,
)
def test_every_filter_is_served_by_an_index_in_order(listed: List, wanted: dict[str, Any], index: str) -> None:
    asked: list[tuple[str, Any]] = []
    event.listen(listed.connection, "before_cursor_execute", lambda *told: asked.append((told[2], told[3])))
    page(listed.connection, AppointmentFilter(**wanted))
    statement, parameters = asked[0]
    plan = [row[3] for row in listed.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    # The rows of one page may be sorted, not those that it is chosen from.
    chosen = plan[plan.index("CO-ROUTINE anon_1") + 1 : plan.index("SCAN anon_1")]
    assert [step.partition(" (")[0].rpartition(" ")[2] for step in chosen] == [index], plan
