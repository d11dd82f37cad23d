"""Commands that serve until they are stopped."""

import asyncio
from typing import Annotated

import typer

from appointments.cli.command import command
from appointments.cli.ending import ExitCode
from appointments.cli.session import Session
from domain.errors import InvalidFields
from mocks.server import serve

Port = Annotated[int, typer.Option(min=0, max=65_535)]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    command(app, "mock-provider", "appointments mock-provider --port 8090 --control-port 8091")(mock_provider)


async def mock_provider(
    session: Session, host: str = "127.0.0.1", port: Port = 8085, control_port: Port = 8095, lenient: bool = False
) -> ExitCode:
    """Serve an /api/v2 provider to try things against, with faults on demand and a ledger of what it did."""
    try:
        await serve(host=host, port=port, control_port=control_port, lenient=lenient)
    except asyncio.CancelledError:  # the way to end it
        session.note("stopped")
    except OSError as taken:
        raise InvalidFields(f"cannot listen on {host}, ports {port} and {control_port}: {taken.strerror}") from None
    return ExitCode.DONE
