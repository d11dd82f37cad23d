"""`serve` and `mock-provider`: what runs until it is stopped. The API and the console, beside the work that goes on."""

import asyncio
import ipaddress
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from pydantic import SecretStr

from appointments import bootstrap
from appointments.access.access import Access
from appointments.access.roles import Principal, Role
from appointments.access.throttle import Throttle
from appointments.access.tokens import TokenFile
from appointments.cli.command import command
from appointments.cli.ending import ExitCode, uncancel
from appointments.cli.session import Session
from appointments.http.app import application
from appointments.http.server import listen, url
from appointments.http.server import serve as serve_http
from appointments.orchestrator import Orchestrator
from appointments.settings import Settings, without_password
from domain.errors import InvalidFields
from mocks.server import MockProvider
from mocks.server import serve as serve_mock
from saga.clock import WallClock

Port = Annotated[int, typer.Option(min=0, max=65_535, help="0: any that is free.")]
EXAMPLES = 6
DEV_STORE = "sqlite:///data/dev.db"
"""Not that of the real work: its provider forgets."""
EXAMPLE = """try       curl -i {here}/v1/appointments -H 'Idempotency-Key: order-4711' -H 'Prefer: wait=5' --json '{{
            "calendar": "main", "start": "2031-03-03T09:00:00Z", "end": "2031-03-03T09:30:00Z",
            "time_zone": "Europe/Berlin", "summary": "Check-up"}}'
          curl -N {here}/v1/stream"""
BREAK = """break     curl -X POST {control}/scripts --json '{{"match": {{}}, "times": -1,
            "behavior": {{"mode": "fail_then_succeed", "failures": 1000000, "status": 503}}}}'
heal      curl -X DELETE {control}/scripts"""
PATIENCE_MS = {"deadline_ms": 20_000, "cleanup_ms": 20_000}
"""What cannot be done is to park while somebody looks."""


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    command(app, "serve", "appointments serve --dev")(serve)
    command(app, "mock-provider", "appointments mock-provider --port 8090 --control-port 8091")(mock_provider)


async def serve(
    session: Session,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Port = 8080,
    dev: Annotated[
        bool, typer.Option("--dev", help="Without tokens, with a provider of its own and examples; on loopback only.")
    ] = False,
) -> ExitCode:
    """Serve the API and the console, and go on with all that is unfinished, until interrupted.

    Programs send a token, people sign in with one (`appointments token create`). With --dev nobody is asked for one.
    """
    if dev and not _loopback(host):
        raise InvalidFields(f"--dev asks nobody for a token: it listens on loopback only, not on {host}")
    clock = WallClock()
    async with AsyncExitStack() as stack:
        opened = stack.enter_context(listen(host, port))
        settings = await _for_dev(session, stack) if dev else session.settings
        if settings.callback_url is None and settings.callback_secret is not None:
            here = f"{url(opened)}/v1/callbacks/{settings.provider_name}"
            settings = settings.model_copy(update={"callback_url": here})
        desks = [await stack.enter_async_context(Orchestrator.open(one, listen=False)) for one in _each(settings)]
        if dev:
            await _examples(desks[0], clock.now())
        tokens = TokenFile(bootstrap.tokens_of(settings))
        stack.callback(tokens.close)
        everybody = Principal(tenant=settings.tenant, actor="dev", role=Role.ADMIN) if dev else None
        access = Access(tokens, Throttle(settings.http_rate, settings.http_burst), clock.now, everybody)
        app = application(desks[0], access, clock.now, desks[1:])
        shut = not dev and not any(one.valid(clock.now()) for one in tokens.all())
        up, drain_s = partial(_tell, session, url(opened), dev, shut, settings), settings.http_drain_ms / 1_000
        try:
            async with AsyncExitStack() as told:
                for desk in desks:
                    await told.enter_async_context(desk.outbox())
                await serve_http(app, opened, up, drain_s)
        except asyncio.CancelledError:  # the way to end it
            uncancel()
            await asyncio.gather(*(desk.runtime.drain(settings.drain_ms / 1_000) for desk in desks))
            session.note("stopped")
    return ExitCode.DONE


