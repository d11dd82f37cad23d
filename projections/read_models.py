"""Where the read models beside a log stand, looked at from outside: nothing is written, made or thrown away.

A read model that knows more than the log is a witness: the log's end was cut off, or another one was put in its place.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from pydantic import Field, ValidationError

from domain.provider import Value
from projections.findings import Finding
from projections.generations import Generations
from projections.projection import Projection
from store.port import Store

WITNESSES = "thrown_away.jsonl"
"""In the folder of the read models; goes with it when that is deleted."""
WITNESSES_BYTES_MAX = 65_536


class Witness(Value):
    """How far a read model had been folded, and the digest of the event there."""

    name: str = Field(max_length=100)
    position: int = Field(gt=0)
    digest: str = Field(pattern=r"^([0-9a-f]{2}){0,64}$")


def bear_witness(folder: Path, name: str, position: int, digest: bytes) -> None:
    """Keep what a read model knew of the log before it is thrown away, for the next check; a few lines at most."""
    path = folder / WITNESSES
    if not path.exists() or path.stat().st_size < WITNESSES_BYTES_MAX:
        with path.open("a", encoding="utf-8") as file:
            file.write(Witness(name=name, position=position, digest=digest.hex()).model_dump_json() + "\n")


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
    yield from _witnesses(folder / WITNESSES)
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


def _witnesses(path: Path) -> Iterator[tuple[str, int, bytes]]:
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file.read(2 * WITNESSES_BYTES_MAX).splitlines():
            try:
                told = Witness.model_validate_json(line)
            except ValidationError:
                continue  # a line cut short by a crash
            yield told.name, told.position, bytes.fromhex(told.digest)
