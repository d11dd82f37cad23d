"""What the table of subjects' keys holds, for those who check it: names and references, never a key."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import DBAPIError

from domain.errors import StoreUnavailable
from store.port import Store
from store.sealing import hashed
from store.sqlite import SqliteStore
from store.tables import subject_keys

PER_QUERY = 500


@dataclass(frozen=True, slots=True)
class Kept:
    """Which of the keys that were asked for are there: by their subjects, and by the references in sealed parts."""

    by_subject: Mapping[str, bytes] = field(default_factory=dict)
    refs: frozenset[bytes] = frozenset()


class KeyTable:
    """The keys of a store on SQLite."""

    def __init__(self, readers: Engine) -> None:
        self._readers = readers

    @classmethod
    def of(cls, store: Store) -> "KeyTable | None":
        """None for a store whose keys are not in a table."""
        return cls(store.readers) if isinstance(store, SqliteStore) else None

    async def look_up(self, subjects: Collection[str], refs: Collection[bytes]) -> Kept:
        """Which of these are kept. Raises `StoreUnavailable`."""
        return await asyncio.to_thread(self._look_up, subjects, refs)

    def _look_up(self, subjects: Collection[str], refs: Collection[bytes]) -> Kept:
        try:
            with self._readers.connect() as connection:
                return Kept(_by_subject(connection, subjects), _refs(connection, refs))
        except DBAPIError as error:
            raise StoreUnavailable(f"nothing was read: {error.orig}") from error


def _by_subject(connection: Connection, subjects: Collection[str]) -> dict[str, bytes]:
    subject_of = {hashed(subject): subject for subject in subjects}
    names = list(subject_of)
    found: dict[str, bytes] = {}
    for start in range(0, len(names), PER_QUERY):
        query = select(subject_keys.c.name, subject_keys.c.ref)
        some = subject_keys.c.name.in_(names[start : start + PER_QUERY])
        found.update((subject_of[name], ref) for name, ref in connection.execute(query.where(some)))
    return found


def _refs(connection: Connection, refs: Collection[bytes]) -> frozenset[bytes]:
    wanted = list(refs)
    found: set[bytes] = set()
    for start in range(0, len(wanted), PER_QUERY):
        query = select(subject_keys.c.ref).where(subject_keys.c.ref.in_(wanted[start : start + PER_QUERY]))
        found.update(connection.scalars(query))
    return frozenset(found)
