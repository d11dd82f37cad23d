"""A provider that is slow, lies about what it did, or is down: one true end all the same (R2.3 to R2.6, R8.2, R8.3)."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from appointments import Step, StepCall
from domain.provider import Confirmed, Rejected, WriteOutcome
from mocks import MockProvider
from providers.api_v2 import ApiV2Provider
from tests.acceptance.office import CHECK_UP, WAIT_S, Office, types


@pytest.mark.evidence(target="unknown outcome", answers=("R2.4", "R8.2", "R7.2", "G2"), seen_in="ledger, audit trail")
async def test_a_timeout_after_the_booking_was_made_books_once(office: Office) -> None:
    """
    Given a provider that books and then never answers the first call
    When a booking is asked for
    Then it is confirmed with exactly one live booking, and every create carried the same operation id
    """
    office.provider.script("create", "timeout", applied=True, times=1)
    async with office.desk() as desk:
        booked = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
        trail = await desk.events(booked.id)
    assert booked.state == "confirmed"
    assert len(office.live()) == 1
    assert len(office.keys()) > 1
    assert len(set(office.keys())) == 1
    (failed,) = (line for line in trail if line.type.startswith("step-attempt-failed"))
    assert failed.data["kind"] == "unknown"


@pytest.mark.evidence(target="unknown outcome", answers=("R2.4", "R8.2", "G2"), seen_in="calls (`find`), audit trail")
async def test_before_giving_up_it_is_looked_for(office: Office) -> None:
    """
    Given a provider that books and never answers any create
    When the only attempt has timed out
    Then the booking is looked up by its reference, found before the deadline, and adopted: confirmed, one live
    """
    office.provider.script("create", "timeout", applied=True, times=-1)
    async with office.desk(attempts_max=1) as desk:
        booked = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
        trail = await desk.events(booked.id)
    assert (booked.state, booked.attempts) == ("confirmed", 1)
    assert "booking-found" in types(trail)
    assert (office.provider.calls()["create"], len(office.live())) == (1, 1)


@pytest.mark.evidence(target="late success", answers=("R2.6", "R2.4", "R7.2", "G2"), seen_in="ledger, audit trail")
async def test_a_success_that_comes_after_giving_up_is_taken_away(office: Office) -> None:
    """
    Given a deadline of 700 ms, and a provider that applies the first create only after 900 ms
    When both attempts are used up, and the booking appears at the provider after the deadline
    Then the appointment has failed with retry_exhausted, the booking was cancelled, and none is live
    """
    office.provider.script("create", "delayed", delay_ms=900, apply="after", times=1)
    async with office.desk(attempts_max=2, deadline_ms=700, settle_ms=1_000) as desk:
        booked = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
    assert (booked.state, booked.reason) == ("failed", "retry_exhausted")
    assert office.provider.calls()["cancel"] == 1
    assert [one["status"] for one in office.provider.ledger()["bookings"]] == ["cancelled"]


@pytest.mark.evidence(target="retry", answers=("R2.3",), seen_in="times of the calls at the provider")
async def test_a_retry_waits_twice_as_long_each_time(office: Office) -> None:
    """
    Given a provider that refuses three calls with 503, and a backoff of 60 ms without jitter
    When a booking is asked for with four attempts
    Then it is confirmed by the fourth; the waits were at least 60, 120 and 240 ms
    """
    office.provider.script("create", "fail_then_succeed", failures=3, status=503)
    async with office.desk(attempts_max=4, backoff_ms=60, breaker_failures_max=10) as desk:
        booked = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
    assert (booked.state, booked.attempts, booked.retries) == ("confirmed", 4, 3)
    waits = [round((after - before) * 1_000) for before, after in pairwise(office.times())]
    assert [wait >= least for wait, least in zip(waits, (60, 120, 240), strict=True)] == [True] * 3, waits


@pytest.mark.evidence(target="retry", answers=("R2.3",), seen_in="times of the calls at the provider")
async def test_a_provider_that_names_a_time_is_called_no_sooner(office: Office) -> None:
    """
    Given a provider that answers 429 with Retry-After: 1
    When a booking is asked for with a backoff of 10 ms
    Then the second call comes at least one second after the first, and the booking is confirmed
    """
    office.provider.script("create", "rate_limited", retry_after=1, times=1)
    async with office.desk() as desk:
        booked = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
    assert booked.state == "confirmed"
    first, second = office.times()
    assert second - first >= 1.0


@pytest.mark.evidence(target="breaker", answers=("R2.5",), seen_in="times of the calls at the provider")
async def test_a_breaker_opens_and_lets_one_probe_through(office: Office) -> None:
    """
    Given a provider that fails three calls in a row, a breaker of three failures and 400 ms, and ten bookings
    When all ten are asked for at once
    Then nobody calls for 400 ms after the opening, one probe goes first, and all are confirmed in 3 attempts
    """
    office.provider.script("create", behaviors=[{"mode": "fail_then_succeed", "failures": 1}], times=3)
    # A second attempt comes after the first ones of all: the three failures are in a row.
    async with office.desk(concurrency=1, breaker_open_ms=400, backoff_ms=300) as desk:
        asked = [await desk.book(CHECK_UP, key=f"order-{n}") for n in range(10)]
        ends = [await desk.show(one.id, wait=WAIT_S) for one in asked]
    assert {end.state for end in ends} == {"confirmed"}
    assert max(end.attempts for end in ends) <= 3
    gaps = [after - before for before, after in pairwise(office.times())]
    assert gaps[2] >= 0.4, "the pause comes after the third failure"
    assert len(office.live()) == 10


@pytest.mark.evidence(target="breaker, limits", answers=("R2.5",), seen_in="ends at the healthy provider")
async def test_a_broken_provider_delays_nobody_else(office: Office) -> None:
    """
    Given two providers, one of which answers no call at all
    When five bookings go to the broken one and five to the healthy one
    Then the five at the healthy one are confirmed while those at the broken one are still in progress
    """
    office.provider.script("create", "timeout", applied=False, times=-1)
    async with MockProvider() as healthy:
        broken, good = ApiV2Provider("broken", office.provider.url), ApiV2Provider("good", healthy.url)
        parts = {"providers": (broken, good)}
        calendars = {"main": "broken", "other": "good"}
        async with office.desk(parts=parts, calendars=calendars, concurrency=2, deadline_ms=1_500) as desk:
            stuck = [await desk.book(CHECK_UP, key=f"broken-{n}") for n in range(5)]
            await office.called("create")
            wanted = {**CHECK_UP, "calendar": "other"}
            well = [await desk.book(wanted, key=f"good-{n}", wait=WAIT_S) for n in range(5)]
            assert {one.state for one in well} == {"confirmed"}
            assert {(await desk.show(one.id)).phase for one in stuck} == {"in_progress"}
            ends = [await desk.show(one.id, wait=WAIT_S) for one in stuck]
        assert {one.state for one in ends} == {"failed"}
        assert (healthy.live(), office.live()) == (5, [])


@pytest.mark.evidence(target="deadline", answers=("R2.4",), seen_in="audit trail (`timeout_ms`), ledger")
async def test_a_deadline_ends_it_and_cuts_the_last_call_short(office: Office) -> None:
    """
    Given a provider that never answers, calls of up to 300 ms, and a deadline of 500 ms for this booking
    When the booking is asked for with ten attempts
    Then it fails with deadline_exceeded, the last call was given less than 300 ms, and none is live
    """
    office.provider.script("create", "timeout", applied=False, times=-1)
    async with office.desk(attempts_max=10) as desk:
        booked = await desk.book({**CHECK_UP, "deadline_ms": 500}, key="order-1", wait=WAIT_S)
        trail = await desk.events(booked.id)
    assert (booked.state, booked.reason) == ("failed", "deadline_exceeded")
    limits = [line.data["timeout_ms"] for line in trail if line.type.startswith("step-started")]
    assert limits[0] == 300
    assert limits[-1] < 300
    assert office.live() == []


@pytest.mark.evidence(target="recovery", answers=("R8.3", "R2.4"), seen_in="audit trail, notifications in the ledger")
async def test_what_can_no_longer_begin_in_time_is_ended_and_nobody_is_told(office: Office) -> None:
    """
    Given a provider that never answers, and an appointment that begins in 1.2 s
    When it is booked with a deadline of a minute
    Then it is ended with deadline_exceeded before its time begins, none is live, and nobody was notified
    """
    office.provider.script("create", "timeout", applied=False, times=-1)
    start = datetime.now(UTC) + timedelta(seconds=1.2)
    soon = {**CHECK_UP, "start": start, "end": start + timedelta(minutes=30), "deadline_ms": 60_000}
    async with office.desk(attempts_max=50, breaker_failures_max=100) as desk:
        booked = await desk.book(soon, key="order-1", wait=WAIT_S)
        (given_up,) = (e for e in await desk.events(booked.id) if e.type.startswith("compensation-begun"))
    assert (booked.state, booked.reason) == ("failed", "deadline_exceeded")
    assert given_up.recorded_at <= start + timedelta(seconds=0.1)
    assert (office.live(), office.provider.ledger()["notifications"]) == ([], [])


@pytest.mark.evidence(target="recovery", answers=("R8.3", "R2.5"), seen_in="order of the calls at the provider")
async def test_after_an_outage_what_begins_first_is_booked_first(office: Office) -> None:
    """
    Given a provider that is down, and eight bookings asked for in another order than that of their times
    When the provider is up again and the breaker lets calls through
    Then they reach the provider in order of their start, after the one probe
    """
    office.provider.script("create", "fail_then_succeed", failures=1_000_000, times=-1)
    days = (6, 3, 8, 1, 5, 2, 7, 4)
    async with office.desk(concurrency=1, attempts_max=50, breaker_open_ms=300) as desk:
        asked = []
        for day in days:
            times = {"start": f"2031-03-0{day}T09:00:00Z", "end": f"2031-03-0{day}T09:30:00Z"}
            asked.append(await desk.book({**CHECK_UP, **times}, key=f"order-{day}"))
        await office.answered("create", 3)
        office.provider.clear_scripts()
        ends = [await desk.show(one.id, wait=WAIT_S) for one in asked]
    assert {end.state for end in ends} == {"confirmed"}
    starts = [commit["id"] for commit in office.provider.ledger()["commits"] if commit["op"] == "create"]
    begin = {one["id"]: one["start"] for one in office.provider.ledger()["bookings"]}
    drained = [begin[id] for id in starts][1:]
    assert drained == sorted(drained)


@pytest.mark.evidence(target="rejection", answers=("R2.3",), seen_in="calls, `reason`")
@pytest.mark.parametrize(("mode", "reason"), [("reject", "rejected"), ("slot_conflict", "conflict")])
async def test_what_is_refused_for_good_is_not_asked_again(office: Office, mode: str, reason: str) -> None:
    """
    Given a provider that refuses for good, or because somebody else holds the slot
    When a booking is asked for
    Then it fails with that reason after one call, and none is live
    """
    office.provider.script("create", mode, times=-1)
    async with office.desk() as desk:
        booked = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
    assert (booked.state, booked.reason, booked.attempts) == ("failed", reason, 1)
    assert (office.provider.calls()["create"], office.live()) == (1, [])


@pytest.mark.evidence(target="compensation", answers=("R2.1", "R2.6", "G2"), seen_in="order of the undoing, ledger")
async def test_what_was_done_is_undone_in_reverse_when_a_later_step_fails(office: Office) -> None:
    """
    Given a saga with two further steps of the user's own after the booking, and a downstream that refuses
    When the notification is refused for good
    Then the two steps and the booking are undone in reverse order, the end is failed with downstream_failed, none live
    """
    office.provider.script("notify", "reject", times=-1)
    undone: list[str] = []

    def step(name: str) -> Step:
        async def do(_asked: StepCall) -> WriteOutcome:
            return Confirmed()

        async def undo(_asked: StepCall) -> WriteOutcome:
            undone.append(f"{name}, {len(office.live())} live")
            return Confirmed()

        return Step(name, action=do, compensation=undo)

    async with office.desk(parts={"steps": (step("room"), step("deposit"))}) as desk:
        booked = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
    assert (booked.state, booked.reason) == ("failed", "downstream_failed")
    assert undone == ["deposit, 1 live", "room, 1 live"]
    assert office.live() == []


@pytest.mark.evidence(target="versions", answers=("R2.10",), seen_in="audit trail")
async def test_what_is_under_way_finishes_under_the_steps_it_began_with(office: Office) -> None:
    """
    Given an appointment that is pending at the provider when the desk is closed
    When the desk is opened anew with a further step in its saga, and the provider settles
    Then it is confirmed without that step; a new booking runs through it
    """
    office.provider.script("create", "pending", settle_ms=400, via="poll", times=1)
    ran: list[str] = []

    async def reserve(asked: StepCall) -> WriteOutcome:
        ran.append(asked.call.client_ref)
        return Confirmed()

    async with office.desk() as desk:
        old = await desk.book(CHECK_UP, key="order-1")
        await office.called("create")
    async with office.desk(parts={"steps": (Step("room", action=reserve),)}) as desk:
        seen = await desk.show(old.id, wait=WAIT_S)
        new = await desk.book(CHECK_UP, key="order-2", wait=WAIT_S)
        health = await desk.health()
    assert (seen.state, new.state) == ("confirmed", "confirmed")
    assert ran == [str(new.id)]
    assert health.ok


@pytest.mark.evidence(target="compensation", answers=("R2.6", "R1.2", "R8.6"), seen_in="health, `parked`, audit trail")
async def test_a_compensation_that_cannot_be_done_is_parked_and_an_operator_ends_it(office: Office) -> None:
    """
    Given a booking whose notification is refused, and a step whose undoing is refused for good
    When the saga is undone
    Then it is parked and health lists it; once an operator has skipped that step, it ends with none live
    """
    office.provider.script("notify", "reject", times=-1)

    async def do(_asked: StepCall) -> WriteOutcome:
        return Confirmed()

    async def refuse(_asked: StepCall) -> WriteOutcome:
        return Rejected(reason="the room is locked")

    room = Step("room", action=do, compensation=refuse)
    async with office.desk(parts={"steps": (room,)}) as desk:
        booked = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
        assert (booked.state, booked.parked) == ("compensating", True)
        assert [one.kind for one in (await desk.health()).findings] == ["parked"]
        ended = await desk.act(booked.id, "skip", actor="dana", reason="room freed by hand", wait=WAIT_S)
        acted = next(e for e in await desk.events(booked.id) if e.type.startswith("operator-acted"))
        assert (await desk.health()).parked == 0
    assert (ended.state, ended.reason, ended.parked) == ("failed", "downstream_failed", False)
    assert (acted.actor, acted.data["reason"]) == ("dana", "room freed by hand")
    assert office.live() == []


@pytest.mark.evidence(target="corrupt answers", answers=("R5.2", "R2.4", "R7.4"), seen_in="ledger")
@pytest.mark.parametrize("how", ["truncated", "wrong_type", "html", "nan", "empty"])
async def test_an_answer_that_cannot_be_read_is_unknown_not_done_and_not_failed(office: Office, how: str) -> None:
    """
    Given a provider that books and answers 201 with a body that is not what it should be
    When a booking is asked for
    Then it is confirmed with one live booking, by asking again under the same operation id
    """
    office.provider.script("create", "corrupt_json", how=how, times=1)
    async with office.desk() as desk:
        booked = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
    assert (booked.state, len(office.live())) == ("confirmed", 1)
    assert len(set(office.keys())) == 1


@pytest.mark.evidence(target="durable timers", answers=("R2.9", "R2.7"), seen_in="health, ledger")
async def test_what_waits_is_a_row_and_is_taken_up_by_the_next_start(office: Office) -> None:
    """
    Given twenty appointments that are pending at the provider when the desk is closed
    When the provider settles meanwhile, and the desk is opened again
    Then all twenty are confirmed, and each was created once
    """
    office.provider.script("create", "pending", settle_ms=300, via="poll", times=-1)
    async with office.desk(poll_ms=100) as desk:
        asked = await asyncio.gather(*(desk.book(CHECK_UP, key=f"order-{n}") for n in range(20)))
        await office.called("create", 20)
    async with office.desk() as desk:
        ends = [await desk.show(one.id, wait=WAIT_S) for one in asked]
    assert {end.state for end in ends} == {"confirmed"}
    assert len(office.live()) == len(set(office.keys())) == 20
