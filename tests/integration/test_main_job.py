"""The main job on a real Radicale: killed at any moment, run again, finished; and it notices a calendar that lies."""

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from caldav.collection import Calendar
from caldav.davclient import DAVClient

from appointments import Settings
from appointments.bootstrap import open_store
from appointments.demo import USER, Places
from appointments.intake.corpus import corpus
from appointments.radicale import RadicaleServer
from domain.lifecycle import State
from projections.listing import appointments

ENDS_WITHIN_S = 120
ORPHAN_ENDS_WITHIN_S = 10
PASSWORD = "known to the test"
FOREIGN_EVENT = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//test//
BEGIN:VEVENT
UID:foreign
DTSTAMP:20310101T000000Z
DTSTART:20310303T080000Z
DTEND:20310303T090000Z
SUMMARY:Not ours
END:VEVENT
END:VCALENDAR
"""


class Job:
    """The main job in a folder of its own."""

    def __init__(self, folder: Path, seed: int, files: int) -> None:
        self.places = Places(folder / "data", folder / "results", folder / "logs")
        self._folder = folder
        self._corpus = folder / "corpus"
        self._corpus.mkdir()
        for number, path in enumerate(random.Random(seed).sample(corpus(), files)):
            shutil.copy(path, self._corpus / f"{number:03}-{path.name}")

    def begin(self, *more: str) -> "subprocess.Popen[str]":
        """Start it as the leader of its own process group."""
        places = self.places
        folders = ("--data", places.data, "--results", places.results, "--logs", places.logs, "--corpus", self._corpus)
        command = [sys.executable, "-m", "appointments.cli", "demo", "--no-cases", *map(str, folders), *more]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("APPOINTMENTS_")}
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self._folder,
            env={**environment, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )

    def finish(self, *more: str) -> tuple[int, str]:
        """Run it to its end: exit code and everything that it printed."""
        with self.running(*more) as job:
            out, _ = job.communicate(timeout=ENDS_WITHIN_S)
        return job.returncode, out

    @contextmanager
    def running(self, *more: str) -> "Iterator[subprocess.Popen[str]]":
        """A job that is gone afterwards, also when the test fails meanwhile."""
        with self.begin(*more) as job:
            try:
                yield job
            finally:
                if job.poll() is None:
                    os.killpg(job.pid, signal.SIGKILL)

    def kill_after(self, lines: int, wait_s: float, *, group: bool, before: Callable[[], None] = lambda: None) -> str:
        """Kill it -9 a moment after it has printed so many lines; what it had printed."""
        with self.running() as job:
            assert job.stdout is not None
            printed = "".join(job.stdout.readline() for _ in range(lines))
            time.sleep(wait_s)  # the moment is the point of the test, and seeded
            before()
            os.kill(-job.pid if group else job.pid, signal.SIGKILL)
            job.wait(timeout=ENDS_WITHIN_S)
        return printed

    def port(self) -> int:
        """Where the server of the last run listens, or did."""
        lines = (self.places.home / "radicale.conf").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("hosts")).rpartition(":")[2])

    def ids_of_the_log(self) -> list[str]:
        """The confirmed appointments, as the log has them."""

        async def read() -> list[str]:
            store = await open_store(Settings(store=f"sqlite:///{self.places.store}"), read_only=True)
            try:
                return [str(one.id) async for one in appointments(store) if one.state is State.CONFIRMED]
            finally:
                await store.close()

        return asyncio.run(read())

    def on_the_calendar(self, work: Any) -> Any:
        """Give `work` the calendar, by the `caldav` library, and return what it returns."""

        def connected(url: str) -> Any:
            with DAVClient(url=url, username=USER, password=PASSWORD) as client:
                return work(Calendar(client=client, url=f"{url}main/"))

        async def serve() -> Any:
            async with RadicaleServer(self.places.home, USER, PASSWORD) as server:
                return await asyncio.to_thread(connected, server.url)

        return asyncio.run(serve())


def ids_in(calendar: Calendar) -> list[str]:
    return [str(event.icalendar_component["UID"]) for event in calendar.search(event=True)]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path, seed=7, files=25)


@pytest.mark.evidence(
    target="main job",
    answers=("R7.1", "R6.5", "R5.1"),
    given="the main job on a real CalDAV server (Radicale)",
    when="it is killed at three moments, and run again",
    then="it is finished; the calendar agrees with the log",
    seen_in="report of the main job",
)
def test_killed_at_three_moments_it_is_finished_by_the_next_run(tmp_path: Path) -> None:
    seed = 20_261_124
    print(f"seed {seed}")
    job, rng = Job(tmp_path, seed, files=60), random.Random(seed)
    for turn in range(3):
        moment = (rng.randrange(1, 8), rng.uniform(0, 0.3))
        print(f"killed {moment[1]:.3f} s after line {moment[0]}, {'whole group' if turn != 1 else 'leader alone'}")
        printed = job.kill_after(*moment, group=turn != 1)
        assert "Traceback" not in printed
    begun = set(job.ids_of_the_log())
    code, out = job.finish()
    assert code == 0, out
    for verdict in ("calendar agrees: yes", "reconciliation: well", "replay: well", "check: well"):
        assert verdict in out

    there, confirmed = Counter(job.on_the_calendar(ids_in)), job.ids_of_the_log()
    assert begun < set(confirmed), "the kills came too late to interrupt anything"
    assert len(confirmed) > 50
    assert set(there) == set(confirmed)
    assert set(there.values()) == {1}

    code, out = job.finish()
    assert (code, "booked          0 " in out) == (0, True), out
    assert Counter(job.on_the_calendar(ids_in)) == there


def test_its_server_does_not_outlive_it(job: Job) -> None:
    """The leader alone is killed: the server has to notice by itself."""
    listening: list[bool] = []
    printed = job.kill_after(2, 0, group=False, before=lambda: listening.append(listens(job.port())))
    assert "booking:" in printed
    assert listening == [True]
    until = time.monotonic() + ORPHAN_ENDS_WITHIN_S
    while listens(job.port()) and time.monotonic() < until:
        time.sleep(0.05)  # the end of another process has no event to wait for
    assert not listens(job.port())


def test_a_calendar_that_differs_is_noticed_and_a_fresh_start_mends_it(job: Job) -> None:
    """The control of every "calendar agrees: yes": one event lost and one too many."""
    assert job.finish()[0] == 0

    def disturb(calendar: Calendar) -> None:
        calendar.search(event=True)[0].delete()
        calendar.add_event(FOREIGN_EVENT)

    job.on_the_calendar(disturb)
    code, out = job.finish()
    assert code == 1
    assert "calendar agrees: no" in out
    assert "reconciliation: NOT WELL" in out
    assert "foreign: in the calendar, but not confirmed" in out
    assert "confirmed, but not in the calendar" in out

    code, out = job.finish("--fresh")
    assert (code, "calendar agrees: yes" in out) == (0, True), out


def test_a_second_run_beside_the_first_is_told_who_holds_the_store(job: Job) -> None:
    with job.running() as first:
        assert first.stdout is not None
        while "booking:" not in first.stdout.readline():
            assert first.poll() is None
        first.send_signal(signal.SIGSTOP)  # or it might be done before the second has begun
        for more in ((), ("--fresh",)):
            code, out = job.finish(*more)
            assert code == 1
            assert f"held by process {first.pid}" in out
        first.send_signal(signal.SIGCONT)
        out, _ = first.communicate(timeout=ENDS_WITHIN_S)
    assert (first.returncode, "calendar agrees: yes" in out) == (0, True), out


def test_it_leaves_a_report_and_a_line_for_each_refusal(job: Job) -> None:
    code, out = job.finish("--all", "--json")
    assert code == 0, out
    assert job.places.report.exists()
    lines = job.places.refusals.read_text().splitlines()
    assert lines
    assert all(": refused: " in line for line in lines)


@pytest.mark.parametrize("words", [("--corpus", "nowhere"), ("--store", "sqlite:///x.db"), ("--provider", "local:")])
def test_what_it_cannot_do_is_refused(job: Job, words: tuple[str, str]) -> None:
    code, out = job.finish(*words)
    assert code == 2
    assert "Traceback" not in out
