"""`book --file`: a file of appointments, booked in bulk; progress, one line for each refusal, and a summary."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from appointments.cli import render
from appointments.cli.bulk import Booked, BulkBooking, Outcome, Tally
from appointments.cli.ending import ExitCode
from appointments.cli.progress import ProgressReport
from appointments.cli.session import Session
from appointments.intake import FORMATS, read_file
from appointments.intake.items import FILE_BYTES_MAX
from appointments.orchestrator import Orchestrator
from appointments.settings import Settings
from domain.errors import InvalidFields

TOLD = {
    Outcome.REFUSED: "refused",
    Outcome.FAILED: "failed",
    Outcome.CANCELLED: "was cancelled",
    Outcome.PARKED: "parked",
    Outcome.IN_PROGRESS: "still in progress",
}
"""The outcomes that get a line of their own."""


DEADLINE_MS = 86_400_000
"""Of each appointment in a bulk run: one that was interrupted may be gone on with a day later."""


@dataclass(frozen=True, slots=True)
class BulkOptions:
    """What a file does not say itself."""

    calendar: str
    time_zone: str | None
    deadline_ms: int | None
    wait_s: float | None
    in_flight: int


async def book_file(session: Session, file: str, options: BulkOptions) -> ExitCode:
    """Book everything in a file; refused when the file itself cannot be read to its end."""
    path = readable(file)
    items = read_file(path, options.calendar, options.time_zone)
    settings = with_deadline(session.settings, options.deadline_ms)
    wait_s = until_the_end_s(settings) if options.wait_s is None else options.wait_s
    async with Orchestrator.open(settings) as desk:
        with ProgressReport(session, "booking", expected_items(path)) as progress:
            listing = Listing(session, progress)
            bulk = BulkBooking(desk, listing.tell, wait_s, options.in_flight)
            try:
                async with progress.while_waiting(lambda: waiting_for(desk, bulk.tally)):
                    tally = await bulk.run(items)
            finally:
                listing.end(bulk.tally)
    if not session.as_json:
        session.out.print(summary(session, tally))
    code = exit_code(tally.counts())
    return ExitCode.REFUSED if code is ExitCode.DONE and listing.broken else code


def readable(file: str) -> Path:
    """The file, of a format that can be read. Raises `InvalidFields`."""
    path = Path(file)
    if not path.is_file():
        raise InvalidFields(f"--file {file}: there is no such file", (("/file", "no such file"),))
    if path.suffix.lower() not in FORMATS:
        detail = f"the name must end in one of: {', '.join(FORMATS)}"
        raise InvalidFields(f"--file {file}: {detail}", (("/file", detail),))
    return path


def expected_items(path: Path) -> int | None:
    """About how many items a file holds, for the progress bar; None when it cannot be read."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            return None
        lines = path.read_bytes().splitlines()
    except OSError:
        return None
    if path.suffix.lower() in (".ics", ".ical"):
        return sum(line.strip().upper() == b"BEGIN:VEVENT" for line in lines) or None
    filled = sum(bool(line.strip()) for line in lines)
    return (filled - 1 if path.suffix.lower() == ".csv" else filled) or None


def with_deadline(settings: Settings, deadline_ms: int | None) -> Settings:
    """The settings for a bulk run: its own deadline, unless one was chosen."""
    if deadline_ms is None:
        deadline_ms = settings.deadline_ms if "deadline_ms" in settings.model_fields_set else DEADLINE_MS
    return settings.model_copy(update={"deadline_ms": deadline_ms})


def until_the_end_s(settings: Settings) -> float:
    """By then every appointment has ended or is parked: its deadline, and its time for cleaning up. Seconds."""
    return (settings.deadline_ms + settings.cleanup_ms) / 1_000


def exit_code(counts: Mapping[str, int]) -> ExitCode:
    """Refusals are listed, and do not fail a run; an appointment that failed, or is parked, does."""
    if counts[Outcome.FAILED] or counts[Outcome.PARKED]:
        return ExitCode.FAILED
    return ExitCode.IN_PROGRESS if counts[Outcome.IN_PROGRESS] else ExitCode.DONE


def line(booked: Booked) -> str:
    """One line about one item: file, item, what became of it, and why."""
    where = f"{booked.source}: {booked.item}" if booked.item else booked.source
    what = f" ({booked.summary})" if booked.summary and booked.summary != booked.item else ""
    known = f" [{booked.id}]" if booked.id else ""
    return f"{where}{what}: {TOLD.get(booked.outcome, booked.outcome)}: {booked.reason or 'no reason given'}{known}"


def summary(session: Session, tally: Tally) -> RenderableType:
    """What became of all, and where to look further."""
    counts = ((name.replace("_", " "), str(count)) for name, count in tally.counts().items())
    trail = session.again("audit", "ID")
    return Group(render.pairs((*counts, ("audit trail", trail), ("the list", session.again("list")))), Text(""))


def note(tally: Tally) -> str:
    """What stands beside the bar."""
    told = ((tally.waiting, "under way"), (tally[Outcome.REFUSED], "refused"), (tally[Outcome.FAILED], "failed"))
    return ", ".join(f"{count} {word}" for count, word in told if count)


def waiting_for(desk: Orchestrator, tally: Tally) -> str:
    """What stands there while nothing moves: who does not answer."""
    breakers = desk.runtime.lanes.breakers()
    shut = [f"{target} does not answer, trying on" for target, one in breakers.items() if one.open_until is not None]
    return ", ".join(filter(None, (note(tally), *shut)))


class Listing:
    """Tells of the items that need a word: a line for people, or one JSON document that is written as it grows."""

    def __init__(self, session: Session, progress: ProgressReport) -> None:
        self._json, self._file, self._progress = session.as_json, session.out.file, progress
        session.answered = True
        self.broken = False
        """The file as a whole was refused, or what stands behind a break in it."""
        self._separator = '{"items": ['

    def tell(self, booked: Booked, tally: Tally) -> None:
        """One item has come to its outcome."""
        self.broken = self.broken or (booked.outcome is Outcome.REFUSED and not booked.item)
        if booked.outcome in TOLD:
            if self._json:
                self._file.write(self._separator + booked.model_dump_json())
                self._separator = ","
            else:
                self._progress.line(line(booked))
        self._progress.advance(note(tally))

    def end(self, tally: Tally) -> None:
        """Close the document, with the counts."""
        if self._json:
            begun = "" if self._separator == "," else self._separator
            self._file.write(f'{begun}], "counts": {json.dumps(tally.counts())}}}\n')
