"""What the figures say, as frozen models."""

from datetime import datetime

from pydantic import Field

from domain.provider import Value
from projections.histogram import Latency

UNANSWERED = "interrupted"
"""Nobody waited for the end of such a call: its time is that of the standstill, and is kept out of `Took.all`."""


class Took(Value):
    """How long it took: in all (calls: those that came to an end while somebody waited), and by outcome."""

    all: Latency = Latency()
    by_outcome: dict[str, Latency] = Field(default_factory=dict)


class OperationFigures(Value):
    """One operation (action, compensation, reschedule) of one step. An attempt after the first is a retry."""

    operation: str
    attempts: int
    retries: int
    took: Took


class StepFigures(Value):
    """One step of the bookings at one provider."""

    provider: str
    step: str
    operations: tuple[OperationFigures, ...]
    lookups: dict[str, int]
    """By what they saw: found, missing, failed."""
    in_doubt: int
    deferred: int
    """Waits for a breaker, each recorded once for each appointment."""


class ProviderFigures(Value):
    """The bookings at one provider. Everything but `now`, `unfinished` and `parked_now` is of the window."""

    provider: str
    requested: int
    imported: int
    """Taken over from another system: counted neither as requested nor as confirmed."""
    confirmed: int
    failed: dict[str, int]
    """First ends without a booking, by reason."""
    withdrawn: int
    """Cancelled by request before there was an end."""
    cancelled: int
    """Cancelled by request after they had been confirmed."""
    success_rate: float | None
    """confirmed / (confirmed + failed); None when there was neither."""
    forced: int
    """Ends, of any kind, that an operator forced: they are counted above as well."""
    rescheduled: int
    reschedules_failed: dict[str, int]
    rebooked: int
    """Made again because the booking had gone from the provider."""
    rebookings_failed: dict[str, int]
    repairs: dict[str, int]
    """Bookings that were seen otherwise than the log says, by what was to come of it."""
    attempts: int
    retries: int
    compensations: dict[str, int]
    """Times that a booking was given up, by reason."""
    undo_calls: int
    lookups_failed: int
    deferred: int
    callbacks: int
    orphan_callbacks: int
    """Kept for an operator: of no tenant, because nobody here knows their reference."""
    late_successes: int
    parked: int
    operator_actions: dict[str, int]
    booking: Took
    """From the request to the first end."""
    rebooking: Took
    move: Took
    cancel: Took
    cleanup: Took
    """From a late success until it was undone."""
    now: dict[str, int]
    """Appointments by state."""
    unfinished: int
    parked_now: int


class HourFigures(Value):
    """How many bookings came to their first end in one hour."""

    hour: datetime
    confirmed: int
    failed: int


class BreakerFigures(Value):
    """Openings of one target's breaker that the log tells of: at least so many there were."""

    target: str
    openings: int


class FiguresReport(Value):
    """The figures of a window of whole hours, and what stands now."""

    since: datetime | None
    until: datetime | None
    tenant: str | None
    total: ProviderFigures
    """All providers together, under the name `*`."""
    providers: tuple[ProviderFigures, ...]
    steps: tuple[StepFigures, ...]
    breakers: tuple[BreakerFigures, ...]
