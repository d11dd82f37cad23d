"""Where a calendar's resources are, and its listing in pages that lose no change.

Servers that cut a sync-collection answer by `DAV:limit` have been seen to lose changes, so the pages are ours: a token
holds the server's token before the walk, the one that the walk's first answer gave, and the last name shown. What
changes during the walk is told after it.
"""

import json
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, urlsplit

from pydantic import ValidationError

from domain.errors import ProviderUnavailable
from domain.provider import BookingStatus, Page, ProviderBooking, SyncExpired
from providers import ical, webdav
from providers.exchange import Answer, Deadline, Exchange, Failure
from providers.outcomes import told
from providers.webdav import Resource

TEXT_MAX = 1_000
"""Characters of a stranger's UID or summary that are kept: ours are shorter."""
BODY_MAX = 16_777_216
EXPIRED = (403, 410, 412, 507)


class CalendarHome:
    """The collection that holds the calendars."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def url(self, calendar: str, name: str = "") -> str:
        """The address of a calendar, or of one resource in it."""
        return f"{self._url}/{quote(calendar, safe='')}/{quote(name, safe='')}"


class Listing:
    """Reads a calendar page by page: names by sync-collection or PROPFIND, bodies by calendar-multiget."""

    def __init__(self, exchange: Exchange, home: CalendarHome, *, sync: bool) -> None:
        self._exchange = exchange
        self._home = home
        self._sync = sync

    async def page(self, calendar: str, token: str | None, limit: int, deadline: Deadline) -> Page:
        """One page, at most `limit` bookings. Raises `SyncExpired` or `ProviderUnavailable`."""
        walk = _Walk.parse(token)
        changes = await self._changes(calendar, walk.since, deadline)
        present = {resource.name for resource in changes.present}
        names = sorted(name for name in present.union(changes.gone) if name > walk.after)
        shown = tuple(names[:limit])
        bookings = await self._bookings(calendar, tuple(name for name in shown if name in present), deadline)
        bookings += tuple(_gone(name) for name in shown if name not in present)
        until = walk.until or changes.token
        if len(names) > limit:
            return Page(bookings=bookings, next_token=_Walk(walk.since, until, shown[-1]).text(), more=True)
        if until is None:
            return Page(bookings=bookings)
        return Page(bookings=bookings, next_token=_Walk(since=until).text(), more=changes.truncated)

    async def _changes(self, calendar: str, since: str | None, deadline: Deadline) -> webdav.Changes:
        if not self._sync:
            return _multistatus(await self._ask("PROPFIND", "1", calendar, webdav.ETAGS, deadline))
        answer = await self._ask("REPORT", "0", calendar, webdav.sync_request(since), deadline)
        if since is not None and isinstance(answer, Answer) and answer.status in EXPIRED:
            raise SyncExpired(told(answer))
        return _multistatus(answer)

    async def _bookings(self, calendar: str, names: tuple[str, ...], deadline: Deadline) -> tuple[ProviderBooking, ...]:
        if not names:
            return ()
        paths = tuple(urlsplit(self._home.url(calendar, name)).path for name in names)
        answer = await self._ask("REPORT", "1", calendar, webdav.multiget_request(paths), deadline)
        told = _multistatus(answer)
        read = {resource.name: resource for resource in told.present}
        # what a server leaves out is there all the same; what it knows nothing of has gone since it was listed
        there = (read.get(name, Resource(name, None, "")) for name in names if name not in told.gone)
        return tuple(_listed(resource) for resource in there if (resource.etag, resource.body) != (None, None))

    async def _ask(self, method: str, depth: str, calendar: str, body: bytes, deadline: Deadline) -> Answer | Failure:
        return await self._exchange.send(
            method,
            self._home.url(calendar),
            deadline,
            headers={"Depth": depth, **webdav.XML},
            body=body,
            body_max=BODY_MAX,
        )


def event_booking(name: str, etag: str | None, event: ical.CalendarEvent) -> ProviderBooking:
    """A stored event as a booking; raises pydantic's `ValidationError` where it breaks the port's limits."""
    return ProviderBooking(
        provider_ref=name,
        client_ref=event.uid[:TEXT_MAX],
        status=event.status,
        version=event.sequence + 1,
        etag=etag,
        start=event.start,
        end=event.end,
        summary=event.summary[:TEXT_MAX],
    )


@dataclass(frozen=True)
class _Walk:
    """Where a walk through a calendar stands."""

    since: str | None = None
    until: str | None = None
    after: str = ""

    def text(self) -> str:
        return json.dumps([self.since, self.until, self.after], ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def parse(cls, token: str | None) -> Self:
        if token is None:
            return cls()
        try:
            since, until, after = json.loads(token)
        except (ValueError, TypeError, RecursionError) as fault:
            raise SyncExpired("the token is none of ours") from fault
        if not (isinstance(since, str | None) and isinstance(until, str | None) and isinstance(after, str)):
            raise SyncExpired("the token is none of ours")
        return cls(since, until, after)


def _multistatus(answer: Answer | Failure) -> webdav.Changes:
    if isinstance(answer, Failure) or answer.status != 207:
        raise ProviderUnavailable(f"the calendar cannot be listed: {told(answer)}")
    try:
        return webdav.read_multistatus(answer)
    except webdav.BadMultistatus as fault:
        raise ProviderUnavailable(f"the calendar cannot be listed: {fault}") from fault


def _listed(resource: webdav.Resource) -> ProviderBooking:
    try:
        return event_booking(resource.name, resource.etag, ical.read_event((resource.body or "").encode()))
    except (ical.Unreadable, ValidationError):
        # a stranger's broken entry must not hide the others
        return ProviderBooking(
            provider_ref=resource.name, client_ref=_client_ref(resource.name), status=BookingStatus.ACCEPTED
        )


def _gone(name: str) -> ProviderBooking:
    return ProviderBooking(provider_ref=name, client_ref=_client_ref(name), status=BookingStatus.CANCELLED)


def _client_ref(name: str) -> str:
    return name.removesuffix(".ics")
