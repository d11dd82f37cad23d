"""The mock provider keeps its contract: every route, every refusal, the ledger and the control plane."""

import io
import json
import random
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession
from mock_client import BOOKING, NEW_TIMES, Client

from mocks import MockProvider

pytestmark = pytest.mark.evidence(
    target="mock provider",
    answers=("R5.2",),
    given="the /api/v2 mock as an HTTP server",
    when="a plain client uses every route",
    then="it keeps the provider contract",
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


async def test_a_create_is_accepted_and_answered_with_the_whole_booking(client: Client) -> None:
    reply = await client.create()
    assert reply.status == 201
    booking = reply.json
    assert set(booking) == {
        *("id", "uid", "client_ref", "status", "version", "etag", "start", "end", "time_zone"),
        *("rescheduled_from", "created_at", "updated_at"),
    }
    assert re.fullmatch(r"bk_[0-9a-f]{32}", booking["id"])
    assert booking["client_ref"] == "order-0001"
    assert (booking["status"], booking["version"], booking["rescheduled_from"]) == ("accepted", 1, None)
    assert (booking["start"], booking["end"]) == (BOOKING["start"], BOOKING["end"])
    assert reply.headers["ETag"] == booking["etag"]
    assert (await client.get(booking["id"])).json == booking
    assert (await client.find()).json == {"items": [booking]}


async def test_a_repeated_create_answers_the_booking_as_it_is_now_and_books_once(
    mock: MockProvider, client: Client
) -> None:
    first = await client.create()
    await client.cancel(first.json["id"])
    again = await client.create()
    assert again.status == 200
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (again.json["id"], again.json["status"], again.json["version"]) == (first.json["id"], "cancelled", 2)
    assert [commit["op"] for commit in mock.ledger()["commits"]] == ["create", "cancel"]


async def test_a_body_with_its_fields_in_another_order_is_the_same_body(client: Client) -> None:
    await client.create()
    reply = await client.send("POST", "/bookings", key="create-0001", json=dict(reversed(BOOKING.items())))
    assert reply.status == 200


async def test_a_key_with_another_body_is_refused(mock: MockProvider, client: Client) -> None:
    await client.create()
    reply = await client.create(summary="Another")
    assert (reply.status, reply.code) == (422, "idempotency_key_reused")
    assert mock.live() == 1


async def test_a_client_reference_books_once_whatever_the_key(mock: MockProvider, client: Client) -> None:
    await client.create()
    reply = await client.create(key="another-key")
    assert (reply.status, reply.code) == (409, "client_ref_conflict")
    assert mock.live("order-0001") == 1


async def test_overlapping_slots_are_not_checked(mock: MockProvider, client: Client) -> None:
    assert [(await client.create(number)).status for number in (1, 2)] == [201, 201]
    assert (mock.live(), mock.live("order-0002")) == (2, 1)


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [
        (None, 400, "idempotency_key_missing"),
        ("short", 400, "idempotency_key_malformed"),
        ("with blank", 400, "idempotency_key_malformed"),
        ("k" * 256, 400, "idempotency_key_malformed"),
        ("k" * 255, 201, None),
    ],
)
@pytest.mark.parametrize("path", ["/bookings", "/notifications"])
async def test_keys_are_required_and_held_to_their_form(
    client: Client, key: str | None, status: int, code: str | None, path: str
) -> None:
    body = BOOKING if path == "/bookings" else {"client_ref": "order-0001", "type": "appointment.confirmed"}
    reply = await client.send("POST", path, key=key, json=body)
    assert reply.status == (202 if status == 201 and path == "/notifications" else status)
    assert code is None or reply.code == code


