"""What a projection is: a read model folded from the log in order of position, thrown away and rebuilt at will."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from sqlalchemy import Connection, MetaData

from domain.appointment import Appointment
from domain.events import Event
from store.port import RecordedEvent


class Change(NamedTuple):
    """One event of the log, with the appointment's state before and after it (both None outside appointments)."""

    recorded: RecordedEvent
    event: Event
    before: Appointment | None
    after: Appointment | None


class Projection(Protocol):
    """A read model in tables of its own. What `apply` writes depends on the changes alone, never on clock or chance."""

    name: str
    version: int
    """Raised whenever the tables or the fold change: an older file is thrown away and refilled."""
    metadata: MetaData

    def apply(self, connection: Connection, changes: Sequence[Change]) -> None:
        """Fold a batch, in order of position, inside the caller's transaction."""
        ...
