"""Callbacks as Standard Webhooks 1.0: messages, signatures, delivery with retries, copies, order and faults."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout
from standardwebhooks.webhooks import Webhook

from mocks.behaviors import CallbackPlan
from mocks.records import Change, instant

RETRY_AFTER_S = (0.05, 0.2, 1.0, 5.0)
TIMEOUT_S = 5.0
PARALLEL_MAX = 8
STALE = timedelta(hours=1)
OTHER_SECRET = "whsec_b3RoZXItc2VjcmV0LW90aGVyLXNlY3JldA=="


@dataclass(frozen=True)
class Message:
    """One thing to be told. `id` stays the same over copies and retries."""

    id: str
    url: str
    body: bytes
    client_ref: str | None
    version: int


@dataclass(frozen=True)
class Delivery:
    """One try to deliver; `status` None: no answer. `at` in seconds since the epoch."""

    webhook_id: str
    client_ref: str | None
    version: int
    attempt: int
    status: int | None
    at: float


def message_of(change: Change) -> Message | None:
    """What a change tells; None: nothing (a booking that became pending, or that nobody wants to hear of)."""
    booking = change.booking
    kind = "rescheduled" if change.op == "reschedule" else booking.status
    if kind == "pending" or booking.request.callback_url is None:
        return None
    told = {
        "type": f"booking.{kind}",
        "timestamp": instant(change.at),
        "data": {
            "id": booking.id,
            "client_ref": booking.request.client_ref,
            "version": booking.version,
            "status": booking.status,
        },
    }
    return Message(
        f"msg_{booking.id[3:]}_{booking.version}",
        booking.request.callback_url,
        json.dumps(told).encode(),
        booking.request.client_ref,
        booking.version,
    )


def places(plan: CallbackPlan, random: Random) -> list[int]:
    """The order of delivery as positions in the series of messages, oldest first."""
    if plan.order == "reversed":
        return [2, 1, 0]
    if plan.order == "shuffled":
        order = [0, 1, 2]
        random.shuffle(order)
        return order
    return [int(place) for place in plan.order]


class Callbacks:
    """Signs and delivers messages. `secret` is a Standard Webhooks secret, `whsec_` and base64."""

    def __init__(self, secret: str) -> None:
        self._signer = Webhook(secret)
        self._forger = Webhook(OTHER_SECRET)
        self._session: ClientSession | None = None
        self._slots = asyncio.Semaphore(PARALLEL_MAX)
        self.deliveries: list[Delivery] = []

    async def deliver(self, messages: Sequence[Message], plan: CallbackPlan) -> None:
        """Send messages in this order, then all further copies of them at once."""
        if plan.fault == "dropped":
            return
        for message in messages:
            await self._until_taken(message, plan)
        copies = [message for _ in range(plan.copies - 1) for message in messages]
        await asyncio.gather(*(self._until_taken(message, plan) for message in copies))

    async def close(self) -> None:
        """Free connections."""
        if self._session is not None:
            await self._session.close()

    def show(self) -> list[dict[str, Any]]:
        """Every delivery tried, as plain data."""
        return [asdict(delivery) for delivery in self.deliveries]

    async def _until_taken(self, message: Message, plan: CallbackPlan) -> None:
        for attempt, pause in enumerate((*RETRY_AFTER_S, None), start=1):
            async with self._slots:
                status = await self._post(message, plan)
            self.deliveries.append(
                Delivery(message.id, message.client_ref, message.version, attempt, status, time.time())
            )
            if (status is not None and 200 <= status < 300) or pause is None:
                return
            await asyncio.sleep(pause)

    async def _post(self, message: Message, plan: CallbackPlan) -> int | None:
        if self._session is None:
            self._session = ClientSession(timeout=ClientTimeout(total=TIMEOUT_S))
        body = _about_a_stranger(message.body) if plan.fault == "unknown_ref" else message.body
        moment = datetime.now(UTC) - (STALE if plan.fault == "stale_timestamp" else timedelta(0))
        signer = self._forger if plan.fault == "bad_signature" else self._signer
        headers = {
            "content-type": "application/json",
            "webhook-id": message.id,
            "webhook-timestamp": str(int(moment.timestamp())),
            "webhook-signature": signer.sign(message.id, moment, body.decode()),
        }
        try:
            async with self._session.post(message.url, data=body, headers=headers, allow_redirects=False) as answer:
                return answer.status
        except (ClientError, OSError, ValueError, TimeoutError):
            return None


def _about_a_stranger(body: bytes) -> bytes:
    told = json.loads(body)
    told["data"] |= {"id": f"bk_{'0' * 32}", "client_ref": "nobody-knows-this"}
    return json.dumps(told).encode()
