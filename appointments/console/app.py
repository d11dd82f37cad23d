"""The operator console: pages made on the server, kept fresh by small requests. It decides nothing and stores nothing.

Every action is a command like any other, with the signed-in person as the actor and a reason.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from appointments.access.access import Access
from appointments.access.roles import Permission
from appointments.console import actions, looks
from appointments.console.headers import StrictHeaders
from appointments.console.site import Site
from appointments.orchestrator import Orchestrator

HERE = Path(__file__).parent


def console(desk: Orchestrator, access: Access, now: Callable[[], datetime], root: str = "/console") -> Starlette:
    """The console as an application, to be mounted at `root`."""
    made = Site(desk, access, now, root)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await made.batches.close()

    one = "/appointments/{id}"
    act = Permission.OPERATE
    routes = [
        made.route("/", looks.overview),
        made.route("/pulse", looks.pulse),
        made.route("/appointments", looks.appointments),
        made.route(one, looks.appointment),
        made.route(f"{one}/state", looks.state),
        made.route(f"{one}/replay", looks.replayed, changes=True),
        made.route(f"{one}/act", actions.act, changes=True, needs=act),
        made.route("/parked", looks.parked),
        made.route("/parked/act", actions.act_on_group, changes=True, needs=act),
        made.route("/batches/{batch:int}", looks.batch),
        made.route("/batches/{batch:int}/progress", looks.batch_progress),
        Route("/sign-in", made.sign_in_page, methods=["GET"]),
        Route("/sign-in", made.sign_in, methods=["POST"]),
        Route("/sign-out", made.sign_out, methods=["POST"]),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ]
    return Starlette(routes=routes, middleware=[Middleware(StrictHeaders)], lifespan=lifespan)
