"""Which of several databases one is: written into it when it is new, and compared at every opening.

Where a tenant is kept follows from the names of all shards. Under other names it would be looked for elsewhere, and
what it has booked would be booked again under the same key: so other names are refused.
"""

import json
from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.dialects.postgresql import insert

from domain.errors import StoreRefused
from store.tables import events
from store.tables import shard as table

KNOWN_SINCE = {"since": 3}
"""The schema revision since which programs know of shards: an older one is shut out."""


class Shard(NamedTuple):
    """One of several databases, by its name among all of theirs."""

    name: str
    names: tuple[str, ...]

    @classmethod
    def of(cls, name: str, names: Collection[str]) -> "Shard":
        """With the names in order."""
        return cls(name, tuple(sorted(names)))

    def __str__(self) -> str:
        return f"shard {self.name} of {', '.join(self.names)}"


def make_shard(engine: Engine, shard: Shard | None) -> None:
    """Have a new database be this shard. Raises `StoreRefused` where it is another, or has a log already."""
    if shard is not None:
        row = {"alone": True, "name": shard.name, "names": json.dumps(shard.names)}
        with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection, connection.begin():
            if connection.execute(select(events.c.position).limit(1)).first() is None:
                new = insert(table).values(row).on_conflict_do_nothing().returning(table.c.name)
                if connection.execute(new).first() is not None:
                    connection.execute(text("INSERT INTO appointments_schema_needed VALUES (:since)"), KNOWN_SINCE)
    check_shard(engine, shard)


def check_shard(engine: Engine, shard: Shard | None) -> None:
    """Raise `StoreRefused` where the database is not this shard; with None, where it is any."""
    with engine.connect() as connection:
        found = _found(connection)
    if found == shard:
        return
    if found is None:
        raise StoreRefused(f"the database is not {shard}, and holds a log already: a shard begins with an empty one")
    asked = f"not {shard}" if shard is not None else "not the only one"
    raise StoreRefused(
        f"the database is {found}, {asked}: have APPOINTMENTS_SHARDS name those, each with its address;"
        " tenants do not move to other names"
    )


def _found(connection: Connection) -> Shard | None:
    row = connection.execute(select(table.c.name, table.c.names)).first()
    return None if row is None else Shard(row.name, tuple(json.loads(row.names)))
