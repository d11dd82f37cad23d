"""The rehearsal's stage: a process that serves and can be killed, clients that repeat until they are answered."""

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from domain.appointment import Appointment
from domain.identity import appointment_id
from domain.lifecycle import State

ROOT = Path(__file__).resolve().parents[2]
BEGIN = datetime(2031, 3, 3, 8, tzinfo=UTC)
LIVE = ("pending", "accepted")
ANSWERED_WITHIN_S = 20
FAULTS: list[dict[str, Any]] = [
    *([{"mode": "immediate"}] * 5),
    {"mode": "fail_then_succeed", "failures": 1, "status": 503},
    *([{"mode": "immediate"}] * 3),
    {"mode": "lost_response", "how": "rst"},
    {"mode": "delayed", "delay_ms": 60},
    *([{"mode": "immediate"}] * 3),
    {"mode": "timeout", "applied": True},
    {"mode": "lost_response", "how": "500"},
    *([{"mode": "immediate"}] * 3),
    {"mode": "timeout", "applied": False},
]


def booking(number: int, summary: str | None = None) -> dict[str, Any]:
    """What somebody wants: a quarter of an hour of its own, told by its summary at the provider."""
    start = BEGIN + timedelta(minutes=15 * number)
    return {
        "calendar": "main",
        "start": start.isoformat(),
        "end": (start + timedelta(minutes=15)).isoformat(),
        "time_zone": "UTC",
        "summary": summary or f"visit {number}",
        "organizer": {"email": "desk@example.org"},
        "attendees": [{"email": "ada@example.org"}],
    }


class Serving:
    """The process that serves. A client whose request was not answered when it died asks again, with the same key."""

    def __init__(self, settings: dict[str, Any], planted: str) -> None:
        self._settings, self._planted = settings, planted
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self._waiting: dict[int, tuple[bytes, asyncio.Future[dict[str, Any]]]] = {}
        self._up = asyncio.Event()
        self._numbers = 0
        self.kills = 0

    async def start(self) -> None:
        self._up.clear()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.integration.rehearsal_child", json.dumps(self._settings), self._planted),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if not name.startswith("APPOINTMENTS_")},
        )
        self._listening = asyncio.create_task(self._listen())
        await asyncio.wait_for(self._up.wait(), ANSWERED_WITHIN_S)
        for line, _ in self._waiting.values():
            self._write(line)

    async def ask(self, kind: str, key: str, **fields: Any) -> dict[str, Any]:
        """Give a command, and wait until it is durable."""
        self._numbers += 1
        line = json.dumps({"n": self._numbers, "kind": kind, "key": key, **fields}).encode() + b"\n"
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[self._numbers] = (line, future)
        if self._up.is_set():
            self._write(line)
        return await asyncio.wait_for(future, ANSWERED_WITHIN_S)

    async def kill(self) -> None:
        """kill -9, and another process in its place."""
        assert self._process is not None
        self._process.kill()
        await self._gone()
        self.kills += 1
        await self.start()

    async def finish(self, within_s: float) -> None:
        """Wait until nothing is left to do."""
        self._write(b"finish\n")
        await asyncio.wait_for(self._gone(), within_s)

    async def end(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._gone()

    async def _gone(self) -> None:
        assert self._process is not None
        assert self._listening is not None
        self._up.clear()
        await self._process.wait()
        await self._listening

    def _write(self, line: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line)

    async def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            told = json.loads(line)
            self._up.set()
            waiting = self._waiting.pop(told.get("n", 0), None)
            if waiting is not None:
                waiting[1].set_result(told)


@asynccontextmanager
async def serving(settings: dict[str, Any], planted: str) -> AsyncIterator[Serving]:
    """A process that serves."""
    made = Serving(settings, planted)
    await made.start()
    try:
        yield made
    finally:
        await made.end()


@dataclass
class Judge:
    """What was wanted, held against the provider's own ledger. It knows nothing of keys, splits and plans."""

    wanted: Counter[str] = field(default_factory=Counter)
    """How many keys ask for what is told by this summary."""
    keys: dict[str, str] = field(default_factory=dict)
    """Key to summary."""

    def want(self, key: str, summary: str) -> None:
        """Somebody asks for this, under this key."""
        if key not in self.keys:
            self.keys[key] = summary
            self.wanted[summary] += 1

    def violations(self, ledger: dict[str, Any], states: Iterable[Appointment]) -> list[str]:
        """What is there and should not be, or was there twice at any time."""
        summaries = {one["id"]: one["summary"] for one in ledger["bookings"]}
        live: Counter[str] = Counter()
        standing: set[str] = set()
        wrong: dict[str, None] = {}
        for commit in ledger["commits"]:
            if commit["op"] == "notify":
                continue
            summary, alive = summaries[commit["id"]], commit["status"] in LIVE
            if alive != (commit["id"] in standing):
                live[summary] += 1 if alive else -1
                (standing.add if alive else standing.discard)(commit["id"])
            if live[summary] > self.wanted[summary]:
                wrong[f"twice: {summary} had {live[summary]} bookings, {self.wanted[summary]} wanted"] = None
        least, most = self._to_be(states)
        for summary in {*least, *most, *live}:
            if not least[summary] <= live[summary] <= most[summary]:
                wrong[f"end: {summary} has {live[summary]} bookings, not {least[summary]} to {most[summary]}"] = None
        return list(wrong)

    def _to_be(self, states: Iterable[Appointment]) -> tuple[Counter[str], Counter[str]]:
        """How many bookings of each the log lets us expect: parked ones may have one, and are listed."""
        by_id = {state.id: state for state in states}
        least: Counter[str] = Counter()
        most: Counter[str] = Counter()
        for key, summary in self.keys.items():
            state = by_id.get(appointment_id("default", key))
            if state is None:
                least[summary] += 1  # an acknowledged command that the log does not know: never satisfied
                continue
            least[summary] += state.state is State.CONFIRMED and not state.parked
            most[summary] += state.state is State.CONFIRMED or state.parked
        return least, most
