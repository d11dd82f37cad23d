"""Audit replay: what it finds, what it lets be, and that it never raises for what stands in a log."""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from given_when_then import (
    CANCELLED,
    CONFIRMATION,
    CONFIRMED,
    CREATING,
    GONE,
    ID,
    MOVING,
    PLAN,
    REFUSED,
    SOON,
    T0,
    after,
    begun,
    booking,
    called_back,
    failed,
    parked,
    requested,
    retry,
    started,
    succeeded,
)

from domain import events as e
from domain.definition import SagaPlan
from domain.errors import HistoryError, UnknownAppointment
from domain.identity import definition_stream
from domain.personal import ERASED
from saga.recorded_plans import RecordedPlans
from saga.replay import BrokenAt, Divergence, Replay, replay
from store.mapper import encode
from store.memory import MemoryStore
from store.port import Append, RecordedEvent


def stored(*events: e.Event) -> list[RecordedEvent]:
    return [encode(ID, version, event) for version, event in enumerate(events, 1)]


def judged(*events: e.Event, **more: Any) -> Replay:
    return replay(stored(*events), PLAN, **more)


def only(found: Replay) -> Divergence:
    assert not found.matches
    assert len(found.divergences) == 1, found.divergences
    return found.divergences[0]


@pytest.mark.parametrize("events", [CONFIRMED, REFUSED, GONE, MOVING], ids=["confirmed", "refused", "gone", "moving"])
def test_what_was_decided_by_the_rules_matches(events: Sequence[e.Event]) -> None:
    found = judged(*events)
    assert (found.matches, found.chain, found.ok) == (True, "ok", True)
    assert found.appointment == ID
    assert found.events == len(events)
    assert found.decisions == sum(isinstance(event, e.DECISIONS) for event in events)


def test_another_reason_is_found_field_by_field() -> None:
    other = begun("conflict", detail="full")
    found = only(judged(*REFUSED[:-2], other, e.AppointmentFailed(at=T0, reason=e.EndReason.CONFLICT)))
    assert found.version == 4
    assert found.expected == {"type": "compensation-begun.v1", "reason": "rejected"}
    assert found.found == {"type": "compensation-begun.v1", "reason": "conflict"}


def test_an_end_that_is_missing_is_found() -> None:
    found = only(judged(*CONFIRMED[:-1]))
    assert (found.version, found.found) == (len(CONFIRMED), None)
    assert found.expected is not None
    assert found.expected["type"] == "appointment-confirmed.v1"


def test_an_answer_to_a_call_that_was_never_announced_is_found() -> None:
    dropped = [event for event in CONFIRMED if not (isinstance(event, e.StepStarted) and event.step == "notify")]
    found = only(judged(*dropped))
    assert found.version == 4
    assert "not announced" in found.detail


@pytest.mark.parametrize("via", ["callback", "lookup", "poll"])
def test_what_is_said_to_have_been_told_otherwise_must_have_been_told(via: str) -> None:
    waiting = (*CREATING, failed(), retry(after(500)))
    settled, *rest = (
        event.model_copy(update={"at": after(500)}) for event in (succeeded(booking=booking(), via=via), *CONFIRMED[3:])
    )
    assert judged(*waiting, started(attempt=2, at=after(500)), settled, *rest).matches
    found = only(judged(*waiting, settled, *rest))
    assert found.version == 5
    assert "not announced" in found.detail


def test_a_fact_that_the_state_does_not_allow_ends_the_replay_and_is_named() -> None:
    found = judged(*CREATING, CANCELLED, CONFIRMATION).divergences[-1]
    assert found.version == 3
    assert found.found is not None
    assert found.found["type"] == "appointment-cancelled.v1"
    assert "not legal in state booking" in found.detail


def test_a_call_that_a_busy_lane_kept_back_is_no_divergence_unless_all_holds_are_known() -> None:
    waiting = requested()
    assert judged(waiting).matches
    assert judged(waiting, held={("main", T0)}).matches
    found = only(judged(waiting, held=set()))
    assert found.expected is not None
    assert found.expected["type"] == "step-started.v1"


def test_a_breaker_s_word_is_a_fact_that_the_process_asked_for() -> None:
    deferred = e.CallDeferred(at=T0, step="calendar", until=SOON, reason="circuit_open")
    assert judged(requested(), deferred, started(at=SOON)).matches
    assert only(judged(requested(), deferred.model_copy(update={"step": "notify"}))).version == 2


