"""Figures of hand-made logs: what counts as what, in which hour, once; what is a label and what never gets in."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed
from sqlalchemy import Connection, select

from domain import events as e
from domain.commands import OperatorAction, Repair
from domain.definition import SagaPlan, StepPlan
from domain.errors import InvalidFields
from domain.identity import appointment_id, definition_stream
from domain.provider import BookingDetails, BookingStatus, Party, ProviderBooking
from projections.figures import Figures, metadata
from projections.figures_fold import COUNTED
from projections.figures_openmetrics import PROVIDERS_MAX, openmetrics
from projections.figures_query import read
from projections.figures_report import FiguresReport
from projections.views import Views
from store.mapper import encode
from store.memory import MemoryStore
from store.port import Append

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
LATER = NOON + timedelta(days=1)
SECRET = "Jane Roe 555-0100"
STEPS = (
    StepPlan(name="calendar", target="main", books=True),
    StepPlan(name="confirm", target="main"),
    StepPlan(name="notify", target="mail"),
)
PLAN = SagaPlan(name="booking", provider="main", steps=STEPS)
DETAILS = BookingDetails(
    calendar="main",
    start=LATER,
    end=LATER + timedelta(hours=1),
    time_zone="UTC",
    summary=SECRET,
    organizer=Party(email="jane.roe@example.org", name=SECRET),
)
BOOKING = ProviderBooking(provider_ref=SECRET, client_ref="c", status=BookingStatus.ACCEPTED, version=1)
ASKED = {"key": SECRET, "fingerprint": "f", "actor": SECRET}
CLEANUP = {"cleanup_until": LATER}


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


class Log:
    """A log that is written by hand."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.views = Views(self.store, None, (Figures(),))
        self.versions: dict[UUID, int] = {}

    async def add(self, key: str, *events: e.Event) -> None:
        id = appointment_id("", key)
        for event in events:
            version = self.versions.get(id, 0) + 1
            await self.store.append(Append(id, version - 1, (encode(id, version, event),)))
            self.versions[id] = version

    async def define(self) -> None:
        id = definition_stream(PLAN.digest)
        fact = e.DefinitionRegistered(at=NOON, digest=PLAN.digest, plan=PLAN.model_dump(mode="json"))
        await self.store.append(Append(id, 0, (encode(id, 1, fact),)))

    async def ask(self, query: Callable[[Connection], Any]) -> Any:
        """Fold what was added since the last time, as a batch of its own, and ask."""
        return (await self.views.read("figures", query))[0]

    async def report(self, **window: Any) -> FiguresReport:
        found: FiguresReport = await self.ask(lambda connection: read(connection, **window))
        return found


@pytest.fixture
async def log() -> AsyncIterator[Log]:
    made = Log()
    await made.define()
    yield made
    await made.views.close()


def requested(seconds: float = 0, tenant: str = "default", provider: str = "main") -> e.Event:
    return e.AppointmentRequested(
        at=at(seconds),
        tenant=tenant,
        definition=PLAN.digest,
        provider=provider,
        details=DETAILS,
        deadline_at=LATER,
        **ASKED,
    )


def started(seconds: float, attempt: int = 1, step: str = "calendar", operation: str = "action") -> e.Event:
    return e.StepStarted(
        at=at(seconds),
        step=step,
        operation=e.Operation(operation),
        operation_id="o",
        attempt=attempt,
        timeout_ms=5_000,
    )


def succeeded(seconds: float, **more: Any) -> e.Event:
    return e.StepSucceeded(at=at(seconds), step="calendar", **{"booking": BOOKING, **more})


def failed(seconds: float, kind: Any = "retryable") -> e.Event:
    return e.StepAttemptFailed(at=at(seconds), step="calendar", kind=kind, reason=SECRET)


def given_up(seconds: float) -> e.Event:
    return e.CompensationBegun(at=at(seconds), reason=e.EndReason.REJECTED, detail=SECRET, **CLEANUP)


def ended(seconds: float) -> e.Event:
    return e.AppointmentFailed(at=at(seconds), reason=e.EndReason.REJECTED)


def cancel(seconds: float) -> e.Event:
    return e.CancellationRequested(at=at(seconds), reason=SECRET, **ASKED, **CLEANUP)


def late(seconds: float) -> e.Event:
    return e.LateSuccess(at=at(seconds), step="calendar", provider_ref=SECRET, version=2, **CLEANUP)


def deferred(seconds: float, until: float, step: str = "calendar") -> e.Event:
    return e.CallDeferred(at=at(seconds), step=step, until=at(until), reason="circuit_open")


