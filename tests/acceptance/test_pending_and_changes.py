"""Providers that decide later and call back; cancelling, moving, and what an operator does (R1.2, R2.6, R2.7)."""

import asyncio
import json
from datetime import UTC, datetime

import pytest
from aiohttp import ClientSession
from standardwebhooks.webhooks import Webhook

from domain.errors import IllegalTransition
from tests.acceptance.office import CHECK_UP, SECRET, WAIT_S, Office, types

OTHER_SECRET = "whsec_c29tZWJvZHkgZWxzZSdzIHNlY3JldCwgbm90IG91cnM="
LATER = {"start": "2031-03-04T14:00:00Z", "end": "2031-03-04T14:30:00Z"}


async def call_back(url: str, secret: str, client_ref: str, id: str, status: str) -> int:
    """Post a callback signed with a secret; the status of the answer."""
    data = {"id": "bk_by_hand", "client_ref": client_ref, "version": 9, "status": status}
    body, now = json.dumps({"type": f"booking.{status}", "data": data}), datetime.now(UTC)
    headers = {"webhook-id": id, "webhook-timestamp": str(int(now.timestamp()))}
    headers["webhook-signature"] = Webhook(secret).sign(id, now, body)
    async with ClientSession() as session, session.post(url, data=body, headers=headers) as answer:
        return answer.status


@pytest.mark.evidence(target="callbacks", answers=("R2.7", "G5", "G2"), seen_in="audit trail, deliveries in the ledger")
async def test_a_storm_of_callbacks_confirms_once(office: Office) -> None:
    """
    Given a pending booking about which the provider calls back out of order, each message twenty times
    When the storm has come in
    Then the appointment is confirmed by exactly one event, and one booking is live
    """
    plan = {"copies": 20, "order": [2, 0, 1]}
    office.provider.script("create", "pending", settle_ms=50, via="callback", callbacks=plan)
    async with office.desk(poll_ms=10_000, **office.calling_back()) as desk:
        booked = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
        await office.delivered(60)
        trail = await desk.events(booked.id)
    assert booked.state == "confirmed"
    assert types(trail).count("appointment-confirmed") == 1
    assert (len(office.live()), len(office.keys())) == (1, 1)


@pytest.mark.evidence(target="callbacks", answers=("R2.7",), seen_in="audit trail")
async def test_a_callback_that_comes_before_the_answer_counts(office: Office) -> None:
    """
    Given a provider that calls back 50 ms before it answers the create
    When a booking is asked for
    Then it is confirmed once, with one create and one live booking
    """
    office.provider.script("create", "early_callback", lead_ms=50)
    async with office.desk(call_timeout_ms=2_000, **office.calling_back()) as desk:
        booked = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
        trail = await desk.events(booked.id)
    assert booked.state == "confirmed"
    assert types(trail).count("appointment-confirmed") == 1
    assert (len(office.live()), len(office.keys())) == (1, 1)


@pytest.mark.evidence(
    target="callbacks", answers=("R2.7", "R7.4"), seen_in="status of the answer, audit trail, figures"
)
async def test_a_forged_callback_is_refused_and_one_for_nobody_is_kept(office: Office) -> None:
    """
    Given a booking that is pending
    When a callback comes with a wrong signature, and a genuine one for a reference that nobody knows
    Then the first is refused with 401 and changes nothing; the second is taken, kept, and changes no appointment
    """
    office.provider.script("create", "pending", final="never", via="poll")
    async with office.desk(poll_ms=10_000, **office.calling_back()) as desk:
        booked = await desk.book(CHECK_UP, key="order-1")
        await office.answered("create")
        pending = await office.until(lambda: desk.show(booked.id), lambda seen: seen.state == "pending")
        url = str(desk.settings.callback_url)
        assert await call_back(url, OTHER_SECRET, str(booked.id), "msg-1", "accepted") == 401
        assert await call_back(url, SECRET, "nobody-knows-this", "msg-2", "accepted") == 204
        assert await desk.show(booked.id) == pending
        figures = await office.run("figures", "--all-tenants", "--json")
    assert figures.json["total"]["orphan_callbacks"] == 1