BAD_FIELDS: list[dict[str, Any]] = [
    {"client_ref": "short"},
    {"client_ref": "r" * 65},
    {"client_ref": "order-0001\n"},
    {"client_ref": "order 0001"},
    {"client_ref": None},
    {"calendar_id": "Main"},
    {"calendar_id": ""},
    {"calendar_id": "c" * 65},
    {"start": "2027-01-15T08:00:00"},
    {"start": "2027-01-15T08:00:00+01:00"},
    {"start": "2027-02-30T08:00:00Z"},
    {"start": "15 January"},
    {"start": 1},
    {"end": BOOKING["start"]},
    {"end": "2027-01-16T08:00:01Z"},
    {"time_zone": "Europe/Atlantis"},
    {"time_zone": "../../etc/passwd"},
    {"time_zone": "Europe"},
    {"time_zone": ""},
    {"summary": ""},
    {"summary": "s" * 256},
    {"summary": "\ud800"},
    {"location": "l" * 256},
    {"organizer": None},
    {"organizer": {"email": "nobody"}},
    {"attendees": []},
    {"attendees": [{"email": "ada@example.org"}] * 51},
    {"attendees": [{"email": "ada@example.org", "name": "n" * 256}]},
    {"attendees": [{"name": "Ada"}]},
    {"callback_url": "file:///etc/passwd"},
    {"metadata": {f"k{n}": "v" for n in range(51)}},
    {"metadata": {"k" * 41: "v"}},
    {"metadata": {"k": "v" * 501}},
    {"metadata": {"k": 1}},
    {"mode": "timeout"},
]


@pytest.mark.parametrize("fields", BAD_FIELDS, ids=lambda fields: json.dumps(fields)[:50])
async def test_fields_beyond_the_contract_are_refused_and_nothing_is_booked(
    mock: MockProvider, client: Client, fields: dict[str, Any]
) -> None:
    reply = await client.create(**fields)
    assert (reply.status, reply.code) == (422, "invalid_fields")
    assert mock.ledger()["commits"] == []


GOOD_FIELDS: list[dict[str, Any]] = [
    {"client_ref": "r" * 64, "calendar_id": "c" * 64, "summary": "s" * 255, "location": "l" * 255},
    {"start": "2027-01-15T08:00:00+00:00", "end": "2027-01-16T08:00:00.000Z"},
    {"attendees": [{"email": "ada@example.org", "name": "\U0001f600" * 255}] * 50},
    {"metadata": {f"{n:02}" + "k" * 38: "\u00e9" * 500 for n in range(50)}},
    {"callback_url": "https://example.org/callbacks?x=1", "time_zone": "America/Argentina/Buenos_Aires"},
]


@pytest.mark.parametrize("fields", GOOD_FIELDS, ids=lambda fields: json.dumps(fields)[:50])
async def test_fields_at_their_limits_are_taken(client: Client, fields: dict[str, Any]) -> None:
    assert (await client.create(**fields)).status == 201


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"\xff", b'{"a": NaN}', b'{"a": 1e999}', b'{"a": 1, "a": 2}', b"[" * 100_000, b'{"a": ' + b"1" * 9_999],
    ids=["empty", "cut", "not-utf8", "nan", "overflow", "twice", "deep", "long-number"],
)
async def test_what_is_no_json_is_malformed(client: Client, raw: bytes) -> None:
    reply = await client.send("POST", "/bookings", key="create-0001", data=raw)
    assert (reply.status, reply.code) == (400, "malformed_json")


@pytest.mark.parametrize(("depth", "status"), [(31, 202), (32, 400), (900, 400)])
async def test_what_is_taken_can_be_shown_again(mock: MockProvider, client: Client, depth: int, status: int) -> None:
    raw = b'{"client_ref": "order-0001", "type": "told", "deep": ' + b"[" * depth + b"]" * depth + b"}"
    assert (await client.send("POST", "/notifications", key="notify-0001", data=raw)).status == status
    async with Client(mock.control_url) as control:
        for path in ("/requests", "/ledger"):
            assert (await control.send("GET", path)).status == 200


async def test_mangled_bodies_are_never_a_server_error(client: Client) -> None:
    seed = 20_271
    print("seed", seed)
    dice = random.Random(seed)
    junk: list[Any] = [None, True, -1, 1e300, "", "\x00", "\ud800", [], {}, [[]], {"email": []}, "9" * 5_000]
    original = json.dumps(BOOKING).encode()
    for turn in range(150):
        mangled = bytearray(original)
        for _ in range(dice.randint(1, 3)):
            mangled[dice.randrange(len(mangled))] = dice.randrange(256)
        odd = BOOKING | {dice.choice([*BOOKING, "metadata", "location"]): dice.choice(junk)}
        for raw in (bytes(mangled), json.dumps(odd).encode()):
            reply = await client.send("POST", "/bookings", key=f"mangled-{turn}", data=raw)
            assert reply.status in (200, 201, 400, 409, 422), raw


