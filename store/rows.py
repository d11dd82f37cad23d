"""Between the port's types and table rows. Owns the conversion of times and ids, and nothing of what they mean."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic import ConfigDict, TypeAdapter

from domain.errors import HistoryError
from store.port import BEGINNING, Append, OpenWork, RecordedEvent
from store.sealing import unseal

WorkRow = tuple[bytes, str, str, int | None, int, int | None, bool, bool, int, str, int]
"""One row of `open_work`, in the order of its columns."""
_WORK_ROW: TypeAdapter[WorkRow] = TypeAdapter(WorkRow, config=ConfigDict(strict=True))
EventRow = tuple[int, bytes, int, str, int, bytes, bytes, bytes]
"""One row of `events`, in the order of its columns."""

_MICROSECOND = timedelta(microseconds=1)


def microseconds(instant: datetime) -> int:
    """Microseconds since 1970; a time without a zone is a TypeError."""
    return (instant - BEGINNING) // _MICROSECOND


def instant(microseconds_since_1970: int) -> datetime:
    """The UTC instant; exact, because it is computed with integers."""
    return BEGINNING + timedelta(microseconds=microseconds_since_1970)


def _optional_microseconds(at: datetime | None) -> int | None:
    return None if at is None else microseconds(at)


def _optional_instant(at: int | None) -> datetime | None:
    return None if at is None else instant(at)


def work_row(work: OpenWork, owner: str) -> WorkRow:
    """The row to write; it belongs to the owner who writes it."""
    return (
        work.stream_id.bytes,
        work.tenant,
        work.lane,
        _optional_microseconds(work.due_at),
        microseconds(work.starts_at),
        _optional_microseconds(work.deadline_at),
        work.in_flight,
        work.parked,
        work.version,
        owner,
        work.epoch,
    )


def work_of(row: Iterable[Any]) -> OpenWork:
    """What a row of `open_work` says; raises `HistoryError` for one that this program cannot have written."""
    found = tuple(row)
    try:
        stream_id, tenant, lane, due_at, starts_at, deadline_at, in_flight, parked, version, owner, epoch = (
            _WORK_ROW.validate_python(found)
        )
        return OpenWork(
            stream_id=UUID(bytes=stream_id),
            tenant=tenant,
            lane=lane,
            due_at=_optional_instant(due_at),
            starts_at=instant(starts_at),
            deadline_at=_optional_instant(deadline_at),
            in_flight=in_flight,
            parked=parked,
            version=version,
            owner=owner,
            epoch=epoch,
        )
    except (ValueError, OverflowError) as fault:
        raise HistoryError(
            f"the open work of stream {found[0]!r} cannot be read, and waits until a command"
            f" for that appointment writes its row anew: {fault}"
        ) from None


def uuid_of(stream: bytes) -> UUID:
    """A stream's id."""
    return UUID(bytes=stream)


def event_of(row: Iterable[Any], keys: Mapping[bytes, bytes], streams: dict[bytes, UUID]) -> RecordedEvent:
    """What a row of `events` says; `keys` are those of its subjects that are kept, by their refs.

    `streams` remembers the ids of the rows before it, for most are of a stream that was just met. Raises `HistoryError`
    for a row that no event can stand in; what its body says is not looked at.
    """
    position, stream_id, version, type, at, body, sealed, digest = row
    try:
        if not (isinstance(body, bytes) and isinstance(sealed, bytes) and isinstance(digest, bytes)):
            raise TypeError("a column holds text or a number where bytes were written")
        stream = streams.get(stream_id) or streams.setdefault(stream_id, uuid_of(stream_id))
        private = unseal(sealed, keys, stream, version) if sealed else ()
        return RecordedEvent(stream, version, type, body, position, instant(at), private, sealed, digest)
    except (ValueError, TypeError, OverflowError) as fault:
        raise HistoryError(f"position {position} of the log cannot be read: {fault}") from None


def check(entry: Append) -> None:
    """ValueError when an entry contradicts itself: that is a fault in the code that made it."""
    expected = entry.expected_version
    if expected < 0:
        raise ValueError(f"expected version {expected} is below 0")
    for event in entry.events:
        expected += 1
        if event.stream_id != entry.stream_id or event.version != expected:
            raise ValueError(
                f"event {event.type} of stream {event.stream_id} version {event.version}"
                f" does not follow version {expected - 1} of stream {entry.stream_id}"
            )
    work = entry.work
    if work is None:
        return
    if not entry.touches_work:
        raise ValueError(f"stream {entry.stream_id}: open work was given, yet it is not to be touched")
    if work.stream_id != entry.stream_id:
        raise ValueError(f"open work of stream {work.stream_id} given with events of stream {entry.stream_id}")