def test_parking_after_a_callback_is_derived_from_the_callback() -> None:
    gone = called_back("cancelled", 9)
    why = "the provider says that the booking is cancelled"
    assert judged(*CONFIRMED, gone, parked(why)).matches
    assert not judged(*CONFIRMED, gone, parked("for no reason")).matches
    assert not judged(*CONFIRMED, gone, parked(why), parked(why)).matches


def test_texts_that_were_erased_agree_with_everything() -> None:
    assert judged(*REFUSED[:2], failed(kind="rejected", reason=ERASED), *REFUSED[3:]).matches
    assert judged(*REFUSED[:3], begun(detail=ERASED), REFUSED[-1]).matches
    assert not judged(*REFUSED[:3], begun(detail="another"), REFUSED[-1]).matches


def test_a_gap_between_versions_is_found_where_it_is() -> None:
    events = stored(*CONFIRMED)
    found = replay([*events[:3], *events[4:]], PLAN)
    assert "version 4 was expected here, not 5" in only(found).detail
    assert found.divergences[0].version == 5


def test_an_event_that_cannot_be_read_is_found_where_it_is() -> None:
    events = stored(*CONFIRMED)
    events[4] = replace(events[4], body=b"{", private=())
    assert only(replay(events, PLAN)).version == 5
    assert only(replay([replace(events[0], type="no-such.v1"), *events[1:4]], PLAN)).version == 1


def test_a_stream_that_cannot_be_decided_on_is_a_finding_and_no_traceback() -> None:
    skipped = e.OperatorActed(
        at=T0, key="k", fingerprint="f", action=e.OperatorAction.SKIP, reason="r", cleanup_until=SOON
    )
    found = judged(*CREATING, failed(), retry(T0 + timedelta(seconds=1)), skipped)
    assert "nothing can be decided on this" in found.divergences[-1].detail
    naive = requested().model_copy(update={"deadline_at": SOON.replace(tzinfo=None)})
    assert not judged(naive, started()).matches


def test_an_empty_stream_is_no_appointment() -> None:
    with pytest.raises(UnknownAppointment):
        replay([], PLAN)


def test_a_broken_chain_is_told_beside_the_verdict_on_the_decisions() -> None:
    found = judged(*CONFIRMED, broken_at=3)
    assert found.matches
    assert found.chain == BrokenAt(broken_at=3)
    assert not found.ok


async def defined(**changes: Any) -> Any:
    """What the plans of a store say of the digest of ours, when the log holds this."""
    store = MemoryStore()
    stream = definition_stream(PLAN.digest)
    plan = PLAN.model_dump(mode="json")
    fact = e.DefinitionRegistered.model_validate({"at": T0, "digest": PLAN.digest, "plan": plan, **changes})
    await store.append(Append(stream, 0, (encode(stream, 1, fact),)))
    return await RecordedPlans(store).get(PLAN.digest)


async def test_a_definition_is_believed_only_under_its_own_digest() -> None:
    assert await defined() == PLAN
    longer = SagaPlan.model_validate({**PLAN.model_dump(), "deadline_ms": 999_999})
    for changes in ({"plan": longer.model_dump(mode="json")}, {"digest": longer.digest}, {"plan": {}}):
        fault = await defined(**changes)
        assert isinstance(fault, HistoryError)
        assert PLAN.digest in only(replay(stored(*CONFIRMED), fault)).detail


async def test_a_definition_that_the_log_does_not_hold_is_a_finding() -> None:
    fault = await RecordedPlans(MemoryStore()).get(PLAN.digest)
    assert "holds no definition" in only(replay(stored(*CONFIRMED), fault)).detail


def test_a_thousand_events_are_judged_in_a_moment() -> None:
    events: list[e.Event] = [*CONFIRMED]
    for number in range(990):
        events.append(called_back("accepted", 2 + number, f"wh-{number}"))
    recorded = stored(*events)
    began = time.perf_counter()
    assert replay(recorded, PLAN).matches
    took_ms = (time.perf_counter() - began) * 1_000
    print(f"{len(recorded)} events in {took_ms:.1f} ms")
    assert took_ms < 500, "ten times the target of 50 ms"
