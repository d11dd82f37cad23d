"""What the log says of the bookings that its appointments hold: how the legacy system's are told apart.

Owns two questions to the log. It calls nobody.
"""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import Connection, Select, select

from domain.appointment import Appointment
from domain.errors import HistoryError
from domain.events import EndReason
from domain.evolve import evolve
from domain.provider import BookingDetails
from projections.current_state import CurrentStates, appointments
from projections.views import Views
from providers.legacy import VIA, Wanted
from store.mapper import decode
from store.port import Store
from store.rows import microseconds

NOTHING_MADE = (EndReason.REJECTED, EndReason.CONFLICT)
"""Ends after which no booking can be there: the provider itself refused it."""


class LoggedClaims:
    """Answers from the log, and from its read model with everything in it that was durable at the question."""

    def __init__(self, store: Store, views: Views) -> None:
        self._store, self._views = store, views

    async def wanted(self, client_ref: str) -> Wanted:
        """The appointment with this reference. Raises `HistoryError`."""
        state = Appointment(UUID(client_ref))
        for recorded in await self._store.events(state.id):
            state = evolve(state, decode(recorded))
        if state.details is None:
            raise HistoryError(f"there is no appointment {client_ref}")
        return Wanted(details=state.details, provider_ref=state.booking.provider_ref if state.booking else None)

    async def unclaimed(self, client_ref: str, details: BookingDetails, refs: Collection[str]) -> frozenset[str] | None:
        """Those of `refs` that no appointment of any tenant holds; None while a rival may have made one of them."""

        def query(connection: Connection) -> frozenset[str] | None:
            if connection.execute(_rivals(client_ref, details)).first() is not None:
                return None
            held = connection.execute(select(_rows.provider_ref).where(_rows.provider_ref.in_(refs))).scalars()
            return frozenset(refs) - frozenset(held)

        return (await self._views.read(CurrentStates.name, query))[0]


_rows = appointments.c


def _rivals(client_ref: str, details: BookingDetails) -> Select[tuple[bytes]]:
    """Others that the legacy system was asked for at the same times, and that hold no booking as yet.

    Whatever they are called: providers that tell no summary show the same of both.
    """
    return (
        select(_rows.id)
        .where(
            _rows.calendar == details.calendar,
            _rows.start_at == microseconds(details.start),
            _rows.end_at == microseconds(details.end),
            _rows.provider.endswith(VIA, autoescape=True),
            _rows.provider_ref.is_(None),
            _rows.reason.is_(None) | _rows.reason.not_in(NOTHING_MADE),
            _rows.id != UUID(client_ref).bytes,
        )
        .limit(1)
    )
