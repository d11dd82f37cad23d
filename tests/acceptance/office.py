"""An office in a folder of its own: the provider's ledger on one side, the desk and the command line on the other.

Knows the product by its public faces: `appointments.Orchestrator`, and the command line as a process.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from aiohttp import ClientSession
from sqlalchemy import create_engine, text

from appointments import Appointment, Orchestrator, Settings
from appointments.views import AuditEvent
from mocks import MockProvider
from mocks.behaviors import Op

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
WAIT_S = 15.0
QUICK: dict[str, Any] = {
    "call_timeout_ms": 300,
    "attempts_max": 3,
    "backoff_ms": 10,
    "jitter": 0,
    "settle_ms": 200,
    "poll_ms": 30,
    "breaker_open_ms": 400,
    "deadline_ms": 10_000,
    "lease_ms": 1_000,
}
"""Settings under which nothing takes long; a criterion that is about one of them names its own."""
CHECK_UP: dict[str, Any] = {
    "calendar": "main",
    "start": "2031-03-03T09:00:00Z",
    "end": "2031-03-03T09:30:00Z",
    "time_zone": "Europe/Berlin",
    "summary": "Check-up",
    "attendees": [{"email": "pat@example.org", "name": "Pat Example"}],
}


@dataclass(frozen=True)
class Said:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which is one JSON document and nothing else."""
        return json.loads(self.out)


class Office:
    """A provider, a folder with a store file, and the ways to them."""

    def __init__(self, provider: MockProvider, folder: Path, database: str | None = None) -> None:
        self.provider, self.folder = provider, folder
        self.store = database or f"sqlite:///{folder / 'desk.db'}"
        self.log = folder / "desk.log"

    @asynccontextmanager
    async def desk(self, *, parts: dict[str, Any] | None = None, **settings: Any) -> AsyncIterator[Orchestrator]:
        """The desk of this office, open. `parts`: further arguments of `Orchestrator.open`."""
        fields = {**self._here(), "log_file": self.log}
        async with Orchestrator.open(Settings.model_validate({**QUICK, **fields, **settings}), **(parts or {})) as desk:
            yield desk

    def change(self, statement: str, **given: Any) -> int:
        """What somebody with an SQL client does to the store; how many rows it changes."""
        engine = create_engine(self.store)
        with engine.begin() as connection:
            changed = connection.execute(text(statement), given).rowcount
        engine.dispose()
        return changed

    def _here(self) -> dict[str, Any]:
        return {"store": self.store, "state_folder": self.folder, "provider": self.provider.url}

    def calling_back(self) -> dict[str, Any]:
        """Settings under which the provider's signed callbacks are received."""
        return {"callback_secret": SECRET, "callback_listen": "127.0.0.1:0"}

    def _environment(self, **settings: Any) -> dict[str, str]:
        """The same settings for a process."""
        fields = {**QUICK, **self._here(), **settings}
        here = {name: value for name, value in os.environ.items() if not name.startswith("APPOINTMENTS_")}
        return {
            **here,
            **{f"APPOINTMENTS_{name.upper()}": str(value) for name, value in fields.items()},
            "PYTHONPATH": str(ROOT),
        }

    async def start(self, *words: str, **settings: Any) -> asyncio.subprocess.Process:
        """`appointments …` as a process of its own, under way."""
        command = (sys.executable, "-m", "appointments.cli", *words)
        return await self._begin(command, self._environment(**settings))

    async def run(self, *words: str, **settings: Any) -> Said:
        """`appointments …` as a process of its own, to its end."""
        return await ended(await self.start(*words, **settings))

    async def process(self, *command: str) -> Said:
        """Any program, in this folder, to its end."""
        return await ended(await self._begin(command, dict(os.environ)))

    async def _begin(self, command: Sequence[str], environment: dict[str, str]) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *command, cwd=self.folder, env=environment, stdout=pipe, stderr=pipe
        )

    def live(self) -> list[dict[str, Any]]:
        """The bookings that take somebody's time now, from the provider's own books."""
        return [one for one in self.provider.ledger()["bookings"] if one["status"] in ("pending", "accepted")]

    async def committed(self) -> int:
        """How many changes the provider has applied, whoever was told."""
        return len(self.provider.ledger()["commits"])

    def keys(self, op: Op = "create") -> list[str | None]:
        """The operation ids under which the provider was called, in order."""
        return [request["idempotency_key"] for request in self.provider.requests(op)]

    def times(self, op: Op = "create") -> list[float]:
        """When the provider was called, in seconds since the epoch."""
        return [request["at"] for request in self.provider.requests(op)]

    async def called(self, op: Op, times: int = 1) -> None:
        """Wait until the provider has been called so often."""
        await self._until(lambda: self.provider.calls().get(op, 0) >= times)

    async def answered(self, op: Op, times: int = 1) -> None:
        """Wait until the provider has chosen so many answers."""
        await self._until(lambda: sum(one["status"] is not None for one in self.provider.requests(op)) >= times)

    async def delivered(self, times: int) -> None:
        """Wait until so many of the provider's callbacks were taken."""
        await self._until(lambda: self.provider.ledger()["callbacks"] and self._taken() >= times)

    def _taken(self) -> int:
        return sum(one["status"] == 204 for one in self.provider.ledger()["callbacks"])

    async def until(self, look: Callable[[], Awaitable[T]], come: Callable[[T], bool]) -> T:
        """What is seen, as soon as it is so."""
        async with asyncio.timeout(WAIT_S):
            while not come(seen := await look()):
                await asyncio.sleep(0.002)
        return seen

    async def _until(self, come: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not come():
                await asyncio.sleep(0.002)

    async def edit(self, booked: Appointment, op: Literal["cancel", "reschedule"], **times: str) -> None:
        """Somebody moves or cancels a booking at the provider, behind our back."""
        (there,) = (one for one in self.live() if one["id"] == booked.provider_ref)
        headers = {"If-Match": there["etag"], "Idempotency-Key": f"by-hand-{there['version']}"}
        url = f"{self.provider.url}/bookings/{booked.provider_ref}/{op}"
        async with ClientSession() as session, session.post(url, json=times, headers=headers) as answer:
            assert answer.status == 200, await answer.text()


async def ended(process: asyncio.subprocess.Process) -> Said:
    """The end of a process, within the time that a reader would wait."""
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    said = Said(process.returncode, out.decode(), err.decode())
    assert "Traceback" not in said.out + said.err, said
    return said


def types(trail: tuple[AuditEvent, ...]) -> list[str]:
    """The event types of an audit trail, without their versions."""
    return [line.type.rpartition(".")[0] for line in trail]
