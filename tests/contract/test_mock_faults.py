"""The mock provider's faults, each seen from a plain client: what is applied, answered, and in the ledger."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from aiohttp import ClientError, ClientPayloadError, ClientSession
from mock_client import BOOKING, Client, Reply, settled

from mocks import MockProvider

pytestmark = pytest.mark.evidence(
    target="mock provider",
    answers=("R5.2",),
    given="the mock with a script",
    when="a plain client meets each fault",
    then="applied, answered and told in the ledger as the script says",
    seen_in="ledger",
)


@pytest.fixture
async def mock() -> AsyncIterator[MockProvider]:
    async with MockProvider() as provider:
        yield provider


@pytest.fixture
async def client(mock: MockProvider) -> AsyncIterator[Client]:
    async with Client(mock.url) as caller:
        yield caller


@pytest.fixture
async def hasty(mock: MockProvider) -> AsyncIterator[Client]:
    async with Client(mock.url, timeout_s=0.1) as caller:
        yield caller


async def commits_after(mock: MockProvider, count: int) -> list[dict[str, Any]]:
    """The commits, once there are that many; fails after three seconds."""
    async with asyncio.timeout(3):
        while len(commits := mock.ledger()["commits"]) < count:
            await asyncio.sleep(0.01)
    return list(commits)


async def test_immediate_is_what_happens_anyway(mock: MockProvider, client: Client) -> None:
    mock.script("create", "immediate")
    assert (await client.create()).status == 201


@pytest.mark.parametrize("final", ["accepted", "rejected"])
async def test_pending_settles_later_and_reads_show_it(mock: MockProvider, client: Client, final: str) -> None:
    mock.script("create", "pending", settle_ms=60, final=final, via="poll")
    reply = await client.create()
    assert (reply.status, reply.json["status"], reply.json["version"]) == (202, "pending", 1)
    assert reply.headers["Location"] == f"/api/v2/bookings/{reply.json['id']}"
    assert reply.headers["Retry-After"] == "1"
    assert (await client.create()).json["status"] == "pending"
    assert mock.live() == 1
    assert await settled(client, reply.json["id"]) == final
    assert mock.live() == (1 if final == "accepted" else 0)
    assert [(c["op"], c["status"], c["version"]) for c in mock.ledger()["commits"]] == [
        ("create", "pending", 1),
        ("settle", final, 2),
    ]


async def test_pending_never_stays_pending(mock: MockProvider, client: Client) -> None:
    mock.script("create", "pending", settle_ms=0, final="never")
    reply = await client.create()
    await asyncio.sleep(0.02)
    assert (await client.get(reply.json["id"])).json["status"] == "pending"


async def test_a_pending_booking_that_was_cancelled_does_not_settle(mock: MockProvider, client: Client) -> None:
    mock.script("create", "pending", settle_ms=30)
    reply = await client.create()
    assert (await client.cancel(reply.json["id"])).json["status"] == "cancelled"
    await asyncio.sleep(0.06)
    assert (await client.get(reply.json["id"])).json["status"] == "cancelled"


@pytest.mark.parametrize("apply", ["before", "after", "never"])
async def test_delayed_is_answered_late_and_applied_when_told(mock: MockProvider, client: Client, apply: str) -> None:
    mock.script("create", "delayed", delay_ms=100, apply=apply)
    began = time.monotonic()
    assert (await client.create()).status == (503 if apply == "never" else 201)
    assert time.monotonic() - began >= 0.1
    assert mock.live() == (0 if apply == "never" else 1)
    (request,) = mock.requests("create")
    waited_s = [commit["applied_at"] - request["at"] for commit in mock.ledger()["commits"]]
    match apply:
        case "before":
            assert len(waited_s) == 1
            assert waited_s[0] < 0.1
        case "after":
            assert len(waited_s) == 1
            assert waited_s[0] >= 0.099  # two readings of the wall clock
        case _:
            assert waited_s == []


async def test_a_delayed_create_goes_on_without_its_client_and_its_key_is_in_flight(
    mock: MockProvider, client: Client, hasty: Client
) -> None:
    mock.script("create", "delayed", delay_ms=250)
    with pytest.raises(TimeoutError):
        await hasty.create()
    second = await client.create()
    assert (second.status, second.code, second.json["error"]["retryable"]) == (409, "in_flight", True)
    reused = await client.create(summary="Another")
    assert (reused.status, reused.code) == (422, "idempotency_key_reused")
    assert mock.live() == 0
    (commit,) = await commits_after(mock, 1)
    assert commit["response_sent"] is False
    await asyncio.sleep(0)
    assert (await client.create()).status == 200
    assert mock.live() == 1


async def test_fail_then_succeed_fails_so_often_for_each_reference(mock: MockProvider, client: Client) -> None:
    mock.script("create", "fail_then_succeed", failures=2, status=502, times=-1)
    first = await client.create(1)
    assert (first.status, first.code, first.json["error"]["retryable"]) == (502, "bad_gateway", True)
    statuses = [(await client.create(number)).status for number in (2, 1, 1, 2, 2, 1)]
    assert statuses == [502, 502, 201, 502, 201, 200]
    assert mock.live() == 2


async def test_fail_then_succeed_once_means_one_reference(mock: MockProvider, client: Client) -> None:
    mock.script("create", "fail_then_succeed", failures=3)
    assert [(await client.create(1)).status for _ in range(4)] == [503, 503, 503, 201]
    assert (await client.create(2)).status == 201


async def test_fail_then_succeed_may_apply_what_it_fails(mock: MockProvider, client: Client) -> None:
    mock.script("create", "fail_then_succeed", status=500, applied=True)
    assert (await client.create()).status == 500
    (commit,) = mock.ledger()["commits"]
    assert commit["response_sent"] is False
    assert (await client.create()).status == 200


@pytest.mark.parametrize(
    ("parameters", "during", "after"),
    [
        ({}, 0, 0),
        ({"applied": False}, 0, 0),
        ({"applied": True}, 1, 1),
        ({"apply": "before"}, 1, 1),
        ({"apply": "after"}, 0, 1),
    ],
)
async def test_a_timeout_sends_no_byte_until_the_client_leaves(
    mock: MockProvider, client: Client, parameters: dict[str, Any], during: int, after: int
) -> None:
    mock.script("create", "timeout", **parameters)
    running = asyncio.create_task(client.create())
    await asyncio.sleep(0.05)
    assert not running.done()
    assert mock.live() == during
    assert (await client.create(key="create-0001")).code == "in_flight"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    if after:
        await commits_after(mock, 1)
    assert mock.live() == after
    async with asyncio.timeout(3):
        while (reply := await client.create()).status == 409:
            await asyncio.sleep(0.01)
    assert reply.status == (200 if after else 201)


async def test_a_timeout_is_bounded_and_a_server_that_closes_waits_for_nobody(
    client: Client, mock: MockProvider
) -> None:
    mock.script("create", "timeout", hold_ms=30)
    with pytest.raises(ClientError):
        await client.create()
    async with MockProvider() as closing, Client(closing.url) as caller:
        closing.script(None, "timeout", times=-1)
        held = [asyncio.create_task(caller.create(number)) for number in range(1, 4)]
        await asyncio.sleep(0.05)
        began = time.monotonic()
        await closing.close()
        assert time.monotonic() - began < 0.5
        assert all(isinstance(end, ClientError) for end in await asyncio.gather(*held, return_exceptions=True))


async def test_a_lost_response_is_committed_and_the_connection_closed_without_a_byte(
    mock: MockProvider, client: Client
) -> None:
    mock.script("create", "lost_response", how="close")
    assert await raw_create(mock) == b""
    (commit,) = mock.ledger()["commits"]
    assert commit["response_sent"] is False
    assert (await client.create()).status == 200
    assert mock.live() == 1


async def test_a_lost_response_by_reset_is_an_rst(mock: MockProvider, client: Client) -> None:
    mock.script("create", "lost_response", how="rst")
    with pytest.raises(ConnectionResetError):
        await raw_create(mock)
    assert mock.live() == 1
    assert (await client.create()).status == 200


async def test_a_lost_response_may_be_a_500_or_cut_off(mock: MockProvider, client: Client) -> None:
    mock.script("create", behaviors=[{"mode": "lost_response", "how": how} for how in ("500", "truncated")])
    assert (await client.create(1)).code == "internal_error"
    with pytest.raises(ClientPayloadError):
        await client.create(2)
    assert [commit["response_sent"] for commit in mock.ledger()["commits"]] == [False, False]
    assert [(await client.create(number)).status for number in (1, 2)] == [200, 200]


async def test_a_rate_limit_says_how_long_in_each_form(mock: MockProvider, client: Client) -> None:
    mock.script("create", "rate_limited", seconds=7)
    reply = await client.create()
    assert (reply.status, reply.code, reply.headers["Retry-After"]) == (429, "rate_limited", "7")
    assert reply.json["error"]["retry_after"] == 7
    mock.script("create", "rate_limited", status=403, retry_after="date", seconds=60)
    reply = await client.create()
    assert (reply.status, reply.code) == (403, "quota_exceeded")
    left = parsedate_to_datetime(reply.headers["Retry-After"]).timestamp() - time.time()
    assert 58 < left <= 61
    mock.script("create", "rate_limited", retry_after="absent")
    reply = await client.create()
    assert "Retry-After" not in reply.headers
    assert "retry_after" not in reply.json["error"]
    mock.script("create", "rate_limited", retry_after=3)
    assert (await client.create()).headers["Retry-After"] == "3"
    assert mock.live() == 0
    assert (await client.create()).status == 201


@pytest.mark.parametrize("how", ["truncated", "invalid_utf8", "wrong_type", "html", "extra_data", "nan", "empty"])
@pytest.mark.parametrize("applied", [True, False])
async def test_a_corrupt_answer_has_a_good_status_and_no_good_body(
    mock: MockProvider, client: Client, how: str, applied: bool
) -> None:
    mock.script("create", "corrupt_json", how=how, applied=applied)
    reply = await client.create()
    assert reply.status == 201
    assert mock.live() == int(applied)

    def strictly(text: str) -> Any:
        return json.loads(text, parse_constant=lambda name: pytest.fail(name) if how != "nan" else None)

    if how == "wrong_type":
        assert not isinstance(strictly(reply.raw.decode())["id"], str)
    elif how == "nan":
        assert b"NaN" in reply.raw
    else:
        with pytest.raises(ValueError):
            strictly(reply.raw.decode())
    assert ("html" in reply.headers["Content-Type"]) == (how == "html")
    assert (await client.create()).status == (200 if applied else 201)


async def test_a_slow_body_comes_whole_but_byte_by_byte(mock: MockProvider, client: Client) -> None:
    mock.script("get", "slow_body", byte_interval_ms=1)
    booking = (await client.create()).json
    began = time.monotonic()
    assert (await client.get(booking["id"])).json == booking
    assert time.monotonic() - began > 0.3


async def test_a_slow_body_that_nobody_waits_for_is_not_answered(mock: MockProvider, hasty: Client) -> None:
    mock.script("create", "slow_body", byte_interval_ms=20)
    with pytest.raises(TimeoutError):
        await hasty.create()
    assert [commit["response_sent"] for commit in mock.ledger()["commits"]] == [False]


async def test_a_stale_list_lags_behind_get(mock: MockProvider, client: Client) -> None:
    mock.script(None, "stale_list", lag_ms=60, times=-1)
    booking = (await client.create()).json
    assert (await client.get(booking["id"])).status == 200
    page = (await client.listing()).json
    assert page["items"] == []
    assert (await client.find()).json["items"] == []
    await asyncio.sleep(0.08)
    await client.cancel(booking["id"])
    assert (await client.find()).json["items"] == [booking]
    page = (await client.listing(sync_token=page["next_sync_token"])).json
    assert page["items"] == [booking]
    await asyncio.sleep(0.08)
    later = (await client.listing(sync_token=page["next_sync_token"])).json["items"]
    assert [item["status"] for item in later] == ["cancelled"]


async def test_reset_sync_expires_every_token_given_out(mock: MockProvider, client: Client) -> None:
    await client.create()
    old = (await client.listing()).json["next_sync_token"]
    mock.script("list", "reset_sync")
    refused = await client.listing(sync_token=old)
    assert (refused.status, refused.code) == (410, "sync_token_expired")
    assert (await client.listing(sync_token=old)).status == 410
    fresh = (await client.listing()).json
    assert len(fresh["items"]) == 1
    assert (await client.listing(sync_token=fresh["next_sync_token"])).status == 200


async def test_a_stuck_lock_stays_until_reset(mock: MockProvider, client: Client) -> None:
    mock.script("create", "stuck_locked")
    replies = [await client.create(number) for number in (1, 1, 2)]
    assert [(reply.status, reply.code) for reply in replies] == [(423, "locked")] * 3
    assert (await client.find()).status == 200
    assert mock.live() == 0
    mock.reset()
    assert (await client.create()).status == 201


async def test_a_slot_conflict_and_a_rejection_are_for_good(mock: MockProvider, client: Client) -> None:
    mock.script("create", behaviors=[{"mode": "slot_conflict"}, {"mode": "reject"}])
    conflict, rejected = await client.create(), await client.create()
    assert (conflict.status, conflict.code) == (409, "slot_conflict")
    assert (rejected.status, rejected.code, rejected.json["error"]["retryable"]) == (422, "rejected", False)
    mock.script("notify", "reject", status=403, code="mailbox_closed")
    reply = await client.notify()
    assert (reply.status, reply.code) == (403, "mailbox_closed")
    mock.script("get", "reject", status=410, code="gone")
    assert (await client.get("bk_1")).status == 410
    assert mock.ledger()["commits"] == mock.ledger()["notifications"] == []


@pytest.mark.parametrize("op", ["create", "get", "find", "list", "cancel", "reschedule", "notify"])
async def test_every_operation_can_be_made_to_fail(mock: MockProvider, client: Client, op: Any) -> None:
    booking = (await client.create(1)).json
    calls: dict[str, Callable[[], Awaitable[Reply]]] = {
        "create": lambda: client.create(2),
        "get": lambda: client.get(booking["id"]),
        "find": client.find,
        "list": client.listing,
        "cancel": lambda: client.cancel(booking["id"]),
        "reschedule": lambda: client.reschedule(booking["id"], booking["etag"]),
        "notify": client.notify,
    }
    mock.script(op, "fail_then_succeed")
    assert {name: (await call()).status for name, call in calls.items() if name == op} == {op: 503}
    assert mock.live() == 1
    assert (await calls[op]()).status in (200, 201, 202)


async def test_scripts_match_by_reference_calendar_and_count(mock: MockProvider, client: Client) -> None:
    mock.script("create", "reject", client_ref="order-000[12]", nth=2, times=1)
    assert [(await client.create(n)).status for n in (3, 1, 4, 2, 1)] == [201, 201, 201, 422, 200]
    mock.script("cancel", "reject", calendar_id="annex", times=-1)
    main, annex = (await client.create(5)).json, (await client.create(6, calendar_id="annex")).json
    assert [(await client.cancel(booking["id"])).status for booking in (main, annex)] == [200, 422]


async def test_behaviors_are_used_in_turn(mock: MockProvider, client: Client) -> None:
    turns: list[dict[str, Any]] = [
        {"mode": "fail_then_succeed", "failures": 2},
        {"mode": "rate_limited"},
        {"mode": "immediate"},
    ]
    mock.script("create", behaviors=turns)
    assert [(await client.create()).status for _ in range(5)] == [503, 503, 429, 201, 200]


async def test_the_first_script_that_acts_wins_and_a_spent_one_makes_room(mock: MockProvider, client: Client) -> None:
    mock.script("create", "rate_limited")
    mock.script("create", "pending", settle_ms=5_000)
    assert [(await client.create()).status for _ in range(3)] == [429, 202, 200]


async def test_faults_leave_nothing_that_a_client_could_see_them_by(mock: MockProvider, client: Client) -> None:
    plain = await client.create(1)
    mock.script("create", "delayed", delay_ms=1)
    faulty = await client.create(2)
    assert set(plain.headers) == set(faulty.headers)
    assert set(plain.json) == set(faulty.json)


async def test_a_key_race_books_once(mock: MockProvider, client: Client) -> None:
    mock.script("create", "delayed", delay_ms=50)
    statuses = [reply.status for reply in await asyncio.gather(*(client.create() for _ in range(50)))]
    assert statuses.count(201) == 1
    assert set(statuses) <= {201, 200, 409}
    assert len(mock.ledger()["commits"]) == 1


async def raw_create(mock: MockProvider) -> bytes:
    """Send one create over a bare socket; all bytes until the end of the connection."""
    body = json.dumps(BOOKING)
    host, port = mock.url.removeprefix("http://").split("/")[0].split(":")
    head = f"POST /api/v2/bookings HTTP/1.1\r\nHost: {host}\r\nIdempotency-Key: create-0001\r\n"
    connection = socket.create_connection((host, int(port)))
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_sendall(connection, f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        received = b""
        while chunk := await loop.sock_recv(connection, 65_536):
            received += chunk
        return received
    finally:
        connection.close()


async def test_scripts_over_the_control_plane_act_on_the_api(mock: MockProvider, client: Client) -> None:
    script = {
        "match": {"op": "create", "client_ref": "order-*", "nth": 1},
        "times": 2,
        "seed": 7,
        "behavior": {"mode": "fail_then_succeed", "failures": 1, "status": 503, "applied": False},
    }
    async with ClientSession() as control, control.post(f"{mock.control_url}/scripts", json=[script]) as answer:
        assert answer.status == 201
    assert [(await client.create(n)).status for n in (1, 2, 3, 1, 2)] == [503, 503, 201, 201, 201]
