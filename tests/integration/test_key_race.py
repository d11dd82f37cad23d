"""One key, one appointment (G5): two hundred at once, on a real file; and the test would see it if it were not so."""

import asyncio
import random
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from appointments import Orchestrator, Settings
from domain.errors import KeyReused
from domain.events import AppointmentRequested
from providers.local import LocalProvider
from saga import runtime
from store.port import Append, whole_log
from store.sqlite import SqliteStore

AT_ONCE = 200
SEED = 20_261_124
FIELDS: dict[str, Any] = {
    "calendar": "main",
    "start": "2031-03-03T10:00:00Z",
    "end": "2031-03-03T11:00:00Z",
    "time_zone": "Europe/Berlin",
    "summary": "Check-up",
}


def settings(folder: Path) -> Settings:
    return Settings(store=f"sqlite:///{folder}/desk.db", provider="local:")


async def requests_in_log(folder: Path) -> int:
    """How many appointments the log holds."""
    store = SqliteStore.open(folder / "desk.db", "judge", read_only=True)
    count = 0
    async for recorded in whole_log(store):
        count += recorded.type == AppointmentRequested.type
    await store.close()
    return count


async def race(desk: Orchestrator, bodies: list[dict[str, Any]], wait: float | None = 10) -> list[Any]:
    """All at once, each at a moment of its own."""
    chance = random.Random(SEED)
    print(f"seed {SEED}")

    async def one(body: dict[str, Any], turns: int) -> Any:
        for _ in range(turns):
            await asyncio.sleep(0)
        return await desk.book(body, key="one-key", wait=wait)

    return await asyncio.gather(*(one(body, chance.randrange(20)) for body in bodies), return_exceptions=True)


@pytest.mark.evidence(
    target="key",
    answers=("R2.2", "G5"),
    given="a store file",
    when="two hundred callers use one key at once",
    then="one appointment, all are told it",
    seen_in="stream, ledger",
)
async def test_two_hundred_at_once_with_one_key_make_one_appointment(tmp_path: Path) -> None:
    calendar = LocalProvider("main")
    async with Orchestrator.open(settings(tmp_path), providers=(calendar,)) as desk:
        booked = await race(desk, [FIELDS] * AT_ONCE)
        assert len({one.id for one in booked}) == 1
        assert {one.state for one in booked} == {"confirmed"}
        assert sum(not one.replayed for one in booked) == 1, "one made it, the others found it"
        assert len(calendar.live("main")) == calendar.calls == 1
        with pytest.raises(KeyReused):
            await desk.book({**FIELDS, "summary": "Another"}, key="one-key")
        assert (await desk.health()).ok
    assert await requests_in_log(tmp_path) == 1


async def test_two_payloads_at_once_under_one_key_make_one_and_the_others_are_refused(tmp_path: Path) -> None:
    calendar = LocalProvider("main")
    bodies = [{**FIELDS, "summary": f"Body {n % 2}"} for n in range(AT_ONCE)]
    async with Orchestrator.open(settings(tmp_path), providers=(calendar,)) as desk:
        outcomes = await race(desk, bodies)
    booked = [one for one in outcomes if not isinstance(one, BaseException)]
    refused = [one for one in outcomes if isinstance(one, BaseException)]
    assert {type(one) for one in refused} == {KeyReused}
    assert len(booked) == len(refused) == AT_ONCE // 2
    assert len({(one.id, one.summary) for one in booked}) == 1
    assert len(calendar.live("main")) == 1
    assert await requests_in_log(tmp_path) == 1


async def test_the_same_key_again_after_the_restart_is_the_same_appointment(tmp_path: Path) -> None:
    calendar = LocalProvider("main")
    async with Orchestrator.open(settings(tmp_path), providers=(calendar,)) as desk:
        (first,) = await race(desk, [FIELDS])
    async with Orchestrator.open(settings(tmp_path), providers=(calendar,)) as desk:
        again = await race(desk, [FIELDS] * AT_ONCE)
    assert {one.id for one in again} == {first.id}
    assert all(one.replayed for one in again)
    assert calendar.calls == 1


async def test_many_keys_at_once_stay_apart(tmp_path: Path) -> None:
    calendar = LocalProvider("main")
    async with Orchestrator.open(settings(tmp_path), providers=(calendar,)) as desk:
        pairs = [desk.book(FIELDS, key=f"key-{n // 2}", wait=10) for n in range(AT_ONCE)]
        booked = await asyncio.gather(*pairs)
    assert len({one.id for one in booked}) == AT_ONCE // 2
    assert len(calendar.live("main")) == AT_ONCE // 2


async def test_one_cancel_key_cancels_once(tmp_path: Path) -> None:
    async with Orchestrator.open(settings(tmp_path), providers=(LocalProvider("main"),)) as desk:
        one = await desk.book(FIELDS, key="one-key", wait=10)
        gone = await asyncio.gather(*(desk.cancel(one.id, key="c-1", wait=10) for _ in range(AT_ONCE)))
        types = [event.type for event in await desk.events(one.id)]
    assert {found.state for found in gone} == {"cancelled"}
    assert types.count("cancellation-requested.v1") == 1


class TestWhatProtects:
    """Nobody remembers anything here: it is the store alone that refuses a second version 1."""

    @pytest.fixture(autouse=True)
    def no_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runtime, "CACHE_MAX", 0)

    async def test_the_store_refuses_a_second_version_1(self, tmp_path: Path) -> None:
        async with Orchestrator.open(settings(tmp_path), providers=(LocalProvider("main"),)) as desk:
            booked = await race(desk, [FIELDS] * AT_ONCE)
        assert len({one.id for one in booked}) == 1
        assert await requests_in_log(tmp_path) == 1

    async def test_control_a_store_that_takes_it_makes_two_hundred(self, tmp_path: Path) -> None:
        store = ForgetfulStore.open(tmp_path / "desk.db", "control")
        async with Orchestrator.open(settings(tmp_path), providers=(LocalProvider("main"),), store=store) as desk:
            await race(desk, [FIELDS] * AT_ONCE, wait=None)
        assert await requests_in_log(tmp_path) > 1


class ForgetfulStore(SqliteStore):
    """Planted: a stream that exists already may begin once more."""

    async def append(self, entry: Append) -> int:
        if entry.expected_version == 0 and entry.work is not None:
            elsewhere = uuid4()
            events = tuple(replace(event, stream_id=elsewhere) for event in entry.events)
            entry = replace(entry, stream_id=elsewhere, events=events, work=replace(entry.work, stream_id=elsewhere))
        return await super().append(entry)
