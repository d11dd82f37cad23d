"""The composition root: the only place that constructs things. Everybody else receives."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from appointments.access.tokens import token_file
from appointments.callbacks import CallbackListener, Deliver, Receiver
from appointments.logs import TurnLog, open_log
from appointments.migration.claims import LoggedClaims
from appointments.migration.split import Split, split_file
from appointments.settings import Settings, without_password
from domain.appointment import Appointment
from domain.definition import RetryPolicy
from domain.errors import InvalidFields
from domain.provider import Confirmed, Provider, WriteOutcome
from projections.views import Views, views_folder
from providers.api_v2 import ApiV2Provider
from providers.caldav import CalDavProvider
from providers.legacy import LegacyCalendar
from providers.local import LocalProvider
from providers.notifications import Notifier
from providers.outbound import Outbound
from saga.breaker import BreakerPolicy
from saga.clock import Clock, WallClock
from saga.definition import CalendarStep, Saga, Step, StepCall
from saga.inputs import Input, Turn
from saga.lanes import Lanes, LimitPolicy
from saga.runtime import Observer, Runtime
from store.memory import MemoryStore
from store.port import Store
from store.postgres import PostgresStore
from store.postgres_server import address
from store.postgres_shard import Shard
from store.sqlite import SqliteStore

if TYPE_CHECKING:
    from appointments.outbox.outbox import Outbox
    from appointments.outbox.sink import Sink, Subscriber
    from appointments.telemetry.tracing import Tracing

UNDO_ATTEMPTS_MAX = 10


def is_database(settings: Settings) -> bool:
    """Whether the store is a PostgreSQL database, which many workers share."""
    return settings.store.startswith("postgresql")


def store_path(settings: Settings) -> Path:
    """The file behind a `sqlite:///` store, or what stands for a database: the name beside which its files lie.

    That of a shard stays when its address changes.

    Raises `InvalidFields` for what is no such address.
    """
    if settings.shard is not None:
        return settings.state_folder / settings.shard
    if is_database(settings):
        url = address(settings.store)
        return settings.state_folder / f"{url.host or 'local'}-{url.port or 5432}-{url.database}"
    prefix = "sqlite:///"
    if not settings.store.startswith(prefix) or settings.store == prefix:
        raise InvalidFields(
            f"cannot open the store {without_password(settings.store)!r}; write sqlite:///relative/path.db, "
            "sqlite:////absolute/path.db, postgresql://user:password@host:5432/database or memory:",
            (("/store", "unknown kind of store"),),
        )
    return Path(settings.store.removeprefix(prefix))


def tokens_of(settings: Settings) -> Path | None:
    """Where the tokens are kept, of all shards in one file; None for a store in memory, which has none."""
    if settings.store == "memory:":
        return None
    return token_file(settings.state_folder / "shards" if settings.shard else store_path(settings))


def is_new(settings: Settings) -> bool:
    """Whether opening the store would make a file. A database that is not there is not made by us."""
    return settings.store != "memory:" and not is_database(settings) and not store_path(settings).exists()


def owner() -> str:
    """The name of this process, as open-work rows carry it."""
    return f"{socket.gethostname()}:{os.getpid()}"


def check_exists(settings: Settings) -> None:
    """Raise `InvalidFields` where opening the store would make a new one."""
    if is_new(settings):
        raise InvalidFields(
            f"there is no store at {store_path(settings)}; book something first, or name one with --store"
        )


async def open_store(settings: Settings, read_only: bool = False) -> Store:
    """The store that the settings name."""
    if read_only:
        check_exists(settings)
    if settings.store == "memory:":
        return MemoryStore(owner())
    path = store_path(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_database(settings):
        shard = Shard.of(settings.shard, settings.shards) if settings.shard else None
        lease_s = settings.lease_ms / 1_000
        return await asyncio.to_thread(
            PostgresStore.open, settings.store, owner(), read_only=read_only, lease_s=lease_s, shard=shard
        )
    return SqliteStore.open(path, owner=owner(), read_only=read_only)


def make_views(settings: Settings, store: Store) -> Views:
    """The read models of the store that the settings name: beside the log, or in memory where that is no file."""
    return Views(store, None if settings.store == "memory:" else views_folder(store_path(settings)))


def make_provider(settings: Settings, clock: Clock) -> Provider:
    """The provider that the settings name."""
    parts = _address(settings.provider)
    name, settle_ms = settings.provider_name, settings.settle_ms
    if settings.provider == "local:":
        return LocalProvider(name)
    if parts and parts.scheme in ("http", "https"):
        return ApiV2Provider(name, settings.provider, callback_url=settings.callback_url, settle_ms=settle_ms)
    if parts and parts.scheme in ("caldav+http", "caldav+https"):
        user, password = settings.provider_username or unquote(parts.username or ""), settings.provider_password
        secret = password.get_secret_value() if password else unquote(parts.password or "")
        where = parts.netloc.rpartition("@")[2]
        url = urlunsplit((parts.scheme.removeprefix("caldav+"), where, parts.path, "", ""))
        return CalDavProvider(name, url, user, secret, settle_ms=settle_ms, now=clock.now)
    raise InvalidFields(
        f"cannot use the provider {without_password(settings.provider)!r}; write http(s)://host/api/v2, "
        "caldav+http(s)://host/home/ or local:",
        (("/provider", "unknown kind of provider"),),
    )


def make_legacy(settings: Settings, own: Provider, store: Store, views: Views) -> LegacyCalendar | None:
    """The legacy system in front of this provider, where the settings name one."""
    url = settings.legacy
    if url is None:
        return None
    if (parts := _address(url)) is None or parts.scheme not in ("http", "https"):
        raise InvalidFields(
            f"cannot use the legacy system {without_password(url)!r}; write http(s)://host/api/v2",
            (("/legacy", "not http(s)://host/path"),),
        )
    return LegacyCalendar(own, url, LoggedClaims(store, views))


def _address(given: str) -> SplitResult | None:
    """The parts of an address that names a host; None for what is no such address."""
    try:
        parts = urlsplit(given)
        return parts if parts.hostname and parts.port != 0 else None
    except ValueError:  # brackets that are not closed, a port that is none
        return None


def make_listener(settings: Settings) -> CallbackListener:
    """The receiver of the provider's callbacks, on the address that the settings name."""
    assert settings.callback_secret is not None
    host, _, port = settings.callback_listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise InvalidFields(
            f"callback_listen is {settings.callback_listen!r}; write host:port, such as 127.0.0.1:8086",
            (("/callback_listen", "not host:port"),),
        )
    return CallbackListener(
        {settings.provider_name: settings.callback_secret.get_secret_value()}, host.strip("[]"), int(port)
    )