BOOKED = (requested(), started(1), succeeded(3), e.AppointmentConfirmed(at=at(4)))
FAILED = (requested(), started(1), failed(2, "rejected"), given_up(2), ended(2.5))


async def test_the_rate_is_of_those_that_came_to_an_end_by_themselves(log: Log) -> None:
    """Cancelled after it was confirmed: a success. Withdrawn before it had an end: neither. Under way: neither."""
    await log.add("confirmed", *BOOKED)
    await log.add("cancelled", *BOOKED, cancel(10), e.AppointmentCancelled(at=at(11)))
    await log.add("withdrawn", requested(), cancel(1), e.AppointmentCancelled(at=at(3)))
    await log.add("failed", *FAILED)
    await log.add("under way", requested())
    total = (await log.report()).total
    assert (total.requested, total.confirmed, total.failed) == (5, 2, {"rejected": 1})
    assert (total.withdrawn, total.cancelled) == (1, 1)
    assert total.success_rate == pytest.approx(2 / 3, abs=1e-6)
    assert total.now == {"cancelled": 2, "confirmed": 1, "failed": 1, "requested": 1}
    assert (total.unfinished, total.parked_now) == (1, 0)
    assert {outcome: took.count for outcome, took in total.booking.by_outcome.items()} == {
        "confirmed": 2,
        "failed": 1,
        "withdrawn": 1,
    }
    assert (total.cancel.all.count, total.cancel.all.sum_ms) == (2, 3_000)


@pytest.mark.parametrize("window", [{}, {"since": NOON, "until": LATER}])
async def test_nothing_asked_for_gives_no_rate(log: Log, window: dict[str, datetime]) -> None:
    report = await log.report(**window)
    assert report.total.success_rate is None
    assert (report.providers, report.steps, report.breakers) == ((), (), ())


async def test_an_end_that_is_reached_twice_counts_once(log: Log) -> None:
    undone = (started(21, step="calendar", operation="compensation"), succeeded(22, operation="compensation"))
    await log.add("failed", *FAILED, late(20), *undone, ended(23))
    await log.add("cancelled", *BOOKED, cancel(5), e.AppointmentCancelled(at=at(6)), late(20))
    await log.add("cancelled", e.AppointmentCancelled(at=at(24)))
    total = (await log.report()).total
    assert (total.failed, total.cancelled, total.withdrawn) == ({"rejected": 1}, 1, 0)
    assert (total.late_successes, total.undo_calls) == (2, 1)
    assert (total.cleanup.all.count, total.cleanup.all.sum_ms) == (2, 7_000)


GONE = (
    e.BookingObserved(at=at(10), repair=Repair.RESTORE, reason=SECRET, **ASKED),
    e.RebookingRequested(at=at(10), deadline_at=LATER),
)


@pytest.mark.parametrize("batches", [1, 2])
async def test_a_confirmed_booking_that_is_made_again_was_confirmed_once(log: Log, batches: int) -> None:
    for key in ("again", "in vain", "cancelled"):
        await log.add(key, *BOOKED, *GONE)
    if batches == 2:
        await log.report()
    await log.add("again", started(11), succeeded(12), e.AppointmentConfirmed(at=at(13)))
    await log.add("in vain", given_up(15), ended(16))
    await log.add("cancelled", cancel(20), e.AppointmentCancelled(at=at(21)))
    total = (await log.report()).total
    assert (total.confirmed, total.failed, total.success_rate) == (3, {}, 1.0)
    assert (total.rebooked, total.rebookings_failed, total.repairs) == (1, {"rejected": 1}, {"restore": 3})
    assert (total.cancelled, total.withdrawn) == (1, 0)
    assert {outcome: took.sum_ms for outcome, took in total.rebooking.by_outcome.items()} == {
        "confirmed": 3_000,
        "failed": 6_000,
    }


async def test_calls_are_timed_from_announcement_to_outcome(log: Log) -> None:
    await log.add("a", requested(), started(1), failed(1.25), started(2, attempt=2), failed(2.75, "unknown"))
    await log.add("a", started(10, attempt=3), succeeded(10.5))
    await log.add("b", requested(), started(0), e.CallInterrupted(at=at(3_000), step="calendar"))
    report = await log.report()
    (operation,) = report.steps[0].operations
    assert (operation.operation, operation.attempts, operation.retries) == ("action", 4, 2)
    assert {outcome: took.sum_ms for outcome, took in operation.took.by_outcome.items()} == {
        "interrupted": 3_000_000,
        "retryable": 250,
        "succeeded": 500,
        "unknown": 750,
    }
    # Nobody waited for the end of the interrupted one.
    assert (operation.took.all.count, operation.took.all.sum_ms) == (3, 1_500)


