"""The log's side: one pass over the log and one appointment read by itself say the same, and little is kept."""

import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from domain import events as e
from domain.commands import OperatorAction
from domain.definition import SagaPlan, StepPlan
from domain.identity import appointment_id, definition_stream
from domain.lifecycle import State
from domain.provider import BookingDetails, BookingStatus, ProviderBooking
from projections.reconciliation.intended import Record, Scope
from projections.reconciliation.log import read_log, read_one
from store.mapper import encode
from store.memory import MemoryStore
from store.port import Append, OpenWork, RecordedEvent

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
SOON = NOON + timedelta(seconds=30)
PLAN = SagaPlan(name="booking", provider="main", steps=(StepPlan(name="calendar", target="main", books=True),))
DETAILS = BookingDetails(calendar="main", start=SOON, end=SOON + timedelta(hours=1), time_zone="UTC", summary="x")
SCOPE = Scope("main", "main", "default")
BOOKING = ProviderBooking(provider_ref="ref-1", client_ref="c", status=BookingStatus.ACCEPTED, etag='"1"')
STARTED = e.StepStarted(at=NOON, step="calendar", operation_id="o", attempt=1, timeout_ms=1_000)
DONE = e.StepSucceeded(at=NOON, step="calendar", booking=BOOKING)
CONFIRMED = (STARTED, DONE, e.AppointmentConfirmed(at=NOON))
WHO: dict[str, Any] = {"at": NOON, "fingerprint": "f"}
LATER = {"start": SOON + timedelta(days=1), "end": SOON + timedelta(days=1, hours=1), "time_zone": "UTC"}
MOVED = (
    e.RescheduleRequested(**WHO, key="m", deadline_at=SOON, **LATER),
    STARTED.model_copy(update={"operation": e.Operation.RESCHEDULE}),
    e.StepSucceeded(
        at=NOON,
        step="calendar",
        operation=e.Operation.RESCHEDULE,
        booking=BOOKING.model_copy(update={"etag": '"2"', "version": 2}),
    ),
    e.AppointmentRescheduled(at=NOON, **LATER),
)
CANCELLED = (
    e.CancellationRequested(**WHO, key="c", cleanup_until=SOON),
    STARTED.model_copy(update={"operation": e.Operation.COMPENSATION}),
    e.StepSucceeded(at=NOON, step="calendar", operation=e.Operation.COMPENSATION),
    e.AppointmentCancelled(at=NOON),
)
LOST = e.StepAttemptFailed(at=NOON, step="calendar", kind="unknown", reason="timeout")
PARKED = e.OperatorActed(**WHO, key="p", action=OperatorAction.PARK, reason="wait", cleanup_until=SOON)


class Streams:
    """A log that is written stream by stream, event by event."""

    def __init__(self) -> None:
        self.store = MemoryStore()

    async def tell(self, key: str, *events: e.Event, work: bool = False, **changes: Any) -> UUID:
        """Append; the first time the request goes before."""
        id = appointment_id("default", key)
        version = len(await self.store.events(id))
        if not version:
            request: dict[str, Any] = {**WHO, "key": key, "definition": PLAN.digest, "deadline_at": SOON}
            request |= {"tenant": "default", "provider": "main", "details": DETAILS, **changes}
            events = (e.AppointmentRequested.model_validate(request), *events)
        for event in events:
            row = OpenWork(id, "default", "main", SOON, SOON, SOON, version=version + 1) if work else None
            await self.store.append(Append(id, version, (encode(id, version + 1, event),), row))
            version += 1
        return id


@pytest.fixture
async def streams() -> Streams:
    made = Streams()
    id = definition_stream(PLAN.digest)
    fact = e.DefinitionRegistered(at=NOON, digest=PLAN.digest, plan=PLAN.model_dump(mode="json"))
    await made.store.append(Append(id, 0, (encode(id, 1, fact),)))
    return made


async def both(streams: Streams, id: UUID) -> Record:
    """What the pass over the whole log says, having made sure that the stream by itself says the same."""
    by_pass = (await read_log(streams.store, SCOPE)).records[id]
    assert await read_one(streams.store, id, SCOPE) == by_pass
    return by_pass


async def test_a_confirmed_one_keeps_what_was_written_there(streams: Streams) -> None:
    record = await both(streams, await streams.tell("first", *CONFIRMED))
    seen = record.intended
    assert (seen.state, seen.version, seen.provider_ref, seen.etag) == (State.CONFIRMED, 4, "ref-1", '"1"')
    assert (seen.origin.version, seen.origin.type) == (4, "appointment-confirmed.v1")
    assert (record.attempted.calls, record.attempted.operation, record.attempted.outcome) == (1, "action", "succeeded")


