"""Every command over HTTP: what is answered at once, after a wait, to a repeat, and to what may not be."""

import asyncio
import json
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from appointments.access.roles import Principal, Role
from appointments.access.tokens import TokenFile
from appointments.http import asking
from domain.provider import BookingDetails, Call, WriteOutcome
from providers.local import LocalProvider
from saga.clock import WallClock
from tests.unit.http.wire import BOOKING, JSON, Answer, ask, head, post, serving

pytestmark = pytest.mark.evidence(
    target="HTTP API",
    answers=("R4.2",),
    given="a desk behind HTTP",
    when="each command comes once, again, with another body, with a wait, stale, out of place, or from a stranger",
    then="it is answered as RFC 9110, 7240 and 9457 have it, and has the effect of one",
    seen_in="answers, audit trail",
)

BOOK = "/v1/appointments"
NOBODY = f"{BOOK}/00000000-0000-4000-8000-000000000000"
LATER = {"start": "2031-03-04T09:00:00Z", "end": "2031-03-04T09:30:00Z"}
CLICK = {"type": "click", "target": {"dataset": {"action": "book"}}}
NEW: dict[str, tuple[str, Any, Any]] = {
    "book": (BOOK, BOOKING, {**BOOKING, "summary": "Another"}),
    "ui-event": (
        "/v1/ui-events",
        {**CLICK, "payload": BOOKING},
        {**CLICK, "payload": {**BOOKING, "summary": "Another"}},
    ),
}
CHANGING: dict[str, tuple[str, Any, Any]] = {
    "cancel": ("{here}/cancel", {"reason": "the caller asked"}, {"reason": "another"}),
    "reschedule": ("{here}/reschedule", LATER, {**LATER, "end": "2031-03-04T10:00:00Z"}),
    "act": ("{here}/actions", {"action": "park", "reason": "a look"}, {"action": "park", "reason": "another"}),
}
EVERY = {**NEW, **CHANGING}
WAIT = "Prefer: wait=5"
every = pytest.mark.parametrize("name", EVERY)
changing = pytest.mark.parametrize("name", CHANGING)


class Slow(LocalProvider):
    """A calendar that takes its time."""

    def __init__(self, takes_s: float) -> None:
        super().__init__("main")
        self._takes_s = takes_s

    async def create(self, call: Call, details: BookingDetails) -> WriteOutcome:
        """Book, in a while."""
        await asyncio.sleep(self._takes_s)
        return await super().create(call, details)


async def give(port: int, target: str, fields: Any, *lines: str, key: str = "k") -> Answer:
    return await ask(port, post(json.dumps(fields).encode(), JSON, *lines, target=target, key=key))


async def booked(port: int, key: str = "booked") -> str:
    """Where a booking is that is confirmed."""
    answer = await give(port, BOOK, BOOKING, WAIT, key=key)
    assert answer.status == 201
    return answer.headers["location"]


async def trail(port: int, here: str) -> list[tuple[int, str]]:
    """What has happened, by version and type."""
    items = (await ask(port, head("GET", f"{here}/events"))).json["items"]
    return [(event["version"], event["type"]) for event in items]


async def settled(port: int, here: str) -> list[tuple[int, str]]:
    """What has happened, once nothing is on its way any more."""
    async with asyncio.timeout(5):
        while (await ask(port, head("GET", here))).json["phase"] == "in_progress":
            await asyncio.sleep(0.02)
    return await trail(port, here)


@every
async def test_it_is_accepted_at_once_and_a_repeat_is_told_what_came_of_it(name: str) -> None:
    path, fields, other = EVERY[name]
    async with serving() as port:
        target = path.format(here=await booked(port))
        first = await give(port, target, fields)
        assert first.status == 202
        here = first.headers["location"]
        assert (first.json["links"]["self"], first.headers["etag"]) == (here, f'"{first.json["version"]}"')
        assert not {"idempotency-replayed", "preference-applied"} & set(first.headers)
        before = await settled(port, here)
        for lines in ((), (WAIT,), ("Prefer: respond-async",)):
            again = await give(port, target, fields, *lines)
            assert (again.status, again.headers["idempotency-replayed"]) == (200, "true")
            assert (again.headers["location"], again.json["id"]) == (here, first.json["id"])
        assert (await give(port, target, other)).problem == "idempotency-key-reused"
        assert await trail(port, here) == before