async def test_a_clock_that_goes_backwards_takes_no_time_away(log: Log) -> None:
    await log.add("a", requested(), started(5), succeeded(1), e.AppointmentConfirmed(at=at(-1)))
    report = await log.report()
    assert report.steps[0].operations[0].took.all.sum_ms == 0.001
    assert report.total.booking.all.p99_ms == pytest.approx(0.001, rel=0.011)


async def test_what_a_look_up_tells_ends_no_call(log: Log) -> None:
    await log.add("a", requested(), started(1), failed(2, "unknown"), e.StepInDoubt(at=at(2), step="calendar"))
    await log.add("a", e.BookingFound(at=at(60), step="calendar", booking=BOOKING), succeeded(60, via="lookup"))
    (step,) = (await log.report()).steps
    assert {outcome: took.count for outcome, took in step.operations[0].took.by_outcome.items()} == {"unknown": 1}
    assert (step.lookups, step.in_doubt) == ({"found": 1}, 1)


async def test_a_breaker_s_opening_counts_once_whoever_it_holds_up(log: Log) -> None:
    """`calendar` and `confirm` call the same target: what holds both up is one opening."""
    done = (started(2), succeeded(3))
    await log.add("a", requested(), deferred(1, until=6), deferred(6, until=11))
    await log.add("b", requested(tenant="other"), deferred(2, until=6))
    await log.add("c", requested(), *done, deferred(4, until=6, step="confirm"), deferred(5, until=6, step="notify"))
    assert [(b.target, b.openings) for b in (await log.report()).breakers] == [("mail", 1), ("main", 2)]
    assert [(b.target, b.openings) for b in (await log.report(tenant="other")).breakers] == [("main", 1)]
    assert (await log.report()).total.deferred == 5


async def test_who_waits_beyond_the_opening_tells_of_none(log: Log) -> None:
    """After 100 s of waiting, the next look is 10 s away, whatever the breaker does."""
    await log.add("a", requested(), deferred(0, until=5), deferred(100, until=110), deferred(110, until=121))
    await log.add("a", deferred(121, until=140))
    report = await log.report()
    assert [b.openings for b in report.breakers] == [2], "those until 5 s and 140 s"
    assert report.total.deferred == 4


@pytest.mark.parametrize("tenant", ["default", "other"])
async def test_an_opening_belongs_to_the_hour_of_the_first_call_that_it_held_up(log: Log, tenant: str) -> None:
    await log.add("a", requested(), deferred(3_599, until=3_610))
    await log.report()
    await log.add("b", requested(tenant=tenant), deferred(3_601, until=3_610))
    assert [b.openings for b in (await log.report(until=at(3_600))).breakers] == [1]
    assert (await log.report(since=at(3_600))).breakers == ()


async def test_a_window_is_widened_to_whole_hours_and_says_so(log: Log) -> None:
    await log.add("a", requested(10))
    await log.add("b", requested(3_700))
    report = await log.report(since=at(1_800), until=at(1_801))
    assert (report.since, report.until) == (NOON, at(3_600))
    assert report.total.requested == 1
    assert report.total.now == {"requested": 2}, "what stands now knows no window"


@pytest.mark.parametrize(
    ("window", "pointer"),
    [
        ({"since": datetime(2026, 3, 2)}, "/since"),  # noqa: DTZ001
        ({"until": datetime(2026, 3, 2)}, "/until"),  # noqa: DTZ001
        ({"since": LATER, "until": NOON}, "/until"),
    ],
)
async def test_a_window_that_cannot_be_is_refused(log: Log, window: dict[str, datetime], pointer: str) -> None:
    with pytest.raises(InvalidFields) as refused:
        await log.report(**window)
    assert refused.value.errors[0][0] == pointer


async def test_a_tenant_sees_its_own_alone(log: Log) -> None:
    await log.add("a", *BOOKED)
    await log.add("b", requested(tenant="other", provider="side"))
    report = await log.report(tenant="other")
    assert [one.provider for one in report.providers] == ["side"]
    assert (report.total.requested, report.total.confirmed, report.total.now) == (1, 0, {"requested": 1})


async def test_what_is_parked_now_and_by_whom_it_was(log: Log) -> None:
    park = {"at": at(1), "reason": SECRET, **ASKED, **CLEANUP}
    await log.add("a", requested(), e.OperatorActed(action=OperatorAction.PARK, **park))
    await log.add("b", requested(), e.AppointmentParked(at=at(1), reason=SECRET))
    await log.add("b", e.OperatorActed(action=OperatorAction.RESUME, **park))
    total = (await log.report()).total
    assert (total.parked, total.parked_now, total.unfinished) == (2, 1, 2)
    assert total.operator_actions == {"park": 1, "resume": 1}


