"""Spans by OTLP over HTTP: a bounded queue, and a thread that empties it. What cannot be sent is dropped and counted.

Imported only where traces are on: it brings the OpenTelemetry SDK with it.
"""

import logging
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from appointments.telemetry.context import Context

QUEUE_MAX = 8_192
BATCH_MAX = 128
DELAY_MS = 1_000
EXPORT_WITHIN_S = 5.0
CLOSE_WITHIN_S = 2.0
"""How long, at the end, the collector is waited for."""
KEPT, LEFT_OUT = TraceFlags(TraceFlags.SAMPLED), TraceFlags(TraceFlags.DEFAULT)
SCOPE = InstrumentationScope("appointments")
FAILED = Status(StatusCode.ERROR)
UNSET = Status(StatusCode.UNSET)
NOISY = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal")
"""They write a line for every batch that a collector does not take; ours is one line, and a figure."""

Attributes = Mapping[str, str | int | bool]


class Spans:
    """Takes spans that have ended. `service` names this process to the collector."""

    def __init__(self, url: str, service: Mapping[str, str]) -> None:
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self.exporter = _Exporter(url)
        self._queue = BatchSpanProcessor(self.exporter, QUEUE_MAX, DELAY_MS, BATCH_MAX)
        self._resource = Resource(dict(service))
        self.ended = 0
        """Spans that were queued."""

    def end(
        self,
        name: str,
        span: Context,
        parent: Context | None,
        times: tuple[datetime, datetime],
        attributes: Attributes,
        kind: SpanKind = SpanKind.INTERNAL,
        failed: bool = False,
        link: Context | None = None,
        events: Sequence[tuple[str, datetime]] = (),
    ) -> None:
        """A span has ended. Never waits."""
        if not span.kept:
            return
        self.ended += 1
        began, ended = times
        self._queue.on_end(
            ReadableSpan(
                name,
                _context(span),
                None if parent is None else _context(parent, kind is SpanKind.SERVER),
                self._resource,
                attributes,
                [Event(name, None, _nanoseconds(at)) for name, at in events],
                () if link is None else (Link(_context(link, True)),),
                kind,
                status=FAILED if failed else UNSET,
                start_time=_nanoseconds(began),
                end_time=_nanoseconds(max(began, ended)),
                instrumentation_scope=SCOPE,
            )
        )

    def told(self) -> dict[str, int]:
        """How many spans have ended, were sent, and could not be; the rest waits, or was dropped from a full queue."""
        return {"ended": self.ended, "sent": self.exporter.sent, "failed": self.exporter.failed}

    def close(self) -> None:
        """Send what is queued, as far as the collector takes it soon; blocks for `CLOSE_WITHIN_S` at most."""
        # The queue's own way to end waits for half a minute.
        ending = threading.Thread(target=self._queue.shutdown, name="spans-end", daemon=True)
        ending.start()
        ending.join(CLOSE_WITHIN_S)
        if ending.is_alive():
            self.exporter.shutdown()  # type: ignore[no-untyped-call]


class _Exporter(OTLPSpanExporter):
    """Counts what becomes of the spans."""

    def __init__(self, url: str) -> None:
        super().__init__(url, timeout=EXPORT_WITHIN_S)
        self.sent = self.failed = 0
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch."""
        result = super().export(spans)
        fails = result is not SpanExportResult.SUCCESS
        if fails:
            self.failed += len(spans)
            if not self._failing:
                sys.stderr.write("the collector takes no traces; the work goes on without\n")
        else:
            self.sent += len(spans)
        self._failing = fails
        return result


def _context(span: Context, is_remote: bool = False) -> SpanContext:
    return SpanContext(span.trace_id, span.span_id, is_remote, KEPT if span.kept else LEFT_OUT)


def _nanoseconds(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000) * 1_000
