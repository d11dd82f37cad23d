"""A store that fails as it likes, before and after it has done what was asked, and a subscriber that does so too."""

import asyncio
import random
from collections.abc import Sequence
from uuid import UUID

import pytest

from appointments.outbox import relay as relay_module
from appointments.outbox.cloudevents import CloudEvent
from appointments.outbox.dead_letters import consumer, dead_letters
from appointments.outbox.outbox import Outbox
from appointments.outbox.sink import Accepted, Answer, Away, Refused, Sink, Subscriber
from appointments.outbox.window import Window
from domain.definition import RetryPolicy
from domain.errors import StoreUnavailable
from domain.events import DefinitionRegistered
from saga.clock import WallClock
from store.mapper import decode, encode
from store.memory import MemoryStore
from store.port import Append, RecordedEvent
from tests.unit.outbox.world import book, desk_on, until

pytestmark = pytest.mark.evidence(
    target="outbox",
    answers=("R2.8", "G4"),
    given="a log, a store that fails before or after what it is asked, a subscriber that refuses and is away",
    when="it is told, until the weather is fair",
    then="every event is taken or a dead letter, each appointment's first in order; the checkpoint is at the end",
    seen_in="what was taken, dead letters, the checkpoint",
)

SEEDS = range(20)
APPOINTMENTS = 8
FAILS = 0.15
RETRY = RetryPolicy(attempts_max=3, backoff_ms=1, backoff_max_ms=2)


class Shaky(MemoryStore):
    """Fails as `chance` has it, until it is `fair`."""

    fair = False
    chance: random.Random

    def weather(self) -> None:
        if not self.fair and self.chance.random() < FAILS:
            raise StoreUnavailable("not now")

    async def log(self, after: int = 0, limit: int = 1_000) -> Sequence[RecordedEvent]:
        self.weather()
        return await super().log(after, limit)

    async def events(self, stream_id: UUID, after: int = 0, limit: int | None = None) -> Sequence[RecordedEvent]:
        self.weather()
        return await super().events(stream_id, after, limit)

    async def append(self, entry: Append) -> int:
        self.weather()
        done = await super().append(entry)
        self.weather()
        return done

    async def checkpoint(self, consumer: str) -> int | None:
        self.weather()
        return await super().checkpoint(consumer)

    async def keep_checkpoint(self, consumer: str, position: int) -> None:
        self.weather()
        await super().keep_checkpoint(consumer, position)
        self.weather()


class Moody(Sink):
    """Takes some, refuses some, and is away now and then; what it took is in `taken`."""

    def __init__(self, chance: random.Random) -> None:
        self._chance, self.taken = chance, list[CloudEvent]()

    async def deliver(self, event: CloudEvent) -> Answer:
        await asyncio.sleep(0)
        mood = self._chance.random()
        if mood < 0.15:
            return Refused("not this one")
        if mood < 0.25:
            return Away("not now")
        self.taken.append(event)
        return Accepted() if mood < 0.95 else Away("taken, and the answer was lost")

    async def close(self) -> None:
        """Nothing is kept open."""


async def a_log() -> list[Append]:
    """What some bookings append."""
    async with desk_on() as desk:
        await book(desk, *(f"key-{n}" for n in range(APPOINTMENTS)))
        streams = [await desk.runtime.store.events(id) for id in await desk.runtime.store.streams()]
    return [
        Append(stream[0].stream_id, 0, tuple(encode(e.stream_id, e.version, decode(e)) for e in stream))
        for stream in streams
    ]


async def told_in_any_weather(seed: int, log: list[Append]) -> tuple[set[str], list[CloudEvent], set[str], int]:
    """The ids that there were, what was taken, the dead letters, and how far the checkpoint is from the end."""
    chance = random.Random(seed)
    store = Shaky("relay")
    store.chance, store.fair = chance, True
    for entry in log:
        await store.append(entry)
    there = {f"{e.stream_id}-{e.version}" for e in await store.log() if e.type != DefinitionRegistered.type}
    store.fair = False
    sink = Moody(chance)
    subscriber = Subscriber("it", "default", sink, retry=RETRY, concurrency=3, from_beginning=True)
    async with Outbox(store, [subscriber], "urn:appointments", WallClock().now).running():
        await asyncio.sleep(0.1)  # the weather itself
        store.fair = True

        async def caught_up() -> bool:
            return await store.checkpoint(consumer("it")) == await store.position()

        await until(caught_up)
    left = await store.position() - (await store.checkpoint(consumer("it")) or 0)
    return there, sink.taken, {one.id for one in await dead_letters(store, "default")}, left


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that much happens in little time."""
    monkeypatch.setattr(relay_module, "POLL_S", 0.002)
    monkeypatch.setattr(relay_module, "KEEP_EVERY_S", 0)
    monkeypatch.setattr(relay_module, "GATHER_S", 0)
    monkeypatch.setattr("appointments.outbox.window.WAIT_MIN_S", 0.001)


async def test_every_event_is_taken_or_a_dead_letter_and_each_appointments_first_in_order() -> None:
    log = await a_log()
    repeated = dead = 0
    for seed in SEEDS:
        print(f"seed {seed}")
        there, taken, gone, left = await told_in_any_weather(seed, log)
        assert ({event.id for event in taken} | gone, left) == (there, 0)
        firsts = dict.fromkeys((event.subject, event.data.version) for event in taken)
        for subject in {event.subject for event in taken}:
            versions = [version for of, version in firsts if of == subject]
            assert versions == sorted(versions)
        repeated, dead = repeated + len(taken) - len(firsts), dead + len(gone)
    print(f"{repeated} repeats, {dead} dead letters")
    assert repeated
    assert dead


async def test_control_with_a_checkpoint_of_what_was_read_events_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Window, "checkpoint", property(lambda self: self.read_to))
    log, lost = await a_log(), 0
    for seed in SEEDS:
        there, taken, gone, _ = await told_in_any_weather(seed, log)
        lost += len(there - {event.id for event in taken} - gone)
    assert lost
