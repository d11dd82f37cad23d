"""How fast a tenant may ask and an address may fail, over HTTP: by a clock that stands until the test moves it."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from appointments.access.access import FAILED_BURST, FAILED_RATE, Access, _network
from appointments.access.roles import Principal, Role
from appointments.access.throttle import Throttle
from appointments.access.tokens import TokenFile
from saga.clock import WallClock
from tests.unit.http.wire import BOOKING, JSON, Answer, ask, head, post, serving

NOBODY_S = "Authorization: Bearer appt_000000000000_guessed_00000000"
LIST = "/v1/appointments"


@dataclass
class Door:
    """A port behind which time stands."""

    tokens: TokenFile
    port: int = 0
    at: datetime = field(default_factory=WallClock().now)

    def token(self, tenant: str, role: Role = Role.BOOKER) -> str:
        who = Principal(tenant=tenant, actor="tester", role=role)
        return f"Authorization: Bearer {self.tokens.make(who, 'tester', '', self.at, None)[0]}"

    async def asked(self, *lines: str) -> Answer:
        return await ask(self.port, head("GET", LIST, *lines))

    async def until_refused(self, *lines: str, at_most: int = 100) -> tuple[int, Answer]:
        for n in range(at_most):
            answer = await self.asked(*lines)
            if answer.status == 429:
                return n, answer
        raise AssertionError(f"{at_most} were let through")


@asynccontextmanager
async def opened(folder: Path, rate: float | None = None, burst: int = 1) -> AsyncIterator[Door]:
    door = Door(TokenFile(folder / "tokens"))
    async with serving(tokens=door.tokens, rate=rate, burst=burst, now=lambda: door.at) as door.port:
        yield door


@pytest.mark.evidence(
    target="HTTP API",
    answers=("R4.2", "R8.1"),
    given="a limit of requests for each tenant, and a clock that is passed in",
    when="one tenant asks without a pause",
    then="it is told when to come again, to the second, and no other tenant waits for it",
    seen_in="answers",
)
async def test_a_flood_of_one_tenant_costs_no_other_anything(tmp_path: Path) -> None:
    async with opened(tmp_path, rate=0.5, burst=4) as door:
        flooding, quiet = door.token("flooding"), door.token("quiet")
        let_in, refused = await door.until_refused(flooding)
        assert (let_in, refused.problem, refused.headers["retry-after"]) == (4, "too-many-requests", "2")
        assert (await ask(door.port, post(json.dumps(BOOKING).encode(), JSON, flooding))).status == 429
        assert [(await door.asked(quiet)).status for _ in range(4)] == [200] * 4
        assert (await door.asked(quiet)).status == 429

        door.at += timedelta(seconds=2)  # as it was told, and not a second more
        assert (await door.asked(flooding)).status == 200
        assert (await door.asked(flooding)).headers["retry-after"] == "2"
        door.at += timedelta(seconds=0.5)
        assert (await door.asked(flooding)).headers["retry-after"] == "2"
        door.at += timedelta(seconds=1.2)
        assert (await door.asked(flooding)).headers["retry-after"] == "1"


async def test_whose_token_is_none_is_told_to_wait_and_no_valid_one_waits_for_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        valid = door.token("acme")
        failed, refused = await door.until_refused(NOBODY_S)
        assert (failed, refused.problem, refused.headers["retry-after"]) == (FAILED_BURST, "too-many-requests", "1")
        assert "www-authenticate" not in refused.headers
        # From the same address: a valid token, and nobody who only asks how to come in.
        assert (await door.asked(valid)).status == 200
        assert [(await door.asked()).status for _ in range(3)] == [401] * 3
        assert (await door.asked("Authorization: Basic YTpi")).status == 401

        door.at += timedelta(seconds=1)
        assert (await door.until_refused(NOBODY_S))[0] == FAILED_RATE
        assert (await door.asked(valid)).status == 200


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("", "a socket", True),
    ],
)
def test_addresses_that_one_host_may_choose_from_fail_together(one: str, other: str, same: bool) -> None:
    assert (_network(one) == _network(other)) == same
    now: Callable[[], datetime] = lambda: datetime(2031, 3, 3, tzinfo=UTC)  # noqa: E731
    access = Access(TokenFile(None), Throttle(None, 1), now)
    while access.failed(one, now()) is None:
        pass
    assert (access.failed(other, now()) is not None) == same