async def test_what_stays_parked_while_its_call_ends_was_parked_once(log: Log) -> None:
    await log.add("a", requested(), started(1))
    await log.add("a", e.OperatorActed(at=at(2), action=OperatorAction.PARK, reason=SECRET, **ASKED, **CLEANUP))
    await log.add("a", e.StepPending(at=at(3), step="calendar", booking=BOOKING, poll_at=at(9)))
    total = (await log.report()).total
    assert (total.parked, total.parked_now, total.now) == (1, 1, {"pending": 1})


async def test_a_callback_that_nobody_knows_counts_at_its_provider_for_all_tenants_together(log: Log) -> None:
    orphan = e.OrphanCallbackReceived(
        at=NOON,
        provider="side",
        webhook_id="w",
        client_ref=SECRET,
        status=BookingStatus.ACCEPTED,
        provider_ref="p",
        version=1,
    )
    await log.add("orphan", orphan)
    assert (await log.report()).total.orphan_callbacks == 1
    assert (await log.report(tenant="default")).total.orphan_callbacks == 0


async def test_a_forced_end_counts_as_that_end_and_as_forced(log: Log) -> None:
    await log.add("a", requested(), e.AppointmentConfirmed(at=at(1), forced=True))
    total = (await log.report()).total
    assert (total.confirmed, total.forced, total.success_rate) == (1, 1, 1.0)


async def test_nothing_that_a_person_typed_or_a_provider_said_gets_in(log: Log) -> None:
    await log.add("a", *FAILED, late(20))
    await log.add("b", *BOOKED, e.AppointmentParked(at=at(5), reason=SECRET), cancel(6))
    kept = await log.ask(
        lambda connection: repr(
            [tuple(row) for table in metadata.sorted_tables for row in connection.execute(select(table))]
        )
    )
    assert "calendar" in kept
    assert all(word not in kept for word in ("Jane", "555", "jane.roe"))


def test_every_kind_of_event_is_counted_or_known_not_to_be() -> None:
    elsewhere = {
        "appointment-confirmed.v1",
        "appointment-failed.v1",
        "appointment-cancelled.v1",
        "appointment-parked.v1",
        "definition-registered.v1",
    }
    silent = {"personal-data-erased.v1", "delivery-abandoned.v1", "redelivery-requested.v1"}
    assert {kind for kind, event in e.REGISTRY.items() if event not in COUNTED} <= elsewhere | silent


async def test_openmetrics_is_read_back_by_the_library_s_own_parser(log: Log) -> None:
    await log.add("a", *BOOKED, cancel(10))
    await log.add("b", *FAILED)
    await log.add("c", requested(), deferred(1, until=6))
    text = openmetrics(await log.report())
    assert text.endswith("# EOF\n")
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parsed(text)
        for sample in family.samples
    }
    main, reason = ("provider", "main"), ("reason", "rejected")
    assert samples["appointments_requested_total", main] == 3
    assert samples["appointments_failed_total", main, reason] == 1
    assert samples["appointments_breaker_openings_total", ("target", "main")] == 1
    assert samples["appointments_standing", main, ("state", "cancelling")] == 1
    call = (("operation", "action"), ("outcome", "succeeded"), main, ("step", "calendar"))
    assert samples["appointments_call_duration_seconds_count", *call] == 1
    assert samples["appointments_call_duration_seconds_sum", *call] == 2
    below = sorted([("le", "1.024"), *call])
    above = sorted([("le", "2.048"), *call])
    assert samples["appointments_call_duration_seconds_bucket", *below] == 0
    assert samples["appointments_call_duration_seconds_bucket", *above] == 1


async def test_labels_are_bounded(log: Log) -> None:
    for number in range(PROVIDERS_MAX + 3):
        await log.add(f"a{number}", requested(tenant=f"tenant-{number}", provider=f"provider-{number}"))
    await log.add("busy", requested(provider="provider-52"))
    text = openmetrics(await log.report())
    families = {family.name: family.samples for family in parsed(text)}
    shown = {sample.labels["provider"] for sample in families["appointments_requested"]}
    assert len(shown) == PROVIDERS_MAX
    assert "provider-52" in shown, "the busiest are shown"
    assert families["appointments_providers_left_out"][0].value == 3
    assert "tenant-" not in text