@changing
async def test_control_under_another_key_it_is_another_command(name: str) -> None:
    path, fields, _ = CHANGING[name]
    async with serving() as port:
        here = await booked(port)
        assert (await give(port, path.format(here=here), fields)).status == 202
        before = await settled(port, here)
        again = await give(port, path.format(here=here), fields, key="another")
        assert (again.status, await settled(port, here) == before) in ((409, True), (202, False))
        assert "idempotency-replayed" not in again.headers


@pytest.mark.parametrize(("name", "status"), [("book", 201), ("ui-event", 201), *((name, 200) for name in CHANGING)])
async def test_with_a_wait_its_end_is_answered(name: str, status: int) -> None:
    path, fields, _ = EVERY[name]
    async with serving() as port:
        answer = await give(port, path.format(here=await booked(port)), fields, WAIT)
        assert (answer.status, answer.headers["preference-applied"]) == (status, "wait=5")
        assert answer.json["phase"] in ("completed", "cancelled")
        assert answer.headers["etag"] == f'"{answer.json["version"]}"'
        assert (await ask(port, head("GET", answer.headers["location"]))).body == answer.body


@every
async def test_whoever_prefers_not_to_wait_is_answered_at_once(name: str) -> None:
    path, fields, _ = EVERY[name]
    async with serving() as port:
        answer = await give(port, path.format(here=await booked(port)), fields, "Prefer: respond-async")
        assert (answer.status, answer.headers["preference-applied"]) == (202, "respond-async")
        assert "location" in answer.headers


@pytest.mark.parametrize(
    ("prefer", "takes_s", "status", "within_s"),
    [(("Prefer: wait=1",), 9, 202, (1, 1.5)), ((WAIT,), 0.5, 201, (0.5, 1.5)), ((), 9, 202, (0, 0.5))],
    ids=["its end is not waited for", "it ends before", "control: no wait"],
)
async def test_a_wait_ends_in_time_and_no_later_than_the_booking(
    prefer: tuple[str, ...], takes_s: float, status: int, within_s: tuple[float, float]
) -> None:
    async with serving(provider=Slow(takes_s)) as port:
        began = monotonic()
        answer = await give(port, BOOK, BOOKING, *prefer)
        assert within_s[0] <= monotonic() - began <= within_s[1]
        assert (answer.status, answer.json["state"]) == (status, "booking" if status == 202 else "confirmed")