async def mock_provider(
    session: Session, host: str = "127.0.0.1", port: Port = 8085, control_port: Port = 8095, lenient: bool = False
) -> ExitCode:
    """Serve an /api/v2 provider to try things against, with faults on demand and a ledger of what it did."""
    try:
        await serve_mock(host=host, port=port, control_port=control_port, lenient=lenient)
    except asyncio.CancelledError:  # the way to end it
        session.note("stopped")
    except OSError as taken:
        raise InvalidFields(f"cannot listen on {host}, ports {port} and {control_port}: {taken.strerror}") from None
    return ExitCode.DONE


def _each(settings: Settings) -> list[Settings]:
    """Those of every shard, that of the settings' tenant first; providers call back for the one that called them."""
    each = settings.each_shard()
    called = settings.callback_url
    if called is not None:
        mark = "&" if "?" in called else "?"
        each = {
            name: one if name is None else one.model_copy(update={"callback_url": f"{called}{mark}shard={name}"})
            for name, one in each.items()
        }
    return [each.pop(settings.shard), *each.values()]


async def _for_dev(session: Session, stack: AsyncExitStack) -> Settings:
    """A store of its own and a provider of its own, unless others are named."""
    settings = session.settings
    patience = {name: ms for name, ms in PATIENCE_MS.items() if name not in settings.model_fields_set}
    told_at = {port for one in settings.subscriptions.values() if (port := urlsplit(one.url).port) is not None}
    opened = {"outbound_private": True, "outbound_ports": settings.outbound_ports | told_at}
    settings = settings.model_copy(update={**patience, **opened})
    if "store" not in settings.model_fields_set and not settings.shards:
        settings = settings.model_copy(update={"store": DEV_STORE})
        session.note(f"store     {DEV_STORE}")
    if "provider" not in settings.model_fields_set:
        mock = await stack.enter_async_context(MockProvider())
        secret = settings.callback_secret or SecretStr(mock.secret)
        settings = settings.model_copy(update={"provider": mock.url, "callback_secret": secret})
        session.note(f"provider  {mock.url} (a mock)")
        session.note(BREAK.format(control=mock.control_url))
    return settings


def _tell(session: Session, here: str, dev: bool, shut: bool, settings: Settings) -> None:
    session.note(f"api       {here}/v1/appointments, described by {here}/openapi.json")
    session.note(f"console   {here}/console/")
    session.note(f"health    {here}/healthz, /readyz; figures {here}/metrics")
    for name, told in settings.subscriptions.items():
        session.note(f"tells     {name} at {told.shown_url}; `appointments outbox list` says how far it is")
    if shut:
        named = "" if settings.shards else f" --store {without_password(settings.store)}"
        session.note(
            f"nobody can come in: no token is valid; `appointments token create{named} --name you --role admin`"
        )
    if dev:
        session.note("no tokens are asked for: this is for trying things out")
        session.note(EXAMPLE.format(here=here))
    session.note("Ctrl-C ends it; what is unfinished then goes on at the next start")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _examples(desk: Orchestrator, now: datetime) -> None:
    """A few appointments to look at; the same ones however often it is started on one day."""
    day = now.replace(hour=9, minute=0, second=0, microsecond=0) + timedelta(days=7)
    for n in range(EXAMPLES):
        start = day + timedelta(days=n % 3, hours=n)
        wanted: dict[str, Any] = {
            "calendar": "main",
            "start": start,
            "end": start + timedelta(minutes=45),
            "time_zone": "Europe/Berlin",
            "summary": f"Example visit {n + 1}",
        }
        await desk.book(wanted, key=f"example-{day:%Y-%m-%d}-{n}", actor="dev")
