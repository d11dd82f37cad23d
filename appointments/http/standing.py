"""Whether this process takes commands: not while it stops, and not while its store refuses them."""

import asyncio
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")

REFUSED_FOR = timedelta(seconds=5)
"""How long after a write was refused this process calls itself not ready; then a caller may try again."""


class Standing:
    """One for a store; those of an application stop together."""

    def __init__(self, stopping: asyncio.Event) -> None:
        self._stopping = stopping
        self._refused_at: datetime | None = None

    @property
    def stopping(self) -> bool:
        """It takes no new commands any more, and lets those that run end."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Take no new commands from here on."""
        self._stopping.set()

    def refused(self, now: datetime) -> None:
        """The store has just refused a write."""
        self._refused_at = now

    def refuses(self, now: datetime) -> bool:
        """Whether it did so lately."""
        return self._refused_at is not None and now < self._refused_at + REFUSED_FOR

    async def unless_stopping(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What the work comes to; None when this process stops before that."""
        doing = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((doing, stopping), return_when=asyncio.FIRST_COMPLETED)
            return doing.result() if doing.done() else None
        finally:
            doing.cancel()
            stopping.cancel()
