"""The baseline: the `eventsourcing` library used directly, one save for each transition, nothing to resume it."""

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event


class Booking(Aggregate):
    """An appointment as the library's tutorial would write it."""

    @event("Requested")
    def __init__(self, summary: str, start: str, end: str) -> None:
        self.summary, self.start, self.end = summary, start, end
        self.state = "requested"

    @event("StepStarted")
    def begin(self, step: str, operation_id: str) -> None:
        """A call is announced."""
        self.state = step

    @event("StepSucceeded")
    def succeed(self, step: str, reference: str) -> None:
        """A call has succeeded."""
        self.reference = reference

    @event("Confirmed")
    def confirm(self) -> None:
        """The end."""
        self.state = "confirmed"


class Desk(Application[UUID]):
    """Books in the same process: the same six transitions, calling nobody."""

    def book(self, n: int, saves: int) -> None:
        """One saga, with a save for each transition (6), or where ours commits (3)."""
        booking = Booking("Check-up", "2031-03-03T09:00:00Z", "2031-03-03T09:30:00Z")
        transitions: tuple[Callable[[], None], ...] = (
            lambda: booking.begin("calendar", f"operation-{n}"),
            lambda: booking.succeed("calendar", f"reference-{n}"),
            lambda: booking.begin("notify", f"notice-{n}"),
            lambda: booking.succeed("notify", ""),
            booking.confirm,
        )
        if saves == len(transitions) + 1:
            self.save(booking)
        for number, transition in enumerate(transitions):
            transition()
            if saves == len(transitions) + 1 or number % 2 == 0:
                self.save(booking)


def open_desk(file: Path) -> Desk:
    """An application of the library on its own SQLite recorder; it leaves `synchronous` at SQLite's default, FULL."""
    return Desk(env={"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(file)})
