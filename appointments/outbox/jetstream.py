"""Tells a NATS JetStream: one message for each event, CloudEvents in structured mode, acknowledged by the stream.

`Nats-Msg-Id` is the subject and the event's id: what is told twice within the stream's window for duplicates is kept
once, and what two subscriptions tell the same stream is kept for both. The stream itself, its limits and its consumers
are the broker's owner's: none is made here.
"""

import asyncio

from nats.aio.client import Client
from nats.errors import Error, MaxPayloadError
from nats.js.errors import APIError

from appointments.outbox.cloudevents import CONTENT_TYPE, CloudEvent
from appointments.outbox.sink import Accepted, Answer, Away, Refused, Sink

CONNECT_S = 2
PING_S = 5
"""How often a broker is asked whether it is there; one that does not answer twice is dialled anew."""


class JetStream(Sink):
    """One stream, below one subject: `<subject>.<type>.<appointment>`."""

    def __init__(self, url: str, subject: str, token: str | None, timeout_s: float) -> None:
        self._url, self._subject, self._token, self._timeout_s = url, subject, token, timeout_s
        self._client: Client | None = None
        self._connecting = asyncio.Lock()

    async def deliver(self, event: CloudEvent) -> Answer:
        """Publish it, and wait until the stream has it."""
        headers = {"Nats-Msg-Id": f"{self._subject}.{event.id}", "Content-Type": CONTENT_TYPE}
        if event.traceparent is not None:
            headers["traceparent"] = event.traceparent
        subject = f"{self._subject}.{event.type}.{event.subject}"
        try:
            stream = (await self._connected()).jetstream(timeout=self._timeout_s)
            await stream.publish(subject, event.model_dump_json().encode(), headers=headers)
        except MaxPayloadError as fault:
            return Refused(str(fault))
        except APIError as fault:
            about_it = fault.code is not None and 400 <= fault.code < 500
            return (Refused if about_it else Away)(f"answered {fault.code}: {fault.description}")
        except TimeoutError:
            return Away("no answer in time")
        except (Error, OSError, ValueError) as fault:  # the last for what is no word of a broker's
            return Away(str(fault) or type(fault).__name__)
        return Accepted()

    async def close(self) -> None:
        """Let go of the connection."""
        if self._client is not None:
            await self._client.close()

    async def _connected(self) -> Client:
        """A connection. One that broke is not mended but made anew: by then it is known how long that is to wait."""
        async with self._connecting:
            if self._client is None or self._client.is_closed:
                self._client = await _connect(self._url, self._token)
            return self._client


async def _connect(url: str, token: str | None) -> Client:
    client = Client()
    try:
        await client.connect(
            url,
            token=token,
            name="appointments outbox",
            allow_reconnect=False,
            max_reconnect_attempts=1,  # of the first connection; by default it is tried for two minutes
            reconnect_time_wait=0,
            connect_timeout=CONNECT_S,
            ping_interval=PING_S,
            max_outstanding_pings=2,
            error_cb=_told_otherwise,
        )
    except BaseException:  # the client leaves the connection open whose other end did not say what a broker says
        await client.close()
        raise
    return client


async def _told_otherwise(_: Exception) -> None:
    """Whoever publishes gets to know of it."""
