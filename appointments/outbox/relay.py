"""Walks the log for one subscriber, from its checkpoint, and tells it what is new. One process does so at a time.

The log is the outbox. What a crash cuts off is told again from the checkpoint: at least once, under the same id.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

from appointments.outbox.dead_letters import abandon, consumer
from appointments.outbox.pages import Reader, Told
from appointments.outbox.sink import Accepted, Answer, Away, Refused, Subscriber
from appointments.outbox.window import Delivery, Window
from domain.errors import HistoryError
from domain.events import Beginning, DeliveryAbandoned, RedeliveryRequested
from store.mapper import decode
from store.port import RecordedEvent, Store

POLL_S = 1.0
"""How often the log is looked at where no commit is told of, and a name asked for that another process holds."""
GATHER_S = 0.02
"""What is committed within this time is read at once."""
KEEP_EVERY_S = 0.5
"""A checkpoint is a commit: this often at most, and at the end."""
GRACE_S = 5.0
"""How long calls under way are waited for at the end."""

Fact = Callable[..., None]
"""Writes a line of the log: its name, then its fields."""
RESULTS = ("accepted", "refused", "failed", "abandoned")


class Superseded(Exception):
    """This relay was taken for dead: somebody else has moved the checkpoint, or this process came back anew."""


class Relay:
    """One subscriber's."""

    def __init__(
        self,
        store: Store,
        subscriber: Subscriber,
        reader: Reader,
        now: Callable[[], datetime],
        fact: Fact,
    ) -> None:
        self.subscriber = subscriber
        self._store, self._reader, self._now, self._fact = store, reader, now, fact
        self._consumer = consumer(subscriber.name)
        self._news, self._stop = asyncio.Event(), asyncio.Event()
        self._committed = False
        self.told = dict.fromkeys(RESULTS, 0)
        """How often it was told an event in this process, by what came of it."""
        self._kept = 0
        self._kept_at_s = 0.0
        self._was_down = False

    def wake(self) -> None:
        """Something may have been committed."""
        self._committed = True
        self._news.set()

    def stop(self) -> None:
        """Start nothing more, and come to an end."""
        self._stop.set()
        self.wake()

    async def begin(self) -> None:
        """A new subscriber is told what is committed from here on, however long it takes until somebody relays."""
        try:
            if await self._store.checkpoint(self._consumer) is None:
                async with self._store.exclusive(self._consumer) as ours:
                    if ours:
                        await self._begin()
        except Exception as fault:
            self._interrupted(fault)

    async def run(self) -> None:
        """Relay until `stop`; whatever happens to the store, it goes on once that answers again."""
        try:
            while not self._stop.is_set():
                worker = self._store.owner
                try:
                    async with self._store.exclusive(self._consumer) as ours:
                        if ours:
                            await self._walk(worker)
                except Exception as fault:
                    self._interrupted(fault)
                await _wait(self._stop, POLL_S)
        finally:
            try:
                await self.subscriber.sink.close()
            except Exception as fault:  # the others are to end as well
                self._interrupted(fault)

    def _interrupted(self, fault: Exception) -> None:
        self._fact("outbox_interrupted", target=self.subscriber.name, reason=type(fault).__name__)

    async def _walk(self, worker: str) -> None:
        loop = asyncio.get_running_loop()
        window = Window(self.subscriber.retry, self.subscriber.concurrency, await self._begin())
        running: dict[asyncio.Task[Answer], Delivery] = {}
        read_at_s, more = 0.0, True
        try:
            while not self._stop.is_set():
                if self._store.owner != worker:
                    raise Superseded
                self._news.clear()
                more, self._committed = more or self._committed, False
                if more and not window.full and loop.time() >= read_at_s:
                    more = await self._read(window)
                    read_at_s = loop.time() if more else loop.time() + GATHER_S
                while (delivery := window.next(loop.time())) is not None:
                    task = loop.create_task(self._tell(delivery))
                    task.add_done_callback(lambda _: self._news.set())
                    running[task] = delivery
                settled = await self._settle(window, running)
                if loop.time() >= self._kept_at_s + KEEP_EVERY_S:
                    await self._keep(window)
                if not settled:
                    await _wait(self._news, self._idle_s(window, read_at_s if more and not window.full else None))
                    more = True
            await self._end(window, running)
        finally:
            await _cut(running)

    async def _begin(self) -> int:
        """The checkpoint to go on from; for a new subscriber it is kept at once."""
        kept = await self._store.checkpoint(self._consumer)
        if kept is None:
            kept = 0 if self.subscriber.from_beginning else await self._store.position()
            await self._store.keep_checkpoint(self._consumer, kept)
        self._kept = kept
        self._kept_at_s = asyncio.get_running_loop().time()
        return kept

    async def _read(self, window: Window) -> bool:
        """Take in the next page; whether there may be more."""
        page = await self._reader.after(window.read_to)
        if page is None:
            return False
        for told in page.told:
            change = told.change
            if isinstance(change.event, RedeliveryRequested):
                await self._take_again(window, change.recorded.position, change.event)
            elif self._asked_for(change.recorded) and change.after and change.after.tenant == self.subscriber.tenant:
                self._take(window, told, change.recorded.position)
        await self._leave_out(page.unreadable)
        window.read_to = page.end
        return self._reader.more(page)

    def _asked_for(self, recorded: RecordedEvent) -> bool:
        return not self.subscriber.types or recorded.type in self.subscriber.types

    def _take(self, window: Window, told: Told, position: int) -> None:
        if (event := told.event) is not None:
            window.take_in(Delivery(position, event.data.appointment, event.data.version, event))

    async def _take_again(self, window: Window, position: int, asked: RedeliveryRequested) -> None:
        """What an operator wants to have told again, as it is in the log."""
        if (asked.sink, asked.tenant) != (self.subscriber.name, self.subscriber.tenant):
            return
        found = await self._store.events(asked.appointment, after=asked.version - 1, limit=1)
        if (told := await self._reader.one(found)) is not None:
            self._take(window, told, position)
        else:
            await self._abandon(asked.appointment, asked.version, 0, "it cannot be read")

    async def _leave_out(self, unreadable: Sequence[RecordedEvent]) -> None:
        """What cannot be read is put to the dead letters of those whose it is."""
        for recorded in unreadable:
            if not self._asked_for(recorded):
                continue
            if await _tenant(self._store, recorded.stream_id) == self.subscriber.tenant:
                await self._abandon(recorded.stream_id, recorded.version, 0, "it cannot be read")

    async def _tell(self, delivery: Delivery) -> Answer:
        try:
            async with asyncio.timeout(self.subscriber.timeout_s):
                return await self.subscriber.sink.deliver(delivery.event)
        except TimeoutError:
            return Away("no answer in time")
        except Exception as fault:  # a function that does not take this event; what it says may name somebody
            return Refused(f"raised {type(fault).__name__}")

    async def _settle(self, window: Window, running: dict[asyncio.Task[Answer], Delivery]) -> bool:
        """Take in the answers that are there; whether there was one."""
        ended = [task for task in running if task.done()]
        for task in ended:
            delivery, answer = running.pop(task), task.result()
            self.told[_result(answer)] += 1
            if window.answered(delivery, answer, asyncio.get_running_loop().time()):
                assert not isinstance(answer, Accepted)
                await self._abandon(delivery.appointment, delivery.version, delivery.attempts, answer.reason)
                window.done(delivery)
            self._note(window, answer)
        return bool(ended)

    def _note(self, window: Window, answer: Answer) -> None:
        if window.down is self._was_down:
            return
        self._was_down = window.down
        if window.down and isinstance(answer, Away):
            self._fact("subscriber_down", target=self.subscriber.name, reason=answer.reason)
        else:
            self._fact("subscriber_up", target=self.subscriber.name)

    async def _abandon(self, appointment: UUID, version: int, attempts: int, reason: str) -> None:
        gone = DeliveryAbandoned(
            at=self._now(),
            sink=self.subscriber.name,
            tenant=self.subscriber.tenant,
            appointment=appointment,
            version=version,
            attempts=attempts,
            reason=reason,
        )
        await abandon(self._store, gone)
        self.told["abandoned"] += 1
        told = {"appointment_id": str(appointment), "version": version, "attempts": attempts}
        self._fact("delivery_abandoned", target=self.subscriber.name, reason=reason, **told)

    async def _keep(self, window: Window) -> None:
        """Keep the checkpoint; raises `Superseded` where it is not as this relay has left it."""
        if window.checkpoint == self._kept:
            return
        if await self._store.checkpoint(self._consumer) != self._kept:
            raise Superseded
        await self._store.keep_checkpoint(self._consumer, window.checkpoint)
        self._kept, self._kept_at_s = window.checkpoint, asyncio.get_running_loop().time()

    def _idle_s(self, window: Window, read_at_s: float | None) -> float:
        """How long there is nothing to do unless something is heard of."""
        now_s = asyncio.get_running_loop().time()
        times = [now_s + POLL_S, window.next_at(), read_at_s]
        if window.checkpoint != self._kept:
            times.append(self._kept_at_s + KEEP_EVERY_S)
        return max(0.0, min(at for at in times if at is not None) - now_s)

    async def _end(self, window: Window, running: dict[asyncio.Task[Answer], Delivery]) -> None:
        if running:
            await asyncio.wait(running, timeout=GRACE_S)
            await self._settle(window, running)
        await self._keep(window)


def _result(answer: Answer) -> str:
    match answer:
        case Accepted():
            return "accepted"
        case Refused():
            return "refused"
        case Away():
            return "failed"


async def _wait(event: asyncio.Event, within_s: float) -> None:
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return


async def _cut(running: dict[asyncio.Task[Answer], Delivery]) -> None:
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def _tenant(store: Store, stream: UUID) -> str | None:
    """Whose stream it is; None where not even that can be read."""
    try:
        first = decode((await store.events(stream, limit=1))[0])
    except HistoryError:
        return None
    return first.tenant if isinstance(first, Beginning) else None
