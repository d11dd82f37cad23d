"""Everything under one address: the API, health, figures, and the console for people."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from appointments import bootstrap
from appointments.access.access import Access
from appointments.console.app import console
from appointments.http import commands, health, reads, receiving, reconciliations, streams
from appointments.http.border import Border
from appointments.http.dead_letters import LetterBox
from appointments.http.door import Door
from appointments.http.follower import Follower
from appointments.http.openapi import describe
from appointments.http.problems import answer
from appointments.http.reports import Reports
from appointments.http.standing import Standing
from appointments.orchestrator import Orchestrator
from appointments.telemetry.requests import Requests, Took
from saga.timings import Timings

CONSOLE = "/console"
ROUTES = (commands.routes, reads.routes, streams.routes, receiving.routes, reconciliations.routes, health.routes)


def application(
    desk: Orchestrator, access: Access, now: Callable[[], datetime], further: Sequence[Orchestrator] = ()
) -> FastAPI:
    """The application of a desk, and of those of the further shards.

    `app.state.door.standing.stop()` lets it take no new commands.
    """
    doors = _doors((desk, *further), access, now)
    door = doors[0]
    took = Took(Timings)
    pages = console(door, CONSOLE)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for one in doors:
                await stack.enter_async_context(one.follower.running())
            await stack.enter_async_context(pages.router.lifespan_context(pages))
            yield

    app = FastAPI(
        title="Appointments",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={HTTPException: answer, RequestValidationError: answer},
        middleware=[
            Middleware(Requests, took=took, now=now, tracing=desk.tracing),
            Middleware(Border, standing=door.standing, now=now, pages=CONSOLE),
        ],
    )
    app.state.door, app.state.took = door, took
    for routes in ROUTES:
        app.router.routes.extend(routes.routes)  # as they are: an included router hides which methods a path has
    for path in ("/", CONSOLE):
        app.add_route(path, _home, include_in_schema=False)
    app.mount(CONSOLE, pages)
    describe(app)
    return app


async def _home(_: Request) -> Response:
    """People come for the console."""
    return RedirectResponse(f"{CONSOLE}/")


def _doors(desks: Sequence[Orchestrator], access: Access, now: Callable[[], datetime]) -> list[Door]:
    stopping, doors = asyncio.Event(), list[Door]()
    for desk in desks:
        door = Door(
            desk=desk,
            access=access,
            standing=Standing(stopping),
            now=now,
            follower=Follower(desk.runtime.store),
            reports=Reports(),
            letters=LetterBox(desk),
            receiver=bootstrap.make_receiver(desk.settings, desk.called_back),
            all=doors,
        )
        doors.append(door)
    return doors
