"""The HTTP API against its own OpenAPI document: Schemathesis talks to a `serve` process, all checks on."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import aiohttp
import pytest

from appointments.outbox.dead_letters import abandon
from domain.events import DeliveryAbandoned
from store.sqlite import SqliteStore
from tests.contract.schemathesis_hooks import SECRET

ROOT = Path(__file__).resolve().parents[2]
SEED = 20261125
EXAMPLES = 15
WITHIN_S = 60
CONFIG = """\
hooks = "tests.contract.schemathesis_hooks"

[generation]
allow-x00 = false  # No schema says it, and every NUL is refused; see test_http_hostile.py.

[checks.positive_data_acceptance]
# No schema says that an end follows its start, or what an appointment's state allows.
expected-statuses = ["2xx", "304", "404", "409", "412", "422"]
"""

pytestmark = pytest.mark.evidence(
    target="HTTP API",
    answers=("R4.2",),
    given="a process that serves, and its OpenAPI document",
    when="requests are made from the document, valid and invalid, alone and in chains",
    then="every answer is one that the document tells of, and nothing that a client sends is a fault",
    seen_in="answers",
)


def quiet() -> dict[str, str]:
    return {**{k: v for k, v in os.environ.items() if not k.startswith("APPOINTMENTS_")}, "PYTHONPATH": str(ROOT)}


async def lost(folder: Path) -> None:
    """An event that a subscriber did not take, so that it is told of."""
    store = SqliteStore.open(folder / "log.db", owner="relay")
    gone = {"at": datetime.now(UTC), "sink": "crm", "tenant": "default", "appointment": UUID(int=7), "version": 1}
    await abandon(store, DeliveryAbandoned.model_validate({**gone, "attempts": 8, "reason": "answered 422"}))
    await store.close()


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[tuple[str, str]]:
    """The address of a process that serves, and a token for all that there is."""
    store = ("--store", f"sqlite:///{folder / 'log.db'}")
    words = ("token", "create", "--name", "contract", "--role", "admin", "--json", *store)
    made = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "appointments.cli", *words, cwd=folder, env=quiet(), stdout=asyncio.subprocess.PIPE
    )
    await lost(folder)
    token = re.search(r"appt_\w+[\w-]*", (await made.communicate())[0].decode())
    assert token is not None
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "appointments.cli", "serve", "--port", "0", "--provider", "local:", *store),
        cwd=folder,
        env={**quiet(), "APPOINTMENTS_CALLBACK_SECRET": SECRET, "APPOINTMENTS_HTTP_DRAIN_MS": "0"},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    said = ""
    try:
        async with asyncio.timeout(WITHIN_S):
            while "Ctrl-C" not in said:
                line = await process.stderr.readline()
                assert line, said
                said += line.decode()
        url = re.search(r"http://[^/]+", said)
        assert url is not None
        yield url[0], token[0]
    finally:
        process.terminate()
        _, rest = await process.communicate()
        assert b"Traceback" not in rest, rest.decode()


async def schemathesis(folder: Path, document: str, token: str, *words: str) -> tuple[int | None, str]:
    """Its exit code, and what it prints."""
    (folder / "schemathesis.toml").write_text(CONFIG, encoding="utf-8")
    print(f"seed {SEED}")
    checking = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("schemathesis")), "--no-color", "run", document),
        *("-H", f"Authorization: Bearer {token}", "--seed", str(SEED), "-n", str(EXAMPLES)),
        *("--generation-database", "none", "--continue-on-failure", *words),
        cwd=folder,
        env=quiet(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(WITHIN_S):
        told = (await checking.communicate())[0].decode()
    return checking.returncode, told


async def test_every_answer_is_one_that_the_document_tells_of(tmp_path: Path) -> None:
    async with served(tmp_path) as (url, token):
        # The two streams have no end, which Schemathesis would wait for; their refusals: test_http_hostile.py.
        code, told = await schemathesis(tmp_path, f"{url}/openapi.json", token, "--exclude-path-regex", "/stream$")
        assert code == 0, told[-6_000:]
        assert "Selected: 19/21\n  Tested: 19" in told
        for phase in ("Examples", "Coverage", "Fuzzing", "Stateful"):
            assert re.search(f"✅ +{phase}", told), told
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as client:
            # It got as far as the desk: what is refused at the border proves little.
            async with client.get(f"{url}/v1/figures") as answer:
                assert (await answer.json())["total"]["requested"] >= 10
            async with client.get(f"{url}/v1/dead-letters") as answer:
                assert (await answer.json())["orphan_callbacks"]


async def test_control_a_document_that_lies_is_found_out(tmp_path: Path) -> None:
    async with served(tmp_path) as (url, token):
        async with aiohttp.ClientSession() as client, client.get(f"{url}/openapi.json") as answer:
            document = await answer.json()
        lying = tmp_path / "openapi.json"
        words = ("--url", url, "--include-operation-id", "list_appointments", "--phases", "coverage")
        lying.write_text(json.dumps(document), encoding="utf-8")
        assert (await schemathesis(tmp_path, str(lying), token, *words))[0] == 0
        document["components"]["schemas"]["Listed"]["properties"]["items"] = {"type": "string"}
        lying.write_text(json.dumps(document), encoding="utf-8")
        code, told = await schemathesis(tmp_path, str(lying), token, *words)
        assert (code, "violates schema" in told) == (1, True), told[-3_000:]