@pytest.mark.parametrize(
    ("events", "version", "type_", "outcome"),
    [
        ((*CONFIRMED, *MOVED), 8, "appointment-rescheduled.v1", "succeeded"),
        ((*CONFIRMED, *CANCELLED), 8, "appointment-cancelled.v1", "succeeded"),
        ((*CONFIRMED, PARKED), 5, "operator-acted.v1", "succeeded"),
        ((STARTED,), 2, "step-started.v1", "in_flight"),
        ((STARTED, LOST), 3, "step-attempt-failed.v1", "unknown"),
        ((STARTED, LOST, e.StepInDoubt(at=NOON, step="calendar")), 3, "step-attempt-failed.v1", "unknown"),
        ((STARTED, e.CallInterrupted(at=NOON, step="calendar")), 3, "call-interrupted.v1", "interrupted"),
        ((), 1, "appointment-requested.v1", "none"),
    ],
)
async def test_a_finding_starts_from_the_event_that_made_it_so(
    streams: Streams, events: tuple[e.Event, ...], version: int, type_: str, outcome: str
) -> None:
    record = await both(streams, await streams.tell("first", *events))
    assert (record.intended.origin.version, record.intended.origin.type) == (version, type_)
    assert record.attempted.outcome == outcome


async def test_a_move_changes_the_times_that_are_wanted(streams: Streams) -> None:
    record = await both(streams, await streams.tell("first", *CONFIRMED, *MOVED))
    assert record.intended.start == LATER["start"]
    assert record.intended.etag == '"2"'


async def test_a_doubt_ends_when_the_outcome_is_known(streams: Streams) -> None:
    id = await streams.tell("first", STARTED, LOST)
    assert (await both(streams, id)).intended.doubt
    await streams.tell("first", STARTED.model_copy(update={"attempt": 2}), DONE)
    assert not (await both(streams, id)).intended.doubt


async def test_one_that_went_on_after_it_rested_is_read_again_wherever_its_events_lie(streams: Streams) -> None:
    first, second = await streams.tell("first", *CONFIRMED), await streams.tell("second", *CONFIRMED)
    for event in MOVED:
        await streams.tell("first", event)
        await streams.tell("second", *([] if event is not MOVED[0] else CANCELLED))
    assert (await both(streams, first)).intended.start == LATER["start"]
    assert (await both(streams, second)).intended.state is State.CANCELLED


async def test_what_is_kept_of_an_appointment_is_small(streams: Streams) -> None:
    """10,000 of them stay below 10 MB; whole states would take several times that."""
    many = 500
    for n in range(many):
        await streams.tell(f"key-{n}", *CONFIRMED)
    tracemalloc.start()
    log = await read_log(streams.store, SCOPE)
    kept, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(log.records) == many
    assert kept / many < 1_000, kept / many


async def test_open_work_tells_when_it_is_due(streams: Streams) -> None:
    waits = await streams.tell("waits", work=True)
    stranded = await streams.tell("stranded")
    assert ((await both(streams, waits)).intended.work, (await both(streams, waits)).intended.due_at) == (True, SOON)
    assert not (await both(streams, stranded)).intended.work


async def test_other_calendars_tenants_and_providers_are_known_and_left_out(streams: Streams) -> None:
    other = DETAILS.model_copy(update={"calendar": "other"})
    ids = [
        await streams.tell("1", *CONFIRMED, details=other),
        await streams.tell("2", *CONFIRMED, tenant="other"),
        await streams.tell("3", *CONFIRMED, provider="other"),
    ]
    log = await read_log(streams.store, SCOPE)
    assert (log.records, log.elsewhere) == ({}, set(ids))
    for id in ids:
        record = await read_one(streams.store, id, SCOPE)
        assert record is not None
        assert not record.within
    assert await read_one(streams.store, UUID(int=1), SCOPE) is None
    assert await read_one(streams.store, definition_stream(PLAN.digest), SCOPE) is None


@pytest.mark.parametrize("events", [(), CONFIRMED])
async def test_a_stream_that_cannot_be_read_hides_no_other(streams: Streams, events: tuple[e.Event, ...]) -> None:
    broken, whole = await streams.tell("broken", *events), await streams.tell("whole", *CONFIRMED)
    version = len(await streams.store.events(broken)) + 1
    bad = RecordedEvent(broken, version, "from-the-future.v9", b"{}", at=NOON)
    await streams.store.append(Append(broken, version - 1, (bad,)))
    log = await read_log(streams.store, SCOPE)
    assert (log.unreadable, set(log.records)) == ({broken}, {whole})
