"""Idempotency keys over a connection: one effect, a repeat that says so, another body refused."""

import asyncio
import json

from tests.unit.http.wire import BOOKING, JSON, Answer, ask, head, post, serving

BODY = json.dumps(BOOKING).encode()


async def requested(port: int) -> int:
    figures = json.loads((await ask(port, head("GET", "/v1/figures"))).body)
    return int(figures["total"]["requested"])


async def test_a_repeat_is_answered_by_what_there_is_and_marked() -> None:
    async with serving() as port:
        first = await ask(port, post(BODY, JSON, "Prefer: wait=5"))
        again = await ask(port, post(BODY, JSON))
        assert (first.status, again.status) == (201, 200)
        assert "idempotency-replayed" not in first.headers
        assert again.headers["idempotency-replayed"] == "true"
        assert (again.body, again.headers["location"]) == (first.body, first.headers["location"])
        reordered = json.dumps(dict(reversed(BOOKING.items())), indent=2).encode()
        assert (await ask(port, post(reordered, JSON))).status == 200
        other = await ask(port, post(json.dumps({**BOOKING, "summary": "Another"}).encode(), JSON))
        assert other.problem == "idempotency-key-reused"
        assert await requested(port) == 1


async def test_however_many_come_at_once_there_is_one_effect() -> None:
    async with serving() as port:
        answers: list[Answer] = await asyncio.gather(*(ask(port, post(BODY, JSON)) for _ in range(50)))
        assert {one.status for one in answers} <= {200, 202}
        assert sum(one.status == 202 for one in answers) == 1
        assert len({one.headers["location"] for one in answers}) == 1
        assert await requested(port) == 1


async def test_control_other_keys_are_other_appointments() -> None:
    async with serving() as port:
        answers = [await ask(port, post(BODY, JSON, key=f"k{n}")) for n in range(3)]
        assert len({one.headers["location"] for one in answers}) == 3
        assert await requested(port) == 3
