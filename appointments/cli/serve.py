"""`serve`: the console, health and figures over HTTP, beside the work that goes on."""

import asyncio
import ipaddress
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer

from appointments import bootstrap
from appointments.access.access import Access
from appointments.access.roles import Principal, Role
from appointments.access.throttle import Throttle
from appointments.access.tokens import TokenFile, token_file
from appointments.cli.command import command
from appointments.cli.ending import ExitCode
from appointments.cli.session import Session
from appointments.http.app import application
from appointments.http.server import listen, serve, url
from appointments.orchestrator import Orchestrator
from domain.errors import InvalidFields
from mocks.server import MockProvider
from saga.clock import WallClock

Port = Annotated[int, typer.Option(min=0, max=65_535, help="0: any that is free.")]
EXAMPLES = 6
DEV_STORE = "sqlite:///data/dev.db"
"""Not that of the real work: its provider forgets."""


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    command(app, "serve", "appointments serve --dev")(serving)


async def serving(
    session: Session,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Port = 8080,
    dev: Annotated[
        bool, typer.Option("--dev", help="Without tokens, with a provider of its own and examples; on loopback only.")
    ] = False,
) -> ExitCode:
    """Serve the console, /healthz, /readyz and /metrics, and go on with all that is unfinished, until interrupted.

    People sign in with a token (`appointments token create`). With --dev nobody is asked for one.
    """
    if dev and not _loopback(host):
        raise InvalidFields(f"--dev asks nobody for a token: it listens on loopback only, not on {host}")
    clock = WallClock()
    async with AsyncExitStack() as stack:
        opened = stack.enter_context(listen(host, port))
        settings = session.settings
        if dev and "store" not in settings.model_fields_set:
            settings = settings.model_copy(update={"store": DEV_STORE})
            session.note(f"store     {DEV_STORE}")
        if dev and "provider" not in settings.model_fields_set:
            mock = await stack.enter_async_context(MockProvider())
            settings = settings.model_copy(update={"provider": mock.url})
            session.note(f"provider  {mock.url} (mock; break it by way of {mock.control_url})")
        desk = await stack.enter_async_context(Orchestrator.open(settings))
        if dev:
            await _examples(desk, clock.now())
        tokens = TokenFile(None if settings.store == "memory:" else token_file(bootstrap.store_path(settings)))
        stack.callback(tokens.close)
        everybody = Principal(tenant=settings.tenant, actor="dev", role=Role.ADMIN) if dev else None
        access = Access(tokens, Throttle(None, 1), clock.now, everybody)

        def tell() -> None:
            session.note(f"console   {url(opened)}/console/")
            session.note(f"health    {url(opened)}/healthz, /readyz; figures {url(opened)}/metrics")
            if dev:
                session.note("no tokens are asked for: this is for trying things out")
            session.note("Ctrl-C ends it; what is unfinished then goes on at the next start")

        try:
            await serve(application(desk, access, clock.now), opened, tell)
        except asyncio.CancelledError:  # the way to end it
            session.note("stopped")
    return ExitCode.DONE


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
