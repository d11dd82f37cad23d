"""The walk past rows in which no event can stand: every position is either read or told as lost, once, in order."""

import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random
from uuid import UUID

import pytest

from domain.errors import HistoryError
from projections.walking import pages
from store.port import Append, RecordedEvent, whole_log
from store.sqlite import SqliteStore

MANY = 40


async def written(folder: Path, *damaged: int) -> SqliteStore:
    store = SqliteStore.open(folder / "log.db", owner="test")
    stream = UUID(int=1)
    events = tuple(RecordedEvent(stream, n, "x.v1", b"{}") for n in range(1, MANY + 1))
    await store.append(Append(stream, 0, events, touches_work=False))
    with closing(sqlite3.connect(folder / "log.db")) as connection, connection:
        connection.executemany("UPDATE events SET body = 'x' WHERE position = ?", [(at,) for at in damaged])
    return store


SEEDED = [sorted(Random(seed).sample(range(1, MANY + 1), seed % 12)) for seed in range(12)]


@pytest.mark.parametrize("damaged", [[], [1], [MANY], [MANY - 1, MANY], list(range(1, MANY + 1)), *SEEDED], ids=str)
@pytest.mark.parametrize("size", [1, 7, 1_000])
async def test_every_position_is_read_or_lost(tmp_path: Path, damaged: list[int], size: int) -> None:
    store = await written(tmp_path, *damaged)
    read, lost, order, end = list[int](), list[int](), list[int](), 0
    async for page in pages(store, size=size):
        read += [event.position for event in page.events]
        lost += page.lost
        order += [*page.lost, *(event.position for event in page.events)]
        assert page.end > end
        end = page.end
    assert (lost, order) == (damaged, list(range(1, MANY + 1)))
    assert [page async for page in pages(store, end, size)] == []
    await store.close()


async def test_control_the_walk_of_the_whole_log_stops_at_such_a_row(tmp_path: Path) -> None:
    store = await written(tmp_path, 3)
    with pytest.raises(HistoryError):
        assert [event async for event in whole_log(store)]
    await store.close()
