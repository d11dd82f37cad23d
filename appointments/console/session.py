"""Who sits at the console: signed in by a token, known by a cookie, and asked for a proof with every change.

The token stays in this process's memory and is checked again with every request, so that a revoked one ends the session
at once. The cookie goes to no other site (SameSite=Strict), and a form carries a secret of its own besides.
"""

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from starlette.requests import Request

from appointments.access.access import Access, Unauthenticated
from appointments.access.roles import Principal
from appointments.console import room

COOKIE = "appointments_console"
IDLE_MAX = timedelta(hours=12)
SESSIONS_OF_TENANT_MAX = 1_000
SESSIONS_MAX = 10_000
FORM_FIELD = "form_secret"


@dataclass(slots=True)
class Session:
    """One person's sitting. `form_secret` must come back with each form."""

    tenant: str
    token: str | None
    form_secret: str
    seen_at: datetime


class Sessions:
    """All sittings of this process; they end with it."""

    def __init__(self, access: Access, now: Callable[[], datetime]) -> None:
        self._access, self._now = access, now
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def begin(self, token: str | None) -> str:
        """Sign in, and return the cookie's value. Raises `Unauthenticated`."""
        tenant = self._access.authenticate(token).tenant
        id = secrets.token_urlsafe(32)
        session = Session(tenant, token, secrets.token_urlsafe(32), self._now())
        room.keep(self._sessions, id, session, SESSIONS_OF_TENANT_MAX, SESSIONS_MAX)
        return id

    def end(self, request: Request) -> None:
        """Sign out."""
        self._sessions.pop(request.cookies.get(COOKIE, ""), None)

    def of(self, request: Request) -> tuple[Session, Principal]:
        """Whose request this is. Raises `Unauthenticated` when nobody is signed in, or not any more."""
        id = request.cookies.get(COOKIE, "")
        session = self._sessions.get(id)
        if session is None or self._now() - session.seen_at > IDLE_MAX:
            self._sessions.pop(id, None)
            raise Unauthenticated("sign in first")
        try:
            principal = self._access.authenticate(session.token)
        except Unauthenticated:
            self._sessions.pop(id, None)
            raise
        session.seen_at = self._now()
        self._sessions.move_to_end(id)
        return session, principal


def proves(session: Session, given: object) -> bool:
    """Whether a form was made by this console for this session."""
    return isinstance(given, str) and hmac.compare_digest(given.encode(), session.form_secret.encode())
