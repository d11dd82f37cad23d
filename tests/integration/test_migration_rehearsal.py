"""The rehearsal: 1,000 legacy bookings, live traffic, from 0 to 100 % and back to 0, faults, kill -9, each booked once.

The judge is the provider's ledger: what was booked is told there by its summary, whoever booked it.
"""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appointments import Orchestrator, Settings
from appointments.migration.split import Change, Leader, Split, split_file
from domain.appointment import Appointment
from domain.identity import appointment_id
from domain.lifecycle import State
from mocks.server import MockProvider
from projections.listing import appointments
from saga.clock import WallClock
from store.sqlite import SqliteStore
from tests.contract.mock_client import Client
from tests.integration.rehearsal import FAULTS, Judge, Serving, booking, serving

SEED = 20_261_125
EXISTING = 1_000
EACH_STEP = 60
STEPS: tuple[tuple[float, bool], ...] = (
    (0, False),
    (1, False),
    (10, False),
    (50, False),
    (100, False),
    (100, True),
    (0, False),
)
"""Writes in per cent, and the kill switch."""
DRAINED_WITHIN_S = 40
QUICK = {
    "call_timeout_ms": 250,
    "backoff_ms": 20,
    "settle_ms": 200,
    "poll_ms": 50,
    "attempts_max": 6,
    "deadline_ms": 5_000,
    "cleanup_ms": 3_000,
    "breaker_failures_max": 50,
    "breaker_open_ms": 100,
    "log_level": "warning",
}


@dataclass
class Rehearsal:
    """One run: where it happens, who is asked, and what was asked for."""

    mock: MockProvider
    split: Split
    serving: Serving
    chance: random.Random
    judge: Judge = field(default_factory=Judge)
    imported: list[str] = field(default_factory=list)
    acknowledged: dict[str, str] = field(default_factory=dict)
    """Key to appointment."""
    numbers: int = EXISTING

    def set(self, writes: float, stopped: bool = False) -> None:
        told = {"at": WallClock().now(), "actor": "dana", "reason": "rehearsal"}
        self.split.change(Change(writes=writes, reads=100, stopped=stopped, **told))

    async def step(self, count: int, kill: bool = False) -> None:
        """So many new bookings, each asked for up to three times, with cancels and moves among them."""
        blow = asyncio.create_task(self._kill()) if kill else None
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                self.numbers += 1
                group.create_task(self._customer(self.numbers))
                await asyncio.sleep(self.chance.uniform(0, 0.02))
        if blow is not None:
            await blow
        # Somebody comes back to what was booked before, maybe under another leader.
        for key in self.chance.sample(sorted(self.acknowledged), min(10, len(self.acknowledged))):
            await self._book(key, int(key.removeprefix("order-")))

    async def _kill(self) -> None:
        await asyncio.sleep(0.3)
        await self.serving.kill()

    async def _customer(self, number: int) -> None:
        key, chance = f"order-{number}", random.Random(SEED + number)
        await asyncio.gather(*(self._book(key, number) for _ in range(chance.choice((1, 1, 2, 3)))))
        await asyncio.sleep(chance.uniform(0, 0.3))
        what = chance.random()
        if what < 0.15:
            await self.serving.ask("cancel", f"cancel-{key}", id=self.acknowledged[key])
        elif what < 0.25:
            times = booking(number + 50_000)
            await self.serving.ask("reschedule", f"move-{key}", id=self.acknowledged[key], times=_times(times))
        elif what < 0.45 and self.imported:
            gone = self.imported.pop()
            await self.serving.ask("cancel", f"cancel-{gone}", id=str(appointment_id("default", gone)))

    async def _book(self, key: str, number: int) -> None:
        # Of every ten, two ask for the very same: same calendar, times and summary, another key.
        same = number - 1 if number % 10 == 0 else number
        self.judge.want(key, booking(same)["summary"])
        told = await self.serving.ask("book", key, booking=booking(same))
        self.acknowledged[key] = told["id"]


def _times(wanted: dict[str, Any]) -> dict[str, str]:
    return {name: wanted[name] for name in ("start", "end")}


async def _existing(mock: MockProvider, settings: Settings, judge: Judge) -> list[str]:
    """What the legacy system booked before anybody thought of a migration, taken over into the log."""
    async with Client(mock.url) as client, Orchestrator.open(settings) as desk:
        keys = [f"legacy-{number}" for number in range(EXISTING)]

        async def one(number: int, key: str) -> None:
            wanted = booking(number)
            body = {name: value for name, value in wanted.items() if name != "calendar"} | {"calendar_id": "main"}
            made = (await client.send("POST", "/bookings", json=body)).json
            judge.want(key, wanted["summary"])
            there = {"provider_ref": made["id"], "status": made["status"], "version": made["version"]}
            await desk.import_booking({"booked": wanted, "booking": there, "source": "legacy"}, key=key)

        for begin in range(0, EXISTING, 50):
            await asyncio.gather(*(one(begin + n, key) for n, key in enumerate(keys[begin : begin + 50])))
        report = await desk.reconcile("main")
        assert (report.agrees, report.counts["matched"], report.strangers) == (True, EXISTING, 0)
    return keys


