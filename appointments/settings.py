"""Settings: read once, checked with limits, from the environment, `.env` or a TOML file."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from appointments.outbox.subscription import SinkName, Subscription
from appointments.sharding import shard_of
from domain.commands import Name
from domain.errors import InvalidFields

PREFIX = "APPOINTMENTS_"
ShardName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,40}$")]


def _database(address: str) -> str:
    if not re.match(r"postgresql(\+psycopg)?://", address):
        raise ValueError("a shard is a PostgreSQL database: write postgresql://user:password@host:5432/database")
    return address


Database = Annotated[str, StringConstraints(max_length=2_048), AfterValidator(_database)]
_PASSWORD = re.compile(r"(://[^:@]*):.*@", re.DOTALL)


def without_password(address: str) -> str:
    """An address fit to be shown: of one that holds a password, everything but that."""
    return _PASSWORD.sub(r"\1:***@", address)


class Settings(BaseSettings):
    """What is in force. Each field is `APPOINTMENTS_<FIELD>` in the environment. Times in milliseconds."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_ignore_empty=True,
        toml_file="appointments.toml",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # it may be a password that was given as a number
    )

    store: str = "sqlite:///data/appointments.db"
    """`sqlite:///relative/path.db`, `sqlite:////absolute/path.db`, `postgresql://user:password@host:5432/database`, or
    `memory:`; with shards the name of one, or unset: that of the tenant."""
    shards: dict[ShardName, Database] = Field(default_factory=dict, max_length=64)
    """Several databases by name, each with the appointments of some tenants: `{"north": "postgresql://…", …}`; see
    docs/shards.md. Their names stay for good, their addresses may change."""
    state_folder: Path = Path("data")
    """Where lies what is kept beside a PostgreSQL database: read models, tokens, the key that signs."""
    lease_ms: int = Field(default=15_000, ge=1_000, le=600_000)
    """How long a worker on a PostgreSQL database may be silent before the others take over what it had in hand."""
    drain_ms: int = Field(default=5_000, ge=0, le=600_000)
    """How long, at their end, `serve` and `worker` wait for calls that are out; the answer of one that is cut off is
    looked up by whoever goes on."""
    provider: str = "http://127.0.0.1:8085/api/v2"
    """`http(s)://…` speaks /api/v2; `caldav+http(s)://…/home/` speaks CalDAV; `local:` books in this process."""
    provider_name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,40}$")] = "main"
    provider_username: str | None = None
    provider_password: SecretStr | None = None
    calendars: dict[str, str] = Field(default_factory=dict)
    """Which calendar is kept by which registered provider; one that is not named goes to the first."""
    legacy: str | None = None
    """`http(s)://…`, before `/bookings`: the legacy system, for what `appointments split` leaves to it; unset: gone."""
    notify_url: str | None = None
    """Where the downstream is told, below `/notifications`; unset: the /api/v2 provider, or the log."""
    callback_url: str | None = None
    """Where a provider is to call back, seen from there; unset: the address that is listened on."""
    callback_secret: SecretStr | None = None
    """`whsec_…`; with it, signed callbacks are received at `/v1/callbacks/<provider name>`. While it is changed: both,
    with a space between."""
    callback_listen: str = "127.0.0.1:8086"
    tenant: Name = "default"
    actor: Name = "operator"

    http_rate: float | None = Field(default=None, gt=0, le=100_000)
    """Requests a second that a tenant may make over HTTP; unset: no limit."""
    http_burst: int = Field(default=50, ge=1, le=100_000)
    """Of those, how many at once."""
    http_drain_ms: int = Field(default=500, ge=0, le=600_000)
    """How long, before it ends, `serve` says at /readyz that it takes no new commands."""

    attempts_max: int = Field(default=3, ge=1, le=100)
    call_timeout_ms: int = Field(default=5_000, ge=10, le=300_000)
    backoff_ms: int = Field(default=500, ge=0, le=3_600_000)
    backoff_max_ms: int = Field(default=30_000, ge=0, le=86_400_000)
    jitter: float = Field(default=0.2, ge=0, le=1)
    deadline_ms: int = Field(default=120_000, ge=100, le=86_400_000)
    cleanup_ms: int = Field(default=600_000, ge=100, le=604_800_000)
    settle_ms: int = Field(default=2_000, ge=0, le=600_000)
    poll_ms: int = Field(default=1_000, ge=1, le=86_400_000)
    breaker_failures_max: int = Field(default=3, ge=1, le=1_000)
    breaker_open_ms: int = Field(default=5_000, ge=1, le=3_600_000)
    concurrency: int = Field(default=64, ge=1, le=10_000)
    tenant_concurrency: int = Field(default=64, ge=1, le=10_000)
    rate: float | None = Field(default=None, gt=0, le=100_000)
    """Calls a second to the provider; unset: no limit."""

    subscriptions: dict[SinkName, Subscription] = Field(default_factory=dict, max_length=64)
    """Who is told what happens, by name: `{"crm": {"url": "https://…", "secret": "whsec_…"}}`; see docs/outbox.md."""
    events_source: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,200}$")] = "urn:appointments"
    """`source` of the CloudEvents that subscribers are told."""
    outbound_ports: frozenset[Annotated[int, Field(ge=1, le=65_535)]] = Field(
        default=frozenset({443}), min_length=1, max_length=64
    )
    """Ports that a webhook may be told at."""
    outbound_private: bool = False
    """Whether webhooks may be in loopback and private networks, and plain HTTP with them; true under `serve --dev`."""

    traces_url: str | None = None
    """Where spans are sent, by OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`; unset: none are made."""
    traces_ratio: float = Field(default=1, ge=0, le=1)
    """The share that is kept of the traces that begin here; of one that comes in, its sender has decided."""

    log_file: Path | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_key: SecretStr = SecretStr("appointments")
    """Keys the hash under which idempotency keys appear in logs."""
    signing_key: SecretStr | None = None
    """Signs checkpoints and exports: an Ed25519 private key as PEM, or its 32 bytes in base64; unset: `<log>.key`."""

    @model_validator(mode="after")
    def _in_a_shard(self) -> Self:
        if self.shards:
            if len(set(self.shards.values())) < len(self.shards):
                raise ValueError("two of the shards have one address")
            if "store" not in self.model_fields_set:
                self.__dict__["store"] = self.shards[shard_of(self.tenant, self.shards)]
            elif self.store in self.shards:
                self.__dict__["store"] = self.shards[self.store]
            elif self.store not in self.shards.values():
                raise ValueError(f"store names none of the shards, which are {', '.join(sorted(self.shards))}")
        return self

    @property
    def shard(self) -> str | None:
        """The name of the shard that the store is; None where there are none."""
        return next((name for name, url in self.shards.items() if url == self.store), None)

    def keeps(self, tenant: str) -> str | None:
        """The name of the shard that keeps a tenant; None where there are none."""
        return shard_of(tenant, self.shards) if self.shard is not None else None

    def each_shard(self) -> dict[str | None, Self]:
        """The same settings for every shard, by its name; a store that is the only one has None."""
        if self.shard is None:
            return {None: self}
        return {name: self.model_copy(update={"store": self.shards[name]}) for name in sorted(self.shards)}

    def check_kept_here(self, tenant: str) -> None:
        """Raise `InvalidFields` for a tenant whose appointments another shard keeps."""
        if (kept := self.keeps(tenant)) != self.shard:
            raise InvalidFields(
                f"tenant {tenant} is kept by shard {kept}, and this is {self.shard}",
                (("/tenant", f"kept by shard {kept}"),),
            )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over the environment, that over `.env`, that over `appointments.toml`."""
        return init_settings, env_settings, dotenv_settings, TomlConfigSettingsSource(settings_cls)


def ignored() -> Iterator[str]:
    """One line for each name that looks like a setting and is none: it was given, and changes nothing."""
    for where, variables in (("", EnvSettingsSource(Settings)), (".env: ", DotEnvSettingsSource(Settings))):
        for name in variables.env_vars:  # in small letters, whatever the environment holds
            if name.startswith(PREFIX.lower()):
                yield from _unless_known(where, PREFIX, name.removeprefix(PREFIX.lower()))
    for name in TomlConfigSettingsSource(Settings).toml_data:
        yield from _unless_known("appointments.toml: ", "", name)


def _unless_known(where: str, prefix: str, name: str) -> Iterator[str]:
    if name in Settings.model_fields:
        return

    def spelled(name: str) -> str:
        return f"{prefix}{name.upper()}" if prefix else name

    near = get_close_matches(name.lower(), Settings.model_fields, 1)
    advice = f"did you mean {spelled(near[0])}?" if near else "`appointments settings` shows the names"
    yield f"{where}{spelled(name)!a} is no setting and changes nothing: {advice}"