def make_receiver(settings: Settings, deliver: Deliver) -> Receiver | None:
    """What takes the provider's callbacks where another server listens; None without a secret."""
    if settings.callback_secret is None:
        return None
    return Receiver({settings.provider_name: settings.callback_secret.get_secret_value()}, deliver)


def make_tracing(settings: Settings, clock: Clock, called: Iterable[object]) -> "Tracing | None":
    """What makes spans of the calls to these; None where the settings name no collector."""
    url = settings.traces_url
    if url is None:
        return None
    if (parts := _address(url)) is None or parts.scheme not in ("http", "https"):
        raise InvalidFields(
            f"cannot send traces to {without_password(url)!r}; write traces_url as http(s)://host:4318/v1/traces",
            (("/traces_url", "not http(s)://host/path"),),
        )
    # The SDK costs a start 30 ms and 11 MB: it is loaded only where it is used.
    from appointments.telemetry.spans import Spans
    from appointments.telemetry.tracing import Tracing

    service = {"service.name": "appointments", "service.version": version("appointments")}
    routes = {one.name: one.routes for one in called if isinstance(one, ApiV2Provider | LegacyCalendar | Notifier)}
    return Tracing(Spans(url, {**service, "service.instance.id": owner()}), clock, settings.traces_ratio, routes)


