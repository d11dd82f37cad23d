"""Persistence module for the `eventsourcing` library: `PERSISTENCE_MODULE=store.eventsourcing_log`, `STORE_PATH=…`.

Owns how the library's environment names our file, or by `STORE_URL=postgresql://…` our database.
`STORE_READ_ONLY=yes` follows a log that another process writes.
"""

import _thread
import os
import threading
import weakref
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    InfrastructureFactory,
    InfrastructureFactoryError,
    ProcessRecorder,
)
from eventsourcing.utils import Environment, EnvType, resolve_topic, strtobool

from store.postgres import PostgresStore
from store.recorder import (
    LogAggregateRecorder,
    LogApplicationRecorder,
    LogProcessRecorder,
    LogRecorder,
    LogTrackingRecorder,
)
from store.sql import SqlStore
from store.sqlite import SqliteStore
from store.tables import events, snapshots

R = TypeVar("R", bound=LogRecorder)


@dataclass
class _Shared:
    store: SqlStore
    users: int = 0


class LogFactory(InfrastructureFactory[LogTrackingRecorder]):
    """Makes recorders on one store. Factories of one process on one store share it, for it is opened once."""

    STORE_PATH = "STORE_PATH"
    STORE_URL = "STORE_URL"
    STORE_READ_ONLY = "STORE_READ_ONLY"

    # The library constructs factories by name and has no place to hand them an open store, hence this registry.
    _shared: ClassVar[dict[tuple[str, bool], _Shared]] = {}
    _sharing: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        url, path = self.env.get(self.STORE_URL), self.env.get(self.STORE_PATH)
        if not path and not url:
            keys = (*self.env.create_keys(self.STORE_PATH), *self.env.create_keys(self.STORE_URL))
            raise InfrastructureFactoryError(f"no path or address of a store in any of {', '.join(keys)}")
        self._key = url or os.path.realpath(path or ""), bool(strtobool(self.env.get(self.STORE_READ_ONLY) or "no"))
        self.store = self._enter(self._key)
        # Recorders outlive their factory in the library, so the store is closed when the last of either is gone.
        # The collector strikes in any thread, also in one that holds the lock below, or that a closing store waits for.
        self._abandoned = weakref.finalize(self, _thread.start_new_thread, type(self)._leave, (self._key,))
        self._abandoned.atexit = False

    def close(self) -> None:
        if self._abandoned.detach() is not None:
            self._leave(self._key)

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        tables = {"events": events, "snapshots": snapshots}
        if purpose not in tables:
            raise InfrastructureFactoryError(f"no table for {purpose!r}, only for {', '.join(tables)}")
        return self._kept(LogAggregateRecorder(self.store, tables[purpose]))

    def application_recorder(self) -> ApplicationRecorder:
        return self._made(self.APPLICATION_RECORDER_TOPIC, LogApplicationRecorder)

    def tracking_recorder(
        self, tracking_recorder_class: type[LogTrackingRecorder] | None = None
    ) -> LogTrackingRecorder:
        if tracking_recorder_class is not None:
            return self._kept(tracking_recorder_class(self.store))
        return self._made(self.TRACKING_RECORDER_TOPIC, LogTrackingRecorder)

    def process_recorder(self) -> ProcessRecorder:
        return self._made(self.PROCESS_RECORDER_TOPIC, LogProcessRecorder)

    def _made(self, topic_key: str, default: type[R]) -> R:
        topic = self.env.get(topic_key)
        chosen: type[R] = resolve_topic(topic) if topic else default
        if not issubclass(chosen, default):
            raise InfrastructureFactoryError(f"{topic_key} names {topic}, which is no {default.__name__}")
        return self._kept(chosen(self.store))

    def _kept(self, recorder: R) -> R:
        recorder.origin = self
        return recorder

    @classmethod
    def _enter(cls, key: tuple[str, bool]) -> SqlStore:
        place, read_only = key
        with cls._sharing:
            shared = cls._shared.get(key)
            if shared is None:
                kind = PostgresStore if place.startswith("postgresql") else SqliteStore
                shared = cls._shared[key] = _Shared(kind.open(place, "eventsourcing", read_only=read_only))
            shared.users += 1
            return shared.store

    @classmethod
    def _leave(cls, key: tuple[str, bool]) -> None:
        with cls._sharing:
            shared = cls._shared[key]
            shared.users -= 1
            if shared.users == 0:
                del cls._shared[key]
                shared.store.close_now()
