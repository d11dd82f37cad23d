"""What cannot be read any more is a matter of its tenant alone: everybody else is told what a stranger is told."""

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from appointments import Orchestrator, Settings
from appointments.access.roles import Principal, Role
from appointments.access.tokens import TokenFile
from saga.clock import WallClock
from tests.unit.http.wire import BOOKING, JSON, Answer, ask, head, post, serving

pytestmark = pytest.mark.evidence(
    target="HTTP API",
    answers=("R4.2", "R8.1"),
    given="two tenants in one log and one calendar, and a history of one of them that cannot be read",
    when="the other asks for it by its id, looks at its dead letters, or compares the calendar",
    then="the other is told what it is told of an id that was never given, and its own figures alone",
    seen_in="answers",
)

UNKNOWN = "00000000-0000-4000-8000-000000000000"
READS = ("GET ", "GET /events", "GET /state", "POST /replay", "GET /stream")
COMMANDS = {
    "/cancel": {},
    "/reschedule": {"start": "2031-03-04T09:00:00Z", "end": "2031-03-04T09:30:00Z"},
    "/actions": {"action": "park", "reason": "x"},
}
DAMAGES = {
    "a later event": "UPDATE events SET type = 'from-the-future.v9' WHERE stream_id = ? AND version = 3",
    "the first event, which names its tenant": (
        "UPDATE events SET type = 'from-the-future.v9' WHERE stream_id = ? AND version = 1"
    ),
    "a later row, in which no event can stand": "UPDATE events SET body = 'x' WHERE stream_id = ? AND version = 3",
    "the first event, wholly": "UPDATE events SET body = x'00' WHERE stream_id = ? AND version = 1",
}


class Office:
    """Two tenants, each with bookings; `damaged` is of `theirs`."""

    def __init__(self, folder: Path) -> None:
        self.store, self._tokens = f"sqlite:///{folder}/log.db", TokenFile(folder / "tokens")
        self.damaged = self.ours = ""
        self.port = 0

    def token(self, tenant: str) -> str:
        who = Principal(tenant=tenant, actor="tester", role=Role.ADMIN)
        return f"Authorization: Bearer {self._tokens.make(who, 'tester', '', WallClock().now(), None)[0]}"

    @asynccontextmanager
    async def open(self, damage: str) -> AsyncIterator["Office"]:
        settings = Settings(store=self.store, provider="local:", log_level="error")
        async with Orchestrator.open(settings, listen=False) as desk:
            self.damaged = str((await desk.book(BOOKING, key="k", wait=5, tenant="theirs")).id)
            self.ours = str((await desk.book(BOOKING, key="k", wait=5, tenant="ours")).id)
        with closing(sqlite3.connect(self.store.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute(damage, (bytes.fromhex(self.damaged.replace("-", "")),))
        async with serving(tokens=self._tokens, store=self.store) as self.port:
            yield self

    async def asked(self, token: str, what: str, id: str) -> Answer:
        method, _, rest = what.partition(" ")
        return await ask(self.port, head(method, f"/v1/appointments/{id}{rest}", token, length=0))

    async def commanded(self, token: str, what: str, id: str) -> Answer:
        body = json.dumps(COMMANDS[what]).encode()
        return await ask(self.port, post(body, JSON, token, target=f"/v1/appointments/{id}{what}"))


def but_the_id(answer: Answer, id: str) -> tuple[int, bytes]:
    return answer.status, answer.body.replace(id.encode(), b"ID")


@pytest.mark.parametrize("damage", DAMAGES)
async def test_what_another_tenant_cannot_read_is_unknown_like_any_other(tmp_path: Path, damage: str) -> None:
    async with Office(tmp_path).open(DAMAGES[damage]) as office:
        ours = office.token("ours")
        for ask_for, all_ in ((office.asked, READS), (office.commanded, COMMANDS)):
            for what in all_:
                foreign, unknown = await ask_for(ours, what, office.damaged), await ask_for(ours, what, UNKNOWN)
                assert unknown.problem == "unknown-appointment", what
                assert but_the_id(foreign, office.damaged) == but_the_id(unknown, UNKNOWN), what


async def test_its_own_tenant_is_told_by_a_name_and_finds_it_among_the_dead_letters(tmp_path: Path) -> None:
    async with Office(tmp_path).open(DAMAGES["a later event"]) as office:
        theirs = office.token("theirs")
        assert (await office.asked(theirs, "GET ", office.damaged)).problem == "history-unreadable"
        assert (await office.asked(theirs, "GET /events", office.damaged)).problem == "history-unreadable"
        assert (await office.commanded(theirs, "/cancel", office.damaged)).problem == "history-unreadable"
        replay = await office.asked(theirs, "POST /replay", office.damaged)
        assert (replay.status, replay.json["matches"]) == (200, False)
        letters = (await ask(office.port, head("GET", "/v1/dead-letters", theirs))).json["undecodable_events"]
        assert [(one["appointment"], one["version"]) for one in letters] == [(office.damaged, 3)]


@pytest.mark.parametrize("damage", DAMAGES)
async def test_dead_letters_name_no_appointment_of_another_tenant(tmp_path: Path, damage: str) -> None:
    """Not even to the tenant of the settings, which is told that there is something that nobody can read."""
    async with Office(tmp_path).open(DAMAGES[damage]) as office:

        async def letters(tenant: str) -> list[dict[str, Any]]:
            answer = await ask(office.port, head("GET", "/v1/dead-letters", office.token(tenant)))
            assert tenant == "theirs" or office.damaged.encode() not in answer.body
            return list(answer.json["undecodable_events"])

        assert await letters("ours") == []
        lost = damage in ("the first event, wholly", "a later row, in which no event can stand")
        assert [one["appointment"] for one in await letters("theirs")] == ([] if lost else [office.damaged])
        assert [one["appointment"] for one in await letters("default")] == ([None] if lost else [])
