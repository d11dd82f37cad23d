"""The HTTP API against its own OpenAPI document: Schemathesis talks to a `serve` process, all checks on."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

ROOT = Path(__file__).resolve().parents[2]
SEED = 20261125
EXAMPLES = 15
WITHIN_S = 60
SECRET = "whsec_bW9jay1wcm92aWRlci1jYWxsYmFjay1zZWNyZXQ="
CONFIG = """\
hooks = "tests.contract.schemathesis_hooks"

[checks.positive_data_acceptance]
# No schema says that an end follows its start, or what an appointment's state allows.
expected-statuses = ["2xx", "304", "400", "401", "404", "406", "409", "412", "422"]
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


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[tuple[str, str]]:
    """The address of a process that serves, and a token for all that there is."""
    store = ("--store", f"sqlite:///{folder / 'log.db'}")
    words = ("token", "create", "--name", "contract", "--role", "admin", "--json", *store)
    made = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "appointments.cli", *words, cwd=folder, env=quiet(), stdout=asyncio.subprocess.PIPE
    )
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


async def test_every_answer_is_one_that_the_document_tells_of(tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIG, encoding="utf-8")
    print(f"seed {SEED}")
    async with served(tmp_path) as (url, token):
        checking = await asyncio.create_subprocess_exec(
            *(str(Path(sys.executable).with_name("schemathesis")), "--no-color", "run", f"{url}/openapi.json"),
            *("-H", f"Authorization: Bearer {token}", "--seed", str(SEED), "-n", str(EXAMPLES)),
            *("--generation-database", "none", "--continue-on-failure"),
            *("--exclude-path-regex", "/stream$"),  # has no end; see test_http_streams.py
            cwd=tmp_path,
            env=quiet(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(WITHIN_S):
            told = (await checking.communicate())[0].decode()
        assert checking.returncode == 0, told[-6_000:]
        tested = re.search(r"Tested: (\d+)", told)
        assert tested is not None
        assert int(tested[1]) == 19, told
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as client,
            client.get(f"{url}/v1/figures") as answer,
        ):
            # It got as far as the desk: what is refused at the border proves little.
            assert (await answer.json())["total"]["requested"] >= 10
