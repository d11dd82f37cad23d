"""What the pages share: who is signed in and what they may do, how a page is made, and how a refusal is told."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from appointments.access.access import Access, Unauthenticated
from appointments.access.roles import Permission, Principal
from appointments.console.parked import Batches
from appointments.console.session import COOKIE, FORM_FIELD, Session, Sessions, proves
from appointments.orchestrator import Orchestrator
from domain.errors import AppointmentsError, CommandRefused, UnknownAppointment

HERE = Path(__file__).parent
FORM_FIELDS_MAX = 20
FORM_BYTES_MAX = 16_384


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of somebody who is signed in."""

    request: Request
    session: Session
    principal: Principal
    form: Mapping[str, str]


Page = Callable[["Site", Visit], Awaitable[Response]]


class Site:
    """The desk, who may do what, the batches that go on, and how a page is made."""

    def __init__(self, desk: Orchestrator, access: Access, now: Callable[[], datetime], root: str) -> None:
        self.desk, self.access, self.now, self.root = desk, access, now, root
        self.sessions, self.batches = Sessions(access, now), Batches()
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    def page(self, name: str, visit: Visit | None, here: str = "", status: int = 200, **facts: Any) -> Response:
        """A template as an answer."""
        principal = visit.principal if visit else None
        shared = {
            "root": self.root,
            "here": here,
            "principal": principal,
            "form_secret": visit.session.form_secret if visit else "",
            "may_operate": principal is not None and self.access.allows(principal, Permission.OPERATE),
        }
        return HTMLResponse(self._templates.get_template(f"{name}.html.j2").render(**shared, **facts), status)

    def told(self, visit: Visit | None, heading: str, told: str, tone: str, back: str, status: int = 200) -> Response:
        """One thing to say, and the way back."""
        return self.page("told", visit, "-", status, heading=heading, told=told, tone=tone, back=back)

    def route(self, path: str, page: Page, *, changes: bool = False, needs: Permission = Permission.READ) -> Route:
        """A page for those who are signed in and may see it; one that changes something wants a form of ours."""
        return Route(path, partial(self._visited, page, changes, needs), methods=["POST" if changes else "GET"])

    async def _visited(self, page: Page, changes: bool, needs: Permission, request: Request) -> Response:
        try:
            session, principal = self.sessions.of(request)
        except Unauthenticated:
            return RedirectResponse(f"{self.root}/sign-in", 303)
        form = await _form(request) if changes else {}
        visit = Visit(request, session, principal, form)
        if changes and not proves(session, form.get(FORM_FIELD)):
            return self.told(
                visit,
                "Not done",
                "This form is not from this sitting: go back, and load it again.",
                "bad",
                self.root,
                403,
            )
        if not self.access.allows(principal, needs):
            return self.told(visit, "Not allowed", f"A {principal.role} may not do this.", "bad", self.root, 403)
        try:
            return await page(self, visit)
        except UnknownAppointment as fault:
            return self.told(visit, "Not found", str(fault), "bad", self.root, 404)
        except CommandRefused as fault:
            return self.told(visit, "Refused", f"{fault}. Nothing was changed.", "bad", self.root, 409)
        except AppointmentsError as fault:
            return self.told(visit, "It did not work", str(fault), "bad", self.root, 503)

    async def sign_in_page(self, request: Request) -> Response:
        """Where a token is asked for; without tokens everybody is let in."""
        try:
            return self._let_in(self.sessions.begin(None), request)
        except Unauthenticated:
            return self.page("sign_in", None, told="")

    async def sign_in(self, request: Request) -> Response:
        """A token is shown."""
        try:
            return self._let_in(self.sessions.begin((await _form(request)).get("token", "").strip()), request)
        except Unauthenticated:
            return self.page("sign_in", None, "-", 401, told="This token is not known, or not valid any more.")

    async def sign_out(self, request: Request) -> Response:
        """The sitting ends."""
        self.sessions.end(request)
        gone = RedirectResponse(f"{self.root}/sign-in", 303)
        gone.delete_cookie(COOKIE, path=self.root)
        return gone

    def _let_in(self, id: str, request: Request) -> Response:
        welcome = RedirectResponse(f"{self.root}/", 303)
        secure = request.url.scheme == "https"
        welcome.set_cookie(COOKIE, id, path=self.root, httponly=True, samesite="strict", secure=secure)
        return welcome


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form, urlencoded as browsers send it; none of one that is longer than ours can be."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES_MAX:
            return {}
    try:
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=FORM_FIELDS_MAX))
    except ValueError:
        return {}