@changing
async def test_a_stale_version_has_no_effect(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, fields, _ = CHANGING[name]
    async with serving() as port:
        here = await booked(port)
        target, before = path.format(here=here), await trail(port, here)
        assert (await give(port, target, fields, 'If-Match: "1"')).problem == "stale-version"
        assert await trail(port, here) == before
        monkeypatch.setattr(asking, "versions", lambda _: None)  # the control: nobody looks
        assert (await give(port, target, fields, 'If-Match: "1"')).status == 202
        assert await settled(port, here) != before


@pytest.mark.parametrize(
    ("name", "fields", "names"),
    [("cancel", {}, "cancel"), ("reschedule", LATER, "reschedule"), ("act", {"action": "retry", "reason": "x"}, "")],
)
async def test_what_the_state_does_not_allow_is_refused_and_both_are_named(name: str, fields: Any, names: str) -> None:
    async with serving() as port:
        here = await booked(port)
        assert (await give(port, f"{here}/cancel", {}, WAIT)).status == 200
        before = await trail(port, here)
        refused = await give(port, CHANGING[name][0].format(here=here), fields, key="late")
        assert refused.problem == "illegal-transition"
        assert names in refused.json["detail"]
        assert "cancelled" in refused.json["detail"]
        assert await trail(port, here) == before


WRONG: dict[str, tuple[Any, str]] = {
    "book": ({**BOOKING, "end": BOOKING["start"]}, "later than start"),
    "ui-event": ({**CLICK, "payload": {}}, "Field required"),
    "cancel": ({"reason": "x" * 501}, "at most 500"),
    "reschedule": ({"start": LATER["start"]}, "Field required"),
    "act": ({"action": "park"}, "Field required"),
}


@every
async def test_fields_at_fault_are_told_and_nothing_is_done(name: str) -> None:
    fields, told = WRONG[name]
    async with serving() as port:
        here = await booked(port)
        before = await trail(port, here)
        refused = await give(port, EVERY[name][0].format(here=here), fields)
        assert refused.problem == "invalid-fields"
        assert told in refused.json["detail"]
        assert await trail(port, here) == before
        assert len((await ask(port, head("GET", BOOK))).json["items"]) == 1


@pytest.mark.parametrize("name", [name for name in EVERY if name != "act"])
async def test_a_command_needs_a_key(name: str) -> None:
    path, fields, _ = EVERY[name]
    async with serving() as port:
        sent = json.dumps(fields).encode()
        refused = await ask(port, head("POST", path.format(here=NOBODY), JSON, length=len(sent)) + sent)
        assert refused.problem == "idempotency-key-missing"


async def test_an_action_without_a_key_is_done_once_at_one_version() -> None:
    async with serving() as port:
        here = await booked(port)
        sent = json.dumps(CHANGING["act"][1]).encode()
        request = head("POST", f"{here}/actions", JSON, length=len(sent)) + sent
        assert (await ask(port, request)).status == 202
        assert sum(kind.startswith("operator-acted") for _, kind in await trail(port, here)) == 1


@changing
async def test_what_is_not_there_is_not_found(name: str) -> None:
    path, fields, _ = CHANGING[name]
    async with serving() as port:
        for lines in ((), ('If-Match: "1"',), ('If-Match: "1", "2"',)):
            assert (await give(port, path.format(here=NOBODY), fields, *lines)).problem == "unknown-appointment"


@every
async def test_tokens_decide_whether_and_of_whose_data(name: str, tmp_path: Path) -> None:
    path, fields, _ = EVERY[name]
    tokens, now = TokenFile(tmp_path / "tokens"), WallClock().now()

    def token(tenant: str, role: Role) -> str:
        who = Principal(tenant=tenant, actor="tester", role=role)
        return f"Authorization: Bearer {tokens.make(who, 'tester', '', now, None)[0]}"

    admin, stranger, viewer = token("ours", Role.ADMIN), token("theirs", Role.ADMIN), token("ours", Role.VIEWER)
    async with serving(tokens=tokens) as port:
        here = (await give(port, BOOK, BOOKING, admin, WAIT, key="booked")).headers["location"]
        target = path.format(here=here)
        assert (await give(port, target, fields)).problem == "unauthenticated"
        assert (await give(port, target, fields, admin + "x")).problem == "unauthenticated"
        assert (await give(port, target, fields, viewer)).problem == "forbidden"
        if name in CHANGING:
            assert (await give(port, target, fields, stranger)).problem == "unknown-appointment"
        else:  # the same key is another one there
            assert (await give(port, target, fields, stranger)).status == 202
        assert (await give(port, target, fields, admin)).status == 202  # the control


async def test_whoever_asks_too_fast_is_told_when_to_come_again() -> None:
    async with serving(rate=0.01) as port:
        assert (await give(port, BOOK, BOOKING)).status == 202
        refused = await give(port, BOOK, BOOKING)
        assert refused.problem == "too-many-requests"
        assert 0 < int(refused.headers["retry-after"]) <= 101
