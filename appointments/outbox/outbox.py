"""All relays of one store: they run side by side, so that a subscriber that is slow or down delays nobody else."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from appointments.outbox.pages import Pages, Reader, TraceOf
from appointments.outbox.relay import Fact, Relay
from appointments.outbox.sink import Subscriber
from appointments.outbox.subscription import NAME, TYPES
from domain.errors import InvalidFields
from store.port import Store


class Outbox:
    """Tells every subscriber what happens, while `running`."""

    def __init__(
        self,
        store: Store,
        subscribers: Sequence[Subscriber],
        source: str,
        now: Callable[[], datetime],
        trace_of: TraceOf = lambda _: None,
        fact: Fact = lambda *_, **__: None,
    ) -> None:
        """Raises `InvalidFields` for a name that is none or that two of them have, and for a type that no event has."""
        _check(subscribers)
        self._store = store
        pages = Pages(store, source, trace_of)
        self._relays = [Relay(store, one, Reader(pages), now, fact) for one in subscribers]

    @property
    def told(self) -> dict[str, dict[str, int]]:
        """By subscriber: how often it was told an event in this process, by what came of it."""
        return {relay.subscriber.name: dict(relay.told) for relay in self._relays}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Relay until the block ends; calls under way then are waited for, and the checkpoints kept."""
        if not self._relays:
            yield
            return
        loop = asyncio.get_running_loop()

        def committed() -> None:
            loop.call_soon_threadsafe(self._wake)

        await asyncio.gather(*(relay.begin() for relay in self._relays))
        untell = self._store.after_commit(committed)
        tasks = [loop.create_task(relay.run()) for relay in self._relays]
        try:
            yield
        finally:
            untell()
            for relay in self._relays:
                relay.stop()
            await asyncio.gather(*tasks)

    def _wake(self) -> None:
        for relay in self._relays:
            relay.wake()


def _check(subscribers: Sequence[Subscriber]) -> None:
    names = [one.name for one in subscribers]
    for one in subscribers:
        if not re.fullmatch(NAME, one.name):
            raise _invalid(f"{one.name!r} is no name of a subscriber: up to 40 small letters, digits and dashes")
        if names.count(one.name) > 1:
            raise _invalid(f"two subscribers have one name: {one.name}")
        if unknown := sorted(one.types - TYPES):
            raise _invalid(f"subscriber {one.name}: no event has the type {unknown[0]!r}")


def _invalid(why: str) -> InvalidFields:
    return InvalidFields(why, (("/subscriptions", why),))
