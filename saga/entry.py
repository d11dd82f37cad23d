"""From a turn to what the store keeps of it. Pure."""

from datetime import datetime

from domain.appointment import Appointment
from domain.personal import subjects_of
from saga.inputs import Turn
from saga.lanes import lane_key
from store.mapper import encode
from store.port import Append, OpenWork, RecordedEvent


def later(row: OpenWork, due_at: datetime | None, lane: str = "") -> OpenWork:
    """The same row, due at another time; None sets it aside."""
    return OpenWork(
        stream_id=row.stream_id,
        tenant=row.tenant,
        lane=lane,
        due_at=due_at,
        starts_at=row.starts_at,
        deadline_at=None,
        parked=due_at is None,
        version=row.version,
    )


def entry(before: Appointment, turned: Turn) -> Append:
    """A turn as the store takes it: its events, and the open work after them."""
    state = turned.state
    about = subjects_of(state.details, state.tenant, state.id)
    events: tuple[RecordedEvent, ...] = tuple(
        encode(state.id, version, event, about) for version, event in enumerate(turned.events, before.version + 1)
    )
    elsewhere = state.in_flight is not None and turned.effect is None
    return Append(state.id, before.version, events, _open_work(turned), keeps_owner=elsewhere)


def _open_work(turned: Turn) -> OpenWork | None:
    state, wake = turned.state, turned.wake
    if wake is None and not state.parked:
        return None
    assert state.details is not None
    return OpenWork(
        stream_id=state.id,
        tenant=state.tenant,
        lane=lane_key(wake.lane, state.tenant) if wake and state.in_flight is None else "",
        due_at=wake.at if wake else None,
        starts_at=state.details.start,
        deadline_at=wake.deadline_at if wake else None,
        in_flight=state.in_flight is not None,
        parked=state.parked,
        version=state.version,
    )
