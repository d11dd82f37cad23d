"""What a reconciliation says: closed lists of classes and repairs, a finding, a report. Holds no personal text."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal
from uuid import UUID

from pydantic import Field

from domain.events import Operation
from domain.provider import ProviderBooking, Value


class Kind(StrEnum):
    """The class of one appointment, or of one entry in the calendar."""

    MATCHED = "matched"
    MISSING = "missing"
    """Confirmed, but not in the calendar, or cancelled there."""
    ORPHANED = "orphaned"
    """Live in the calendar, without a live intention."""
    DRIFTED = "drifted"
    """There, but with other fields."""
    DUPLICATED = "duplicated"
    """More than one live booking under one reference."""
    STUCK = "stuck"
    """Unfinished and overdue, or with nothing that would ever take it up."""
    IN_DOUBT = "in_doubt"
    """The outcome of a step is not known."""
    PARKED = "parked"
    """Stopped for an operator."""


class Proposal(StrEnum):
    """The repair that is proposed."""

    NONE = "none"
    ADOPT = "adopt"
    """Take over what the calendar shows."""
    RESTORE = "restore"
    """Bring the calendar back to what the log says."""
    PARK = "park"
    """Stop the appointment and let an operator decide."""
    RETRY = "retry"
    """Take the open step up again."""
    REMOVE = "remove"
    """Take a leftover of an ended appointment away."""
    BY_HAND = "by_hand"
    """Nothing that a program should do by itself."""


class Policy(StrEnum):
    """What is proposed for an edit that somebody made in the calendar."""

    ADOPT = "adopt"
    RESTORE = "restore"
    PARK = "park"


@dataclass(frozen=True, slots=True)
class Origin:
    """The event that a finding started from."""

    version: int
    type: str
    at: datetime


class Difference(Value):
    """One field that differs. A summary is never shown: only that it differs."""

    field: Literal["start", "end", "status", "summary"]
    intended: str = ""
    there: str = ""

    def __str__(self) -> str:
        return f"{self.field}: {self.intended} -> {self.there}" if self.intended else f"{self.field}: {self.there}"


@dataclass(frozen=True, slots=True)
class Attempted:
    """The calls for the booking that the log holds; `outcome` is that of the last one."""

    calls: int = 0
    operation: Operation | None = None
    version: int = 0
    outcome: str = "none"
    """none | succeeded | pending | unknown | retryable | rejected | interrupted | in_flight."""


class Finding(Value):
    """What one appointment, or one entry in the calendar, comes to."""

    kind: Kind
    appointment: UUID | None = None
    version: int = 0
    """The appointment's version that was compared."""
    provider_ref: str | None = None
    event: Origin | None = None
    detail: str
    fields: tuple[Difference, ...] = ()
    attempted: Attempted = Attempted()
    repair: Proposal = Proposal.NONE
    seen: ProviderBooking | None = Field(default=None, exclude=True, repr=False)
    """As it was last read there; for the repair, never for the report."""


class Unchecked(Value):
    """A difference that could not be checked again, and so is no finding."""

    appointment: UUID | None = None
    provider_ref: str | None = None
    reason: str


class Report(Value):
    """A reconciliation of one calendar. `findings` are the differences, and the matched ones only where asked for."""

    calendar: str
    provider: str
    tenant: str
    began: datetime
    ended: datetime
    mode: Literal["full", "changes"]
    note: str = ""
    """What to know about it: why the whole calendar was read although changes were asked for; that it is empty."""
    listed: int
    """Bookings that the provider listed, but for those that the log knows to be another tenant's."""
    strangers: int = 0
    """Bookings that the log does not know; they are among the orphaned."""
    checked_again: int
    in_progress: int
    """Unfinished, due in the future, nothing wrong; or changing while it was looked at."""
    counts: dict[Kind, int]
    findings: tuple[Finding, ...]
    unchecked: tuple[Unchecked, ...] = ()

    @property
    def differences(self) -> int:
        """How many there are, whichever of them are shown."""
        return sum(count for kind, count in self.counts.items() if kind is not Kind.MATCHED)

    @property
    def agrees(self) -> bool:
        """Everything is matched or in progress."""
        return not self.unchecked and not self.differences
