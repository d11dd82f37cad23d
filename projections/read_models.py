"""Where the read models beside a log stand, looked at from outside: nothing is written, made or thrown away.

A read model that knows more than the log is a witness: the log's end was cut off, or another one was put in its place.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from projections.findings import Finding
from projections.generations import Generations
from projections.projection import Projection
from store.port import Store


async def beside_the_log(store: Store, folder: Path, projections: Sequence[Projection]) -> tuple[Finding, ...]:
    """What the read models in `folder` have against the log. One that is behind is caught up when it is next read."""
    found: list[Finding] = []
    for name, position, digest in _checkpoints(folder, projections):
        end = await store.position()
        if position > end:
            detail = f"it was folded up to position {position}, and the log ends at {end}: its end was cut off"
            found.append(Finding(kind="ahead", subject=name, detail=detail))
            continue
        last = await store.log(position - 1, 1) if position else ()
        if last and (last[0].position, last[0].digest) != (position, digest):
            detail = f"position {position} of the log is not the event that it was folded from"
            found.append(Finding(kind="other_log", subject=name, detail=detail))
    return tuple(found)


def _checkpoints(folder: Path, projections: Sequence[Projection]) -> Iterator[tuple[str, int, bytes]]:
    for projection in projections:
        generations = Generations(folder, projection.name, projection.version)
        generation, _ = generations.current()
        if not generation:
            continue
        address = f"file:{quote(str(generations.path(generation).absolute()))}?mode=ro"
        try:
            with closing(sqlite3.connect(address, uri=True)) as connection:
                row = connection.execute("SELECT position, digest FROM checkpoint").fetchone()
        except sqlite3.Error:
            continue  # damaged, or being made at this moment: it is refilled when it is next read
        if row is not None and isinstance(row[0], int) and isinstance(row[1], bytes) and row[0] > 0:
            yield projection.name, row[0], row[1]
