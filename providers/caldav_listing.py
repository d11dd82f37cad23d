"""Where a calendar's resources are, and its listing in pages that lose no change.

Servers that cut a sync-collection answer by `DAV:limit` have been seen to lose changes, so the pages are ours: a token
holds the server's token before the walk, the one that the walk's first answer gave, and the last name shown. What
changes during the walk is told after it. The names still to be shown are remembered between the pages, so that a walk
asks the server once; one whose names were forgotten asks again from the token before it.
"""

import asyncio
import json
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TypeVar
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
NAMES_BODY_MAX = 67_108_864
"""Of the names of a whole calendar: about 240,000 on Radicale."""
BODY_MAX = 16_777_216
BODIES_MAX = 100
"""Events asked for at once."""
WALKS_MAX = 16
NAMES_MAX = 500_000
"""Remembered in all, for at most `WALKS_MAX` walks; but always those of the walk that moved last."""
EXPIRED = (403, 410, 412, 507)

_Read = TypeVar("_Read")


class CalendarHome:
    """The collection that holds the calendars."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def url(self, calendar: str, name: str = "") -> str:
        """The address of a calendar, or of one resource in it."""
        return f"{self._url}/{quote(calendar, safe='')}/{quote(name, safe='')}"


@dataclass(frozen=True)
class Names:
    """The names of what is in a calendar, or of what changed in it since a token; in order."""

    all: tuple[str, ...]
    gone: frozenset[str]
    token: str | None
    truncated: bool

    @classmethod
    def read(cls, answer: Answer) -> Self:
        """Raises `BadMultistatus`."""
        changes = webdav.read_multistatus(answer)
        present = {resource.name for resource in changes.present}
        gone = frozenset(changes.gone) - present
        return cls(tuple(sorted(present | gone)), gone, changes.token, changes.truncated)


class Remembered:
    """The names of walks under way, the one that moved last at the end."""

    def __init__(self) -> None:
        self._walks: dict[_Key, Names] = {}

    def keep(self, key: "_Key", names: Names) -> None:
        """Remember, and forget what is too much."""
        self._walks.pop(key, None)
        self._walks[key] = names
        while len(self._walks) > 1 and (len(self._walks) > WALKS_MAX or len(self) > NAMES_MAX):
            del self._walks[next(iter(self._walks))]

    def get(self, key: "_Key") -> Names | None:
        """What is remembered of a walk."""
        return self._walks.get(key)

    def drop(self, key: "_Key") -> None:
        """Forget a walk that has ended."""
        self._walks.pop(key, None)

    def __len__(self) -> int:
        return sum(len(names.all) for names in self._walks.values())


class Listing:
    """Reads a calendar page by page: names by sync-collection or PROPFIND, bodies by calendar-multiget."""

    def __init__(self, exchange: Exchange, home: CalendarHome, *, sync: bool) -> None:
        self._exchange = exchange
        self._home = home
        self._sync = sync
        self._remembered = Remembered()

    async def page(self, calendar: str, token: str | None, limit: int, deadline: Deadline) -> Page:
        """One page, at most `limit` bookings. Raises `SyncExpired` or `ProviderUnavailable`."""
        walk = _Walk.parse(token)
        names = self._remembered.get((calendar, walk)) if walk.after else None
        if names is None:
            names = await self._names(calendar, walk.since, deadline)
            if names.truncated:  # another cut than before may leave out what was not shown yet
                walk = _Walk(walk.since)
        begin = bisect_right(names.all, walk.after)
        shown = names.all[begin : begin + limit]
        bookings = await self._bookings(calendar, tuple(name for name in shown if name not in names.gone), deadline)
        bookings += tuple(_gone(name) for name in shown if name in names.gone)
        until = walk.until or names.token
        self._remembered.drop((calendar, walk))
        if begin + limit < len(names.all):
            rest = _Walk(walk.since, until, shown[-1])
            self._remembered.keep((calendar, rest), names)
            return Page(bookings=bookings, next_token=rest.text(), more=True)
        if until is None:
            return Page(bookings=bookings)
        return Page(bookings=bookings, next_token=_Walk(since=until).text(), more=names.truncated)

    async def _names(self, calendar: str, since: str | None, deadline: Deadline) -> Names:
        if self._sync:
            answer = await self._ask("REPORT", "0", calendar, webdav.sync_request(since), deadline, NAMES_BODY_MAX)
        else:
            answer = await self._ask("PROPFIND", "1", calendar, webdav.ETAGS, deadline, NAMES_BODY_MAX)
        if since is not None and isinstance(answer, Answer) and answer.status in EXPIRED:
            raise SyncExpired(told(answer))
        return await _read(answer, Names.read)

    async def _bookings(self, calendar: str, names: tuple[str, ...], deadline: Deadline) -> tuple[ProviderBooking, ...]:
        bookings: list[ProviderBooking] = []
        for begin in range(0, len(names), BODIES_MAX):
            for resource in await self._resources(calendar, names[begin : begin + BODIES_MAX], deadline):
                bookings.append(_listed(resource))
                await asyncio.sleep(0)  # an event takes about a millisecond to read: others have their turn between
        return tuple(bookings)

    async def _resources(self, calendar: str, names: tuple[str, ...], deadline: Deadline) -> list[Resource]:
        paths = tuple(urlsplit(self._home.url(calendar, name)).path for name in names)
        answer = await self._ask("REPORT", "1", calendar, webdav.multiget_request(paths), deadline, BODY_MAX)
        told = await _read(answer, webdav.read_multistatus)
        read = {resource.name: resource for resource in told.present}
        # what a server leaves out is there all the same; what it knows nothing of has gone since it was listed
        there = (read.get(name, Resource(name, None, "")) for name in names if name not in told.gone)
        return [resource for resource in there if (resource.etag, resource.body) != (None, None)]

    async def _ask(
        self, method: str, depth: str, calendar: str, body: bytes, deadline: Deadline, body_max: int
    ) -> Answer | Failure:
        return await self._exchange.send(
            method,
            self._home.url(calendar),
            deadline,
            headers={"Depth": depth, **webdav.XML},
            body=body,
            body_max=body_max,
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


_Key = tuple[str, _Walk]
"""A calendar, and where the walk through it stands."""


async def _read(answer: Answer | Failure, reading: Callable[[Answer], _Read]) -> _Read:
    """What an answer says, read beside the event loop: it may be long. Raises `ProviderUnavailable`."""
    if isinstance(answer, Failure) or answer.status != 207:
        raise ProviderUnavailable(f"the calendar cannot be listed: {told(answer)}")
    try:
        return await asyncio.to_thread(reading, answer)
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