async def test_unknown_bookings_routes_and_methods_get_the_error_envelope(client: Client) -> None:
    for reply in (
        await client.get("bk_" + "0" * 32),
        await client.cancel("nothing"),
        await client.reschedule("nothing", None),
        await client.send("GET", "/nothing"),
    ):
        assert (reply.status, reply.code) == (404, "not_found")
    refused = await client.send("DELETE", "/bookings")
    assert (refused.status, refused.code) == (405, "method_not_allowed")
    assert "POST" in refused.headers["Allow"]
    big = await client.send("POST", "/bookings", key="create-0001", data=io.BytesIO(b"x" * 1_100_000))
    assert (big.status, big.json["error"]["retryable"]) == (413, False)


async def test_a_look_up_of_an_unknown_reference_is_empty_and_of_an_impossible_one_refused(client: Client) -> None:
    assert (await client.find(9)).json == {"items": []}
    assert (await client.listing(client_ref="no such")).code == "invalid_fields"


async def test_cancel_is_repeatable_and_conditional_on_request(mock: MockProvider, client: Client) -> None:
    booking = (await client.create()).json
    stale = await client.cancel(booking["id"], if_match='"other"')
    assert (stale.status, stale.code) == (412, "stale_etag")
    done = await client.cancel(booking["id"], if_match=booking["etag"], key="cancel-0001")
    again = await client.cancel(booking["id"], json={"reason": "caller asked"})
    assert [(reply.status, reply.json["status"], reply.json["version"]) for reply in (done, again)] == [
        (200, "cancelled", 2),
        (200, "cancelled", 2),
    ]
    assert [commit["key"] for commit in mock.ledger()["commits"]] == ["create-0001", "cancel-0001"]
    assert mock.live() == 0


async def test_reschedule_moves_in_place_under_if_match(client: Client) -> None:
    booking = (await client.create()).json
    missing = await client.reschedule(booking["id"], None)
    assert (missing.status, missing.code) == (428, "precondition_required")
    moved = await client.reschedule(booking["id"], booking["etag"], key="reschedule-1")
    assert moved.status == 200
    assert (moved.json["id"], moved.json["status"], moved.json["version"]) == (booking["id"], "accepted", 2)
    assert (moved.json["start"], moved.json["end"]) == (NEW_TIMES["start"], NEW_TIMES["end"])
    assert moved.json["etag"] != booking["etag"]
    stale = await client.reschedule(booking["id"], booking["etag"])
    assert (stale.status, stale.code) == (412, "stale_etag")
    replayed = await client.reschedule(booking["id"], booking["etag"], key="reschedule-1")
    assert (replayed.status, replayed.json["version"]) == (200, 2)
    reused = await client.reschedule(
        booking["id"], moved.json["etag"], key="reschedule-1", json=NEW_TIMES | {"time_zone": "UTC"}
    )
    assert (reused.status, reused.code) == (422, "idempotency_key_reused")


async def test_reschedule_takes_a_zone_and_refuses_bad_times_and_cancelled_bookings(client: Client) -> None:
    booking = (await client.create()).json
    moved = await client.reschedule(booking["id"], "*", json=NEW_TIMES | {"time_zone": "Asia/Tokyo"})
    assert moved.json["time_zone"] == "Asia/Tokyo"
    bad = await client.reschedule(booking["id"], "*", json=NEW_TIMES | {"end": NEW_TIMES["start"]})
    assert (bad.status, bad.code) == (422, "invalid_fields")
    await client.cancel(booking["id"])
    refused = await client.reschedule(booking["id"], "*")
    assert (refused.status, refused.code) == (409, "not_reschedulable")


