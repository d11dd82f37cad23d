"""Callbacks from end to end: the real mock provider calls a real `serve` process, early, twice, forged or late."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from appointments.http.border import BODY_MAX
from mocks import MockProvider
from tests.unit.http.wire import BOOKING, JSON, SECRET, Answer, Served, ask, head, post, served

pytestmark = pytest.mark.evidence(
    target="callbacks",
    answers=("R2.7", "R5.2", "G2"),
    given="`serve` as a process, and a provider that books at its leisure and calls back",
    when="callbacks come early, twice, out of order, forged, stale, about nobody, or while the secret is changed",
    then="each signed one is taken once, every other refused, and the booking comes to its one end all the same",
    seen_in="deliveries in the provider's ledger, audit trail, dead letters",
)

NEW_SECRET = "whsec_bmV3LXNlY3JldC1uZXctc2VjcmV0LW5ldy1zZWM="
CALLBACKS = "/v1/callbacks/main"
WITHIN_S = 10
SLOWLY = {"poll_ms": "3600000", "deadline_ms": "60000", "http_drain_ms": "0", "log_level": "error"}
"""Who waits for a poll waits for longer than a test."""
ENDS: dict[str, tuple[dict[str, Any], str, int]] = {
    "once": ({"mode": "pending", "settle_ms": 50, "via": "callback"}, "confirmed", 1),
    "rejected": ({"mode": "pending", "settle_ms": 50, "via": "callback", "final": "rejected"}, "failed", 1),
    "before the answer": ({"mode": "early_callback", "lead_ms": 200, "settle_ms": 50}, "confirmed", 1),
    "three times": ({"mode": "duplicate_callbacks", "copies": 3, "settle_ms": 50}, "confirmed", 3),
    "the newest first": ({"mode": "out_of_order_callbacks", "order": [2, 1, 0], "settle_ms": 50}, "confirmed", 3),
}
"""What the provider does with a create; what the booking comes to; how many messages it sends at least."""

FAULTS = {"bad_signature": {401}, "stale_timestamp": {401}, "unknown_ref": {204}, "dropped": set[int]()}
"""What the provider does with a callback; how it is answered."""


def signed(body: bytes, secret: str = SECRET, id: str = "by-hand", late_s: float = 0, key: str = "k") -> bytes:
    """A message by hand, `late_s` after it was signed."""
    then = datetime.now(UTC) - timedelta(seconds=late_s)
    stamps = (f"webhook-id: {id}", f"webhook-timestamp: {int(then.timestamp())}")
    signature = f"webhook-signature: {Webhook(secret).sign(id, then, body.decode())}"
    return post(body, JSON, *stamps, signature, target=CALLBACKS, key=key)


def about(client_ref: str, **changes: Any) -> bytes:
    data = {"id": "bk_by_hand", "client_ref": client_ref, "version": 1, "status": "accepted"}
    return json.dumps({"type": "booking.accepted", "data": {**data, **changes}}).encode()


async def book(port: int, key: str = "k") -> str:
    return str((await ask(port, post(json.dumps(BOOKING).encode(), JSON, key=key))).headers["location"])


async def ended(port: int, here: str) -> dict[str, Any]:
    async with asyncio.timeout(WITHIN_S):
        while (one := (await ask(port, head("GET", here))).json)["phase"] == "in_progress":
            await asyncio.sleep(0.02)
    return dict(one)


async def heard(port: int, here: str) -> list[dict[str, Any]]:
    """The callbacks in the audit trail."""
    items = (await ask(port, head("GET", f"{here}/events"))).json["items"]
    return [one["data"] for one in items if one["type"] == "callback-received.v1"]


async def delivered(mock: MockProvider, at_least: int) -> list[int | None]:
    """How each delivery was answered."""
    async with asyncio.timeout(WITHIN_S):
        while len(found := mock.ledger()["callbacks"]) < at_least:
            await asyncio.sleep(0.02)
    return [one["status"] for one in found]


async def letters(port: int) -> list[dict[str, Any]]:
    return list((await ask(port, head("GET", "/v1/dead-letters"))).json["orphan_callbacks"])


async def test_however_its_callbacks_come_a_booking_has_one_end_and_hears_each_once(tmp_path: Path) -> None:
    async with (
        MockProvider(SECRET) as mock,
        served(tmp_path, "--provider", mock.url, callback_secret=SECRET, **SLOWLY) as it,
    ):
        for name, (behavior, end, messages) in ENDS.items():
            mock.reset()
            mock.script("create", times=1, **behavior)
            here = await book(it.port, name.replace(" ", "-"))
            assert (name, (await ended(it.port, here))["state"]) == (name, end)
            assert set(await delivered(mock, messages)) == {204}, name
            told = await heard(it.port, here)
            assert told, "it is the callback that ended it"
            assert len({one["webhook_id"] for one in told}) == len(told), "each is heard once"
            state = (await ask(it.port, head("GET", here))).json
            assert (state["state"], state["version"]) == (end, (await ended(it.port, here))["version"])
            assert mock.live(state["id"]) == (1 if end == "confirmed" else 0)
        assert await letters(it.port) == []


async def test_a_callback_that_is_forged_stale_or_about_nobody_moves_nothing(tmp_path: Path) -> None:
    """The booking is confirmed by a look of its own."""
    settings = {**SLOWLY, "poll_ms": "300", "callback_secret": SECRET}
    async with MockProvider(SECRET) as mock, served(tmp_path, "--provider", mock.url, **settings) as it:
        for fault, answered in FAULTS.items():
            mock.reset()
            mock.script("create", "callback_fault", fault=fault, settle_ms=0)
            here = await book(it.port, fault)
            assert (fault, (await ended(it.port, here))["state"]) == (fault, "confirmed")
            assert (fault, set(await delivered(mock, len(answered)))) == (fault, answered)
            assert (fault, await heard(it.port, here)) == (fault, [])
        kept = [(one["client_ref"], one["provider"]) for one in await letters(it.port)]
        assert kept == [("nobody-knows-this", "main")]


async def test_a_message_counts_within_five_minutes_and_once(tmp_path: Path) -> None:
    async with served(tmp_path, "--provider", "local:", callback_secret=SECRET, **SLOWLY) as it:
        here = await book(it.port)
        id = (await ended(it.port, here))["id"]
        before = (await ask(it.port, head("GET", here))).json["version"]

        async def answered(**how: Any) -> str | int:
            answer = await ask(it.port, signed(about("nobody-knows-this"), **how))
            return answer.problem if answer.status != 204 else 204

        for late_s, status in ((0, 204), (290, 204), (310, "bad-signature"), (-290, 204), (-310, "bad-signature")):
            assert (late_s, await answered(late_s=late_s, id=f"late-{late_s}")) == (late_s, status)
        assert len(await letters(it.port)) == 3
        assert [await answered(id="late-0") for _ in range(2)] == [204, 204], "a repeat is taken, and does nothing"
        assert len(await letters(it.port)) == 3

        for sent in (signed(about(id, version=9, status="accepted")),) * 2:
            assert (await ask(it.port, sent)).status == 204
        assert len(await heard(it.port, here)) <= 1
        assert (await ask(it.port, head("GET", here))).json["version"] <= before + 1


async def test_what_is_not_signed_or_too_large_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path, "--provider", "local:", callback_secret=SECRET, **SLOWLY) as it:
        for sent, problem in (
            (post(about("nobody-knows-this"), JSON, target=CALLBACKS), "bad-signature"),
            (signed(about("nobody-knows-this"), NEW_SECRET), "bad-signature"),
            (signed(about("nobody-knows-this")).replace(b"nobody-knows", b"nobody-known"), "bad-signature"),
            (signed(about("x" * BODY_MAX)), "body-too-large"),
            (signed(about("nobody-knows-this")).replace(b"/main HTTP", b"/none HTTP"), "unknown-provider"),
        ):
            assert (await ask(it.port, sent)).problem == problem
        assert await letters(it.port) == []
        assert (await ask(it.port, signed(about("nobody-knows-this")))).status == 204, "control"


async def test_a_secret_is_changed_without_a_callback_lost(tmp_path: Path) -> None:
    store = {"store": f"sqlite:///{tmp_path}/log.db", **SLOWLY}

    async def by(it: Served, secret: str) -> Answer:
        return await ask(it.port, signed(about("nobody-knows-this"), secret))

    async def confirmed(it: Served, mock: MockProvider, key: str) -> None:
        mock.script("create", "pending", settle_ms=20, via="callback", times=1)
        here = await book(it.port, key)
        assert (await ended(it.port, here))["state"] == "confirmed"
        assert (set(await delivered(mock, 1)), len(await heard(it.port, here))) == ({204}, 1)

    async with MockProvider(SECRET) as before, MockProvider(NEW_SECRET) as after:
        async with served(tmp_path, "--provider", before.url, callback_secret=SECRET, **store) as it:
            await confirmed(it, before, "old")
            assert [(await by(it, one)).status for one in (SECRET, NEW_SECRET)] == [204, 401]
        both = f"{NEW_SECRET} {SECRET}"
        async with served(tmp_path, "--provider", before.url, callback_secret=both, **store) as it:
            await confirmed(it, before, "both-old")
            assert [(await by(it, one)).status for one in (SECRET, NEW_SECRET)] == [204, 204]
        async with served(tmp_path, "--provider", after.url, callback_secret=both, **store) as it:
            await confirmed(it, after, "both-new")
        async with served(tmp_path, "--provider", after.url, callback_secret=NEW_SECRET, **store) as it:
            await confirmed(it, after, "new")
            assert [(await by(it, one)).status for one in (SECRET, NEW_SECRET)] == [401, 204]
