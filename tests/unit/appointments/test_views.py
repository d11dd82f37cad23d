"""What callers see: attempts are create calls, notices say what to do, the trail points to causes."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from appointments.views import AppointmentFilter, audit_trail, view
from domain import events as e
from domain.appointment import Appointment
from domain.evolve import evolve
from domain.identity import appointment_id
from domain.lifecycle import PHASES, Phase, State
from domain.provider import BookingDetails, BookingStatus, ProviderBooking
from store.mapper import encode
from store.port import RecordedEvent

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
LATER = NOON + timedelta(minutes=2)
ID = appointment_id("default", "key-1")
DETAILS = BookingDetails(calendar="main", start=LATER, end=LATER + timedelta(hours=1), time_zone="UTC", summary="x")
REQUESTED = e.AppointmentRequested(
    at=NOON,
    actor="ann",
    key="key-1",
    fingerprint="f",
    tenant="default",
    definition="booking/1@0",
    provider="main",
    details=DETAILS,
    deadline_at=LATER,
)
SEEN = ProviderBooking(provider_ref="bk-1", client_ref=str(ID), status=BookingStatus.ACCEPTED)


def started(step: str, attempt: int) -> e.StepStarted:
    return e.StepStarted(at=NOON, step=step, operation_id=f"op-{step}", attempt=attempt, timeout_ms=1)


def state_of(*events: e.Event) -> Appointment:
    state = Appointment(ID)
    for event in events:
        state = evolve(state, event)
    return state


def failed(reason: str = "rejected") -> tuple[e.Event, ...]:
    return (
        e.StepAttemptFailed(at=NOON, step="calendar", kind="rejected", reason="full"),
        e.CompensationBegun(at=NOON, reason=e.EndReason(reason), detail="full", cleanup_until=LATER),
        e.AppointmentFailed(at=NOON, reason=e.EndReason(reason)),
    )


def test_a_requested_one() -> None:
    seen = view(state_of(REQUESTED), next_action_at=LATER)
    assert (seen.phase, seen.state, seen.version, seen.attempts, seen.retries) == ("in_progress", "requested", 1, 0, 0)
    assert (seen.created_at, seen.updated_at, seen.next_action_at) == (NOON, NOON, LATER)
    assert seen.correlation_id == str(ID)
    assert seen.links["events"] == f"/v1/appointments/{ID}/events"


def test_attempts_are_the_create_calls_not_those_of_other_steps() -> None:
    done = e.StepSucceeded(at=NOON, step="calendar", booking=SEEN)
    seen = view(state_of(REQUESTED, started("calendar", 1), done, started("notify", 1), started("notify", 5)))
    assert (seen.attempts, seen.retries, seen.provider_ref) == (1, 0, "bk-1")


@pytest.mark.parametrize(("definition", "booking_step"), [("booking/1@0", "calendar"), ("booking/1@0#slot", "slot")])
def test_a_reference_that_another_step_keeps_is_not_the_booking(definition: str, booking_step: str) -> None:
    held = ProviderBooking(provider_ref="deposit-1", status=BookingStatus.ACCEPTED)
    requested = REQUESTED.model_copy(update={"definition": definition})
    stream = (requested, started("deposit", 1), e.StepSucceeded(at=NOON, step="deposit", booking=held))
    seen = view(state_of(*stream))
    assert (seen.attempts, seen.provider_ref) == (0, None)
    done = e.StepSucceeded(at=NOON, step=booking_step, booking=SEEN)
    state = state_of(*stream, started(booking_step, 1), started(booking_step, 2), done)
    assert (view(state).attempts, view(state).provider_ref, state.booking) == (2, "bk-1", SEEN)


def test_a_retry_is_an_attempt_after_the_first() -> None:
    seen = view(state_of(REQUESTED, started("calendar", 1), started("calendar", 2)))
    assert (seen.attempts, seen.retries) == (2, 1)


def test_only_a_replay_of_an_ended_one_tells_how_to_book_anew() -> None:
    state = state_of(REQUESTED, started("calendar", 1), *failed())
    assert view(state).notice is None
    notice = view(state, replayed=True).notice
    assert notice is not None
    assert "failed (rejected)" in notice
    assert "use a new key" in notice
    assert view(state_of(REQUESTED), replayed=True).notice is None


def test_a_parked_one_says_what_is_needed_and_what_can_be_done() -> None:
    seen = view(state_of(REQUESTED, e.AppointmentParked(at=NOON, reason="look there")))
    assert (seen.parked, seen.parked_reason) == (True, "look there")
    assert seen.notice is not None
    assert "look there" in seen.notice
    assert "retry, skip" in seen.notice


def test_what_went_wrong_is_told_in_words() -> None:
    seen = view(state_of(REQUESTED, started("calendar", 1), *failed("conflict")))
    assert (seen.reason, seen.detail) == ("conflict", "full")


def test_every_state_has_the_phase_of_the_contract() -> None:
    assert {state: phase for state, phase in PHASES.items() if phase is not Phase.IN_PROGRESS} == {
        State.INIT: Phase.INIT,
        State.CONFIRMED: Phase.COMPLETED,
        State.FAILED: Phase.FAILED,
        State.CANCELLED: Phase.CANCELLED,
    }


def test_a_view_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        view(state_of(REQUESTED)).state = "failed"  # type: ignore[assignment]


class TestAuditTrail:
    def trail(self, *events: e.Event) -> tuple[Any, ...]:
        stream: list[tuple[RecordedEvent, e.Event]] = []
        for version, event in enumerate(events, 1):
            recorded = encode(UUID(int=1), version, event)
            stored = RecordedEvent(recorded.stream_id, version, recorded.type, recorded.body, position=100 + version)
            stream.append((stored, event))
        return audit_trail(stream, "conv-7")

    def test_decisions_point_to_the_fact_that_they_follow_from(self) -> None:
        trail = self.trail(REQUESTED, started("calendar", 1), *failed())
        assert [event.cause for event in trail] == [None, 1, None, 3, 3]
        assert [event.position for event in trail] == [101, 102, 103, 104, 105]

    def test_who_when_and_why(self) -> None:
        trail = self.trail(REQUESTED, *failed())
        assert (trail[0].actor, trail[0].recorded_at) == ("ann", NOON)
        assert trail[1].actor is None
        assert trail[1].data["reason"] == "full"
        assert {event.correlation_id for event in trail} == {"conv-7"}
        assert "at" not in trail[0].data


@pytest.mark.parametrize(
    "fields", [{"limit": 0}, {"limit": 10_001}, {"q": "x" * 256}, {"state": "gone"}, {"colour": 1}]
)
def test_a_filter_has_limits(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AppointmentFilter.model_validate(fields)
