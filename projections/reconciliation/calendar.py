"""The provider's side: its listing page by page, and one reference looked at by itself.

A listing may lag behind what a look at one booking shows, so a listing only says where to look. `Unsure` means that a
look got no usable answer: then nothing is known, not even an absence.
"""

from collections.abc import AsyncIterator, Iterable

from domain.errors import ProviderUnavailable
from domain.provider import Call, Found, Missing, Page, Provider, ProviderBooking, ReadOutcome
from projections.reconciliation.intended import Scope

PAGES = (1_000, 100, 10)
"""Bookings asked for at once: many, as each page is a request of its own; fewer where an answer of so many is of no
use, as it may be too long."""
PAGES_MAX = 100_000
LISTING_TIMEOUT_MS = 60_000
LOOK_TIMEOUT_MS = 10_000
OPERATION = "reconcile"
"""Stands as operation id in calls that change nothing."""


class Unsure(Exception):
    """A read got no usable answer."""


async def pages(provider: Provider, scope: Scope, token: str | None = None) -> AsyncIterator[Page]:
    """Every page from `token` on. Raises `SyncExpired` or `ProviderUnavailable`."""
    call = Call(operation_id=OPERATION, client_ref=OPERATION, timeout_ms=LISTING_TIMEOUT_MS, tenant=scope.tenant)
    sizes = list(PAGES)
    for _ in range(PAGES_MAX):
        page = await _page(provider, call, scope, token, sizes)
        yield page
        if not page.more:
            return
        if page.next_token is None or page.next_token == token:
            raise ProviderUnavailable(f"{provider.name}: the listing says there is more, and not where it goes on")
        token = page.next_token
    raise ProviderUnavailable(f"{provider.name}: the listing has no end")


async def _page(provider: Provider, call: Call, scope: Scope, token: str | None, sizes: list[int]) -> Page:
    while len(sizes) > 1:
        try:
            return await provider.listing(call, scope.calendar, token, sizes[0])
        except ProviderUnavailable:
            del sizes[0]
    return await provider.listing(call, scope.calendar, token, sizes[0])


async def look(
    provider: Provider, scope: Scope, client_ref: str, refs: Iterable[str], *, find: bool = True
) -> tuple[ProviderBooking, ...]:
    """Every booking under a client reference, each read by itself: those of `refs`, and what a look-up finds.

    Raises `Unsure`.
    """
    call = Call(operation_id=OPERATION, client_ref=client_ref, timeout_ms=LOOK_TIMEOUT_MS, tenant=scope.tenant)
    wanted = dict.fromkeys(refs)
    if find and provider.capabilities.lookup:
        found = _sure(await provider.find(call, scope.calendar))
        if found is not None:
            wanted[found.provider_ref] = None
    bookings = [_sure(await provider.get(call, scope.calendar, ref)) for ref in wanted]
    return tuple(booking for booking in bookings if booking is not None and booking.client_ref == client_ref)


def _sure(outcome: ReadOutcome) -> ProviderBooking | None:
    match outcome:
        case Found(booking=booking):
            return booking
        case Missing():
            return None
        case _:
            raise Unsure(outcome.kind)
