"""Every operation of the OpenAPI document by every role, of the tenant, of another, and of nobody: allowed or refused.

What is expected is what `NEEDS` and `MAY` say; what is another tenant's must be as unknown as what is nobody's, to the
byte and to the clock.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any
from uuid import UUID

import aiohttp
import pytest

from appointments import orchestrator
from appointments.access.roles import MAY, NEEDS, Principal, Role
from appointments.access.tokens import TokenFile
from appointments.http.openapi import EXAMPLES
from domain.errors import UnknownAppointment
from saga.clock import WallClock
from store.mapper import decode
from store.port import Store
from tests.unit.http.wire import BOOKING, JSON, Answer, answer, ask, head, post, serving

pytestmark = pytest.mark.evidence(
    target="HTTP API",
    answers=("R4.2", "R8.1", "G5"),
    given="a process that serves two tenants, and a token of every role of each",
    when="every operation of its OpenAPI document is asked for by each, by nobody, and by a token that is none",
    then="only who may is let in; what is another tenant's is answered like what was never there, and as fast",
    seen_in="answers, times",
)

UNKNOWN = "00000000-0000-4000-8000-000000000000"
NOBODY_S = "Authorization: Bearer appt_000000000000_guessed_00000000"
STREAM = b"text/event-stream"
HISTORY, HISTORY_OF_CONTROL = 100, 400
"""Events of the appointment whose answers are timed."""
ROUNDS, RATIO_MAX, TRIES = 150, 1.5, 4


@dataclass(frozen=True)
class Operation:
    """One of the document."""

    name: str
    method: str
    path: str
    secured: bool

    @property
    def example(self) -> Any:
        """A body that it takes."""
        return EXAMPLES.get(self.name)

    def request(self, id: str, *lines: str, key: str = "k", body: Any = None) -> bytes:
        """It as bytes, for what has this id."""
        target = self.path.replace("{id}", id).replace("{provider}", "main")
        asked = body if body is not None else self.example
        if asked is None:
            return head(self.method, target, *lines, length=0 if self.method == "POST" else None)
        return post(json.dumps(asked).encode(), JSON, *lines, target=target, key=key)


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            yield Operation(told["operationId"], method.upper(), path, "security" in told)


def undeclared(document: dict[str, Any]) -> set[str]:
    """Operations of which the table and the document do not say the same; and rows of the table without one."""
    found = {one.name: one.secured for one in operations(document)}
    wrong = {name for name, secured in found.items() if name not in NEEDS or secured == (NEEDS[name] is None)}
    return wrong | (NEEDS.keys() - found.keys())


@dataclass
class House:
    """A process that serves, tokens of every role of two tenants, and what the tenants have made."""

    tokens: TokenFile
    port: int = 0
    document: dict[str, Any] = field(default_factory=dict)
    made: int = 0

    def token(self, tenant: str, role: Role = Role.ADMIN) -> str:
        who = Principal(tenant=tenant, actor="tester", role=role)
        return f"Authorization: Bearer {self.tokens.make(who, 'tester', '', WallClock().now(), None)[0]}"

    def named(self, name: str) -> Operation:
        return next(one for one in operations(self.document) if one.name == name)

    async def ask(self, sent: bytes) -> Answer:
        """The answer; of a stream its head alone."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(sent)
            top = await reader.readuntil(b"\r\n\r\n")
            return answer(top if STREAM in top else top + await reader.read())
        finally:
            writer.close()
            await writer.wait_closed()

    async def book(self, token: str) -> str:
        self.made += 1
        body = json.dumps(BOOKING).encode()
        booked = await ask(self.port, post(body, JSON, "Prefer: wait=5", token, key=f"made-{self.made}"))
        assert booked.status == 201, booked
        return str(booked.json["id"])

    async def report(self, token: str) -> str:
        return str((await ask(self.port, self.named("reconcile").request("", token))).json["id"])

    async def thing(self, one: Operation, token: str) -> str:
        """The id of what an operation may be done to."""
        if "{id}" not in one.path:
            return ""
        return await (self.report(token) if "/reconciliations/" in one.path else self.book(token))


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[House]:
    house = House(TokenFile(folder / "tokens"))
    async with serving(tokens=house.tokens) as house.port:
        house.document = (await ask(house.port, head("GET", "/openapi.json"))).json
        yield house