def make_sink(settings: Settings, name: str, clock: Clock) -> "Sink":
    """How a subscription of the settings is told. Raises `InvalidFields` for an address that is not called."""
    # Only who relays loads the clients.
    from appointments.outbox.jetstream import JetStream
    from appointments.outbox.webhook import Webhook

    told = settings.subscriptions[name]
    secret = told.secret.get_secret_value() if told.secret is not None else None
    if not told.is_webhook:
        return JetStream(told.url, told.subject, secret, told.timeout_ms / 1_000)
    assert secret is not None
    outbound = Outbound(settings.outbound_ports, settings.outbound_private)
    try:
        return Webhook(told.url, secret, outbound, clock.now, told.timeout_ms / 1_000)
    except InvalidFields as fault:
        pointer = f"/subscriptions/{name}/url"
        more = "what else may be called, the settings `outbound_ports` and `outbound_private` say"
        raise InvalidFields(f"subscription {name}: {fault.detail} ({more})", ((pointer, fault.errors[0][1]),)) from None


def make_outbox(parts: "Parts", further: Sequence["Subscriber"] = ()) -> "Outbox":
    """What tells the subscriptions of the settings, and further subscribers of the caller's own."""
    from appointments.outbox.outbox import Outbox
    from appointments.outbox.sink import Subscriber
    from appointments.telemetry.context import course

    settings, clock, tracing = parts.settings, parts.clock, parts.tracing
    named = [
        Subscriber(
            name,
            told.tenant,
            make_sink(settings, name, clock),
            frozenset(told.types),
            told.retry,
            told.concurrency,
            told.since == "beginning",
        )
        for name, told in settings.subscriptions.items()
        if settings.keeps(told.tenant) == settings.shard
    ]

    def trace_of(state: Appointment) -> str | None:
        return state.traceparent if tracing is None else str(course(state, tracing.ratio)[0])

    all_of_them = (*named, *further)
    parts.outbox = Outbox(parts.store, all_of_them, settings.events_source, clock.now, trace_of, parts.log.fact)
    return parts.outbox


def make_notify(settings: Settings) -> tuple[Callable[[StepCall], Awaitable[WriteOutcome]], Notifier | None]:
    """How the downstream is told: over HTTP where there is an address, else by the log line of the step alone."""
    url = settings.notify_url
    if url is not None and ((parts := _address(url)) is None or parts.scheme not in ("http", "https")):
        raise InvalidFields(
            f"cannot tell {without_password(url)!r}; write notify_url as http(s)://host/path",
            (("/notify_url", "not http(s)://host/path"),),
        )
    if url is None and settings.provider.startswith(("http://", "https://")):
        url = settings.provider
    if url is None:

        async def log_only(_asked: StepCall) -> WriteOutcome:
            return Confirmed()

        return log_only, None
    notifier = Notifier("notify", url)

    async def notify(asked: StepCall) -> WriteOutcome:
        details = asked.details
        body = {
            "client_ref": asked.call.client_ref,
            "type": asked.event,
            "calendar_id": details.calendar,
            "start": details.start.isoformat(),
            "end": details.end.isoformat(),
            "summary": details.summary,
        }
        return await notifier.notify(asked.call, body)

    return notify, notifier


def booking_saga(
    settings: Settings, notify: Callable[[StepCall], Awaitable[WriteOutcome]], further: tuple[Step, ...] = ()
) -> Saga:
    """The booking saga: create at the provider, then the user's further steps, then notify downstream."""
    retry = RetryPolicy(
        attempts_max=settings.attempts_max,
        backoff_ms=settings.backoff_ms,
        backoff_max_ms=settings.backoff_max_ms,
        jitter=settings.jitter,
    )
    undo = retry.model_copy(update={"attempts_max": UNDO_ATTEMPTS_MAX})
    timeout_ms = settings.call_timeout_ms
    calendar = CalendarStep(retry=retry, undo_retry=undo, timeout_ms=timeout_ms, poll_ms=settings.poll_ms)
    told = Step("notify", action=notify, retry=retry, timeout_ms=timeout_ms)
    return Saga("booking", 1, (calendar, *further, told), settings.deadline_ms, settings.cleanup_ms)


def legacy_saga(settings: Settings) -> Saga:
    """What the legacy system does: the booking alone, once."""
    undo = RetryPolicy(attempts_max=UNDO_ATTEMPTS_MAX, backoff_ms=settings.backoff_ms, jitter=settings.jitter)
    once = RetryPolicy(attempts_max=1, backoff_ms=0)
    step = CalendarStep(retry=once, undo_retry=undo, timeout_ms=settings.call_timeout_ms, poll_ms=settings.poll_ms)
    return Saga("legacy-booking", 1, (step,), settings.deadline_ms, settings.cleanup_ms)


