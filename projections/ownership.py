"""Whose a stream is, by its first event alone: what else it holds is nobody else's business, readable or not."""

from uuid import UUID

from pydantic_core import from_json

from domain.errors import HistoryError
from domain.events import OUTSIDE_APPOINTMENTS
from store.port import RecordedEvent, Store

_OUTSIDE = frozenset(kind.type for kind in OUTSIDE_APPOINTMENTS)


async def tenant_of(store: Store, stream: UUID) -> str | None:
    """The tenant of this appointment; None where there is no such appointment, or nobody can tell whose it is."""
    try:
        first = await store.events(stream, limit=1)
    except HistoryError:
        return None
    if not first or first[0].type in _OUTSIDE:
        return None
    named = _named(first[0])
    if named is None and (row := await store.work(stream)) is not None:
        return row.tenant
    return named


def _named(first: RecordedEvent) -> str | None:
    """Not decoded: an event that this program cannot read may well name its tenant."""
    try:
        body = from_json(first.body)
    except ValueError:
        return None
    tenant = body.get("tenant") if isinstance(body, dict) else None
    return tenant if isinstance(tenant, str) else None