@pytest.mark.evidence(target="cancel", answers=("R2.6", "R7.2", "G2"), seen_in="ledger, audit trail")
async def test_a_cancel_that_races_the_confirmation_leaves_nothing_booked(office: Office) -> None:
    """
    Given a booking that the provider will accept 100 ms after it was asked for
    When it is cancelled at that very moment
    Then the end is cancelled with cancelled_by_request, and none is live
    """
    office.provider.script("create", "pending", settle_ms=100, via="callback")
    async with office.desk(**office.calling_back()) as desk:
        booked = await desk.book(CHECK_UP, key="order-1")
        await office.delivered(1)
        gone = await desk.cancel(booked.id, key="cancel-1", reason="caller asked", wait=WAIT_S)
    assert (gone.state, gone.reason) == ("cancelled", "cancelled_by_request")
    assert office.live() == []


@pytest.mark.evidence(target="cancel", answers=("R2.6", "R7.2", "G2"), seen_in="ledger, order of the calls")
async def test_a_cancel_never_overtakes_the_call_that_is_in_flight(office: Office) -> None:
    """
    Given a create that takes 150 ms to be answered
    When the appointment is cancelled while that call runs
    Then the cancel leaves after the answer, the end is cancelled, and none is live
    """
    office.provider.script("create", "delayed", delay_ms=150, apply="after")
    async with office.desk() as desk:
        booked = await desk.book(CHECK_UP, key="order-1")
        await office.called("create")
        gone = await desk.cancel(booked.id, key="cancel-1", wait=WAIT_S)
    assert gone.state == "cancelled"
    assert [commit["op"] for commit in office.provider.ledger()["commits"]] == ["create", "cancel"]
    assert office.live() == []


@pytest.mark.evidence(target="reschedule", answers=("R1.2", "R8.7", "R7.2"), seen_in="ledger (`version`), audit trail")
async def test_a_move_keeps_the_appointment_and_its_reference(office: Office) -> None:
    """
    Given a confirmed appointment, and a provider whose answer to the move is lost
    When it is moved to another day
    Then it is confirmed at the new time under the same id and the same reference there, moved once
    """
    office.provider.script("reschedule", "lost_response", how="rst", times=1)
    async with office.desk() as desk:
        booked = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
        moved = await desk.reschedule(booked.id, **LATER, key="move-1", wait=WAIT_S)
    assert (moved.id, moved.provider_ref, moved.state) == (booked.id, booked.provider_ref, "confirmed")
    (live,) = office.live()
    assert (live["start"], live["version"]) == (LATER["start"], 2)
    assert len(set(office.keys("reschedule"))) == 1


@pytest.mark.evidence(target="reschedule", answers=("R1.1", "R7.2"), seen_in="ledger, audit trail")
async def test_a_move_that_is_refused_leaves_everything_where_it_was(office: Office) -> None:
    """
    Given a confirmed appointment, and a provider that holds another booking in the new slot
    When it is moved there
    Then it is confirmed at its old time, the audit trail says why the move failed, and one booking is live
    """
    office.provider.script("reschedule", "slot_conflict", times=-1)
    async with office.desk() as desk:
        booked = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
        moved = await desk.reschedule(booked.id, **LATER, key="move-1", wait=WAIT_S)
        last = (await desk.events(booked.id))[-1]
    assert (moved.state, moved.start) == ("confirmed", booked.start)
    assert (last.type, last.data["reason"]) == ("reschedule-failed.v1", "conflict")
    assert [one["start"] for one in office.live()] == [CHECK_UP["start"]]


