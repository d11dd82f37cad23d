"""Health and figures: without a token they tell of nobody, and of what is wrong no more than its name."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from appointments import Orchestrator
from appointments.access.roles import Principal, Role
from appointments.access.tokens import TokenFile
from appointments.http.problems import URN
from domain.errors import StoreUnavailable
from saga.clock import WallClock
from tests.unit.http.wire import BOOKING, JSON, ask, head, post, serving

pytestmark = pytest.mark.evidence(
    target="HTTP API",
    answers=("R4.4", "R8.1"),
    given="a process that serves two tenants, one of them that of its settings",
    when="anybody, a tenant, and the tenant of the settings ask how it is",
    then="anybody is told of the process alone, a tenant its own figures, that of the settings how the log is",
    seen_in="answers",
)

OF_THE_LOG = {"appointments_log_position", "appointments_open_work", "appointments_breaker", "appointments_overdue"}
OF_A_TENANT = {"appointments_requested", "appointments_confirmed", "appointments_attempts"}
OF_THE_PROCESS = {"appointments_build", "appointments_http_request_seconds", "process_cpu_seconds"}


async def test_anybody_is_told_of_the_process_alone(tmp_path: Path) -> None:
    tokens = TokenFile(tmp_path / "tokens")

    def token(tenant: str) -> str:
        who = Principal(tenant=tenant, actor="tester", role=Role.BOOKER)
        return f"Authorization: Bearer {tokens.make(who, 'tester', '', WallClock().now(), None)[0]}"

    async with serving(tokens=tokens) as port:
        body = json.dumps(BOOKING).encode()
        assert (await ask(port, post(body, JSON, "Prefer: wait=5", token("acme")))).status == 201

        async def told(*lines: str) -> tuple[set[str], str]:
            text = (await ask(port, head("GET", "/metrics", *lines))).body.decode()
            return set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)), text

        families, text = await told()
        assert families >= OF_THE_PROCESS
        assert not families & (OF_A_TENANT | OF_THE_LOG)
        assert not re.search(r"\b(acme|default|main)\b", text)
        assert await ready(port) == (200, "ready\n")

        families, text = await told(token("acme"))
        assert families >= OF_THE_PROCESS | OF_A_TENANT
        assert not families & OF_THE_LOG
        assert 'appointments_requested_total{provider="main"} 1.0' in text
        families, text = await told(token("default"))
        assert families >= OF_THE_PROCESS | OF_A_TENANT | OF_THE_LOG
        assert 'appointments_requested_total{provider="main"}' not in text, "of its own, not of all"
        assert (await ask(port, head("GET", "/metrics", "Authorization: Bearer none"))).problem == "unauthenticated"


async def ready(port: int) -> tuple[int, str]:
    answer = await ask(port, head("GET", "/readyz"))
    return answer.status, answer.body.decode() if answer.status == 200 else answer.json["detail"]


async def test_what_is_not_ready_is_named_and_nothing_of_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("the secret place of the log")

    async with serving() as port:
        assert await ready(port) == (200, "ready\n")
        monkeypatch.setattr(Orchestrator, "pulse", broken)
        assert await ready(port) == (503, "not ready: read-models")
        monkeypatch.setattr("store.memory.MemoryStore.append", broken)
        assert await ready(port) == (503, "not ready: store, read-models")
        answer = await ask(port, head("GET", "/readyz"))
        assert (answer.json["type"], answer.headers["retry-after"]) == (f"{URN}store-unavailable", "5")
        assert b"secret" not in answer.body
