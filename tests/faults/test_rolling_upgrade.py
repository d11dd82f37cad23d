"""Two versions of a saga in flight while processes are replaced: each appointment ends under its own (G1, G2, G6)."""

import asyncio
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from domain import events as e
from domain.lifecycle import State
from mocks.server import MockProvider
from projections.listing import appointments
from saga.clock import WallClock
from store.mapper import decode
from store.port import OpenWork, Store, whole_log
from store.postgres import PostgresStore
from tests.faults.fleet import Fleet, fleet
from tests.faults.test_workers import come_to_rest
from tests.faults.victims import violations

SEED = 20_261_125
WORKERS = 4
UNDER_WAY = 100
DEPOSIT, INVOICE, IMPOSTOR = (1, "deposit"), (2, "invoice"), (1, "invoice")
RUNS = frozenset({("booking", 1, "main"), ("booking", 2, "main")})
BEHAVIORS: list[dict[str, Any]] = [
    {"mode": "delayed", "delay_ms": 600},
    {"mode": "pending", "settle_ms": 1_500, "via": "poll"},
    {"mode": "fail_then_succeed", "failures": 2, "status": 503, "applied": False},
    {"mode": "delayed", "delay_ms": 700},
    {"mode": "lost_response", "how": "rst"},
    {"mode": "pending", "settle_ms": 2_000, "via": "poll", "final": "rejected"},
    {"mode": "reject"},
    {"mode": "timeout", "applied": True},
]


def settings(url: str, mock: MockProvider, folder: Path) -> dict[str, Any]:
    return {
        "store": url,
        "state_folder": str(folder),
        "provider": mock.url,
        "lease_ms": 4_000,
        "drain_ms": 100,
        "call_timeout_ms": 2_500,
        "settle_ms": 300,
        "poll_ms": 100,
        "breaker_failures_max": 500,
        "concurrency": 400,
        "tenant_concurrency": 400,
        "log_level": "error",
    }


@dataclass
class Course:
    """How far one appointment has come, by the log."""

    booked_by: str
    version: int
    state: State
    steps: set[str]

    @property
    def steps_of_its_own(self) -> set[str]:
        """Those of whoever booked it: whoever replaces the old ones has another step in the middle."""
        return {"calendar", "deposit" if self.booked_by.startswith("old") else "invoice", "notify"}


async def courses(store: Store) -> dict[UUID, Course]:
    """Every appointment: who booked it, the version that it began with, and which steps were begun."""
    begun: dict[UUID, set[str]] = defaultdict(set)
    async for recorded in whole_log(store):
        if recorded.type == e.StepStarted.type:
            started = decode(recorded)
            assert isinstance(started, e.StepStarted)
            begun[recorded.stream_id].add(started.step)
    found = {}
    async for state in appointments(store):
        version = int(state.definition.partition("@")[0].removeprefix("booking/"))
        found[state.id] = Course(state.key.partition("-")[0], version, state.state, begun[state.id])
    return found


def under_wrong_steps(found: dict[UUID, Course], ledger: dict[str, Any]) -> list[str]:
    """Appointments that were led, or told of, by other steps than those that they began with."""
    told: dict[UUID, set[str]] = defaultdict(set)
    for note in ledger["notifications"]:
        what = note["body"]["type"].removesuffix(".undone")
        told[UUID(note["client_ref"])].add("notify" if what == "appointment.confirmed" else what)
    wrong = []
    for id, course in found.items():
        steps = course.steps_of_its_own
        missing = steps - course.steps if course.state is State.CONFIRMED else set()
        if missing or not course.steps | told[id] <= steps:
            wrong.append(f"{id}, booked by {course.booked_by}, ran {course.steps}, and {told[id]} was told of")
    return wrong


async def open_of(store: Store, who: str) -> list[OpenWork]:
    """Rows of what is under way of those who booked under names that begin so."""
    theirs = {id for id, course in (await courses(store)).items() if course.booked_by.startswith(who)}
    return [row for row in await store.open_work() if row.stream_id in theirs]


async def until(true: Callable[[], Awaitable[bool]], within_s: float = 60) -> None:
    async with asyncio.timeout(within_s):
        while not await true():
            await asyncio.sleep(0.05)


async def many_under_way(store: Store) -> None:
    async def many() -> bool:
        return len(await store.open_work()) >= UNDER_WAY

    await until(many)


async def judge_of(url: str) -> PostgresStore:
    return await asyncio.to_thread(PostgresStore.open, url, "judge", read_only=True)


async def told_by(command: str, url: str, folder: Path) -> dict[str, Any]:
    """What the command line says of this store."""
    line = (sys.executable, "-m", "appointments.cli", command, "--json", "--store", url)
    process = await asyncio.create_subprocess_exec(*line, stdout=asyncio.subprocess.PIPE, cwd=folder)
    said, _ = await process.communicate()
    found: dict[str, Any] = json.loads(said)
    return found


