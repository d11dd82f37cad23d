"""How far a long run is: a bar on a terminal, a plain line now and then elsewhere."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from appointments.cli.session import Session

PLAIN_LINES = 10
"""Plain lines over a run whose length is known."""
PLAIN_EVERY = 100
"""Items between two plain lines where it is not."""
STILL_EVERY_S = 5.0
"""How long nothing may be done before that is said."""


class ProgressReport:
    """Shows `done` of `total`, and lines about single items above the bar. Use as a context manager."""

    def __init__(self, session: Session, title: str, total: int | None) -> None:
        self._title, self._total = title, total
        self._lines = session.out
        self._plain: Console | None = None if session.out.is_terminal else session.err
        self._every = max(1, total // PLAIN_LINES) if total else PLAIN_EVERY
        self._bar: Progress | None = None
        if self._plain is None and not session.as_json:
            columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
            times = (TimeElapsedColumn(), TimeRemainingColumn())
            note = TextColumn("{task.fields[note]}", markup=False)
            self._bar = Progress(*columns, *times, note, console=session.out, transient=True)
            self._task = self._bar.add_task(title, total=total, note="")
        self.done = 0

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, note: str = "", by: int = 1) -> None:
        """One more is done, or so many more."""
        before, self.done = self.done, self.done + by
        if self._bar is not None or self.done // self._every > before // self._every or self.done == self._total:
            self._show(note)

    @asynccontextmanager
    async def while_waiting(self, note: Callable[[], str]) -> AsyncIterator[None]:
        """Say what is waited for whenever nothing has been done for a while."""
        saying = asyncio.create_task(self._keep_saying(note))
        try:
            yield
        finally:
            saying.cancel()

    async def _keep_saying(self, note: Callable[[], str]) -> None:
        while True:
            before = self.done
            await asyncio.sleep(STILL_EVERY_S)
            if self.done == before:
                self._show(note())

    def _show(self, note: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, note=note)
        elif self._plain is not None:
            of = f" of {self._total}" if self._total else ""
            self._plain.print(Text(f"{self._title}: {self.done}{of}" + (f", {note}" if note else "")), soft_wrap=True)

    def line(self, text: str) -> None:
        """A line about one item, above the bar."""
        self._lines.print(Text(text), soft_wrap=True)
