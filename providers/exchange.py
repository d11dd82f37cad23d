"""One HTTP exchange and what is known after it: a whole answer, or a failure that says whether bytes may have left.

Owns time limits, size limits and connections. It judges no status: that is `outcomes`. It never repeats a request.
aiohttp 3.14 does (GET, PUT, DELETE once more, when a kept-alive connection drops), and the first copy may have been
applied; a middleware takes such errors out of its reach.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Self

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from domain.provider import Call

BODY_MAX = 262_144
CONNECTIONS_MAX = 100
READ_CHUNK = 65_536


@dataclass(frozen=True)
class Answer:
    """A whole answer: status, headers, and a body within the limit."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: CIMultiDictProxy(CIMultiDict()))


@dataclass(frozen=True)
class Failure:
    """No whole answer. `sent` is False only where it is proven that no byte of the request left."""

    reason: str
    sent: bool


class Deadline:
    """The end of one call, and the trace that it belongs to: shared by every exchange that it takes."""

    def __init__(self, timeout_ms: int, traceparent: str | None = None) -> None:
        self.at = asyncio.get_running_loop().time() + timeout_ms / 1_000
        self.traceparent = traceparent

    @classmethod
    def of(cls, call: Call) -> Self:
        """That of this call, which begins now."""
        return cls(call.timeout_ms, call.traceparent)

    def passed(self) -> bool:
        """Whether no time is left."""
        return asyncio.get_running_loop().time() >= self.at


class Exchange:
    """Connections to one provider. Follows no redirect, keeps no cookie, reads no proxy settings."""

    def __init__(self, headers: Mapping[str, str], *, connections_max: int = CONNECTIONS_MAX) -> None:
        self._headers = {"Accept-Encoding": "identity", **headers}
        self._connections_max = connections_max
        self._session: aiohttp.ClientSession | None = None

    async def send(
        self,
        method: str,
        url: str,
        deadline: Deadline,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        body_max: int = BODY_MAX,
    ) -> Answer | Failure:
        """Send one request and read the whole answer before the deadline; `url` is taken as it is (encoded)."""
        if deadline.passed():
            return Failure("no time was left to send the request", sent=False)
        if deadline.traceparent is not None:
            headers = {**(headers or {}), "traceparent": deadline.traceparent}
        seen = SimpleNamespace(connected=False)
        try:
            async with (
                asyncio.timeout_at(deadline.at),
                self._connected().request(
                    method,
                    URL(url, encoded=True),
                    headers=headers,
                    data=body,
                    allow_redirects=False,
                    trace_request_ctx=seen,
                ) as response,
            ):
                return await _read(response, body_max)
        except TimeoutError:
            return Failure("no whole answer in time", sent=seen.connected)
        except Exception as fault:  # whatever a peer does is an outcome, never an error of ours
            return Failure(_phrase(fault), sent=seen.connected)

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _connected(self) -> aiohttp.ClientSession:
        # made at first use: a session belongs to the loop that runs then
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections_max),
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                trace_configs=[_connection_trace()],
                middlewares=(_send_once,),
                auto_decompress=False,
            )
        return self._session


class _Dropped(Exception):
    """The connection ended under a request. No aiohttp error, so that aiohttp does not send it again."""


async def _send_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    try:
        return await handler(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as fault:
        raise _Dropped(str(fault)) from fault


def _phrase(fault: Exception) -> str:
    """What went wrong, as recorded and shown: names of classes and the peer's own bytes stay out of it."""
    match fault:
        case aiohttp.ClientConnectorCertificateError():
            return f"the server's certificate is not trusted: {fault.certificate_error}"
        case aiohttp.ClientConnectorError():
            return f"cannot connect: {fault.strerror}"
        case _Dropped():
            return f"the connection ended before the answer: {fault}"
        case aiohttp.ClientPayloadError():
            return "the connection ended within the answer"
        case aiohttp.ClientResponseError():
            return "the answer is no HTTP that can be read"
        case _:
            return f"the exchange failed: {fault}"


def _connection_trace() -> aiohttp.TraceConfig:
    """Marks the moment from which bytes may have left: a connection, new or kept, is in the request's hands."""

    async def connected(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: Any) -> None:
        context.trace_request_ctx.connected = True

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(connected)
    trace.on_connection_reuseconn.append(connected)
    return trace


async def _read(response: aiohttp.ClientResponse, body_max: int) -> Answer | Failure:
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        return Failure("the answer is compressed, which was not asked for", sent=True)
    body = bytearray()
    async for chunk in response.content.iter_chunked(READ_CHUNK):
        body += chunk
        if len(body) > body_max:
            response.close()
            return Failure(f"the answer is longer than {body_max} bytes", sent=True)
    return Answer(response.status, bytes(body), response.headers)
