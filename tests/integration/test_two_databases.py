"""`serve` and `worker` on two databases: each tenant is served from its own, and needs no other."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from standardwebhooks.webhooks import Webhook

from appointments import Settings
from appointments.bootstrap import open_store
from appointments.sharding import shard_of
from domain.identity import appointment_id
from mocks import MockProvider
from tests.integration.on_two_databases import environment, make_tokens, running, start
from tests.postgres.server import PostgresServer

pytestmark = pytest.mark.evidence(
    target="shards",
    answers=("R7.3", "R7.4", "G2"),
    given="two PostgreSQL databases, and tenants whose hash leads to the one or the other",
    when="they book by one `serve` process, one database goes down, and comes again",
    then="each tenant's appointments are in its own database alone, and only its own database is needed for them",
    seen_in="answers, state of both stores",
)

NUMBERS = count(1)
WITHIN_S = 20
HOME, OTHER = "globex", "acme"
"""Kept by north and by south."""
BOOKING = {
    "calendar": "main",
    "start": "2031-03-03T09:00:00Z",
    "end": "2031-03-03T09:30:00Z",
    "time_zone": "Europe/Berlin",
    "summary": "Check-up",
}


@dataclass
class House:
    """A process that serves two databases, and what to ask it with."""

    url: str
    client: aiohttp.ClientSession
    tokens: dict[str, str]
    settings: Settings
    mock: MockProvider

    async def ask(self, method: str, path: str, tenant: str, **more: Any) -> tuple[int, Any]:
        """The status, and the body."""
        headers = {"Authorization": f"Bearer {self.tokens[tenant]}", **more.pop("headers", {})}
        async with self.client.request(method, self.url + path, headers=headers, **more) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if "json" in answer.content_type else text

    async def book(self, tenant: str, key: str, wait: int = 10) -> tuple[int, Any]:
        """A booking, waited for."""
        headers = {"Idempotency-Key": key, "Prefer": f"wait={wait}"}
        return await self.ask("POST", "/v1/appointments", tenant, json=BOOKING, headers=headers)


def both(folder: Path, north: str, south: str) -> Settings:
    return Settings(shards={"north": north, "south": south}, state_folder=folder, tenant=HOME)


@pytest.fixture(scope="module")
def southern() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
async def house(tmp_path: Path, postgres_url: str, southern: PostgresServer) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        settings = both(tmp_path, postgres_url, southern.new_database(f"south_{next(NUMBERS)}"))
        mock = await stack.enter_async_context(MockProvider())
        client = await stack.enter_async_context(aiohttp.ClientSession())
        said = await stack.enter_async_context(running(tmp_path, environment(settings, mock), "serve", "--port", "0"))
        found = re.search(r"console +(http://[^:]+:\d+)", said)
        assert found is not None, said
        yield House(found[1], client, make_tokens(settings, (HOME, OTHER)), settings, mock)


async def test_each_tenant_is_served_from_its_own_database(house: House) -> None:
    assert (shard_of(HOME, house.settings.shards), shard_of(OTHER, house.settings.shards)) == ("north", "south")
    for tenant in (HOME, OTHER):
        status, one = await house.book(tenant, "order-1")
        assert (status, one["state"]) == (201, "confirmed"), one
        assert one["id"] == str(appointment_id(tenant, "order-1"))
    for tenant, there in ((HOME, "north"), (OTHER, "south")):
        _, listed = await house.ask("GET", "/v1/appointments", tenant)
        assert [one["id"] for one in listed["items"]] == [str(appointment_id(tenant, "order-1"))]
        other = appointment_id(OTHER if tenant == HOME else HOME, "order-1")
        assert (await house.ask("GET", f"/v1/appointments/{other}", tenant))[0] == 404
        for name, settings in house.settings.each_shard().items():
            store = await open_store(settings, read_only=True)
            assert bool(await store.events(appointment_id(tenant, "order-1"))) is (name == there)
            await store.close()


async def test_a_provider_calls_back_for_the_database_that_called_it(house: House) -> None:
    house.mock.script("create", "pending", settle_ms=150, via="callback", times=-1)
    for tenant in (HOME, OTHER):
        status, one = await house.book(tenant, "order-1")
        assert (status, one["state"]) == (201, "confirmed"), one
        _, trail = await house.ask("GET", f"/v1/appointments/{one['id']}/events", tenant)
        assert "callback-received.v1" in [event["type"] for event in trail["items"]]


async def test_a_database_that_is_down_takes_no_other_along(house: House, southern: PostgresServer) -> None:
    await asyncio.to_thread(southern.stop, "immediate")
    try:
        status, told = await house.book(OTHER, "order-1", wait=0)
        assert (status, told["type"]) == (503, "urn:appointments:problem:store-unavailable")
        status, one = await house.book(HOME, "order-1")
        assert (status, one["state"]) == (201, "confirmed")
        assert (await house.ask("GET", "/readyz", HOME))[0] == 200
    finally:
        await asyncio.to_thread(southern.start)
    async with asyncio.timeout(WITHIN_S):
        while (again := await house.book(OTHER, "order-1"))[0] == 503:
            await asyncio.sleep(0.1)
    assert again[1]["state"] == "confirmed", again


async def test_what_is_nobody_s_is_told_to_the_tenant_of_the_settings_whichever_database_has_it(house: House) -> None:
    about = {"id": "bk_x", "client_ref": "of-somebody-else", "version": 1, "status": "accepted"}
    body, hook = json.dumps({"type": "booking.accepted", "data": about}), Webhook(house.mock.secret)
    for n, shard in enumerate(("south", "north", "nowhere")):
        now = datetime.now(UTC)
        headers = {"webhook-id": f"wh-{n}", "webhook-timestamp": str(int(now.timestamp()))}
        headers["webhook-signature"] = hook.sign(f"wh-{n}", now, body)
        path = f"/v1/callbacks/main?shard={shard}"
        headers["Content-Type"] = "application/json"
        assert (await house.ask("POST", path, OTHER, data=body, headers=headers))[0] == 204
    assert len((await house.ask("GET", "/v1/dead-letters", HOME))[1]["orphan_callbacks"]) == 3
    assert (await house.ask("GET", "/v1/dead-letters", OTHER))[1]["orphan_callbacks"] == []


async def test_figures_tell_of_both(house: House) -> None:
    await house.book(HOME, "order-1")
    await house.book(OTHER, "order-1")
    status, told = await house.ask("GET", "/metrics", HOME)
    assert status == 200
    for shard in ("north", "south"):
        assert f'appointments_breaker{{state="closed",target="{shard}/main"}} 1.0' in told or (
            f'appointments_breaker{{target="{shard}/main",state="closed"}} 1.0' in told
        )
    assert (await house.ask("GET", "/readyz", HOME))[0] == 200


async def test_a_worker_works_on_all_or_on_the_one_that_is_named(house: House) -> None:
    folder, around = house.settings.state_folder, environment(house.settings, house.mock)
    async with running(folder, around, "worker") as said:
        assert re.findall(r"store +(\S+)", said) == ["north", "south"]
    async with running(folder, around, "worker", "--store", "south") as said:
        assert re.findall(r"store +(\S+)", said) == ["south"]


async def test_a_copy_of_one_shard_fills_no_other(
    house: House, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    await house.book(OTHER, "order-1")
    before = environment(house.settings, house.mock)
    for words, store, expected in (
        (("backup", "south.db"), "south", 0),
        (("restore", "south.db"), "north", 2),
        (("restore", "south.db"), "south", 0),
    ):
        around = before
        if words[0] == "restore":
            fresh = {name: postgres_server.new_database(f"{name}_{next(NUMBERS)}") for name in ("north", "south")}
            around = {**before, "APPOINTMENTS_SHARDS": json.dumps(fresh)}
        process = await start(tmp_path, around, *words, "--store", store)
        _, said = await process.communicate()
        assert process.returncode == expected, said.decode()
        assert (f"tenant {OTHER} is kept by shard south" in said.decode()) is (expected == 2)
