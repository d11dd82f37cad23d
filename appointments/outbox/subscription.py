"""A subscription, as the settings name it: checked with limits."""

from base64 import b64decode
from binascii import Error as NoBase64
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, SecretStr, StringConstraints, model_validator

from appointments.outbox.sink import CONCURRENCY, RETRY
from domain.commands import Name
from domain.definition import RetryPolicy
from domain.events import DECISIONS, FACTS
from domain.provider import Value

NAME = r"^[a-z0-9-]{1,40}$"
SinkName = Annotated[str, StringConstraints(pattern=NAME)]
TYPES = frozenset(event.type for event in (*FACTS, *DECISIONS))
SECRET_BYTES = (24, 64)
"""Standard Webhooks 1.0."""


def _known(type_: str) -> str:
    if type_ not in TYPES:
        raise ValueError("no event has this type; docs/concepts.md lists them")
    return type_


class Subscription(Value):
    """Who is told, where, and how patiently."""

    model_config = ConfigDict(hide_input_in_errors=True)

    tenant: Name = "default"
    """Whose events; those of no other tenant are told."""
    url: Annotated[str, StringConstraints(max_length=2_000, pattern=r"^(https?|nats|tls)://")]
    """`https://…` is a webhook; `nats://host:4222`, or `tls://…`, a NATS JetStream."""
    secret: SecretStr | None = None
    """Signs webhooks: `whsec_…`; two with a space between while it is changed. For NATS the token, if any."""
    subject: Annotated[str, StringConstraints(max_length=100, pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")] = (
        "appointments"
    )
    """For NATS: messages go to `<subject>.<type>.<appointment>`."""
    types: tuple[Annotated[str, AfterValidator(_known)], ...] = ()
    """Such as `appointment-confirmed.v1`; none: all."""
    since: Literal["now", "beginning"] = "now"
    """Where a new subscription begins."""
    concurrency: int = Field(default=CONCURRENCY, ge=1, le=100)
    """Appointments whose events are told at once."""
    timeout_ms: int = Field(default=10_000, ge=10, le=60_000)
    retry: RetryPolicy = RETRY

    @property
    def is_webhook(self) -> bool:
        """Told over HTTP."""
        return self.url.startswith("http")

    @property
    def shown_url(self) -> str:
        """The address without its query, which may hold a secret."""
        return self.url.partition("?")[0]

    @model_validator(mode="after")
    def _usable(self) -> Self:
        try:
            _ = urlsplit(self.url).port
        except ValueError:  # brackets that are not closed, a port that is none
            raise ValueError("`url` is no address") from None
        if "@" in urlsplit(self.url).netloc:
            raise ValueError("write what opens the door into `secret`, not into `url`")
        if self.is_webhook:
            told = self.secret.get_secret_value().split() if self.secret is not None else []
            if not told or not all(map(_signs, told)):
                raise ValueError(
                    "`secret` signs what is sent: whsec_ and 24 to 64 bytes in base64; "
                    "two of them, with a space between, while one changes"
                )
        return self


def _signs(secret: str) -> bool:
    try:
        key = b64decode(secret.removeprefix("whsec_"), validate=True)
    except (NoBase64, ValueError):
        return False
    return SECRET_BYTES[0] <= len(key) <= SECRET_BYTES[1]
