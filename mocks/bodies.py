"""What clients may send: bodies, keys and references, held to every limit of the contract."""

import hashlib
import json
import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any, NoReturn, Self, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from mocks.answers import Refusal

BODY_BYTES_MAX = 1_048_576
"""More than any body within the limits takes, however it is escaped."""
DEPTH_MAX = 32
"""What is kept is shown again: deeper bodies could be read, and never be written by the control plane."""
DURATION_MAX = timedelta(hours=24)
KEY = re.compile(r"[!-~]{8,255}")
CLIENT_REF = re.compile(r"[A-Za-z0-9_-]{8,64}")
CALENDAR_ID = re.compile(r"[a-z0-9-]{1,64}")
UTC_INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]00:00)")

Model = TypeVar("Model", bound=BaseModel)


def _instant(text: str) -> str:
    if not UTC_INSTANT.fullmatch(text):
        raise ValueError("not an RFC 3339 time in UTC")
    try:
        moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text.upper().replace(" ", "T")))
    except ValueError:
        raise ValueError("no such time") from None
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


@lru_cache(maxsize=1_024)
def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("not an IANA time zone") from None
    return name


Instant = Annotated[str, Field(max_length=40), AfterValidator(_instant)]
Zone = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_+/-]+$"), AfterValidator(_zone)]
Email = Annotated[str, Field(min_length=3, max_length=255, pattern=r"^[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+$")]
ClientRef = Annotated[str, Field(pattern=rf"^{CLIENT_REF.pattern}$")]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Organizer(_Body):
    """Who calls the appointment."""

    email: Email


class Attendee(_Body):
    """Who comes."""

    email: Email
    name: str | None = Field(default=None, max_length=255)


class CreateBody(_Body):
    """Body of POST /bookings."""

    client_ref: ClientRef | None = None
    calendar_id: str = Field(pattern=rf"^{CALENDAR_ID.pattern}$")
    start: Instant
    end: Instant
    time_zone: Zone
    summary: str = Field(min_length=1, max_length=255)
    location: str | None = Field(default=None, max_length=255)
    organizer: Organizer
    attendees: tuple[Attendee, ...] = Field(min_length=1, max_length=50)
    callback_url: str | None = Field(default=None, max_length=2_048, pattern=r"^https?://[!-~]+$")
    metadata: dict[Annotated[str, Field(min_length=1, max_length=40)], Annotated[str, Field(max_length=500)]] = Field(
        default_factory=dict, max_length=50
    )

    @model_validator(mode="after")
    def _has_a_duration(self) -> Self:
        _check_duration(self.start, self.end)
        return self


class RescheduleBody(_Body):
    """Body of POST /bookings/{id}/reschedule."""

    start: Instant
    end: Instant
    time_zone: Zone | None = None

    @model_validator(mode="after")
    def _has_a_duration(self) -> Self:
        _check_duration(self.start, self.end)
        return self


class CancelBody(BaseModel):
    """Body of POST /bookings/{id}/cancel; may be absent."""

    model_config = ConfigDict(frozen=True, extra="allow")


class NotifyBody(BaseModel):
    """Body of POST /notifications; fields that it does not name are taken as they are."""

    model_config = ConfigDict(frozen=True, extra="allow")

    client_ref: ClientRef | None = None
    type: str = Field(min_length=1, max_length=64)


class ControlSettings(_Body):
    """Body of POST /_control/settings."""

    lenient: bool


def parse(raw: bytes) -> Any:
    """The JSON value of a body; 400 unless it is exactly one, without repeated names and not nested without end."""
    try:
        content = json.loads(
            raw.decode(), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite_number
        )
    except (ValueError, RecursionError) as problem:
        raise Refusal(400, "malformed_json", f"The body is not JSON: {str(problem)[:200]}") from None
    level = [content]
    for _ in range(DEPTH_MAX):
        level = [inner for value in level for inner in _inside(value)]
    if level:
        raise Refusal(400, "malformed_json", f"The body is nested more than {DEPTH_MAX} deep.")
    return content


def read(model: type[Model], content: Any) -> Model:
    """The content as a model; 422 names the fields at fault."""
    try:
        return model.model_validate(content)
    except ValidationError as problem:
        faults = "; ".join(f"/{'/'.join(map(str, e['loc']))}: {e['msg']}" for e in problem.errors()[:10])
        raise Refusal(422, "invalid_fields", _printable(faults)[:2_000]) from None


def fingerprint(*parts: Any) -> str:
    """The same for the same content, whatever the order of its fields."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read_key(given: str | None, *, required: bool) -> str | None:
    """The Idempotency-Key of a request; 400 where it is missing but required, or malformed."""
    if given is None and required:
        raise Refusal(400, "idempotency_key_missing", "The header Idempotency-Key is required.")
    if given is not None and not KEY.fullmatch(given):
        raise Refusal(400, "idempotency_key_malformed", f"Idempotency-Key does not match {KEY.pattern}.")
    return given


def read_name(name: str, given: str, pattern: re.Pattern[str]) -> str:
    """A query parameter that must match a pattern; 422 where it does not."""
    if not pattern.fullmatch(given):
        raise Refusal(422, "invalid_fields", f"/{name}: does not match {pattern.pattern}")
    return given


def read_limit(given: str) -> int:
    """The page size of a listing, 1 to 100; 422 where it is not."""
    if not re.fullmatch(r"[0-9]{1,3}", given) or not 1 <= int(given) <= 100:
        raise Refusal(422, "invalid_fields", "/limit: is not 1 to 100")
    return int(given)


def _check_duration(start: str, end: str) -> None:
    duration = datetime.fromisoformat(end) - datetime.fromisoformat(start)
    if duration <= timedelta(0):
        raise ValueError("end is not after start")
    if duration > DURATION_MAX:
        raise ValueError("longer than 24 hours")


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is given twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is out of range")
    return number


def _printable(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
