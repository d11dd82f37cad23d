"""Coming in by a token and going out again. Who was on the way to a page gets there; to no other place."""

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from appointments.access.access import Unauthenticated
from appointments.console.session import COOKIE
from appointments.console.site import Site, Visit, ahead, form_of
from appointments.http.asking import check_pace

REFUSED = "This token is not known, or not valid any more."


class SignIn:
    """The pages of the door. Without tokens everybody is let in."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def page(self, request: Request) -> Response:
        """Where a token is asked for."""
        way = ahead(self._site.root, request.query_params.get("next", ""))
        try:
            return self._let_in(None, request, way)
        except Unauthenticated:
            return self._site.page("sign_in", None, told="", way=way)

    async def come(self, request: Request) -> Response:
        """A token is shown; how fast they may be guessed is what the API says. Raises `Refusal`."""
        self._site.check_stopping()
        if request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return self._site.page("sign_in", None, status=403, told="Sign in on this page.", way=f"{self._site.root}/")
        form = await form_of(request)
        way = ahead(self._site.root, form.get("next", ""))
        try:
            return self._let_in(form.get("token", "").strip(), request, way)
        except Unauthenticated:
            address = request.client.host if request.client else ""
            check_pace(self._site.door.access.failed(address, self._site.door.now()))
            return self._site.page("sign_in", None, status=401, told=REFUSED, way=way)

    def _let_in(self, token: str | None, request: Request, way: str) -> Response:
        id = self._site.sessions.begin(token)
        welcome = RedirectResponse(way, 303)
        secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))
        welcome.set_cookie(COOKIE, id, path=self._site.root, httponly=True, samesite="strict", secure=secure)
        return welcome


async def leave(at: Site, visit: Visit) -> Response:
    """The sitting ends."""
    at.sessions.end(visit.request)
    gone = RedirectResponse(f"{at.root}/sign-in", 303)
    gone.delete_cookie(COOKIE, path=at.root)
    return gone