async def test_a_listing_walks_in_pages_and_a_token_goes_on_from_there(client: Client) -> None:
    made = [(await client.create(number)).json for number in range(1, 6)]
    seen: list[Any] = []
    token: dict[str, str] = {}
    for expected_more in (True, True, False):
        page = (await client.listing(limit=2, **token)).json
        seen += page["items"]
        token = {"sync_token": page["next_sync_token"]}
        assert page["has_more"] is expected_more
    assert seen == made
    assert (await client.listing(**token)).json["items"] == []
    await client.cancel(made[1]["id"])
    await client.create(6)
    changed = (await client.listing(**token)).json["items"]
    assert [(item["client_ref"], item["status"]) for item in changed] == [
        ("order-0002", "cancelled"),
        ("order-0006", "accepted"),
    ]


async def test_a_walk_during_changes_skips_nobody(client: Client) -> None:
    made = [(await client.create(number)).json for number in range(1, 5)]
    page = (await client.listing(limit=2)).json
    await client.cancel(made[0]["id"])
    rest = (await client.listing(sync_token=page["next_sync_token"])).json["items"]
    assert [item["client_ref"] for item in rest] == ["order-0003", "order-0004", "order-0001"]


async def test_a_listing_can_keep_to_one_calendar(client: Client) -> None:
    await client.create(1)
    await client.create(2, calendar_id="annex")
    items = (await client.listing(calendar_id="annex")).json["items"]
    assert [item["client_ref"] for item in items] == ["order-0002"]


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "", "1.5"])
async def test_page_sizes_beyond_the_limits_are_refused(client: Client, limit: str) -> None:
    assert (await client.listing(limit=limit)).code == "invalid_fields"


@pytest.mark.parametrize("token", ["x", "", "st_000000000000_0"])
async def test_an_unknown_sync_token_is_expired(client: Client, token: str) -> None:
    reply = await client.listing(sync_token=token)
    assert (reply.status, reply.code) == (410, "sync_token_expired")


async def test_notifications_are_taken_once_a_key_and_kept_in_the_ledger(mock: MockProvider, client: Client) -> None:
    first = await client.notify(summary="Check-up", anything={"else": [1]})
    again = await client.notify(summary="Check-up", anything={"else": [1]})
    reused = await client.notify(summary="Other")
    assert (first.status, again.status, reused.status) == (202, 200, 422)
    assert re.fullmatch(r"ntf_[0-9a-f]{32}", first.json["id"])
    assert first.json == again.json == {"id": first.json["id"], "status": "accepted"}
    (kept,) = mock.ledger()["notifications"]
    assert kept["body"]["anything"] == {"else": [1]}
    assert (kept["client_ref"], kept["key"], kept["response_sent"]) == ("order-0001", "notify-0001", True)
    assert (await client.notify(2, type="")).code == "invalid_fields"


async def test_the_ledger_says_what_was_applied_and_whether_it_was_answered(mock: MockProvider, client: Client) -> None:
    booking = (await client.create()).json
    await client.reschedule(booking["id"], booking["etag"], key="reschedule-1")
    commits = mock.ledger()["commits"]
    assert [(c["op"], c["client_ref"], c["key"], c["version"], c["response_sent"]) for c in commits] == [
        ("create", "order-0001", "create-0001", 1, True),
        ("reschedule", "order-0001", "reschedule-1", 2, True),
    ]
    assert commits[0]["applied_at"] <= commits[1]["applied_at"]
    assert mock.ledger()["live_by_client_ref"] == {"order-0001": 1}


async def test_every_request_is_noted_refused_ones_too(mock: MockProvider, client: Client) -> None:
    await client.create()
    await client.create(2, summary="")
    await client.find()
    await client.send("GET", "/nothing")
    noted = [(r["op"], r["method"], r["client_ref"], r["idempotency_key"], r["status"]) for r in mock.requests()]
    assert noted == [
        ("create", "POST", "order-0001", "create-0001", 201),
        ("create", "POST", "order-0002", "create-0002", 422),
        ("find", "GET", "order-0001", None, 200),
        (None, "GET", None, None, None),
    ]
    assert mock.requests("create")[0]["body"] == BOOKING
    assert mock.calls() == {"create": 2, "find": 1}


