"""The main job: book a corpus of real calendar files into a real CalDAV server, and check what came of it.

Server, calendar and log lie in one folder, so that what a killed run left is finished by the next one.
"""

import asyncio
import re
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import IO
from uuid import UUID

from pydantic import SecretStr

from appointments import bootstrap
from appointments.cli.agreement import Agreement, CalendarHome, compare
from appointments.cli.book_file import DEADLINE_MS, TOLD, line, note, until_the_end_s, waiting_for
from appointments.cli.bulk import Booked, BulkBooking, Outcome, Tally
from appointments.cli.progress import ProgressReport
from appointments.cli.session import Session
from appointments.intake import Item, read_file
from appointments.intake.corpus import corpus, corpus_versions
from appointments.orchestrator import Orchestrator
from appointments.proof import Proof, prove
from appointments.radicale import RadicaleServer
from appointments.settings import Settings
from domain.provider import Value
from providers.caldav import CalDavProvider
from saga.clock import WallClock

USER, CALENDAR = "main-job", "main"
ZONE = "Europe/Berlin"
"""Of times in the files that name no zone."""


@dataclass(frozen=True, slots=True)
class Places:
    """The folders of the main job."""

    data: Path
    results: Path
    logs: Path

    @property
    def home(self) -> Path:
        """Server, calendar and log."""
        return self.data / "calendars"

    @property
    def store(self) -> Path:
        """The log."""
        return self.home / "appointments.db"

    @property
    def refusals(self) -> Path:
        """One line for each item that was not booked."""
        return self.results / "refusals.txt"

    @property
    def report(self) -> Path:
        """The report of the last run that came to its end."""
        return self.results / "main_job.json"

    @property
    def log(self) -> Path:
        """One JSON line for each fact, masked."""
        return self.logs / "main_job.txt"


class Report(Value):
    """What came of a run."""

    generated_at: datetime
    files: int
    corpus: dict[str, str]
    """The packages that the files come from, with their versions."""
    counts: dict[str, int]
    refused_because: dict[str, int]
    calendar: Agreement
    proof: Proof
    seconds: float
    example: UUID | None


def settings_of(given: Settings, places: Places, url: str = "", password: str = "") -> Settings:
    """The settings in force, with the main job's own server and log."""
    own = {
        "store": f"sqlite:///{places.store}",
        "provider": f"caldav+{url}",
        "provider_username": USER,
        "provider_password": SecretStr(password),
        "calendars": {},
        "notify_url": None,
        "callback_url": None,
        "callback_secret": None,
        "deadline_ms": DEADLINE_MS,
        "log_file": places.log,
    }
    return given.model_copy(update=own)


async def start_anew(given: Settings, places: Places) -> None:
    """Forget what earlier runs booked. Raises `StoreLocked` while one of them goes on."""
    if not places.store.exists():
        return
    store = await bootstrap.open_store(settings_of(given, places))
    gone = places.home.with_name(places.home.name + "-gone")
    try:
        # In one step, for half a folder would look like a calendar that lost its events.
        await asyncio.to_thread(_move_away, places.home, gone)
    finally:
        await store.close()
    await asyncio.to_thread(shutil.rmtree, gone)


async def run(session: Session, places: Places, files: tuple[Path, ...], in_flight: int) -> Report:
    """Book the files, go on where an earlier run stopped, and compare calendar and log."""
    for folder in (places.results, places.logs):
        folder.mkdir(parents=True, exist_ok=True)
    began, password = time.perf_counter(), secrets.token_urlsafe(24)
    # The log's lock comes first: it keeps a second run from taking over the server of the first.
    store = await bootstrap.open_store(settings_of(session.settings, places))
    try:
        async with RadicaleServer(places.home, USER, password) as server:
            settings = settings_of(session.settings, places, server.url, password)
            home = CalendarHome(server.url, USER, password, CALENDAR)
            provider = bootstrap.make_provider(settings, WallClock())
            assert isinstance(provider, CalDavProvider)
            async with Orchestrator.open(settings, providers=(provider,), store=store) as desk:
                await provider.ensure_calendar(CALENDAR)
                told = await _book(session, desk, places, files, in_flight)
                agreement = await compare(store, home)
                proof = await prove(desk, store, CALENDAR, places.results)
    finally:
        await store.close()
    report = Report(
        generated_at=WallClock().now(),
        files=len(files),
        corpus=corpus_versions(),
        counts=told.tally.counts(),
        refused_because=dict(told.reasons.most_common()),
        calendar=agreement,
        proof=proof,
        seconds=round(time.perf_counter() - began, 1),
        example=told.example,
    )
    places.report.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return report


def corpus_files(folder: Path | None) -> tuple[Path, ...]:
    """The files to book: those of a folder, or the corpus."""
    return corpus() if folder is None else tuple(sorted(folder.rglob("*.ics")))


def items(files: Iterable[Path]) -> Iterator[Item]:
    """Every item of every file; a file is named by its package and place in it, wherever that is installed."""
    for path in files:
        source = "/".join(path.parts[-3:])
        for item in read_file(path, CALENDAR, ZONE):
            yield replace(item, source=source)


async def _book(
    session: Session, desk: Orchestrator, places: Places, files: tuple[Path, ...], in_flight: int
) -> "_Told":
    total = await asyncio.to_thread(lambda: sum(1 for _ in items(files)))
    with places.refusals.open("w", encoding="utf-8") as refusals, ProgressReport(session, "booking", total) as progress:
        told = _Told(refusals, progress)
        bulk = BulkBooking(desk, told, until_the_end_s(desk.settings), in_flight)
        async with progress.while_waiting(lambda: waiting_for(desk, bulk.tally)):
            told.tally = await bulk.run(items(files))
    return told


class _Told:
    """Hears of every item: keeps what the report needs, and writes a line for each that was not booked."""

    def __init__(self, refusals: IO[str], progress: ProgressReport) -> None:
        self._refusals, self._progress = refusals, progress
        self.reasons: Counter[str] = Counter()
        self.tally = Tally()
        self.example: UUID | None = None

    def __call__(self, booked: Booked, tally: Tally) -> None:
        if booked.outcome in TOLD:
            self._refusals.write(line(booked) + "\n")
        if booked.outcome is Outcome.REFUSED:
            self.reasons[kind_of(booked.reason or "")] += 1
        self.example = self.example or booked.id
        self._progress.advance(note(tally))


def kind_of(reason: str) -> str:
    """A reason without what differs from item to item, so that items can be counted by it."""
    plain = re.sub(r"'[^']*'", "'…'", reason)
    return re.sub(r"\d+", "N", re.sub(r"^line \d+: ", "", plain))


def _move_away(folder: Path, gone: Path) -> None:
    if gone.exists():
        shutil.rmtree(gone)
    folder.rename(gone)