async def test_every_operation_has_its_row_and_every_row_its_operation(tmp_path: Path) -> None:
    async with opened(tmp_path) as house:
        assert undeclared(house.document) == set()
        added = {"get": {"operationId": "everything"}}
        assert undeclared({"paths": {**house.document["paths"], "/v1/all": added}}) == {"everything"}, "control"
        bare = {"get": {"operationId": "figures"}}
        assert undeclared({"paths": {**house.document["paths"], "/v1/figures": bare}}) == {"figures"}, "control"


async def test_every_role_is_let_in_where_it_may_and_nowhere_else(tmp_path: Path) -> None:
    async with opened(tmp_path) as house:
        admin = house.token("ours")
        table = []
        for one in operations(house.document):
            needed = NEEDS[one.name]
            for role in Role:
                sent = one.request(await house.thing(one, admin), house.token("ours", role), key=f"{one.name}-{role}")
                answered = await house.ask(sent)
                table.append((one.name, str(role), answered.status))
                if one.name == "called_back":
                    assert answered.problem == "bad-signature", "no token stands for a signature"
                elif needed is None or needed in MAY[role]:
                    assert answered.status < 300, table[-1]
                else:
                    assert answered.problem == "forbidden", table[-1]
        assert len(table) == len(NEEDS) * len(Role)


async def test_who_shows_no_token_or_one_that_is_none_is_let_in_nowhere(tmp_path: Path) -> None:
    async with opened(tmp_path) as house:
        for one in operations(house.document):
            id = await house.thing(one, house.token("ours"))
            for lines in ((), (NOBODY_S,)):
                answered = await house.ask(one.request(id, *lines))
                if NEEDS[one.name] is not None:
                    assert answered.problem == "unauthenticated", one
                elif one.name == "called_back":
                    assert answered.problem == "bad-signature"
                else:
                    assert answered.status == (401 if lines and one.name == "metrics" else 200), one


def comparable(answered: Answer, id: str) -> tuple[int, dict[str, str], bytes]:
    """An answer without the id that was asked for, the instant, and the trace."""
    headers = {name: value for name, value in answered.headers.items() if name not in ("date", "traceparent")}
    return answered.status, headers, answered.body.replace(id.encode(), b"ID")


async def test_what_is_another_tenant_s_is_answered_like_what_was_never_there(tmp_path: Path) -> None:
    async with opened(tmp_path) as house:
        ours, theirs = house.token("ours"), house.token("theirs")
        compared = set()
        for one in operations(house.document):
            if "{id}" not in one.path:
                continue
            foreign = await house.thing(one, theirs)
            found, unknown = [await house.ask(one.request(id, ours)) for id in (foreign, UNKNOWN)]
            assert unknown.problem in ("unknown-appointment", "unknown-report"), one
            assert comparable(found, foreign) == comparable(unknown, UNKNOWN), one
            compared.add(one.name)
            # The control: it is there.
            assert (await house.ask(one.request(foreign, theirs, key="mine"))).status < 300, one
        assert len(compared) == 10


async def test_nor_does_what_names_another_tenant_s_in_its_body_or_its_query_find_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as house:
        ours, theirs = house.token("ours"), house.token("theirs")
        foreign = await house.book(theirs)
        event = {"type": "click", "target": {"dataset": {"action": "cancel-appointment"}}}
        told = []
        for id in (foreign, UNKNOWN):
            body = {**event, "payload": {"appointment_id": id}}
            answered = await house.ask(house.named("ui_event").request("", ours, body=body))
            assert answered.problem == "unknown-appointment", answered
            told.append(comparable(answered, id))
        assert told[0] == told[1]
        for query in (f"?q={foreign}", "?calendar=main", ""):
            answered = await ask(house.port, head("GET", f"/v1/appointments{query}", ours))
            assert answered.json == {"items": [], "next_cursor": None}
            assert (await ask(house.port, head("GET", f"/v1/appointments{query}", theirs))).json["items"]
        for path in ("/v1/figures", "/v1/dead-letters"):
            answered = await ask(house.port, head("GET", path, ours))
            assert (answered.status, foreign.encode() in answered.body) == (200, False)
        assert (await ask(house.port, head("GET", "/v1/figures", ours))).json["total"]["requested"] == 0


