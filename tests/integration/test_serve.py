"""`serve` as a process of its own: what it answers, how it begins and how it ends."""

import asyncio
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

pytestmark = pytest.mark.evidence(
    target="serve",
    answers=("R4.4", "R8.6"),
    given="a process that serves",
    when="it is asked, told to stop, or killed and started again",
    then="it says what it is and has, and goes on with what was unfinished",
    seen_in="answers, exit codes",
)

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 20


@dataclass
class Served:
    process: asyncio.subprocess.Process
    url: str
    said: str


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "appointments.cli", "serve", "--port", "0", *words]


def quiet() -> dict[str, str]:
    return {**{k: v for k, v in os.environ.items() if not k.startswith("APPOINTMENTS_")}, "PYTHONPATH": str(ROOT)}


@asynccontextmanager
async def served(folder: Path, *words: str) -> AsyncIterator[Served]:
    process = await asyncio.create_subprocess_exec(
        *command(*words), cwd=folder, env=quiet(), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    said = ""
    try:
        async with asyncio.timeout(WITHIN_S):
            while "Ctrl-C" not in said:
                line = await process.stderr.readline()
                assert line, said
                said += line.decode()
        found = re.search(r"console +(http://\S+)/console/", said)
        assert found is not None, said
        yield Served(process, found[1], said)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def run(folder: Path, *words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command(*words), cwd=folder, env=quiet(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(WITHIN_S):
        told, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, told.decode()


async def test_in_dev_it_has_examples_a_provider_and_asks_for_no_token(tmp_path: Path) -> None:
    async with (
        served(tmp_path, "--dev") as serving,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client,
    ):
        async with client.get(serving.url + "/readyz") as answer:
            assert (answer.status, "ready" in await answer.text()) == (200, True)
        async with client.get(serving.url + "/") as answer:
            assert "Example visit" in await answer.text()
        async with client.get(serving.url + "/metrics") as answer:
            names = {family.name for family in text_string_to_metric_families(await answer.text())}
            assert "appointments_requested" in names
        assert "no tokens are asked for" in serving.said
        serving.process.send_signal(signal.SIGTERM)
        assert await serving.process.wait() == 0


async def test_killed_it_comes_back_with_everything(tmp_path: Path) -> None:
    async with served(tmp_path, "--dev") as first:
        first.process.kill()
        await first.process.wait()
    async with served(tmp_path, "--dev") as again, aiohttp.ClientSession() as client:
        answer = await client.get(again.url + "/readyz")
        assert (answer.status, "ready" in await answer.text()) == (200, True)


async def test_without_dev_it_asks_for_a_token(tmp_path: Path) -> None:
    async with served(tmp_path, "--provider", "local:") as serving, aiohttp.ClientSession() as client:
        async with client.get(serving.url + "/") as answer:
            assert "Access token" in await answer.text()
        assert "no tokens" not in serving.said


async def test_a_door_that_nobody_can_open_is_told_of_with_the_command_that_makes_a_token(tmp_path: Path) -> None:
    words = ("--provider", "local:", "--store", "sqlite:///log.db")
    async with served(tmp_path, *words) as serving:
        (told,) = re.findall(r"nobody can come in: no token is valid; `(.+)`", serving.said)
    making = shlex.split(told)
    assert making[0] == "appointments"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "appointments.cli", *making[1:], "--json"),
        cwd=tmp_path,
        env=quiet(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    token = json.loads((await process.communicate())[0])["token"]
    async with served(tmp_path, *words) as serving, aiohttp.ClientSession() as client:
        assert "nobody can come in" not in serving.said
        headers = {"Authorization": f"Bearer {token}"}
        async with client.get(f"{serving.url}/v1/appointments", headers=headers) as answer:
            assert answer.status == 200
    async with served(tmp_path, "--dev") as serving:
        assert "nobody can come in" not in serving.said


async def test_what_cannot_be_served_is_refused_in_one_line(tmp_path: Path) -> None:
    code, told = await run(tmp_path, "--dev", "--host", "0.0.0.0")
    assert (code, "on loopback only" in told) == (2, True)
    code, told = await run(tmp_path, "--host", "192.0.2.1", "--provider", "local:")
    assert (code, "cannot listen on 192.0.2.1" in told) == (2, True)
    async with served(tmp_path, "--provider", "local:") as serving:
        taken = serving.url.rpartition(":")[2]
        code, told = await run(tmp_path, "--dev", "--port", taken)
        assert (code, "choose another with --port" in told) == (2, True)
        code, told = await run(tmp_path, "--provider", "local:")
        assert (code, "is held by process" in told) == (1, True)
