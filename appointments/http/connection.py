"""One connection: the head of a request has a size and a time in which it has to arrive; the framework bounds neither.

What cannot be read as HTTP is told as a problem, as everything else is.
"""

import asyncio

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from appointments.http.problems import problem

HEAD_MAX = 32 * 1024
"""Bytes of the request line and the headers."""
HEAD_WITHIN_S = 10.0
REASONS = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's own, with these bounds."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come; it may not sit here without a word either."""
        super().connection_made(transport)
        self._in_head, self._begun, self._head_bytes = True, False, 0
        self._late: asyncio.TimerHandle | None = self.loop.call_later(HEAD_WITHIN_S, self._too_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._calm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Some bytes; of the head no more than its bound."""
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_MAX:
                self._refuse("headers-too-large")

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_head, self._begun, self._head_bytes = True, True, 0
        self.scope["extensions"] = {"appointments.abort": self.transport.abort}  # type: ignore[dict-item]
        if self._late is None:
            self._late = self.loop.call_later(HEAD_WITHIN_S, self._too_late)

    def on_headers_complete(self) -> None:
        """Its head is there."""
        self._calm()
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > HEAD_MAX:
            self._refuse("headers-too-large")
            raise httptools.HttpParserError("the head is too large")
        self._in_head = False
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP."""
        if not self.transport.is_closing():
            self._refuse("malformed", "this is no HTTP/1.1 request")

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

    def _refuse(self, name: str, detail: str = f"at most {HEAD_MAX} bytes") -> None:
        self._calm()
        answer = problem(name, detail, headers={"Connection": "close"})
        lines = [b"HTTP/1.1 %d %s" % (answer.status_code, REASONS[answer.status_code])]
        lines += [b"%s: %s" % header for header in answer.raw_headers]
        self.transport.write(b"\r\n".join((*lines, b"", bytes(answer.body))))
        self.transport.close()
