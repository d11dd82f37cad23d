"""The workers of a fleet: each forked from a parent that has loaded everything, so that a start costs milliseconds.

Reads one JSON order for each worker on standard input; a worker writes `NAME here PID OWNER` once it is at work,
`NAME ack KEY` for every command that was acknowledged, `NAME booked` when its clients are done, `NAME gone` after
SIGTERM. Its clients begin at SIGUSR1.
"""

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from appointments import Orchestrator, Settings
from appointments.bootstrap import make_notify
from domain.definition import RetryPolicy, SagaPlan
from domain.errors import StoreUnavailable
from domain.provider import WriteOutcome
from providers.notifications import Notifier
from saga.definition import CalendarStep, Saga, Step, StepCall
from saga.runtime import Runtime

BOOKING = {
    "calendar": "main",
    "start": "2031-03-03T09:00:00Z",
    "end": "2031-03-03T09:30:00Z",
    "time_zone": "Europe/Berlin",
    "summary": "Check-up",
}
RETRY = RetryPolicy(attempts_max=20, backoff_ms=10, backoff_max_ms=100)


def make_saga(version: int, step: str, settings: Settings, notifier: Notifier) -> Saga:
    """The booking, a step of this name that the downstream gets to see, and the notification."""

    def tell(what: str) -> Callable[[StepCall], Awaitable[WriteOutcome]]:
        async def told(asked: StepCall) -> WriteOutcome:
            details = asked.details
            body = {"client_ref": asked.call.client_ref, "type": what, "calendar_id": details.calendar}
            when = {"start": details.start.isoformat(), "end": details.end.isoformat()}
            return await notifier.notify(asked.call, {**body, **when, "summary": details.summary})

        return told

    timeout_ms = settings.call_timeout_ms
    steps = (
        CalendarStep(retry=RETRY, timeout_ms=timeout_ms, poll_ms=settings.poll_ms),
        Step(step, tell(step), tell(f"{step}.undone"), retry=RETRY, timeout_ms=timeout_ms, target="notify"),
        Step("notify", tell("appointment.confirmed"), retry=RETRY, timeout_ms=timeout_ms),
    )
    return Saga("booking", version, steps, settings.deadline_ms, settings.cleanup_ms)


class _Worker:
    def __init__(self, order: dict[str, Any]) -> None:
        self._order = order
        self._chance = random.Random(order["seed"])
        self._begin, self._end = asyncio.Event(), asyncio.Event()

    def say(self, line: str) -> None:
        os.write(1, f"{self._order['name']} {line}\n".encode())

    async def work(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self._begin.set)
        loop.add_signal_handler(signal.SIGTERM, self._end.set)
        watch = loop.create_task(_end_with(os.getppid()))
        settings = Settings.model_validate(self._order["settings"])
        _, notifier = make_notify(settings)
        assert notifier is not None
        sagas = tuple(make_saga(version, step, settings, notifier) for version, step in self._order["sagas"])
        async with Orchestrator.open(settings, sagas=sagas) as desk:
            self.say(f"here {os.getpid()} {desk.runtime.name}")
            clients = asyncio.gather(*(self._client(desk, n) for n in range(self._order["clients"])))
            clients.add_done_callback(lambda done: done.cancelled() or self.say("booked"))
            await self._end.wait()
            clients.cancel()
            with suppress(asyncio.CancelledError):
                await clients
            await desk.runtime.drain(settings.drain_ms / 1_000)
        await notifier.close()
        watch.cancel()
        self.say("gone")

    async def _client(self, desk: Orchestrator, number: int) -> None:
        await self._begin.wait()
        for n in range(self._order["each"]):
            key = f"{self._order['name']}-{number}-{n}"
            with suppress(StoreUnavailable):
                await desk.book(BOOKING, key=key)
                self.say(f"ack {key}")
            await asyncio.sleep(self._chance.random() * self._order["pause_s"])


async def _end_with(parent: int) -> None:
    """A worker that nobody is left to stop ends by itself."""
    while os.getppid() == parent:
        await asyncio.sleep(0.05)
    os._exit(1)


def _newest_for_all() -> None:
    """Planted: whatever an appointment began with, it goes on under the newest version of whoever takes it."""

    async def newest(self: Runtime, _digest: str) -> SagaPlan:
        return self._sagas[max(self._sagas)].plan(next(iter(self._providers.values())))

    Runtime._plan = newest  # type: ignore[method-assign]


PLANTED = {"newest_for_all": _newest_for_all}


def main() -> None:
    """Fork a worker for each line of standard input."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead are nobody's to bury
    for line in sys.stdin:
        order = json.loads(line)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if order["planted"]:
                PLANTED[order["planted"]]()
            asyncio.run(_Worker(order).work())
            os._exit(0)


if __name__ == "__main__":
    main()
