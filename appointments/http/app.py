"""What is served: health for those who start and stop it, figures for a scraper, the console for people."""

from collections.abc import Callable
from datetime import datetime

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from appointments.access.access import Access
from appointments.console.app import console
from appointments.orchestrator import Orchestrator
from domain.errors import AppointmentsError
from projections.figures_openmetrics import CONTENT_TYPE, openmetrics

CONSOLE = "/console"
RETRY_AFTER_S = "5"


def application(desk: Orchestrator, access: Access, now: Callable[[], datetime]) -> Starlette:
    """Everything under one address."""

    async def healthz(_: Request) -> Response:
        """The process lives."""
        return PlainTextResponse("alive\n")

    async def readyz(_: Request) -> Response:
        """The log can be read, and its read models can be kept up."""
        try:
            pulse = await desk.pulse()
        except AppointmentsError as fault:
            return PlainTextResponse(f"not ready: {fault}\n", 503, {"Retry-After": RETRY_AFTER_S})
        return PlainTextResponse(f"ready, at position {pulse.position}\n")

    async def metrics(_: Request) -> Response:
        """The figures of the settings' tenant, from the beginning."""
        try:
            text = openmetrics(await desk.figures())
        except AppointmentsError as fault:
            return PlainTextResponse(f"{fault}\n", 503, {"Retry-After": RETRY_AFTER_S})
        return Response(text, media_type=CONTENT_TYPE)

    async def home(_: Request) -> Response:
        """People come for the console."""
        return RedirectResponse(f"{CONSOLE}/")

    return Starlette(
        routes=[
            Route("/", home),
            Route(CONSOLE, home),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Mount(CONSOLE, console(desk, access, now, CONSOLE)),
        ]
    )
