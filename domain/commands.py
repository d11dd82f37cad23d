"""Commands: what may be asked of an appointment, checked at the border with limits. Imperative, frozen, total."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from domain.errors import InvalidFields
from domain.local_time import is_zone
from domain.provider import BookingStatus, Party, ProviderBooking, Value

DURATION_MAX = timedelta(days=366)
YEARS = (1970, 2200)
SUMMARY_MAX = 255


def _printable(text: str) -> str:
    if any((ord(c) < 32 and c not in "\t\n") or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in text):
        raise ValueError("holds control characters")
    return text


def _known_zone(name: str) -> str:
    if not is_zone(name):
        raise ValueError(f"no such IANA time zone: {name!r}; one would be 'Europe/Berlin'")
    return name


def _utc(instant: datetime) -> datetime:
    if not YEARS[0] <= instant.year < YEARS[1]:
        raise ValueError(f"the year must lie in {YEARS[0]}..{YEARS[1] - 1}")
    return instant.astimezone(UTC)


Text255 = Annotated[str, StringConstraints(min_length=1, max_length=SUMMARY_MAX), AfterValidator(_printable)]
Reason = Annotated[str, StringConstraints(max_length=500), AfterValidator(_printable)]
Instant = Annotated[AwareDatetime, AfterValidator(_utc)]
TimeZoneName = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_known_zone)]
Key = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,255}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:@-]{1,128}$")]
Traceparent = Annotated[str, StringConstraints(pattern=r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")]
"""A W3C trace context: whose trace something belongs to. It decides nothing."""
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=40), AfterValidator(_printable)]
MetadataValue = Annotated[str, StringConstraints(max_length=500), AfterValidator(_printable)]


class PolicyOverride(Value):
    """What one booking may set otherwise than its saga. Times in milliseconds."""

    attempts_max: int | None = Field(default=None, ge=1, le=100)
    timeout_ms: int | None = Field(default=None, ge=10, le=300_000)
    backoff_ms: int | None = Field(default=None, ge=0, le=3_600_000)


class BookAppointment(Value):
    """Book this. Times are instants; `time_zone` is the IANA zone in which people read them."""

    calendar: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,64}$")]
    start: Instant
    end: Instant
    time_zone: TimeZoneName
    summary: Text255
    location: Annotated[str, StringConstraints(max_length=255), AfterValidator(_printable)] | None = None
    organizer: Party | None = None
    attendees: Annotated[tuple[Party, ...], Field(max_length=50)] = ()
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=50)] = Field(default_factory=dict)
    deadline_ms: Annotated[int, Field(ge=100, le=86_400_000)] | None = None
    all_day: bool = False
    recurrence: Annotated[str, StringConstraints(min_length=1, max_length=500), AfterValidator(_printable)] | None = (
        None
    )
    policy: PolicyOverride | None = None

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        check_times(self.start, self.end)
        return self


class ImportBooking(Value):
    """Take over a booking that another system made: what it was to be, and how it stands at the provider."""

    booked: BookAppointment
    booking: ProviderBooking
    source: Name
    """The system that made it."""

    @field_validator("booking")
    @classmethod
    def _check_settled(cls, booking: ProviderBooking) -> ProviderBooking:
        if booking.status is not BookingStatus.ACCEPTED:
            raise ValueError(f"a booking that is {booking.status} cannot be taken over, only one that is accepted")
        return booking


class CancelAppointment(Value):
    """Cancel it, whatever its provider says by then."""

    reason: Reason = ""


class RescheduleAppointment(Value):
    """Move it to another time; without `time_zone` it keeps the one that it has."""

    start: Instant
    end: Instant
    time_zone: TimeZoneName | None = None

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        check_times(self.start, self.end)
        return self


class OperatorAction(StrEnum):
    """What an operator may do by hand."""

    RETRY = "retry"
    SKIP = "skip"
    FORCE_COMPLETE = "force_complete"
    COMPENSATE = "compensate"
    PARK = "park"
    RESUME = "resume"


class Act(Value):
    """An operator's action; who and why are part of it."""

    action: OperatorAction
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500), AfterValidator(_printable)]
    step: Name | None = None


class Repair(StrEnum):
    """What is to come of a booking that was seen otherwise than the log says."""

    ADOPT = "adopt"
    """The log takes over what was seen."""
    RESTORE = "restore"
    """The provider is brought back to what the log says."""
    PARK = "park"
    """An operator decides."""
    REMOVE = "remove"
    """A leftover of an ended appointment is taken away."""


class ReportBooking(Value):
    """This was seen at the provider (None: nothing was there). Its times are instants, both told or neither."""

    seen: ProviderBooking | None
    repair: Repair
    reason: Reason = ""

    @field_validator("seen")
    @classmethod
    def _check_seen(cls, seen: ProviderBooking | None) -> ProviderBooking | None:
        if seen is None:
            return None
        if seen.summary is not None:
            # A stranger's title is taken over as far as a booking may have it.
            title = "".join(c if c.isprintable() else " " for c in seen.summary[:SUMMARY_MAX])
            seen = seen.model_copy(update={"summary": title.strip() or None})
        if (seen.start is None) != (seen.end is None):
            raise ValueError("start and end are told together, or neither")
        if seen.start is None or seen.end is None:
            return seen
        if seen.start.tzinfo is None or seen.end.tzinfo is None:
            raise ValueError("start and end need an offset")
        return seen.model_copy(update={"start": _utc(seen.start), "end": _utc(seen.end)})


class Request(Value):
    """Who asks, under which key, in which conversation."""

    tenant: Name = "default"
    actor: Name = "anonymous"
    key: Key
    correlation_id: Annotated[str, StringConstraints(max_length=128), AfterValidator(_printable)] | None = None
    traceparent: Traceparent | None = None
    action_label: Annotated[str, StringConstraints(max_length=64)] | None = None
    expected_version: int | None = Field(default=None, ge=0)
    callback_url: Annotated[str, StringConstraints(max_length=1_024)] | None = None
    """Where the provider is to call back; recorded, so that every attempt sends the same body."""


T = TypeVar("T")
Command = BookAppointment | ImportBooking | CancelAppointment | RescheduleAppointment | Act | ReportBooking


def check_times(start: datetime, end: datetime) -> None:
    """Raise ValueError unless `end` follows `start` by at most 366 days."""
    if end <= start:
        raise ValueError("end must be later than start")
    if end - start > DURATION_MAX:
        raise ValueError(f"an appointment lasts at most {DURATION_MAX.days} days")


def parse(model: type[T], fields: Any) -> T:
    """Check outside data against a command model; raises `InvalidFields` with one (pointer, detail) for each fault."""
    try:
        return TypeAdapter(model).validate_python(fields)
    except ValidationError as faults:
        raise refusal(faults) from None


def refusal(faults: ValidationError) -> InvalidFields:
    """A validation error as a refusal: (JSON pointer, detail) pairs without the input values."""
    errors = tuple(
        ("/" + "/".join(str(part) for part in fault["loc"]), fault["msg"].removeprefix("Value error, "))
        for fault in faults.errors(include_input=False, include_url=False)
    )
    # A fault of the whole has no pointer of its own.
    told = (detail if pointer == "/" else f"{pointer}: {detail}" for pointer, detail in errors)
    return InvalidFields("; ".join(told), errors)
