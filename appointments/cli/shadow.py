"""`shadow`: what this system would have made of the legacy system's traffic, from a file, also while it is written."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from appointments import bootstrap
from appointments.cli import render
from appointments.cli.command import command
from appointments.cli.ending import ExitCode
from appointments.cli.progress import ProgressReport
from appointments.cli.session import Session
from appointments.migration.shadow import Report, Shadow
from appointments.migration.traffic import LINE_MAX, Wish, Wishes, read
from domain.errors import InvalidFields
from domain.provider import Confirmed, WriteOutcome
from saga.clock import WallClock
from saga.definition import StepCall

BATCH = 500
"""Wishes judged at once."""
LOOK_EVERY_S = 0.5
SOURCES = {"recorded": "as recorded", "neighbours": "as others got them then", "assumed": "assumed"}


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    command(app, "shadow", "appointments shadow gateway.jsonl --follow --same-within 60")(shadow)


async def shadow(
    session: Session,
    file: Annotated[str, typer.Argument(help="Requests at the provider, one JSON object a line.", metavar="FILE")],
    follow: Annotated[bool, typer.Option("--follow", help="Go on as the file grows, until interrupted.")] = False,
    same_within: Annotated[
        float,
        typer.Option(min=0, max=86_400, help="Equal requests so close together are clicks on one thing: seconds."),
    ] = 60.0,
    patience: Annotated[
        float, typer.Option(min=0.1, max=86_400, help="After so long a user was left without an answer: seconds.")
    ] = 10.0,
) -> ExitCode:
    """Decide what the legacy system was asked for as this system would have, and show where both differ.

    Nobody is called, and nothing is written. Exit code 1 where they differ.
    """
    path = _readable(file)
    judge = await _shadow(session, timedelta(seconds=patience))
    watch = _Watch(session, judge, Wishes(timedelta(seconds=same_within)))
    try:
        await watch.run(path, follow)
    except asyncio.CancelledError:
        if not follow:
            raise
        # To interrupt is how following ends.
        with suppress(asyncio.CancelledError):
            await watch.close()
    found = judge.report()
    session.answer(found.model_dump(mode="json"), _shown(found))
    if not found.wishes:
        session.note(f"{file} holds no request that books")
        return ExitCode.REFUSED
    return ExitCode.FAILED if found.differing or found.unreadable else ExitCode.DONE


def _readable(file: str) -> Path:
    path = Path(file)
    if not path.is_file():
        raise InvalidFields(f"{file}: there is no such file", (("/file", "no such file"),))
    return path


async def _shadow(session: Session, patience: timedelta) -> Shadow:
    async def nobody(_asked: StepCall) -> WriteOutcome:
        return Confirmed()

    provider = bootstrap.make_provider(session.settings, WallClock())
    plan = bootstrap.booking_saga(session.settings, nobody).plan(provider)
    await provider.close()
    return Shadow(plan, bootstrap.make_limits(session.settings), patience)


class _Watch:
    """Reads, gathers and has judged."""

    def __init__(self, session: Session, judge: Shadow, wishes: Wishes) -> None:
        self._session, self._judge, self._wishes = session, judge, wishes
        self._closed: list[Wish] = []
        self._lines = 0

    async def run(self, path: Path, follow: bool) -> None:
        """To the end of the file; with `follow`, until cancelled."""
        with ProgressReport(self._session, "requests", None if follow else _count(path)) as progress:
            async for line in _lines(path, follow):
                self._take(line)
                progress.advance(self._note())
                if len(self._closed) >= BATCH or (follow and self._closed):
                    await self._judge_closed()
        await self.close()

    async def close(self) -> None:
        """No more will come."""
        self._closed += self._wishes.closed(None)
        await self._judge_closed()

    def _take(self, line: bytes) -> None:
        self._lines += 1
        if not line.strip():
            return
        try:
            record = read(line)
        except InvalidFields as fault:
            self._judge.line(f"line {self._lines}: {fault.detail}")
            return
        self._judge.line(passed_over=not record.books)
        if record.books:
            self._closed += self._wishes.add(record, self._lines)

    async def _judge_closed(self) -> None:
        wishes, self._closed = self._closed, []
        for begin in range(0, len(wishes), BATCH):
            await asyncio.to_thread(self._judge.judge, wishes[begin : begin + BATCH])

    def _note(self) -> str:
        found = self._judge.report()
        return f"{found.wishes} judged, {found.differing} differ"


async def _lines(path: Path, follow: bool) -> AsyncIterator[bytes]:
    """The lines of a file. Followed, one that is not ended is waited for, and a file that was cut is begun anew."""
    with path.open("rb") as opened:
        rest = b""
        while True:
            some = opened.readline(LINE_MAX + 1)
            rest += some
            if rest.endswith(b"\n") or len(rest) > LINE_MAX:
                yield rest
                rest = b""
            elif not some:
                if not follow:
                    if rest:
                        yield rest
                    return
                if os.fstat(opened.fileno()).st_size < opened.tell():
                    opened.seek(0)
                await asyncio.sleep(LOOK_EVERY_S)


def _count(path: Path) -> int | None:
    with path.open("rb") as opened:
        return sum(1 for _ in opened) or None


def _shown(found: Report) -> RenderableType:
    told = ", ".join(f"{count} {SOURCES[source]}" for source, count in found.answers.items())
    facts = render.pairs(
        (
            ("requests", f"{found.lines}, {found.passed_over} of them book nothing"),
            ("unreadable", Text(str(found.unreadable), "bold red") if found.unreadable else None),
            ("wishes", f"{found.wishes}, in {found.clicks} clicks"),
            ("without content", str(found.without_content) if found.without_content else None),
            ("both the same", str(found.wishes - found.differing)),
            ("differ", Text(str(found.differing), style="bold")),
            ("booking calls", f"{found.calls_legacy} there, {found.calls_ours} here"),
            ("answers", told),
        )
    )
    parts: list[RenderableType] = [facts]
    if found.kinds:
        kinds = render.table("how many", "in what they differ", "line", "there", "here")
        for kind, count in found.kinds.items():
            first = found.examples[kind][0]
            kinds.add_row(*(Text(str(cell)) for cell in (count, kind, first.line, first.legacy, first.ours)))
        parts += [Text(""), kinds, Text("one example each: --json gives more")]
    parts += [Text(fault) for fault in found.faults]
    return Group(*parts)