@pytest.mark.evidence(
    target="rolling upgrade",
    answers=("R7.2", "G1", "G2", "G6"),
    given="four processes run version 1 of a saga, more than a hundred appointments are under way, and clients book",
    when="one after the other is replaced by one that books under version 2 and has version 1 registered behind it",
    then="each appointment ends under the version that it began with; nothing is lost or booked twice",
    seen_in="ledger, notifications, state of the store",
)
async def test_processes_are_replaced_while_two_versions_are_under_way(postgres_url: str, tmp_path: Path) -> None:
    async with MockProvider() as mock, fleet(SEED) as crew:
        mock.load({"match": {"op": "create"}, "behaviors": BEHAVIORS, "times": -1})
        mock.load({"match": {"op": "notify"}, "behaviors": [{"mode": "immediate"}] * 4 + [BEHAVIORS[2]], "times": -1})
        place, book = settings(postgres_url, mock, tmp_path), {"clients": 35, "pause_s": 12.0}
        old = [await crew.start(f"old{n}", place, [DEPOSIT], **book) for n in range(WORKERS)]
        for hand in old:
            hand.begin()
        judge = await judge_of(postgres_url)
        await many_under_way(judge)
        for n, hand in enumerate(old):
            (await crew.start(f"new{n}", place, [INVOICE, DEPOSIT], clients=30, each=1)).begin()
            await hand.drain()
        left = len(await open_of(judge, "old"))
        await asyncio.gather(*(crew.hands[f"new{n}"].booked.wait() for n in range(WORKERS)))
        await come_to_rest(judge, 60)
        found, ledger = await courses(judge), mock.ledger()
        await judge.close()
    of = Counter(course.version for course in found.values())
    print(f"{of[1]} under version 1, of which {left} were left when its last process had gone; {of[2]} under version 2")
    assert not await violations(postgres_url, crew.acknowledged, ledger, RUNS)
    assert not under_wrong_steps(found, ledger)
    assert all((course.version == 1) is course.booked_by.startswith("old") for course in found.values())
    assert left > 0
    assert min(of.values()) > UNDER_WAY


async def another_alone(
    other: tuple[int, str], url: str, folder: Path, crew: Fleet, mock: MockProvider, planted: str = ""
) -> dict[str, Any]:
    """Those of version 1 are killed with much under way, another goes on alone; what is seen of it, and of the end."""
    mock.load({"match": {"op": "create"}, "behaviors": BEHAVIORS, "times": -1})
    place, book = settings(url, mock, folder), {"clients": 70, "pause_s": 12.0}
    old = [await crew.start(f"old{n}", place, [DEPOSIT], **book) for n in range(2)]
    for hand in old:
        hand.begin()
    judge = await judge_of(url)
    await many_under_way(judge)
    for hand in old:
        hand.kill()
    alone = await crew.start("alone", place, [other], planted=planted, clients=10, each=5)
    since = WallClock().now().timestamp()
    alone.begin()
    await alone.booked.wait()

    async def is_left() -> bool:
        waiting = all(row.lane.startswith("?booking.1@") for row in await open_of(judge, "old"))
        return (waiting or bool(planted)) and not await open_of(judge, "alone")

    await until(is_left)
    left = {str(row.stream_id) for row in await open_of(judge, "old")}
    theirs = {str(id) for id, course in (await courses(judge)).items() if course.booked_by.startswith("old")}
    seen = {
        "left": left,
        "calls": [one for one in mock.requests() if one["at"] > since and one["client_ref"] in theirs],
        "workers": (await told_by("workers", url, folder))["workers"],
        "check": await told_by("check", url, folder),
    }
    await crew.start("both", place, [DEPOSIT, INVOICE])
    await come_to_rest(judge, 60)
    seen["courses"] = await courses(judge)
    await judge.close()
    return seen


@pytest.mark.evidence(
    target="version that nobody runs",
    answers=("R7.2", "G1", "G2", "G6"),
    given="processes that run version 1 of a saga, killed with more than a hundred appointments under way",
    when="a process that has only version 2 goes on alone, and later one comes that has both",
    then="version 1 waits: nobody calls for it, workers and health say so; and it ends when one comes that runs it",
    seen_in="requests at the provider, `appointments workers`, health, state of the store",
)
async def test_work_of_a_version_that_nobody_runs_waits_for_one_that_does(postgres_url: str, tmp_path: Path) -> None:
    async with MockProvider() as mock, fleet(SEED) as crew:
        seen = await another_alone(INVOICE, postgres_url, tmp_path, crew, mock)
        ledger = mock.ledger()
    assert len(seen["left"]) > UNDER_WAY // 2
    assert not seen["calls"]
    assert [one["runs"] for one in seen["workers"]] == [["booking v2 at main"]]
    assert {finding["kind"] for finding in seen["check"]["findings"]} == {"nobody_runs"}
    assert seen["check"]["findings_total"] == len(seen["left"])
    assert not under_wrong_steps(seen["courses"], ledger)
    assert not await violations(postgres_url, crew.acknowledged, ledger, RUNS)


async def test_control_one_version_for_all_is_found(postgres_url: str, tmp_path: Path) -> None:
    async with MockProvider() as mock, fleet(SEED) as crew:
        seen = await another_alone(INVOICE, postgres_url, tmp_path, crew, mock, "newest_for_all")
        ledger = mock.ledger()
    assert seen["calls"]
    assert under_wrong_steps(seen["courses"], ledger)


@pytest.mark.evidence(
    target="two definitions under one name",
    answers=("R7.2", "G1", "G2", "G6"),
    given="processes that run version 1 of a saga, killed with more than a hundred appointments under way",
    when="a process goes on alone that calls other steps version 1, and later one comes that has the steps",
    then="it books under its own definition and calls nobody for theirs; they end when one comes that has their steps",
    seen_in="requests at the provider, state of the store",
)
async def test_another_definition_under_the_same_version_leaves_the_work_alone(
    postgres_url: str, tmp_path: Path
) -> None:
    async with MockProvider() as mock, fleet(SEED) as crew:
        seen = await another_alone(IMPOSTOR, postgres_url, tmp_path, crew, mock)
        ledger = mock.ledger()
    assert len(seen["left"]) > UNDER_WAY // 2
    assert not seen["calls"]
    assert {course.version for course in seen["courses"].values()} == {1}
    assert not under_wrong_steps(seen["courses"], ledger)
    assert not await violations(postgres_url, crew.acknowledged, ledger)