async def _rehearse(folder: Path, steps: tuple[tuple[float, bool], ...], each: int, planted: str = "") -> list[str]:
    print(f"seed {SEED}")
    began, file = time.perf_counter(), folder / "desk.db"
    async with MockProvider(lenient=True) as mock:
        settings = {"store": f"sqlite:///{file}", "provider": mock.url, "legacy": mock.url, **QUICK}
        judge = Judge()
        imported = [] if planted else await _existing(mock, Settings.model_validate(settings), judge)
        mock.load({"match": {"op": "create"}, "behaviors": FAULTS, "times": -1})
        mock.script("cancel", "lost_response", how="rst", nth=3, times=3)
        mock.script("reschedule", "lost_response", how="rst", nth=2, times=1)
        async with serving(settings, planted) as served:
            rehearsal = Rehearsal(mock, Split(split_file(file)), served, random.Random(SEED), judge, imported)
            for writes, stopped in steps:
                rehearsal.set(writes, stopped)
                await rehearsal.step(each, kill=writes == 50)
            mock.clear_scripts()
            await served.finish(DRAINED_WITHIN_S)
        states = await _states(file)
        wrong = judge.violations(mock.ledger(), states)
        wrong += _asked_twice(mock, judge)
        if not planted:
            wrong += await _as_reconciled(Settings.model_validate(settings), states)
        wrong += [f"lost: {key}" for key in rehearsal.acknowledged if not _known(states, key)]
        _tell(states, mock, rehearsal, time.perf_counter() - began)
        return wrong


def _known(states: list[Appointment], key: str) -> bool:
    return any(state.key == key for state in states)


async def _states(file: Path) -> list[Appointment]:
    store = SqliteStore.open(file, owner="judge", read_only=True)
    try:
        return [state async for state in appointments(store)]
    finally:
        await store.close()


def _asked_twice(mock: MockProvider, judge: Judge) -> list[str]:
    """The legacy system is asked once for a key, whatever it answers."""
    asked = Counter(one["body"]["summary"] for one in mock.requests("create") if one["idempotency_key"] is None)
    return [f"asked twice: {summary}" for summary, times in asked.items() if times > judge.wanted[summary]]


async def _as_reconciled(settings: Settings, states: list[Appointment]) -> list[str]:
    """Log and calendar say the same, but for what is parked and listed."""
    async with Orchestrator.open(settings) as desk:
        report = await desk.reconcile("main")
    parked = {state.id for state in states if state.parked}
    found = [one for one in report.findings if one.appointment is not None and one.appointment not in parked]
    wrong = [f"reconciled: {one.kind} {one.appointment}" for one in found]
    if report.strangers > len(parked):
        wrong.append(f"reconciled: {report.strangers} strangers, {len(parked)} parked")
    return wrong


def _tell(states: list[Appointment], mock: MockProvider, rehearsal: Rehearsal, took_s: float) -> None:
    new = [state for state in states if not state.foreign]
    ends = Counter(f"{state.state}{', parked' if state.parked else ''}" for state in new)
    led = Counter(Leader.LEGACY if state.provider.endswith("/legacy") else Leader.OURS for state in new)
    live = mock.live()
    print(
        f"{len(states) - len(new)} taken over, {len(new)} new: {dict(ends)}; led by {dict(led)}; {live} live; "
        f"{len(mock.requests())} requests; {rehearsal.serving.kills} kill -9; {took_s:.1f} s"
    )
    assert any(state.state is State.CONFIRMED for state in new)
    assert rehearsal.serving.kills == 1
    assert len(led) == 2


async def test_from_nothing_to_everything_and_back_each_is_booked_once(tmp_path: Path) -> None:
    assert not await _rehearse(tmp_path, STEPS, EACH_STEP)


async def test_a_split_that_changes_its_mind_books_once_as_the_log_decides(tmp_path: Path) -> None:
    assert not await _rehearse(tmp_path, ((50, False),), 30, planted="restless")


async def test_control_two_systems_without_one_log_book_twice(tmp_path: Path) -> None:
    wrong = await _rehearse(tmp_path, ((50, False),), 30, planted="forgetful")
    assert any(line.startswith("twice") for line in wrong), wrong[:5]
