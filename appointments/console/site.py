"""What the pages share: who is signed in and what they may do, how a page is made, and how a refusal is told.

Who may see and do what is decided by the table of roles that the API goes by, and asked at the same pace.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from appointments.access.access import Unauthenticated
from appointments.access.roles import Permission, Principal
from appointments.console.jobs import Jobs
from appointments.console.session import FORM_FIELD, Session, Sessions, proves
from appointments.http.asking import check_pace
from appointments.http.border import CLOSE
from appointments.http.door import Door
from appointments.http.problems import Problem, Refusal, told
from appointments.orchestrator import Orchestrator
from domain.errors import HistoryError, InvalidFields, StoreUnavailable

HERE = Path(__file__).parent
FORM_FIELDS_MAX = 20
FORM_BYTES_MAX = 16_384
READING = "GET"
AHEAD = re.compile(r"(/[a-z0-9-]+)*/?(\?[A-Za-z0-9_.~%&=+:-]{0,1000})?")
"""What stands behind the root in an address of the console: nothing that a browser could take for another place."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of somebody who is signed in."""

    request: Request
    session: Session
    principal: Principal
    door: Door
    """That of the shard that keeps its tenant."""
    form: Mapping[str, str] = field(default_factory=dict)

    @property
    def desk(self) -> Orchestrator:
        """The appointment desk."""
        return self.door.desk

    @property
    def tenant(self) -> str:
        """Whose data it is about."""
        return self.principal.tenant

    @property
    def partial(self) -> bool:
        """Asked for by a page that is open, to put into it."""
        return "hx-request" in self.request.headers

    def confirmed(self) -> None:
        """Raise `InvalidFields` unless the box below the form was ticked."""
        if self.form.get("sure") != "yes":
            raise InvalidFields("it was not confirmed: tick the box above the button", (("/sure", "not ticked"),))


Page = Callable[["Site", Visit], Awaitable[Response]]


class Site:
    """The door that the API has too, who sits here, the jobs that go on, and how a page is made."""

    def __init__(self, door: Door, root: str) -> None:
        self.door, self.root = door, root
        self.sessions, self.jobs = Sessions(door.access, door.now), Jobs()
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters["pretty"] = partial(json.dumps, indent=2, ensure_ascii=False)

    def page(self, name: str, visit: Visit | None, here: str = "-", status: int = 200, **facts: Any) -> Response:
        """A template as an answer. `may`: the permissions of who is signed in."""
        principal = visit.principal if visit else None
        shared = {
            "root": self.root,
            "here": here,
            "principal": principal,
            "form_secret": visit.session.form_secret if visit else "",
            "may": self._may(principal) if principal else (),
        }
        return HTMLResponse(self._templates.get_template(f"{name}.html.j2").render(**shared, **facts), status)

    def told(
        self, visit: Visit | None, heading: str, told: str, tone: str, back: str, status: int = 200, part: bool = False
    ) -> Response:
        """One thing to say, and the way back; a `part` goes into a page that is open."""
        name = "said" if part else "told"
        return self.page(name, visit, status=status, heading=heading, told=told, tone=tone, back=back)

    def route(self, path: str, page: Page, needs: Permission, *, changes: bool = False) -> Route:
        """A page for those who are signed in and may see it; one that changes something wants a form of ours."""
        return Route(path, partial(self._visited, page, changes, needs), methods=["POST" if changes else READING])

    async def refused(self, request: Request, fault: Exception) -> Response:
        """An exception handler: what the framework refuses, in the look of the console."""
        try:
            return self._tell(request, self._visit(request), fault)
        except (Unauthenticated, StoreUnavailable):
            return self._tell(request, None, fault)

    async def _visited(self, page: Page, changes: bool, needs: Permission, request: Request) -> Response:
        visit = None
        try:
            visit = self._visit(request)
            check_pace(self.door.access.throttle(visit.tenant, self.door.now()))
            self.check(visit.principal, needs)
            if changes:
                self.check_stopping()
                visit = replace(visit, form=await form_of(request))
                if not proves(visit.session, visit.form.get(FORM_FIELD)):
                    raise Refusal("forbidden", "this form is not from this sitting: go back, and load it again")
            return await page(self, visit)
        except Unauthenticated:
            return self._to_sign_in(request)
        except ClientDisconnect:
            raise
        except Exception as fault:
            return self._tell(request, visit, fault)

    def _visit(self, request: Request) -> Visit:
        session, principal = self.sessions.of(request)
        return Visit(request, session, principal, self.door.of(principal.tenant))

    def check(self, principal: Principal, needs: Permission) -> None:
        """Raise `Refusal` unless the role of this principal has the permission."""
        if not self.door.access.allows(principal, needs):
            raise Refusal("forbidden", f"a {principal.role} may not do this: it takes the permission to {needs}")

    def check_stopping(self) -> None:
        """Raise `Refusal` for a form while the process stops."""
        if self.door.standing.stopping:
            raise Refusal("stopping", "nothing was done; send it again in a moment", CLOSE)

    def _may(self, principal: Principal) -> frozenset[str]:
        return frozenset(one.value for one in Permission if self.door.access.allows(principal, one))

    def _tell(self, request: Request, visit: Visit | None, fault: Exception) -> Response:
        """The same names and statuses as the API's problems have."""
        answered = told(fault)
        problem = Problem.model_validate_json(bytes(answered.body))
        detail = problem.detail
        if isinstance(fault, StoreUnavailable):
            (visit or self).door.standing.refused(self.door.now())
            detail = "nothing was acknowledged; try again in a moment"
        elif isinstance(fault, HTTPException):
            detail = "there is no such page" if problem.status == 404 else "this address does not take that"
        elif problem.status == 500 and not isinstance(fault, HistoryError):
            about = {"message": f"{request.method} {request.url.path} failed", "exception": fault}
            asyncio.get_running_loop().call_exception_handler(about)
        unchanged = " Nothing was changed." if request.method != READING and problem.status < 500 else ""
        text = f"{detail[:1].upper()}{detail[1:].rstrip('.')}.{unchanged}"
        part = "hx-request" in request.headers
        page = self.told(visit, problem.title, text, "bad", self._came_from(request), problem.status, part)
        for name in ("Retry-After", "Allow", "Connection"):
            if name in answered.headers:
                page.headers[name] = answered.headers[name]
        return page

    def _came_from(self, request: Request) -> str:
        path = request.headers.get("referer", "").partition("//")[2].partition("/")[2]
        return ahead(self.root, f"/{path}")

    def _to_sign_in(self, request: Request) -> Response:
        """Signed in, one comes back to the page that was asked for, or that was open."""
        if "hx-request" in request.headers:
            return Response(status_code=401, headers={"HX-Redirect": f"{self.root}/sign-in"})
        asked = f"{request.url.path}?{request.url.query}".rstrip("?")
        way = f"?{urlencode({'next': asked})}" if request.method == READING and asked != f"{self.root}/" else ""
        return RedirectResponse(f"{self.root}/sign-in{way}", 303)


async def form_of(request: Request) -> dict[str, str]:
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


def ahead(root: str, asked: str) -> str:
    """The page that was asked for, where it is one of the console; else its first."""
    local = asked.startswith(f"{root}/") and AHEAD.fullmatch(asked.removeprefix(root))
    return asked if local else f"{root}/"