async def test_one_key_of_two_tenants_is_two_keys(tmp_path: Path) -> None:
    async with opened(tmp_path) as house:
        body, ids = json.dumps(BOOKING).encode(), []
        for tenant, status in (("ours", 202), ("theirs", 202), ("ours", 200), ("theirs", 200)):
            booked = await ask(house.port, post(body, JSON, house.token(tenant), key="order-4711"))
            assert (booked.status, "idempotency-replayed" in booked.headers) == (status, status == 200)
            ids.append(booked.json["id"])
        assert ids[:2] == ids[2:]
        assert len(set(ids)) == 2
        other = json.dumps({**BOOKING, "summary": "Another"}).encode()
        third = await ask(house.port, post(other, JSON, house.token("third"), key="order-4711"))
        assert third.status == 202, "another body under the same key is a fault of one tenant alone"


async def with_history(house: House, token: str, events: int = HISTORY) -> str:
    """The id of an appointment to which much has happened."""
    id, act = await house.book(token), house.named("act")
    for n in range(events):
        body = {"action": "park" if n % 2 == 0 else "resume", "reason": "x"}
        assert (await house.ask(act.request(id, token, key=f"act-{n}", body=body))).status == 202
    return id


async def slower(house: House, token: str, paths: tuple[str, str]) -> float:
    """How many times longer the first of two is answered than the second, by the medians of calls in turns."""
    took: tuple[list[float], list[float]] = ([], [])
    headers = dict([token.split(": ", 1)])
    async with aiohttp.ClientSession(f"http://127.0.0.1:{house.port}", headers=headers) as client:
        for n in range(2 * ROUNDS):
            began = perf_counter()
            async with client.get(paths[n % 2]) as answered:
                await answered.read()
                assert answered.status == 404
            took[n % 2].append(perf_counter() - began)
    return median(took[0]) / median(took[1])


async def tells_apart(house: House, token: str, paths: tuple[str, str]) -> float:
    """The ratio that is closest to one of a few tries: a machine that is busy tells nothing."""
    ratios: list[float] = []
    for _ in range(TRIES):
        ratios.append(await slower(house, token, paths))
        if 1 / RATIO_MAX < ratios[-1] < RATIO_MAX:
            break
    print(" ".join(f"{ratio:.2f}" for ratio in ratios))
    return min(ratios, key=lambda ratio: max(ratio, 1 / ratio))


@pytest.mark.parametrize("below", ["", "/events", "/state"])
async def test_what_is_another_tenant_s_is_unknown_as_fast_as_what_was_never_there(tmp_path: Path, below: str) -> None:
    async with opened(tmp_path) as house:
        foreign = await with_history(house, house.token("theirs"))
        paths = (f"/v1/appointments/{foreign}{below}", f"/v1/appointments/{UNKNOWN}{below}")
        ratio = await tells_apart(house, house.token("ours"), paths)
        assert 1 / RATIO_MAX < ratio < RATIO_MAX


async def test_control_who_reads_the_history_before_whose_it_is_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def leaky(store: Store, id: UUID, tenant: str) -> None:
        stream = [decode(recorded) for recorded in await store.events(id)]
        if not stream or getattr(stream[0], "tenant", "") != tenant:
            raise UnknownAppointment(f"there is no appointment {id}")

    async with opened(tmp_path) as house:
        foreign = await with_history(house, house.token("theirs"), HISTORY_OF_CONTROL)
        monkeypatch.setattr(orchestrator, "_check_owner", leaky)
        paths = (f"/v1/appointments/{foreign}", f"/v1/appointments/{UNKNOWN}")
        assert await tells_apart(house, house.token("ours"), paths) > RATIO_MAX
