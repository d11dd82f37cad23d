"""What a request says beside its body: who asks, under which key, for which version, and how long it will wait.

Headers are read here by hand, and described in `openapi.py`: declared one by one they would cost a sixth of a booking.
"""

import re
from dataclasses import dataclass
from math import ceil
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from appointments.access.access import Unauthenticated
from appointments.access.roles import NEEDS, Principal
from appointments.http.door import Door
from appointments.http.problems import Refusal
from appointments.orchestrator import Orchestrator
from appointments.telemetry.context import Context

WAIT_MAX_S = 60
KEY = re.compile(r"[!-~]{1,255}")
TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
"""A comma may be part of it (RFC 9110, 8.8.3)."""
TAGS = re.compile(rf"[ \t,]*{TAG.pattern}(?:[ \t]*,[ \t,]*{TAG.pattern})*[ \t,]*")
PREFERENCE = re.compile(r'(?:"(?:\\.|[^"\\])*"?|[^",])+')
"""One of a list; between quotes a comma is part of it."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of somebody who may make it."""

    door: Door
    who: Principal

    @property
    def desk(self) -> Orchestrator:
        """The appointment desk."""
        return self.door.desk

    @property
    def tenant(self) -> str:
        """Whose data it is about."""
        return self.who.tenant


async def door(request: Request) -> Door:
    """That of the application that is asked."""
    found: Door = request.app.state.door
    return found


class Admission(HTTPBearer):
    """The dependency of every route that takes a token. Raises `Unauthenticated` and `Refusal`."""

    def __init__(self) -> None:
        told = "`appointments token create` makes one; `serve --dev` asks for none"
        super().__init__(scheme_name="bearer", description=told, auto_error=False)

    async def __call__(self, request: Request) -> Visit:  # type: ignore[override]
        """Who asks, once it is clear that it may do what `NEEDS` says that this route takes."""
        visit, needed = _visit(request), NEEDS[request.scope["route"].name]
        if needed is None or not visit.door.access.allows(visit.who, needed):
            raise Refusal("forbidden", f"a {visit.who.role} may not do this: it takes the permission to {needed}")
        return visit


async def known(request: Request) -> Visit | None:
    """The dependency of a route that is open to everybody, and tells more to who shows a token. Raises the same."""
    try:
        return _visit(request)
    except Unauthenticated:
        if "authorization" in request.headers:
            raise
        return None


def _visit(request: Request) -> Visit:
    at: Door = request.app.state.door
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    token = text.strip() or None if scheme.lower() == "bearer" else None
    try:
        who = at.access.authenticate(token)
    except Unauthenticated:
        # Who shows none, to learn how it is asked for, is told that however often.
        if token is not None:
            check_pace(at.access.failed(request.client.host if request.client else "", at.now()))
        raise
    check_pace(at.access.throttle(who.tenant, at.now()))
    visit = Visit(at.of(who.tenant), who)
    request.scope["standing"] = visit.door.standing
    return visit


def check_pace(wait_s: float | None) -> None:
    """Raise `Refusal` where there is a time to wait."""
    if wait_s is not None:
        raise Refusal("too-many-requests", "slow down", {"Retry-After": str(max(1, ceil(wait_s)))})


@dataclass(frozen=True, slots=True)
class Said:
    """What the headers of a command say. `wait_s` 0: answer at once."""

    key: str | None
    wait_s: int
    applied: str
    conversation: str | None
    versions: tuple[int, ...] | None
    """At which alone it is to be carried out; None: at any."""

    async def expected(self, visit: Visit, id: Any) -> int | None:
        """The one of these versions that the appointment may be at."""
        if self.versions is None:
            return None
        now = (await visit.desk.show(id, tenant=visit.tenant)).version if len(self.versions) > 1 else 0
        return now if now in self.versions else (*self.versions, 0)[0]


async def said(request: Request) -> Said:
    """Read the headers. Raises `Refusal`."""
    headers = request.headers
    keys = headers.getlist("idempotency-key")
    if keys and (len(keys) > 1 or not KEY.fullmatch(keys[0])):
        raise Refusal("idempotency-key-missing", "send one Idempotency-Key of 1 to 255 visible ASCII characters")
    wait_s, applied = _preferences(headers.getlist("prefer"))
    if_match = headers.getlist("if-match")
    traced = Context.read(headers.get("traceparent"))
    return Said(
        key=keys[0] if keys else None,
        wait_s=wait_s,
        applied=applied,
        conversation=headers.get("x-correlation-id") or (f"{traced.trace_id:032x}" if traced else None),
        versions=versions(",".join(if_match)) if if_match else None,
    )


async def keyed(request: Request) -> Said:
    """The same for a command that needs a key. Raises `Refusal`."""
    found = await said(request)
    if found.key is None:
        raise Refusal("idempotency-key-missing", "send an Idempotency-Key: a repeat with it does nothing twice")
    return found


def _preferences(told: list[str]) -> tuple[int, str]:
    """RFC 7240: how long to wait, and what of it is heeded. What is not known is left out, and of equals the later.

    What stands behind a semicolon are parameters of a preference; ours have none.
    """
    wait_s, heeded = 0, dict[str, str | None]()
    for one in PREFERENCE.findall(",".join(told)):
        name, _, value = (part.strip().strip('"') for part in one.partition(";")[0].partition("="))
        name = name.lower()
        if name in heeded:
            continue
        heeded[name] = name if name == "respond-async" else None
        if name == "wait" and value.isascii() and value.isdecimal():
            wait_s = min(int(value[:6]), WAIT_MAX_S)
            heeded[name] = f"wait={wait_s}"
    return wait_s, ", ".join(filter(None, heeded.values()))


def versions(tags: str, *, weakly: bool = False) -> tuple[int, ...] | None:
    """The versions that a list of entity tags names (0 for a tag that is none of ours); None for `*`.

    Weak tags name one only by the weak comparison. Raises `Refusal` for what is no list of entity tags (RFC 9110).
    """
    if tags.strip() == "*":
        return None
    if not TAGS.fullmatch(tags):
        raise Refusal("malformed", 'entity tags look like "3"; ETag tells that of each answer')
    return tuple(_version(tag) for weak, tag in TAG.findall(tags) if weakly or not weak)


def unchanged(request: Request, version: int) -> bool:
    """Whether If-None-Match names this version; by the weak comparison, as it is to be."""
    tags = request.headers.getlist("if-none-match")
    if not tags:
        return False
    known = versions(",".join(tags), weakly=True)
    return known is None or version in known


def _version(tag: str) -> int:
    return int(tag) if tag.isascii() and tag.isdecimal() and len(tag) < 10 and tag[0] != "0" else 0


At = Annotated[Door, Depends(door)]
Admitted = Annotated[Visit, Depends(Admission())]
Known = Annotated[Visit | None, Depends(known)]
Keyed = Annotated[Said, Depends(keyed)]
MayBeKeyed = Annotated[Said, Depends(said)]
