"""JSON from a provider, read as a stranger's: strict UTF-8, no duplicate keys, no NaN, then a model with limits."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from domain.provider import BookingStatus, ProviderBooking

M = TypeVar("M", bound=BaseModel)
ITEMS_MAX = 1_000


class Unreadable(ValueError):
    """The body is no answer that can be read."""


def _text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("a time must be RFC 3339 text")
    return value


def _utc(instant: datetime) -> datetime:
    return instant.astimezone(UTC)


Instant = Annotated[AwareDatetime, BeforeValidator(_text), AfterValidator(_utc)]
Visible = Annotated[str, Field(pattern=r"^[!-~]{1,1024}$")]


class _Told(BaseModel):
    # providers add fields, so what is not known is left alone
    model_config = ConfigDict(frozen=True, extra="ignore")


class BookingAnswer(_Told):
    """A booking of the `/api/v2` contract."""

    id: Visible
    client_ref: Visible | None = None
    status: BookingStatus
    version: StrictInt = Field(default=1, ge=0, le=2**53)
    etag: Visible | None = None
    start: Instant | None = None
    end: Instant | None = None
    summary: str | None = Field(default=None, max_length=1_000)

    def booking(self, client_ref: str) -> ProviderBooking:
        """The same in the port's terms; `client_ref` stands in where the provider tells none."""
        return ProviderBooking(
            provider_ref=self.id,
            client_ref=self.client_ref or client_ref,
            status=self.status,
            version=self.version,
            etag=self.etag,
            start=self.start,
            end=self.end,
            summary=self.summary,
        )


class ListAnswer(_Told):
    """A page of bookings."""

    items: tuple[BookingAnswer, ...] = Field(max_length=ITEMS_MAX)
    next_sync_token: Annotated[str, Field(max_length=1_024)] | None = None
    has_more: bool = False


def _absent_if_broken(value: object, read: ValidatorFunctionWrapHandler) -> object:
    try:
        return read(value)
    except ValidationError:
        return None


T = TypeVar("T")
Lenient = Annotated[T | None, WrapValidator(_absent_if_broken)]


class ErrorCause(_Told):
    """What an error envelope says; a part that is absent or broken must not hide the others."""

    code: Lenient[str] = None
    message: Lenient[str] = None
    retry_after: Lenient[Annotated[float, Field(ge=0, le=86_400)]] = None

    def text(self) -> str:
        """Code and message in one line."""
        return f"{self.code or ''} {self.message or ''}".strip()


class ErrorAnswer(_Told):
    """An error envelope."""

    error: ErrorCause = ErrorCause()


def read_json(body: bytes, model: type[M]) -> M:
    """Read a body into a model; raises `Unreadable`."""
    try:
        content = json.loads(body.decode("utf-8"), object_pairs_hook=_once, parse_constant=_refuse, parse_float=_finite)
        return model.model_validate(content)
    except (ValueError, OverflowError, RecursionError) as fault:
        raise Unreadable(_phrase(fault)[:300]) from fault


def _phrase(fault: Exception) -> str:
    if not isinstance(fault, ValidationError):
        return f"it is no JSON: {fault}"
    first = fault.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key is told twice")
    return fields


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number is out of range")
    return number
