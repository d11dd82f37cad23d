"""The operator console: pages made on the server, kept fresh by small requests. It decides nothing and stores nothing.

Every action is a command like any other, with the signed-in person as the actor and a reason.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from appointments.access.roles import Permission
from appointments.console import actions, appointment, checking, comparing, letters, looks
from appointments.console.headers import StrictHeaders
from appointments.console.sign_in import SignIn, leave
from appointments.console.site import Site
from appointments.http.door import Door
from appointments.http.problems import Refusal
from domain.errors import AppointmentsError

HERE = Path(__file__).parent
READ, AUDIT, OPERATE = Permission.READ, Permission.AUDIT, Permission.OPERATE
RECONCILE, HEAL = Permission.RECONCILE, Permission.HEAL


def console(door: Door, root: str = "/console") -> Starlette:
    """The console as an application, to be mounted at `root`, behind the same door as the API."""
    site = Site(door, root)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await site.jobs.close()

    handlers = dict.fromkeys((HTTPException, Refusal, AppointmentsError), site.refused)
    return Starlette(
        routes=_routes(site), middleware=[Middleware(StrictHeaders)], lifespan=lifespan, exception_handlers=handlers
    )


def _routes(at: Site) -> list[BaseRoute]:
    one, report, sign_in = "/appointments/{id}", "/reconciliation/{report}", SignIn(at)
    return [
        at.route("/", looks.overview, READ),
        at.route("/appointments", looks.appointments, READ),
        at.route(one, appointment.appointment, READ),
        at.route(f"{one}/state", appointment.state, AUDIT),
        at.route(f"{one}/replay", appointment.replayed, AUDIT, changes=True),
        at.route(f"{one}/act", actions.act, OPERATE, changes=True),
        at.route("/parked", looks.parked, AUDIT),
        at.route("/parked/act", actions.act_on_group, OPERATE, changes=True),
        at.route("/dead-letters", letters.letters, AUDIT),
        at.route("/dead-letters/deliver", letters.deliver_again, OPERATE, changes=True),
        at.route("/reconciliation", comparing.compare_page, RECONCILE),
        at.route("/reconciliation/compare", comparing.compare, RECONCILE, changes=True),
        at.route(report, comparing.report, AUDIT),
        at.route(f"{report}/healing", comparing.planned, HEAL),
        at.route(f"{report}/heal", comparing.heal, HEAL, changes=True),
        at.route("/check", checking.check, AUDIT, changes=True),
        at.route("/jobs/{job:int}", actions.job, READ),
        Route("/sign-in", sign_in.page, methods=["GET"]),
        Route("/sign-in", sign_in.come, methods=["POST"]),
        at.route("/sign-out", leave, READ, changes=True),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ]
