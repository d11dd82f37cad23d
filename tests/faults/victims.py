"""Processes that are killed in the middle of their work, and the judge of what they leave behind (G1 to G6)."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from appointments.bootstrap import open_store
from appointments.settings import Settings
from domain.appointment import Appointment
from domain.identity import appointment_id
from domain.lifecycle import State
from mocks.server import MockProvider
from projections.health import Runs, health
from projections.listing import appointments
from saga.clock import WallClock

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
IN_FLIGHT = 200
FIRST_ACK_WITHIN_S = 10.0
FAULTS: list[dict[str, Any]] = [
    {"mode": "immediate"},
    {"mode": "lost_response", "how": "rst"},
    {"mode": "timeout", "applied": True},
    {"mode": "immediate"},
    {"mode": "fail_then_succeed", "failures": 1, "status": 503, "applied": True},
    {"mode": "pending", "settle_ms": 50, "via": "poll"},
    {"mode": "delayed", "delay_ms": 30},
    {"mode": "timeout", "applied": False},
]


class Victim:
    """The forking process, and what its runs have said."""

    def __init__(self, process: asyncio.subprocess.Process, settings: dict[str, Any], planted: str) -> None:
        self._process, self._settings, self._planted = process, settings, planted
        self.acknowledged: set[str] = set()
        self.first_ack_s: list[float] = []

    async def run(self, seed: int, finish: bool = False) -> int:
        """Start a run; returns its process id at its first acknowledgement (or once it has finished)."""
        order = {"settings": self._settings, "seed": seed, "finish": finish, "in_flight": IN_FLIGHT}
        assert self._process.stdin is not None
        began = time.perf_counter()
        self._process.stdin.write(json.dumps({**order, "planted": self._planted}).encode() + b"\n")
        pid = 0
        async with asyncio.timeout(FIRST_ACK_WITHIN_S * (12 if finish else 1)):
            while True:
                word = await self._hear(f"{seed}-")
                if word.startswith("pid "):
                    pid = int(word.removeprefix("pid "))
                elif word == "done" or (word == "mine" and not finish):
                    self.first_ack_s.append(time.perf_counter() - began)
                    return pid

    async def _hear(self, mine: str) -> str:
        assert self._process.stdout is not None
        word = (await self._process.stdout.readline()).decode().strip()
        if not word:
            raise AssertionError("the victim's parent has died")
        if word.startswith("ack "):
            key = word.removeprefix("ack ")
            self.acknowledged.add(key)
            return "mine" if key.startswith(mine) else ""
        return word

    async def hear_out(self) -> None:
        """Take in what was said before the kill."""
        while True:
            try:
                async with asyncio.timeout(0.001):
                    await self._hear("nobody")
            except TimeoutError:
                return


@asynccontextmanager
async def victim(store: str, mock: MockProvider, planted: str = "", **others: Any) -> AsyncIterator[Victim]:
    settings = {
        "store": store,
        "provider": mock.url,
        "call_timeout_ms": 150,
        "backoff_ms": 10,
        "settle_ms": 300,
        "poll_ms": 40,
        "breaker_failures_max": 50,
        "breaker_open_ms": 100,
        "attempts_max": 6,
        "concurrency": IN_FLIGHT,
        "tenant_concurrency": IN_FLIGHT,
        "lease_ms": 1_000,
        **others,
    }
    if planted:
        # A system with such a bug may never find its bookings again: it is judged where it stands then.
        settings |= {"deadline_ms": 3_000, "cleanup_ms": 3_000}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("kill9_child.py")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        yield Victim(process, settings, planted)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def violations(
    place: str | Settings,
    acknowledged: set[str],
    ledger: dict[str, Any],
    runs: frozenset[Runs] = frozenset({("booking", 1, "main")}),
) -> list[str]:
    """What is wrong with a store, or all its shards, that has come to rest, held against the provider's ledger."""
    wrong, states = list[str](), dict[UUID, Appointment]()
    for settings in (Settings(store=place) if isinstance(place, str) else place).each_shard().values():
        store = await open_store(settings, read_only=True)
        here = {state.id: state async for state in appointments(store)}
        found = await health(store, WallClock().now(), runs)
        await store.close()
        wrong += [f"health: {finding}" for finding in found.findings]
        wrong += [f"G2: {id} is in two stores" for id in here.keys() & states.keys()]
        states |= here
    live: dict[str, list[dict[str, Any]]] = {}
    for booking in ledger["bookings"]:
        if booking["status"] in ("pending", "accepted"):
            live.setdefault(booking["client_ref"].replace("-", "")[:32], []).append(booking)
    known = {key for state in states.values() for _operation, key, _fingerprint in state.keys}
    wrong += [f"G1: {key} was acknowledged and is not in the log" for key in acknowledged - known]
    for id, state in states.items():
        there = live.pop(id.hex, [])
        if state.state not in (State.CONFIRMED, State.FAILED, State.CANCELLED):
            wrong.append(f"G6: {id} is {state.state}")
        if len(there) != (state.state is State.CONFIRMED):
            wrong.append(f"G2: {id} is {state.state}, and {len(there)} bookings are live")
    wrong += [f"G2: nobody knows of {reference}" for reference in live]
    assert len(states) == len({appointment_id(state.tenant, state.key) for state in states.values()})
    return wrong
