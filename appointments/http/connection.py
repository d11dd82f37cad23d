"""One connection: what the framework leaves unbounded has a size and a time here.

The head of a request, and what arrives beside the body itself: chunk by chunk, behind it, after the answer. What cannot
be read as HTTP is told as a problem, as everything else is.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from appointments.http.problems import problem

HEAD_MAX = 32 * 1024
"""Bytes of the request line and the headers."""
HEADERS_MAX = 100
HEAD_WITHIN_S = 10.0
"""It bounds as well how long a client may go on with a request that has been answered."""
WIRE_MAX = 2 * 1024 * 1024
"""Bytes of a body as it is sent: more than `border.py` reads of one, for the sizes of its chunks and for trailers."""
PIPELINED_MAX = 100
"""Requests that wait for the answer of one before them: each takes many times its bytes."""
LINGER_S = 2.0
"""How long the end waits for a client that still sends: closed with bytes unread, TCP throws the answer away."""
REASONS = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's own, with these bounds."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come; it may not sit here without a word either."""
        super().connection_made(transport)
        self._in_head, self._begun, self._bytes, self._ending = True, False, 0, False
        self._late: asyncio.TimerHandle | None = self.loop.call_later(HEAD_WITHIN_S, self._too_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._calm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes; of the head, and of all that follows it, no more than its bound."""
        if self._ending:
            return
        super().data_received(data)
        if self._ending or self.transport.is_closing():
            return
        self._bytes += len(data)
        if self._in_head and self._bytes > HEAD_MAX:
            self._refuse("headers-too-large")
        elif self._answered:
            # uvicorn ends its wait for a next request at any byte: that of an unread body, or an empty line.
            if self._late is None and self.timeout_keep_alive_task is None:
                self._late = self.loop.call_later(HEAD_WITHIN_S, self._too_late)
        elif self._bytes > WIRE_MAX:
            self.transport.close()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_head, self._begun, self._bytes = True, True, 0
        self.scope["extensions"] = {"appointments.abort": self.transport.abort}  # type: ignore[dict-item]
        if self._late is None:
            self._late = self.loop.call_later(HEAD_WITHIN_S, self._too_late)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header. Trailers are none (RFC 9110, 6.5.1): they would come into a request that is being answered."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Its head is there."""
        self._calm()
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > HEAD_MAX or len(self.headers) > HEADERS_MAX:
            self._refuse("headers-too-large")
            raise httptools.HttpParserError("the head is too large")
        if sum(name == b"host" for name, _ in self.headers) != 1 and self.parser.get_http_version() == "1.1":
            raise httptools.HttpParserError("one Host is needed (RFC 9112, 3.2)")
        if len(self.pipeline) >= PIPELINED_MAX:
            self.transport.close()
            raise httptools.HttpParserError("too many requests at once")
        self._in_head = self._begun = False
        self._bytes = 0
        super().on_headers_complete()
        self.cycle.transport = _Ending(self.transport, self._end)  # type: ignore[assignment]

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        if not self._ending and not self.transport.is_closing():
            self._refuse("malformed", "this is no HTTP/1.1 request")

    @property
    def _answered(self) -> bool:
        """Nothing is being answered now."""
        return not self._in_head and (self.cycle is None or self.cycle.response_complete)

    @property
    def _owes_another(self) -> bool:
        """What would be written now, its client would take for the answer of a request before, or for a part of it."""
        now = self.cycle
        if now is None or now.response_complete:
            return False
        return bool(self.pipeline) or self._in_head or now.response_started or not now.more_body

    def _end(self) -> None:
        """The last word is written; close once it can have been read (RFC 9112, 9.6)."""
        if self.pipeline or (self.cycle is not None and not self.cycle.more_body and not self._in_head):
            self.transport.close()
        elif not self._ending and not self.transport.is_closing():
            self._calm()
            self._ending = True
            self.transport.write_eof()
            self._late = self.loop.call_later(LINGER_S, self.transport.close)

    def _too_late(self) -> None:
        self._late = None
        if self._begun and not self.transport.is_closing():
            self._refuse("too-slow", f"the head of a request has to arrive within {HEAD_WITHIN_S:.0f} s")
        else:
            self.transport.close()

    def _calm(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _refuse(self, name: str, detail: str = f"at most {HEAD_MAX} bytes in {HEADERS_MAX} headers") -> None:
        self._calm()
        if self._owes_another:
            self.transport.close()
            return
        answer = problem(name, detail, headers={"Connection": "close"})
        lines = [b"HTTP/1.1 %d %s" % (answer.status_code, REASONS[answer.status_code])]
        lines += [b"%s: %s" % header for header in answer.raw_headers]
        self.transport.write(b"\r\n".join((*lines, b"", bytes(answer.body))))
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # whoever answers it: it has been answered
            self.cycle.message_event.set()
        self._end()


class _Ending:
    """The transport of one answer, which closes it in its own way."""

    def __init__(self, transport: asyncio.Transport, end: Callable[[], None]) -> None:
        self._transport, self.close = transport, end

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
