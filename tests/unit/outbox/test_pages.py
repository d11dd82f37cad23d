"""What comes next is read once for all who stand at the end; who is behind delays nobody; nobody misses anything."""

import random
from collections.abc import Sequence

import pytest

from appointments.outbox import pages as pages_module
from appointments.outbox.pages import Page, Pages, Reader
from domain.errors import StoreUnavailable
from store.mapper import decode, encode
from store.memory import MemoryStore
from store.port import Append, RecordedEvent
from tests.unit.outbox.world import book, desk_on

SEED = 20261125


class Counting(MemoryStore):
    """Counts how often the log is read; fails when told to."""

    reads = 0
    down = False

    async def log(self, after: int = 0, limit: int = 1_000) -> Sequence[RecordedEvent]:
        if self.down:
            raise StoreUnavailable("not now")
        self.reads += 1
        return await super().log(after, limit)


async def entries(count: int) -> list[Append]:
    """What so many bookings append, each alone."""
    async with desk_on() as desk:
        await book(desk, *(f"key-{n}" for n in range(count)))
        streams = [await desk.runtime.store.events(id) for id in await desk.runtime.store.streams()]
    return [
        Append(stream[0].stream_id, 0, tuple(encode(e.stream_id, e.version, decode(e)) for e in stream))
        for stream in streams
    ]


async def store_with(count: int) -> Counting:
    store = Counting("relay")
    for entry in await entries(count):
        await store.append(entry)
    return store


def pages_of(store: MemoryStore) -> Pages:
    return Pages(store, "urn:appointments", lambda _: None)


def positions(page: Page | None) -> list[int]:
    return [] if page is None else [told.change.recorded.position for told in page.told]


async def read_out(reader: Reader, position: int = 0) -> list[int]:
    """All that is to come after a position."""
    found = []
    while (page := await reader.after(position)) is not None:
        found += positions(page)
        position = page.end
    return found


async def test_what_comes_next_is_read_and_made_once_for_all() -> None:
    store = await store_with(5)
    pages = pages_of(store)
    readers = [Reader(pages) for _ in range(10)]
    found = [await reader.after(0) for reader in readers]
    assert store.reads == 1
    end = await store.position()
    assert [positions(page) for page in found] == [list(range(1, end + 1))] * 10
    made = {id(told.event) for page in found if page is not None for told in page.told}
    assert len(made) == end, "one for each position, and none for what belongs to no appointment"


async def test_control_each_with_pages_of_its_own_reads_for_itself() -> None:
    store = await store_with(5)
    for _ in range(10):
        await Reader(pages_of(store)).after(0)
    assert store.reads == 10


async def test_who_is_behind_reads_for_himself_up_to_the_others_and_then_with_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pages_module, "PAGE", 4)
    store = await store_with(10)
    pages = pages_of(store)
    ahead, behind = Reader(pages), Reader(pages)
    everything = list(range(1, await store.position() + 1))
    assert await read_out(ahead) == everything
    before = pages.head
    assert await read_out(behind) == everything
    assert (pages.head, behind._own) == (before, None)
    for entry in (await entries(11))[-3:]:
        if not await store.events(entry.stream_id):
            await store.append(entry)
    reads = store.reads
    assert await read_out(ahead, before) == await read_out(behind, before) == list(range(before + 1, pages.head + 1))
    assert store.reads - reads <= 4, "two pages and two looks that found nothing"


async def test_a_store_that_does_not_answer_leaves_nothing_half_done() -> None:
    store = await store_with(3)
    pages = pages_of(store)
    store.down = True
    for reader in (Reader(pages), Reader(pages)):
        with pytest.raises(StoreUnavailable):
            await reader.after(0)
    store.down = False
    assert await read_out(Reader(pages)) == list(range(1, await store.position() + 1))


async def test_whatever_the_order_each_reads_everything_once_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    print(f"seed {SEED}")
    monkeypatch.setattr(pages_module, "PAGE", 7)
    chance, log = random.Random(SEED), await entries(30)
    for _ in range(30):
        store = Counting("relay")
        pages = pages_of(store)
        left, begun = list(log), [0, 0, chance.randrange(60), chance.randrange(180)]
        readers = [(Reader(pages), [start]) for start in begun]
        end = 0
        while left or min(at[-1] for _, at in readers) < end:
            if left and chance.random() < 0.3:
                end = await store.append(left.pop())
                continue
            reader, at = chance.choice(readers)
            if at[-1] <= end and (page := await reader.after(at[-1])) is not None:
                at += positions(page)
        assert [at for _, at in readers] == [list(range(start, end + 1)) for start in begun]
