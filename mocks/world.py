"""All state of one mock provider: the book, the scripts, what was received, and the work in the background."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Coroutine
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from mocks.behaviors import CallbackPlan, Pending
from mocks.bookings import Book
from mocks.callbacks import Callbacks, Message, message_of, places
from mocks.scripts import Scripts

REQUESTS_MAX = 200_000
"""Requests kept to be shown; the counts go on beyond."""
EARLY_WAIT_S = 2.0


@dataclass
class Received:
    """One request. `status` is set once an answer was chosen; `at` in seconds since the epoch."""

    at: float
    op: str | None
    method: str
    path: str
    query: dict[str, str]
    idempotency_key: str | None
    client_ref: str | None = None
    body: Any = None
    mode: str | None = None
    status: int | None = None
    traceparent: str | None = None


class World:
    """What a mock provider knows. `lenient` makes key and client reference optional."""

    def __init__(self, secret: str, lenient: bool) -> None:
        self.closing = asyncio.Event()
        self._secret = secret
        self._lenient_at_first = lenient
        self._tasks: set[asyncio.Task[Any]] = set()
        self._callbacks_done: list[Callbacks] = []
        self._begin()

    def _begin(self) -> None:
        self.lenient = self._lenient_at_first
        self.book = Book()
        self.scripts = Scripts()
        self.callbacks = Callbacks(self._secret)
        self.requests: deque[Received] = deque(maxlen=REQUESTS_MAX)
        self.calls: Counter[str] = Counter()

    def receive(self, received: Received) -> None:
        """Note a request."""
        self.requests.append(received)
        if received.op is not None:
            self.calls[received.op] += 1

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run work in the background until it is done, or the world is reset or closed."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def reset(self) -> None:
        """Begin anew: no bookings, scripts, keys, requests; background work is dropped, old sync tokens are unknown."""
        for task in self._tasks:
            task.cancel()
        self._callbacks_done.append(self.callbacks)
        self._begin()

    async def close(self) -> None:
        """Let go of every held connection and end all background work."""
        self.closing.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for callbacks in (*self._callbacks_done, self.callbacks):
            await callbacks.close()

    def ledger(self) -> dict[str, Any]:
        """The oracle: the book's ledger, and every callback delivery tried."""
        self.book.advance(time.time())
        return self.book.ledger() | {"callbacks": self.callbacks.show()}

    def shown_requests(self) -> list[dict[str, Any]]:
        """Every request received, oldest first."""
        return [asdict(received) for received in self.requests]

    async def settle_early(self, booking_id: str, pending: Pending) -> None:
        """Settle before the create is answered, and call back `early_lead_ms` before that answer."""
        lead_ms = pending.callbacks.early_lead_ms
        if lead_ms is None or pending.final == "never":
            return
        self.book.settle(booking_id, pending.final, time.time())
        if pending.via != "poll":
            await self.tell_early(booking_id, CallbackPlan(fault=pending.callbacks.fault), Random(0), lead_ms)

    async def settle_later(self, booking_id: str, pending: Pending, random: Random) -> None:
        """Settle in time, and call back as planned."""
        if pending.final == "never":
            return
        book = self.book
        await asyncio.sleep(pending.settle_ms / 1000)
        book.settle(booking_id, pending.final, time.time())
        if pending.via != "poll" and book.get(booking_id).status == pending.final:
            await self._call_back(book, booking_id, pending.callbacks, random)

    async def tell_early(self, booking_id: str, plan: CallbackPlan, random: Random, lead_ms: int) -> None:
        """Call back, and return `lead_ms` after that was taken, or soon where nobody takes it."""
        await asyncio.wait({self.spawn(self._call_back(self.book, booking_id, plan, random))}, timeout=EARLY_WAIT_S)
        await asyncio.sleep(lead_ms / 1000)

    async def tell_change(self, booking_id: str, plan: CallbackPlan, random: Random) -> None:
        """Call back about a booking's last change."""
        await self._call_back(self.book, booking_id, plan, random)

    async def _call_back(self, book: Book, booking_id: str, plan: CallbackPlan, random: Random) -> None:
        order = places(plan, random)
        while len(told := _told(book, booking_id)) < len(order) and book.get(booking_id).status != "cancelled":
            if not told:
                return
            book.touch(booking_id, time.time())
        series = told[-len(order) :]
        await self.callbacks.deliver([series[place] for place in order if place < len(series)], plan)


def _told(book: Book, booking_id: str) -> list[Message]:
    messages = (message_of(change) for change in book.history(booking_id))
    return [message for message in messages if message is not None]