@pytest.mark.evidence(target="life cycle", answers=("R1.1", "R7.4"), seen_in="refusal, audit trail")
async def test_an_illegal_move_is_refused_with_nothing_recorded(office: Office) -> None:
    """
    Given a cancelled appointment
    When somebody moves it
    Then that is refused with 409, and its history is as it was
    """
    async with office.desk() as desk:
        booked = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
        await desk.cancel(booked.id, key="cancel-1", wait=WAIT_S)
        before = await desk.events(booked.id)
        with pytest.raises(IllegalTransition) as refused:
            await desk.reschedule(booked.id, **LATER, key="move-1")
        assert await desk.events(booked.id) == before
    assert refused.value.status == 409


@pytest.mark.evidence(target="operator", answers=("R1.2", "R8.6", "G6"), seen_in="health, audit trail, `parked`")
async def test_a_parked_appointment_waits_for_an_operator_and_goes_on(office: Office) -> None:
    """
    Given an appointment that is pending
    When an operator parks it, the provider accepts it meanwhile, and the operator resumes it
    Then it stays pending while it is parked and health lists it; then it is confirmed, and both acts name who and why
    """
    office.provider.script("create", "pending", settle_ms=50, via="poll")
    async with office.desk(poll_ms=200) as desk:
        booked = await desk.book(CHECK_UP, key="order-1")
        await office.until(lambda: desk.show(booked.id), lambda seen: seen.state == "pending")
        parked = await desk.act(booked.id, "park", actor="dana", reason="caller unsure")
        assert (parked.parked, parked.state) == (True, "pending")
        assert (await desk.health()).parked == 1
        resumed = await desk.act(booked.id, "resume", actor="kim", reason="caller sure", wait=WAIT_S)
        acts = [e for e in await desk.events(booked.id) if e.type.startswith("operator-acted")]
    assert (resumed.state, resumed.parked) == ("confirmed", False)
    assert [(act.actor, act.data["reason"]) for act in acts] == [("dana", "caller unsure"), ("kim", "caller sure")]


@pytest.mark.evidence(target="operator", answers=("R1.2",), seen_in="audit trail, ledger")
@pytest.mark.parametrize(
    ("action", "state"), [("retry", "confirmed"), ("force_complete", "confirmed"), ("compensate", "cancelled")]
)
async def test_an_operator_ends_what_hangs(office: Office, action: str, state: str) -> None:
    """
    Given a booking whose first call failed, and that waits an hour for its next attempt
    When an operator retries it, completes it by force, or has it compensated
    Then it comes to that end at once; booked where it was retried, not booked where it was compensated
    """
    office.provider.script("create", "fail_then_succeed", failures=1)
    async with office.desk(backoff_ms=3_600_000, backoff_max_ms=3_600_000, deadline_ms=86_400_000) as desk:
        booked = await desk.book(CHECK_UP, key="order-1")
        await office.until(lambda: desk.events(booked.id), lambda trail: "retry-scheduled" in types(trail))
        ended = await desk.act(booked.id, action, actor="dana", reason="the provider was mended", wait=WAIT_S)
        acted = next(e for e in await desk.events(booked.id) if e.type.startswith("operator-acted"))
    assert (ended.state, acted.data["action"]) == (state, action)
    assert len(office.live()) == {"retry": 1, "force_complete": 0, "compensate": 0}[action]


@pytest.mark.evidence(target="operator", answers=("R1.2", "R2.2"), seen_in="audit trail")
async def test_an_operator_s_action_that_is_given_twice_is_done_once(office: Office) -> None:
    """
    Given a confirmed appointment
    When an operator parks it twice with one key, at once
    Then it is parked by one event
    """
    async with office.desk() as desk:
        booked = await desk.book(CHECK_UP, key="order-1", wait=WAIT_S)
        act = {"actor": "dana", "reason": "to be asked", "key": "park-1"}
        await asyncio.gather(*(desk.act(booked.id, "park", **act) for _ in range(2)))
        trail = await desk.events(booked.id)
    assert types(trail).count("operator-acted") == 1
