"""The clock that everything is given. The only place where the wall clock is read."""

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time; a test's clock tells whatever it was told."""

    def now(self) -> datetime:
        """The present instant, UTC."""
        ...


class WallClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The present instant, UTC."""
        return datetime.now(UTC)  # noqa: TID251 -- this is the Clock
