"""The end of a process under load: told to stop, it refuses what is new; killed, it has what it acknowledged."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest

from appointments.http.standing import Standing
from mocks import MockProvider
from tests.unit.http.wire import BOOKING, JSON, Answer, ask, head, post, served, serving

pytestmark = pytest.mark.evidence(
    target="serve",
    answers=("R4.2", "G1", "G2", "G5"),
    given="a process that serves, under load",
    when="it is told to stop, or killed, and started again",
    then="what is new is refused with Retry-After, what waits is answered, what was acknowledged is there, once",
    seen_in="answers, exit code, the provider's ledger",
)

BOOK = "/v1/appointments"
CLIENTS = 8
LOAD_S = 0.5
SLOW = {**BOOKING, "calendar": "slow"}
QUICK = {"settle_ms": "100", "http_drain_ms": "400", "drain_ms": "100", "log_level": "error"}


async def book(port: int, key: str, booking: dict[str, str] = BOOKING, *lines: str) -> Answer | None:
    """What is answered; None where the connection ends without a word."""
    try:
        return await ask(port, post(json.dumps(booking).encode(), JSON, *lines, key=key))
    except (OSError, IndexError):
        return None


@dataclass
class Load:
    """Clients that book one appointment after the other, for as long as somebody listens."""

    acknowledged: dict[str, str] = field(default_factory=dict)
    """Where each is, by its key."""
    refused: list[Answer] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)

    async def run(self, port: int) -> None:
        keys = (f"k{n}" for n in count())
        await asyncio.gather(*(self._client(port, keys) for _ in range(CLIENTS)))

    async def _client(self, port: int, keys: Iterator[str]) -> None:
        for key in keys:
            answer = await book(port, key)
            if answer is None:
                self.unanswered.append(key)
                return
            if answer.status == 202:
                self.acknowledged[key] = answer.headers["location"]
            else:
                self.refused.append(answer)
                await asyncio.sleep(0.05)


@asynccontextmanager
async def calendars() -> AsyncIterator[MockProvider]:
    """A provider outside of the process that serves; what is booked in one of its calendars takes long."""
    async with MockProvider() as mock:
        mock.script("create", "delayed", calendar_id="slow", times=-1, delay_ms=60_000)
        yield mock


async def judge(folder: Path, mock: MockProvider, load: Load) -> None:
    """Start again: what was acknowledged is there, once, and comes to its end; so does what was not, sent again."""
    async with served(folder, "--provider", mock.url, **QUICK) as again:
        for key, here in load.acknowledged.items():
            repeat = await book(again.port, key)
            assert repeat is not None
            assert (repeat.status, repeat.headers["location"]) == (200, here), "acknowledged, and gone"
        for key in load.unanswered:
            repeat = await book(again.port, key)
            assert repeat is not None
            assert repeat.status in (200, 202)
            load.acknowledged[key] = repeat.headers["location"]
        async with asyncio.timeout(20):
            while (await ask(again.port, head("GET", f"{BOOK}?phase=in_progress&calendar=main"))).json["items"]:
                await asyncio.sleep(0.1)
        for here in load.acknowledged.values():
            ended = (await ask(again.port, head("GET", here))).json
            assert (ended["state"], mock.live(ended["id"])) == ("confirmed", 1)


async def test_told_to_stop_it_refuses_what_is_new_and_loses_nothing(tmp_path: Path) -> None:
    load = Load()
    async with calendars() as mock:
        async with served(tmp_path, "--provider", mock.url, **QUICK) as it:
            port, process = it.port, it.process
            waiting = asyncio.create_task(book(port, "slow", SLOW, "Prefer: wait=30"))
            running = asyncio.create_task(load.run(port))
            await asyncio.sleep(LOAD_S)
            process.terminate()
            while (ready := await ask(port, head("GET", "/readyz"))).status == 200:
                await asyncio.sleep(0)
            assert (ready.problem, ready.headers["retry-after"]) == ("stopping", "5")
            assert (await ask(port, head("GET", BOOK))).status == 200
            answer = await waiting
            assert answer is not None
            assert (answer.status, answer.json["state"]) == (202, "booking")
            async with asyncio.timeout(10):
                assert await process.wait() == 0
                await running
        print(f"{len(load.acknowledged)} acknowledged, {len(load.refused)} refused, {len(load.unanswered)} unanswered")
        assert len(load.acknowledged) > CLIENTS
        assert load.refused
        for refused in load.refused:
            assert refused.problem == "stopping"
            assert (refused.headers["retry-after"], refused.headers["connection"]) == ("1", "close")
        await judge(tmp_path, mock, load)


async def test_killed_it_comes_back_with_every_command_that_it_acknowledged(tmp_path: Path) -> None:
    load = Load()
    async with calendars() as mock:
        async with served(tmp_path, "--provider", mock.url, **QUICK) as it:
            waiting = asyncio.create_task(book(it.port, "slow", SLOW, "Prefer: wait=30"))
            running = asyncio.create_task(load.run(it.port))
            await asyncio.sleep(LOAD_S)
            it.process.kill()
            assert await waiting is None  # the control of the test above: whoever is killed says nothing
            await running
        print(f"{len(load.acknowledged)} acknowledged, {len(load.unanswered)} unanswered")
        assert len(load.acknowledged) > CLIENTS
        assert (load.refused, len(load.unanswered)) == ([], CLIENTS)
        await judge(tmp_path, mock, load)


async def test_control_a_store_that_forgets_is_found_out(tmp_path: Path) -> None:
    async with calendars() as mock:
        words = ("--provider", mock.url, "--store", "memory:")
        async with served(tmp_path, *words, **QUICK) as it:
            first = await book(it.port, "k0")
            assert first is not None
            it.process.kill()
        with pytest.raises(AssertionError, match="acknowledged, and gone"):
            await judge(tmp_path, mock, Load({"k0": first.headers["location"]}))


async def test_control_without_the_refusal_a_process_that_stops_takes_what_it_may_not_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for refusing in (True, False):
        async with serving() as port:
            with monkeypatch.context() as changed:
                changed.setattr(Standing, "stopping", refusing)
                answer = await book(port, "k")
            assert answer is not None
            assert (answer.status == 503) == refusing
