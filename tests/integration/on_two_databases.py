"""Processes of the command line that work on two databases."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from appointments import Settings
from appointments.access.roles import Principal, Role
from appointments.access.tokens import TokenFile
from appointments.bootstrap import tokens_of
from mocks import MockProvider
from saga.clock import WallClock

ROOT = Path(__file__).parents[2]
WITHIN_S = 20


def environment(settings: Settings, mock: MockProvider, **others: Any) -> dict[str, str]:
    """That of a process on these shards, with this provider."""
    told = {
        "shards": json.dumps(settings.shards),
        "state_folder": settings.state_folder,
        "tenant": settings.tenant,
        "provider": mock.url,
        "callback_secret": mock.secret,
        "log_level": "error",
        "settle_ms": 100,
        "lease_ms": 1_000,
        "http_drain_ms": 0,
        **others,
    }
    plain = {name: value for name, value in os.environ.items() if not name.startswith("APPOINTMENTS_")}
    ours = {f"APPOINTMENTS_{name.upper()}": str(value) for name, value in told.items()}
    return {**plain, "PYTHONPATH": str(ROOT), **ours}


async def start(folder: Path, environment: dict[str, str], *words: str) -> asyncio.subprocess.Process:
    """A process of the command line."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "appointments.cli", *words),
        cwd=folder,
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )


@asynccontextmanager
async def running(folder: Path, environment: dict[str, str], *words: str) -> AsyncIterator[str]:
    """One until it is told to stop; what it said up to the last line of its beginning."""
    process = await start(folder, environment, *words)
    assert process.stderr is not None
    said = ""
    try:
        async with asyncio.timeout(WITHIN_S):
            while "Ctrl-C" not in said:
                line = await process.stderr.readline()
                assert line, said
                said += line.decode()
        yield said
    finally:
        if process.returncode is None:
            process.terminate()
        _, rest = await process.communicate()
        assert "Traceback" not in rest.decode()


def make_tokens(settings: Settings, tenants: Iterable[str]) -> dict[str, str]:
    """A token for each tenant."""
    file = TokenFile(tokens_of(settings))
    try:
        return {
            tenant: file.make(
                Principal(tenant=tenant, actor="tester", role=Role.ADMIN), "test", "", WallClock().now(), None
            )[0]
            for tenant in tenants
        }
    finally:
        file.close()
