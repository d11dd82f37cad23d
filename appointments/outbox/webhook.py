"""Tells a subscriber over HTTP: CloudEvents in structured mode, signed as Standard Webhooks 1.0 has it.

Structured, so that the signature is over everything that is told. Private networks are dialled only where the settings
open them.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from functools import partial

from aiohttp import ClientError, ClientSession, ClientTimeout
from standardwebhooks.webhooks import Webhook as Signature

from appointments.outbox.cloudevents import CONTENT_TYPE, CloudEvent
from appointments.outbox.sink import Accepted, Answer, Away, Refused, Sink
from providers.exchange import Answer as HttpAnswer
from providers.outbound import Outbound
from providers.outcomes import retry_after_ms

OF_THE_ADDRESS = frozenset({401, 403, 404, 407, 408, 410, 421, 425, 429})
"""Refusals that are not about what was sent (RFC 9110, 15.5; RFC 6585): another event would fare no better."""
ANSWER_MAX = 16 * 1024
"""Read of an answer, so that its connection can be used again; it is not looked at."""


class Webhook(Sink):
    """One subscriber's address."""

    def __init__(
        self,
        url: str,
        secret: str,
        outbound: Outbound,
        now: Callable[[], datetime],
        timeout_s: float,
    ) -> None:
        """`secret`: one, or two with a space between while it is changed. Raises `InvalidFields` for the address."""
        outbound.check(url)
        self._url, self._now = url, now
        self._signatures = tuple(Signature(one) for one in secret.split())
        self._timeout = ClientTimeout(total=timeout_s)
        self._outbound = outbound
        self._session: ClientSession | None = None
        self._names = ThreadPoolExecutor(1, "webhook-name")

    async def deliver(self, event: CloudEvent) -> Answer:
        """POST it; any 2xx is enough."""
        if self._session is None:
            self._session = self._outbound.session(self._resolve)
        body = event.model_dump_json()
        try:
            async with self._session.post(
                self._url,
                data=body.encode(),
                headers=self._headers(event, body),
                timeout=self._timeout,
                allow_redirects=False,
            ) as answer:
                with suppress(ClientError, TimeoutError):
                    await answer.content.read(ANSWER_MAX)
                wait_ms = retry_after_ms(HttpAnswer(answer.status, headers=answer.headers))
                return judged(answer.status, (wait_ms or 0) / 1_000)
        except TimeoutError:
            return Away("no answer in time")
        except (ClientError, OSError, UnicodeError) as fault:  # the last for a name that no name server can be asked
            return Away(f"no answer: {_told(fault)}")

    async def close(self) -> None:
        """Free connections."""
        if self._session is not None:
            await self._session.close()
        self._names.shutdown(wait=False, cancel_futures=True)

    async def _resolve(self, host: str) -> Sequence[str]:
        """Its addresses. A look-up cannot be cut short: it holds up this subscriber, and no thread of anybody else."""
        look_up = partial(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._names, look_up)
        return tuple(dict.fromkeys(str(address[0]) for *_, address in found))

    def _headers(self, event: CloudEvent, body: str) -> dict[str, str]:
        at = self._now()
        headers = {
            "Content-Type": CONTENT_TYPE,
            "User-Agent": "appointments",
            "webhook-id": event.id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": " ".join(one.sign(event.id, at, body) for one in self._signatures),
        }
        return headers if event.traceparent is None else {**headers, "traceparent": event.traceparent}


def judged(status: int, retry_s: float) -> Answer:
    """What a status says: that the subscriber has it, does not take it, or fails whatever it is told."""
    if 200 <= status < 300:
        return Accepted()
    if 400 <= status < 500 and status not in OF_THE_ADDRESS:
        return Refused(f"answered {status}", retry_s)
    return Away(f"answered {status}", retry_s)


def _told(fault: Exception) -> str:
    """Why there was no answer, for the log: neither what a stranger has sent, nor the path, which may be a secret."""
    return (fault.strerror if isinstance(fault, OSError) else None) or type(fault).__name__