def make_split(settings: Settings) -> Split:
    """The split of the log that the settings name."""
    return Split(None if settings.store == "memory:" else split_file(store_path(settings)))


def make_limits(settings: Settings) -> LimitPolicy:
    """Breaker and limits of each target as the settings say."""
    breaker = BreakerPolicy(failures_max=settings.breaker_failures_max, open_ms=settings.breaker_open_ms)
    return LimitPolicy(
        concurrency=settings.concurrency,
        tenant_concurrency=settings.tenant_concurrency,
        rate=settings.rate,
        breaker=breaker,
    )


class Parts:
    """Everything that an open orchestrator is made of; `close` undoes it in reverse."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        views: Views,
        clock: Clock,
        providers: dict[str, Provider],
        sagas: tuple[Saga, ...],
        tracing: "Tracing | None",
    ) -> None:
        self.settings, self.store, self.views, self.clock, self.providers = settings, store, views, clock, providers
        self.legacy: LegacyCalendar | None = None
        self.split = make_split(settings)
        self.log = TurnLog(*open_log(settings), settings.log_key.get_secret_value())
        self.lanes = Lanes({"*": make_limits(settings)})
        self.sagas, self.tracing = sagas, tracing
        self.notifier: Notifier | None = None
        self.outbox: Outbox | None = None
        # In a container every start has the same host name and process id: the instant tells one opening from the next.
        opening = f"{owner()}@{clock.now().isoformat()}"
        observe: Observer = self.log
        if tracing is not None:
            observe = partial(_observed, (self.log, tracing))
        leaves = tracing.leaves if tracing else None
        self.runtime = Runtime(store, clock, sagas, providers, self.lanes, opening, observe, leaves)

    async def close(self) -> None:
        """Stop the runtime, then let go of the connections, the store and the log; of each whatever another does."""
        async with AsyncExitStack() as stack:
            stack.callback(self.log.close)
            if self.tracing is not None:
                stack.push_async_callback(asyncio.to_thread, self.tracing.spans.close)
            stack.push_async_callback(self.store.close)
            stack.push_async_callback(self.views.close)
            if self.notifier is not None:
                stack.push_async_callback(self.notifier.close)
            for provider in self.providers.values():
                stack.push_async_callback(provider.close)
            stack.push_async_callback(self.runtime.stop)


def _observed(observers: tuple[Observer, ...], before: Appointment, turned: Turn, given: Input) -> None:
    for observe in observers:
        observe(before, turned, given)


async def build(
    settings: Settings,
    *,
    providers: tuple[Provider, ...] = (),
    sagas: tuple[Saga, ...] = (),
    steps: tuple[Step, ...] = (),
    clock: Clock | None = None,
    store: Store | None = None,
) -> Parts:
    """Construct everything and start it. `sagas` replaces the booking saga; `steps` adds to it."""
    clock = clock or WallClock()
    used = {provider.name: provider for provider in providers or (make_provider(settings, clock),)}
    notifier = None
    if not sagas:
        # With providers of the caller's own, the one that the settings name is not there to be told.
        told = settings.model_copy(update={"provider": "local:"}) if providers else settings
        notify, notifier = make_notify(told)
        sagas = (booking_saga(settings, notify, steps),)
    opened = store or await open_store(settings)
    parts = None
    try:
        # A store of the caller's own need not be the one that the settings name.
        views = make_views(settings, opened) if store is None else Views(opened, None)
        legacy = make_legacy(settings, next(iter(used.values())), opened, views)
        if legacy is not None:
            # Closed before the adapter that it leans on.
            used, sagas = {**used, legacy.name: legacy}, (*sagas, legacy_saga(settings))
        tracing = make_tracing(settings, clock, (*used.values(), notifier))
        parts = Parts(settings, opened, views, clock, used, sagas, tracing)
        parts.notifier, parts.legacy = notifier, legacy
        await parts.runtime.start()
    except BaseException:
        await (parts or opened).close()
        raise
    return parts
