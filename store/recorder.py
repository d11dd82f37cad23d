"""The recorder interface of the `eventsourcing` library on our log: topic is type, state is body, a notification's
id is the position.

The library's applications and projection runners then read and write the log through the same journal as everybody
else. Owns no table but its own snapshots; the library's versions may start at any number and are only kept unique.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar
from uuid import UUID

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    IntegrityError,
    ListenNotifySubscription,
    Notification,
    OperationalError,
    ProcessRecorder,
    Recorder,
    StoredEvent,
    Subscription,
    Tracking,
    TrackingRecorder,
)
from sqlalchemy import Table, func, insert, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import IntegrityError as KeyTaken
from sqlalchemy.sql import Select

from domain.errors import StoreUnavailable
from store.log_writer import LogWriter, TaskEntry
from store.sql import SqlStore, upsert
from store.tables import checkpoints, events

POLL_S = 1.0
"""How often a subscription looks by itself: commits of another process wake nobody here."""

T = TypeVar("T")


class LogRecorder(Recorder):
    """What the recorders share: reads by the store's readers, writes by its journal. Raises the library's errors."""

    def __init__(self, store: SqlStore) -> None:
        self.store = store
        self.origin: object = None
        """Whoever opened the store for this recorder: it is not let go of before the recorder is."""

    def write(self, change: Callable[[LogWriter], T]) -> T:
        """Run `change` in a transaction and wait until it is durable."""
        future: Future[T] = Future()
        try:
            self.store.journal.submit(TaskEntry(change, future))
            return future.result()
        except KeyTaken as error:
            raise IntegrityError(str(error.orig)) from error
        except StoreUnavailable as error:
            raise OperationalError(str(error)) from error

    def read(self, query: Select[Any]) -> Sequence[Any]:
        """Run one query as a transaction of its own."""
        try:
            with self.store.readers.connect() as connection:
                return connection.execute(query).all()
        except DBAPIError as error:
            raise OperationalError(str(error.orig)) from error
        except StoreUnavailable as error:
            raise OperationalError(str(error)) from error


class LogAggregateRecorder(LogRecorder, AggregateRecorder):
    """Events of single streams; on the table of the log, or on that of the library's snapshots."""

    def __init__(self, store: SqlStore, table: Table = events) -> None:
        super().__init__(store)
        self.table = table

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        self.write(lambda writer: self._insert(writer, stored_events, **kwargs))
        return None

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        columns = self.table.c
        query = (
            select(columns.version, columns.type, columns.body)
            .where(columns.stream_id == _id(originator_id).bytes)
            .order_by(columns.version.desc() if desc else columns.version)
            .limit(limit)
        )
        if gt is not None:
            query = query.where(columns.version > gt)
        if lte is not None:
            query = query.where(columns.version <= lte)
        return [StoredEvent(originator_id, version, type, body) for version, type, body in self.read(query)]

    def _insert(self, writer: LogWriter, stored_events: Sequence[StoredEvent], **_: Any) -> list[int]:
        if self.table is events:
            return writer.insert_events(
                [(_id(s.originator_id).bytes, (s.originator_version, s.topic, 0, s.state, ())) for s in stored_events]
            )
        rows = [(_id(s.originator_id).bytes, s.originator_version, s.topic, s.state) for s in stored_events]
        if rows:
            named = [dict(zip(("stream_id", "version", "type", "body"), row, strict=True)) for row in rows]
            writer.connection.execute(insert(self.table), named)
        return []


class LogApplicationRecorder(LogAggregateRecorder, ApplicationRecorder):
    """The whole log as the library's application sequence."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        return self.write(lambda writer: self._insert(writer, stored_events, **kwargs))

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        position = events.c.position
        columns = events.c
        query = select(position, columns.stream_id, columns.version, columns.type, columns.body)
        query = query.order_by(position).limit(limit)
        if start is not None:
            query = query.where(position >= start if inclusive_of_start else position > start)
        if stop is not None:
            query = query.where(position <= stop)
        if topics:
            query = query.where(events.c.type.in_(topics))
        return [
            Notification(id=at, originator_id=UUID(bytes=stream), originator_version=version, topic=type, state=body)
            for at, stream, version, type, body in self.read(query)
        ]

    def max_notification_id(self) -> int | None:
        found: int | None = self.read(select(func.max(events.c.position)))[0][0]
        return found

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:
        return LogSubscription(self, gt, topics)


class LogSubscription(ListenNotifySubscription[LogApplicationRecorder]):
    """Polls the log; a commit in this process wakes it at once."""

    def __init__(self, recorder: LogApplicationRecorder, gt: int | None = None, topics: Sequence[str] = ()) -> None:
        super().__init__(recorder, gt, topics)
        self._end_wake_ups = recorder.store.after_commit(self._has_been_notified.set)
        self._has_been_notified.set()  # what was committed before the line above

    def stop(self) -> None:
        super().stop()
        end_wake_ups = getattr(self, "_end_wake_ups", None)  # the pulling thread may stop while we are being made
        if end_wake_ups is not None:
            end_wake_ups()

    def _loop_on_pull(self) -> None:
        try:
            while not self._has_been_stopped:
                self._pull()
                self._has_been_notified.wait(POLL_S)
        except BaseException as error:  # handed to the consumer, who may be in another thread
            self._thread_error = self._thread_error or error
            self.stop()


class LogTrackingRecorder(LogRecorder, TrackingRecorder):
    """Checkpoints: the last position that a consumer has processed. Only a later one may replace it."""

    def insert_tracking(self, tracking: Tracking) -> None:
        self.write(lambda writer: self.track(writer, tracking))

    def max_tracking_id(self, application_name: str) -> int | None:
        query = select(checkpoints.c.position).where(checkpoints.c.consumer == application_name)
        return next((position for (position,) in self.read(query)), None)

    def track(self, writer: LogWriter, tracking: Tracking) -> None:
        """Record it within a change of one's own, so that a view and its checkpoint are one transaction."""
        new = upsert(writer.connection, checkpoints).values(
            consumer=tracking.application_name, position=tracking.notification_id
        )
        moved = new.on_conflict_do_update(
            index_elements=[checkpoints.c.consumer],
            set_={"position": new.excluded.position},
            where=checkpoints.c.position < new.excluded.position,
        )
        if writer.connection.execute(moved.returning(checkpoints.c.position)).first() is None:
            raise IntegrityError(
                f"{tracking.application_name} has already processed position {tracking.notification_id}"
            )


class LogProcessRecorder(LogTrackingRecorder, LogApplicationRecorder, ProcessRecorder):
    """Events together with the checkpoint of what they were made from."""

    def _insert(
        self, writer: LogWriter, stored_events: Sequence[StoredEvent], tracking: Tracking | None = None, **_: Any
    ) -> list[int]:
        positions = super()._insert(writer, stored_events)
        if tracking is not None:
            self.track(writer, tracking)
        return positions


def _id(originator_id: UUID | str) -> UUID:
    if isinstance(originator_id, UUID):
        return originator_id
    raise TypeError(f"stream ids are UUIDs, not {originator_id!r}")
