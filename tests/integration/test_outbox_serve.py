"""The outbox under `serve`: told while it serves, ended with it, how far it is among the figures."""

import json
import os
import re
import signal
import sys
from asyncio import create_subprocess_exec, subprocess, timeout
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from appointments.outbox.dead_letters import consumer
from store.sqlite import SqliteStore
from tests.unit.outbox.world import WITHIN_S, receiver, told_at, until

pytestmark = pytest.mark.evidence(
    target="outbox",
    answers=("R2.8", "R8.6"),
    given="a process that serves, with a subscription",
    when="it books, is told to stop, or its subscription leads into a private network",
    then="the subscriber is told, the checkpoint is kept at the end; its lag and deliveries are among the figures",
    seen_in="what was received, /metrics, the store, exit codes",
)

ROOT = Path(__file__).resolve().parents[2]


async def started(folder: Path, settings: dict[str, Any], *words: str) -> tuple[subprocess.Process, str]:
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("APPOINTMENTS_")}
    told = {f"APPOINTMENTS_{name.upper()}": json.dumps(value) for name, value in settings.items()}
    process = await create_subprocess_exec(
        *(sys.executable, "-m", "appointments.cli", "serve", "--port", "0", *words),
        cwd=folder,
        env={**quiet, **told, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    said = ""
    async with timeout(WITHIN_S):
        while "Ctrl-C" not in said and (line := await process.stderr.readline()):
            said += line.decode()
    return process, said


async def test_it_tells_while_it_serves_and_ends_with_the_checkpoint_at_the_last_event(tmp_path: Path) -> None:
    async with receiver() as received:
        settings = told_at(received)
        del settings["outbound_private"]
        process, said = await started(tmp_path, settings, "--dev")
        try:
            found = re.search(r"console +(http://\S+)/console/", said)
            assert found is not None, said
            await until(
                lambda: len(received.versions()) == 6 and all(len(v) >= 6 for v in received.versions().values())
            )

            async def figures(name: str) -> dict[str, float]:
                async with client.get(f"{found[1]}/metrics") as answer:
                    families = {one.name: one for one in text_string_to_metric_families(await answer.text())}
                samples = families[f"appointments_{name}"].samples
                return {one.labels.get("result", one.labels["target"]): one.value for one in samples}

            async def caught_up() -> bool:
                return await figures("outbox_lag") == {"a": 0}

            async with aiohttp.ClientSession() as client:
                await until(caught_up)
                deliveries = await figures("outbox_deliveries")
                told = {"accepted": len(received.events), "refused": 0, "failed": 0, "abandoned": 0}
                assert deliveries == told
        finally:
            process.send_signal(signal.SIGTERM)
            async with timeout(WITHIN_S):
                assert await process.wait() == 0
    store = SqliteStore.open(tmp_path / "data" / "dev.db", owner="test", read_only=True)
    try:
        assert await store.checkpoint(consumer("a")) == await store.position()
    finally:
        await store.close()
    assert received.unsigned == 0


async def test_without_dev_a_private_address_is_refused_before_anything_is_served(tmp_path: Path) -> None:
    async with receiver() as received:
        settings = told_at(received)
        del settings["outbound_private"]
        process, said = await started(tmp_path, settings, "--provider", "local:")
        assert await process.wait() == 2
    assert "subscription a: this address is not called: write https://host/path" in said
    assert received.events == []
