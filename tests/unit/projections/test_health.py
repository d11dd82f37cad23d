"""Health and the list, folded from the log: nothing stranded looks healthy, and one broken stream hides no other."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from domain import events as e
from domain.definition import SagaPlan, StepPlan
from domain.identity import appointment_id, definition_stream
from domain.provider import BookingDetails
from projections.health import OVERDUE_AFTER, SHOWN_MAX, Health, health
from projections.listing import appointments
from store.mapper import encode
from store.memory import MemoryStore
from store.port import Append, OpenWork, RecordedEvent

pytestmark = pytest.mark.evidence(
    target="health",
    answers=("R8.6", "G6"),
    given="appointments that are overdue, stranded, parked, unreadable",
    when="health is asked for",
    then="each is listed as what it is",
    seen_in="findings",
)

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
SOON = NOON + timedelta(seconds=30)
PLAN = SagaPlan(name="booking", provider="main", steps=(StepPlan(name="calendar", target="main", books=True),))
RUNS = {("booking", 1, "main")}
DETAILS = BookingDetails(calendar="main", start=SOON, end=SOON + timedelta(hours=1), time_zone="UTC", summary="x")


def requested(key: str) -> e.AppointmentRequested:
    return e.AppointmentRequested(
        at=NOON,
        key=key,
        fingerprint="f",
        tenant="default",
        definition=PLAN.digest,
        provider="main",
        details=DETAILS,
        deadline_at=SOON,
    )


def work(id: UUID, version: int, **changes: Any) -> OpenWork:
    fields: dict[str, Any] = {"due_at": SOON, "starts_at": SOON, "deadline_at": SOON, **changes}
    return OpenWork(id, "default", "main/default", version=version, **fields)


async def put(store: MemoryStore, key: str, *events: e.Event, row: dict[str, Any] | None = None) -> UUID:
    """A stream of the request and these events; `row` is its open work (None: it has none)."""
    id = appointment_id("default", key)
    stream = tuple(encode(id, n, event) for n, event in enumerate((requested(key), *events), 1))
    opened = None if row is None else work(id, **{"version": len(stream), **row})
    await store.append(Append(id, 0, stream, opened))
    return id


@pytest.fixture
async def store() -> MemoryStore:
    made = MemoryStore()
    id = definition_stream(PLAN.digest)
    fact = e.DefinitionRegistered(at=NOON, digest=PLAN.digest, plan=PLAN.model_dump(mode="json"))
    await made.append(Append(id, 0, (encode(id, 1, fact),)))
    return made


async def check(store: MemoryStore, now: datetime = NOON, runs: Any = RUNS) -> Health:
    return await health(store, now, runs)


def kinds(found: Health) -> list[str]:
    return [finding.kind for finding in found.findings]


ENDED = (
    e.CancellationRequested(at=NOON, key="c", fingerprint="f", cleanup_until=SOON),
    e.AppointmentCancelled(at=NOON),
)


async def test_what_waits_in_time_and_what_has_ended_is_well(store: MemoryStore) -> None:
    await put(store, "waits", row={})
    await put(store, "ended", *ENDED)
    found = await check(store)
    assert (found.ok, found.events, found.appointments, found.unfinished, found.parked) == (True, 5, 2, 1, 0)


async def test_what_has_no_row_would_never_end(store: MemoryStore) -> None:
    await put(store, "lost")
    assert kinds(await check(store)) == ["unowned"]


@pytest.mark.parametrize("due_at", [None, NOON - OVERDUE_AFTER - timedelta(seconds=1)])
async def test_what_was_due_long_ago_or_never_will_be_is_overdue(store: MemoryStore, due_at: datetime | None) -> None:
    await put(store, "late", row={"due_at": due_at})
    found = await check(store)
    assert (found.ok, kinds(found)) == (False, ["overdue"])


async def test_what_is_due_a_moment_ago_is_not_yet_overdue(store: MemoryStore) -> None:
    await put(store, "busy", row={"due_at": NOON - timedelta(seconds=59)})
    assert (await check(store)).ok


async def test_a_row_of_another_version_is_stale(store: MemoryStore) -> None:
    await put(store, "torn", row={"version": 7})
    assert kinds(await check(store)) == ["stale"]


@pytest.mark.parametrize("runs", [set(), {("booking", 2, "main")}, {("booking", 1, "other")}])
async def test_a_definition_that_nobody_runs_is_found(store: MemoryStore, runs: Any) -> None:
    await put(store, "old", row={})
    assert kinds(await check(store, runs=runs)) == ["nobody_runs"]


async def test_a_row_of_what_has_ended_is_a_leftover(store: MemoryStore) -> None:
    await put(store, "ended", *ENDED, row={})
    assert kinds(await check(store)) == ["leftover"]


async def test_parked_ones_are_listed_and_no_fault(store: MemoryStore) -> None:
    await put(store, "stuck", e.AppointmentParked(at=NOON, reason="look"), row={"due_at": None, "parked": True})
    found = await check(store)
    assert (found.ok, found.parked, kinds(found)) == (True, 1, ["parked"])
    assert found.findings[0].detail == "look"


@pytest.mark.parametrize(
    "event",
    [
        RecordedEvent(UUID(int=0), 2, "from-the-future.v9", b"{}"),
        RecordedEvent(UUID(int=0), 2, "appointment-parked.v1", b"{"),
        encode(UUID(int=0), 2, e.AppointmentFailed(at=NOON, reason=e.EndReason.REJECTED)),
    ],
    ids=["unknown type", "broken body", "illegal move"],
)
async def test_a_stream_that_cannot_be_read_hides_no_other(store: MemoryStore, event: RecordedEvent) -> None:
    bad = await put(store, "bad", row={})
    broken = RecordedEvent(bad, 2, event.type, event.body)
    await store.append(Append(bad, 1, (broken,), work(bad, 2)))
    good = await put(store, "good", row={})
    found = await check(store)
    assert not found.ok
    assert {finding.subject for finding in found.findings} == {str(bad)}
    assert set(kinds(found)) == {"undecodable"}
    assert [state.id async for state in appointments(store)] == [good]


async def test_a_gap_in_the_positions_is_found(store: MemoryStore) -> None:
    await put(store, "first", row={})
    await put(store, "second", row={})
    del store._tables.log[1]
    assert "gap" in kinds(await check(store))


async def test_no_more_is_shown_than_can_be_read_but_all_is_counted(store: MemoryStore) -> None:
    for number in range(SHOWN_MAX + 5):
        await put(store, f"lost-{number}")
    found = await check(store)
    assert len(found.findings) == SHOWN_MAX
    assert found.unfinished == SHOWN_MAX + 5


async def test_callbacks_for_nobody_are_no_appointments(store: MemoryStore) -> None:
    id = UUID(int=5)
    orphan = e.OrphanCallbackReceived(
        at=NOON,
        provider="main",
        webhook_id="wh-1",
        client_ref="nobody",
        status=e.BookingStatus.ACCEPTED,
        provider_ref="bk-1",
        version=1,
    )
    await store.append(Append(id, 0, (encode(id, 1, orphan),), touches_work=False))
    found = await check(store)
    assert (found.ok, found.appointments) == (True, 0)
