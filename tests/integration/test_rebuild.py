"""Rebuilds beside work: commands and reads go on, and what was rebuilt equals what was kept up, row for row."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import Connection

from appointments import AppointmentFilter, Orchestrator, Settings
from domain.provider import Rejected
from projections import views
from projections.current_state import CurrentStates
from projections.projection import Change
from projections.views import PROJECTIONS, Views
from providers.local import LocalProvider
from store.port import Append, RecordedEvent

ROOT = Path(__file__).resolve().parents[2]
SEED = int(os.environ.get("TEST_SEED", "20261125"))
REBUILDS = 3
CLIENTS = 6
BOOKINGS_MIN = 4
FIELDS = {
    "calendar": "main",
    "start": "2031-03-03T10:00:00Z",
    "end": "2031-03-03T11:00:00Z",
    "time_zone": "Europe/Berlin",
    "summary": "Check-up",
}

Tables = dict[str, dict[str, list[tuple[Any, ...]]]]


@pytest.fixture
def calendar() -> LocalProvider:
    return LocalProvider("main")


@pytest.fixture
async def desk(tmp_path: Path, calendar: LocalProvider) -> AsyncIterator[Orchestrator]:
    settings = Settings(store=f"sqlite:///{tmp_path}/desk.db", provider="local:")
    async with Orchestrator.open(settings, providers=(calendar,)) as opened:
        yield opened


@pytest.fixture
async def kept_up(desk: Orchestrator, tmp_path: Path) -> AsyncIterator[Views]:
    """Read models of the same log that are never rebuilt."""
    made = Views(desk.runtime.store, tmp_path / "kept-up")
    yield made
    await made.close()


async def tables(known: Views) -> Tables:
    """Everything that the read models hold, caught up, and how it is indexed."""

    def all_rows(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
        names = connection.exec_driver_sql("SELECT name FROM sqlite_schema WHERE type = 'table'").scalars().all()
        rows = {name: connection.exec_driver_sql(f"SELECT * FROM {name}").all() for name in names}
        rows["indexes"] = connection.exec_driver_sql("SELECT name, sql FROM sqlite_schema WHERE type = 'index'").all()
        return {name: sorted(map(tuple, found), key=repr) for name, found in rows.items()}

    return {name: (await known.read(name, all_rows))[0] for name in known.names}


class Work:
    """Clients that book, move, cancel, park or are refused, by chance; each time the list knows it at once."""

    def __init__(self, desk: Orchestrator, calendar: LocalProvider) -> None:
        self.desk, self.calendar = desk, calendar
        self.booked = 0
        self._enough = asyncio.Event()

    async def __aenter__(self) -> "Work":
        print(f"seed {SEED}")
        self._clients = [asyncio.create_task(self._client(n)) for n in range(CLIENTS)]
        return self

    async def __aexit__(self, *_fault: object) -> None:
        self._enough.set()
        await asyncio.gather(*self._clients)

    async def _client(self, name: int) -> None:
        random, n = Random(SEED + name), 0
        while not self._enough.is_set() or n < BOOKINGS_MIN:
            n += 1
            await self._course(random, f"{name}-{n}")

    async def _course(self, random: Random, key: str) -> None:
        if random.random() < 0.2:
            self.calendar.answer_next("create", Rejected(reason="full"))
        one = await self.desk.book({**FIELDS, "summary": f"Visit {key}"}, key=key, wait=30)
        self.booked += 1
        fate = random.random() if one.state == "confirmed" else 1
        if fate < 0.3:
            one = await self.desk.cancel(one.id, key=f"cancel-{key}", wait=30)
        elif fate < 0.5:
            times = {"start": "2031-03-04T10:00:00Z", "end": "2031-03-04T11:00:00Z"}
            one = await self.desk.reschedule(one.id, **times, key=f"move-{key}", wait=30)
        elif fate < 0.7:
            one = await self.desk.act(one.id, "park", actor="dana", reason="look")
        (seen,) = await self.desk.list(AppointmentFilter(q=str(one.id)))
        assert (seen.version, seen.state, seen.parked) == (one.version, one.state, one.parked), (seen, one)


@pytest.mark.evidence(
    target="rebuild",
    answers=("R3.5", "G4"),
    given="read models that were kept up while commands went on",
    when="they are rebuilt beside the work",
    then="rebuilt equals kept up, row for row",
    seen_in="rows",
)
async def test_a_rebuilt_one_equals_the_one_that_was_kept_up_row_for_row(
    desk: Orchestrator, calendar: LocalProvider, kept_up: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "REBUILD_BATCH", 40)
    monkeypatch.setattr(views, "LIVE_BATCH", 7)
    async with Work(desk, calendar) as work:
        for _ in range(REBUILDS):
            before = work.booked
            await desk.rebuild()
            await kept_up.catch_up()
            async with asyncio.timeout(30):
                while work.booked == before:  # the work goes on
                    await asyncio.sleep(0.001)
    mine, theirs = await tables(desk._views), await tables(kept_up)
    assert mine == theirs
    assert len(mine["current_state"]["appointments"]) == work.booked
    assert {name for name, found in mine.items() if len(found["checkpoint"]) == 1} == {one.name for one in PROJECTIONS}


async def test_a_fold_that_is_wrong_would_differ(
    desk: Orchestrator, calendar: LocalProvider, kept_up: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.book(FIELDS, key="key-1", wait=30)
    theirs = await tables(kept_up)
    right = CurrentStates.apply

    def wrong(self: CurrentStates, connection: Connection, changes: Sequence[Change]) -> None:
        right(self, connection, changes[:-1])

    monkeypatch.setattr(CurrentStates, "apply", wrong)
    await desk.rebuild()
    mine = await tables(desk._views)
    assert mine["figures"] == theirs["figures"]
    assert mine["current_state"] != theirs["current_state"]


async def test_a_rebuild_mends_a_row_that_is_wrong(desk: Orchestrator, kept_up: Views, tmp_path: Path) -> None:
    await desk.book(FIELDS, key="key-1", wait=30)
    await desk.list()
    (file,) = (tmp_path / "desk.db.views").glob("current_state-*.db")
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE appointments SET version = 99")
    connection.close()
    assert [one.version for one in await desk.list()] == [99]
    seen: list[tuple[int, int]] = []
    built = await desk.rebuild("current_state", progress=lambda done, total: seen.append((done, total)))
    assert (built.projections, seen[-1]) == (("current_state",), (built.position, built.position))
    assert (await tables(desk._views))["current_state"] == (await tables(kept_up))["current_state"]


def appointments(folder: Path, *words: str) -> tuple[Any, str]:
    """The command line in a process of its own: its answer, and what it notes beside that."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("APPOINTMENTS_")}
    command = [sys.executable, "-m", "appointments.cli", *words, "--store", f"sqlite:///{folder}/desk.db", "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder, timeout=60, env=_path(kept))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def _path(kept: dict[str, str]) -> dict[str, str]:
    return {**kept, "PYTHONPATH": str(Path(__file__).parents[2])}


async def test_another_process_lists_and_rebuilds_beside_the_desk_that_works(
    desk: Orchestrator, calendar: LocalProvider, kept_up: Views, tmp_path: Path
) -> None:
    first = await desk.book(FIELDS, key="first", wait=30)
    async with Work(desk, calendar):
        listed, _ = await asyncio.to_thread(appointments, tmp_path, "list", "--q", str(first.id))
        assert [one["id"] for one in listed["items"]] == [str(first.id)]
        built, _ = await asyncio.to_thread(appointments, tmp_path, "rebuild")
        assert built["projections"] == [one.name for one in PROJECTIONS]
    assert await tables(desk._views) == await tables(kept_up)


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from projections import generations, views
from projections.generations import Generations
from store.sqlite import SqliteStore

point, log = sys.argv[1], Path(sys.argv[2])


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


async def main():
    store = SqliteStore.open(log, owner="killed", read_only=True)
    views.REBUILD_BATCH = 5
    known = views.Views(store, views.views_folder(log))
    if point == "published":
        publish = Generations.publish
        Generations.publish = lambda self: (publish(self), die())
    elif point == "about to be published":
        Generations.publish = die
    elif point == "linked":
        linked = generations._linked
        generations._linked = lambda *files: (linked(*files), die())
    await known.rebuild(progress=lambda done, goal: die() if point == "half way" and done * 2 > goal else None)


asyncio.run(main())
"""


@pytest.mark.evidence(
    target="rebuild",
    answers=("R3.5", "G4"),
    given="a rebuild in a process of its own",
    when="it is killed with -9: half way, before or after what it made is put in use",
    then="the read models answer as before, nothing is left over, and the next rebuild is done",
    seen_in="rows, files",
)
@pytest.mark.parametrize("point", ["half way", "about to be published", "linked", "published"])
async def test_a_rebuild_that_is_killed_changes_nothing_and_leaves_nothing(
    desk: Orchestrator, kept_up: Views, tmp_path: Path, point: str
) -> None:
    for n in range(4):
        await desk.book(FIELDS, key=f"k{n}", wait=30)
    await desk.list()
    command = [sys.executable, "-c", KILLED, point, str(tmp_path / "desk.db")]
    killed = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert await tables(desk._views) == await tables(kept_up)
    await desk.book(FIELDS, key="after", wait=30)
    assert await tables(desk._views) == await tables(kept_up)
    await desk.rebuild()
    assert await tables(desk._views) == await tables(kept_up)
    left = {file.name for file in (tmp_path / "desk.db.views").iterdir() if not file.name.endswith(("-wal", "-shm"))}
    newest = {f"{name}-" for name in desk._views.names}
    assert {name.rsplit("-", 2)[0] + "-" for name in left - {"rebuild.lock"}} == newest, left
    assert len(left) == len(newest) + 1, left


@pytest.mark.evidence(
    target="rebuild",
    answers=("R3.5", "G4"),
    given="a log with an event in it that nobody can read",
    when="the read models are rebuilt",
    then="that appointment is named, and all else is as it was kept up",
    seen_in="rows, output",
)
async def test_one_that_cannot_be_read_is_named_and_stops_no_other(
    desk: Orchestrator, kept_up: Views, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "REBUILD_BATCH", 5)
    monkeypatch.setattr(views, "LIVE_BATCH", 3)
    booked = [await desk.book(FIELDS, key=f"k{n}", wait=30) for n in range(4)]
    bad, store = booked[1], desk.runtime.store
    await kept_up.catch_up()
    for version in (bad.version + 1, bad.version + 2):
        poison = RecordedEvent(bad.id, version, "no-such-event.v9", b"{}", at=bad.updated_at)
        await store.append(Append(bad.id, version - 1, (poison,), touches_work=False))
    await desk.book(FIELDS, key="after", wait=30)
    await desk.rebuild()
    mine = await tables(desk._views)
    assert mine == await tables(kept_up)
    assert len(mine["current_state"]["appointments"]) == len(booked)
    _, noted = await asyncio.to_thread(appointments, tmp_path, "rebuild")
    assert f"1 cannot be read and are left out ({bad.id})" in noted
