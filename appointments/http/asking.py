"""What a request says beside its body: who asks, under which key, for which version, and how long it will wait."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from appointments.access.roles import Permission, Principal
from appointments.http.door import Door
from appointments.http.problems import Refusal
from domain.commands import Key as KeyText

WAIT_MAX_S = 60
TAG = re.compile(r'(?P<weak>W/)?"(?P<tag>[\x21\x23-\x7e\x80-\xff]*)"')
TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")

_bearer = HTTPBearer(auto_error=False, description="`appointments token create` makes one; `serve --dev` asks for none")


async def door(request: Request) -> Door:
    """That of the application that is asked."""
    found: Door = request.app.state.door
    return found


At = Annotated[Door, Depends(door)]


def may(permission: Permission) -> Callable[..., Awaitable[Principal]]:
    """Who asks, and may do that. The dependency raises `Unauthenticated` and `Refusal`."""

    async def caller(at: At, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> Principal:
        principal = at.access.authenticate(given.credentials if given else None)
        if (wait_s := at.access.throttle(principal.tenant, at.now())) is not None:
            raise Refusal("too-many-requests", "slow down", {"Retry-After": str(int(wait_s) + 1)})
        if not at.access.allows(principal, permission):
            raise Refusal("forbidden", f"a {principal.role} may not do this: it takes the permission to {permission}")
        return principal

    return caller


@dataclass(frozen=True, slots=True)
class Preferences:
    """RFC 7240. `wait_s` 0: answer at once."""

    wait_s: int = 0
    applied: str = ""


async def preferences(
    prefer: Annotated[
        list[str] | None,
        Header(description="`wait=N`: answer at the end, or after N seconds (at most 60); `respond-async`"),
    ] = None,
) -> Preferences:
    """What the caller would like; what is not known is left out, as the standard has it."""
    wait_s, applied = 0, []
    for told in ",".join(prefer or ()).split(","):
        name, _, value = (part.strip().strip('"') for part in told.partition("="))
        if name.lower() == "wait" and value.isascii() and value.isdecimal() and not wait_s:
            wait_s = min(int(value[:6]), WAIT_MAX_S)
            applied.append(f"wait={wait_s}")
        elif name.lower() == "respond-async" and "respond-async" not in applied:
            applied.append("respond-async")
    return Preferences(wait_s, ", ".join(applied))


def versions(tags: str) -> tuple[int, ...] | None:
    """The versions that an If-Match or If-None-Match names (0 for a tag that is none of ours); None for `*`.

    Raises `Refusal` for what is no list of entity tags (RFC 9110).
    """
    if tags.strip() == "*":
        return None
    found = [TAG.fullmatch(one.strip()) for one in tags.split(",")]
    if not all(found):
        raise Refusal("malformed", 'entity tags look like "3"; ETag tells that of each answer')
    return tuple(_version(one["tag"]) for one in found if one is not None and one["weak"] is None)


def weak_versions(tags: str) -> tuple[int, ...] | None:
    """`versions` for the weak comparison that If-None-Match takes."""
    return versions(tags.replace("W/", ""))


def _version(tag: str) -> int:
    return int(tag) if tag.isascii() and tag.isdecimal() and len(tag) < 10 and tag[0] != "0" else 0


async def correlation(
    x_correlation_id: Annotated[str | None, Header(max_length=128, description="Goes into every event.")] = None,
    traceparent: Annotated[
        str | None, Header(description="W3C Trace Context: its trace id, where no id is given.")
    ] = None,
) -> str | None:
    """The conversation that a command belongs to."""
    if x_correlation_id:
        return x_correlation_id
    found = TRACEPARENT.fullmatch(traceparent or "")
    return found[1] if found else None


Reader = Annotated[Principal, Depends(may(Permission.READ))]
Booker = Annotated[Principal, Depends(may(Permission.BOOK))]
Auditor = Annotated[Principal, Depends(may(Permission.AUDIT))]
Operator = Annotated[Principal, Depends(may(Permission.OPERATE))]
Reconciler = Annotated[Principal, Depends(may(Permission.RECONCILE))]
Healer = Annotated[Principal, Depends(may(Permission.HEAL))]
Key = Annotated[KeyText, Header(alias="Idempotency-Key", description="The same key and body: the same appointment.")]
OptionalKey = Annotated[KeyText | None, Header(alias="Idempotency-Key")]
Wishes = Annotated[Preferences, Depends(preferences)]
Conversation = Annotated[str | None, Depends(correlation)]
IfMatch = Annotated[str | None, Header(alias="If-Match", max_length=255, description="Only at this version.")]
IfNoneMatch = Annotated[
    str | None, Header(alias="If-None-Match", max_length=255, description="Only if it has changed.")
]