async def test_a_lenient_provider_needs_neither_key_nor_reference(mock: MockProvider, client: Client) -> None:
    bare = {name: value for name, value in BOOKING.items() if name != "client_ref"}
    assert (await client.send("POST", "/bookings", json=bare)).status == 400
    assert (await client.send("POST", "/bookings", key="create-0001", json=bare)).status == 422
    mock.lenient = True
    for _ in range(2):
        assert (await client.send("POST", "/bookings", json=bare)).status == 201
    assert mock.live() == 2
    mock.reset()
    assert (await client.send("POST", "/bookings", json=bare)).status == 400


async def test_a_reset_forgets_everything(mock: MockProvider, client: Client) -> None:
    booking = (await client.create()).json
    token = (await client.listing()).json["next_sync_token"]
    mock.script("create", "stuck_locked")
    mock.reset()
    assert (await client.get(booking["id"])).status == 404
    assert (await client.listing(sync_token=token)).status == 410
    assert (await client.create()).status == 201
    assert mock.calls() == {"get": 1, "list": 1, "create": 1}


async def test_the_control_plane_does_over_http_what_the_object_does(mock: MockProvider, client: Client) -> None:
    script = {"match": {"op": "create", "client_ref": "order-*"}, "behavior": {"mode": "reject", "status": 400}}
    async with ClientSession() as control:

        async def call(method: str, path: str, **arguments: Any) -> tuple[int, Any]:
            async with control.request(method, mock.control_url + path, **arguments) as answer:
                return answer.status, await answer.json() if answer.status != 204 else None

        status, added = await call("POST", "/scripts", json=script)
        assert (status, len(added["ids"])) == (201, 1)
        assert (await client.create()).status == 400
        assert (await call("GET", "/scripts"))[1]["scripts"][0]["used"] == 1
        assert (await call("DELETE", "/scripts"))[0] == 204
        assert (await client.create()).status == 201
        await client.create(2)
        ledger = (await call("GET", "/ledger"))[1]
        assert ledger == json.loads(json.dumps(mock.ledger()))
        assert (await call("GET", "/ledger?client_ref=order-0001"))[1]["live"] == 1
        assert [r["status"] for r in (await call("GET", "/requests?op=create"))[1]["requests"]] == [400, 201, 201]
        assert (await call("GET", "/stats"))[1] == {"calls": {"create": 3}, "live": 2, "lenient": False}
        assert (await call("POST", "/settings", json={"lenient": True}))[1] == {"lenient": True}
        assert (await call("POST", "/reset"))[0] == 204
        assert (await call("GET", "/stats"))[1] == {"calls": {}, "live": 0, "lenient": False}
        assert (await call("GET", "/nothing"))[0] == 404


BAD_SCRIPTS: list[Any] = [
    {},
    {"behavior": {"mode": "no such"}},
    {"behavior": {"mode": "pending", "final": "cancelled"}},
    {"behavior": {"mode": "immediate"}, "behaviors": [{"mode": "immediate"}]},
    {"behavior": {"mode": "immediate"}, "times": 0},
    {"behavior": {"mode": "immediate"}, "match": {"op": "delete"}},
    {"behavior": {"mode": "immediate"}, "match": {"nth": 0}},
    {"behavior": {"mode": "pending"}, "match": {"op": "get"}},
    {"behavior": {"mode": "stale_list"}, "match": {"op": "create"}},
    {"behavior": {"mode": "timeout", "applied": True, "apply": "never"}},
    {"behavior": {"mode": "out_of_order_callbacks", "order": [1, 1]}},
    {"behavior": {"mode": "callback_fault"}},
    {"behavior": {"mode": "immediate", "extra": 1}},
    [{"behavior": {"mode": "immediate"}}, 7],
]


@pytest.mark.parametrize("script", BAD_SCRIPTS, ids=lambda script: json.dumps(script)[:60])
async def test_a_script_that_means_nothing_is_refused_whole(mock: MockProvider, script: Any) -> None:
    async with ClientSession() as control:
        async with control.post(f"{mock.control_url}/scripts", json=script) as answer:
            assert answer.status == 422
        async with control.get(f"{mock.control_url}/scripts") as answer:
            assert await answer.json() == {"scripts": []}
