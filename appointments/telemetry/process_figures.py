"""How this process does, as OpenMetrics: what alarms are set on. Names of tenants and appointments become no labels."""

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from appointments.orchestrator import Orchestrator
from appointments.telemetry.requests import Took
from appointments.telemetry.vitals import Vitals, added
from saga.timings import Timings

BREAKER_STATES = ("closed", "open", "half_open")


class LogFigures(Collector):
    """How the log and the work are, over all tenants, as they were looked at."""

    def __init__(self, looked: Vitals) -> None:
        self._looked = looked

    def collect(self) -> Iterator[Metric]:
        """Every family, in an order that stays."""
        looked = self._looked
        yield _gauge("log_position", "Events in the log, of all tenants.", looked.position)
        yield _gauges("read_model_lag", "Events that a read model is behind the log.", "model", looked.lag)
        yield _gauges("outbox_lag", "Events that a subscriber is behind the log.", "target", looked.outbox_lag)
        yield _deliveries(looked.outbox_told)
        yield _gauges("open_work", "Appointments of all tenants under way, by state.", "state", looked.unsettled)
        yield _gauge("open_work_parked", "Appointments of all tenants that wait for an operator.", looked.parked)
        yield _gauge("overdue", "Rows of all tenants due for over a minute; counted up to 1,000.", looked.overdue)
        yield _gauge("oldest_due_seconds", "For how long the oldest due row has been due.", looked.oldest_due_s)
        yield self._breakers()
        yield _gauges("calls_running", "Calls under way, by target.", "target", looked.running)

    def _breakers(self) -> Metric:
        family = GaugeMetricFamily(
            "appointments_breaker", "1 for the state of a target's breaker.", labels=("target", "state")
        )
        for target, standing in self._looked.breakers.items():
            for state in BREAKER_STATES:
                family.add_metric((target, state), float(state == standing))
        return family


class ProcessFigures(Collector):
    """How the process does by itself, as of one scrape."""

    def __init__(self, desks: Sequence[Orchestrator], took: Took, watched_by: int) -> None:
        self._desks, self._took, self._watched_by = desks, dict(took), watched_by

    def collect(self) -> Iterator[Metric]:
        """Every family, in an order that stays."""
        yield _gauge("event_stream_watchers", "Clients that watch an event stream.", self._watched_by)
        appends = Timings.of_all(desk.runtime.appends for desk in self._desks)
        yield _histogram("append_seconds", "Until a turn was durable.", (), {(): appends}.items())
        yield _histogram(
            "http_request_seconds",
            "Until the answer to a request began.",
            ("route", "method", "status"),
            sorted(self._took.items()),
        )
        if told_of := [desk.tracing.spans.told() for desk in self._desks if desk.tracing is not None]:
            yield _spans(added(told_of))
        told = {"version": version("appointments"), "python": platform.python_version()}
        yield InfoMetricFamily("appointments_build", "What runs here.", told)


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"appointments_{name}", help_text, value)


def _gauges(name: str, help_text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"appointments_{name}", help_text, labels=(label,))
    for of, value in sorted(values.items()):
        family.add_metric((of,), value)
    return family


def _histogram(
    name: str, help_text: str, labels: tuple[str, ...], timings: Iterable[tuple[tuple[str, ...], Timings]]
) -> Metric:
    family = HistogramMetricFamily(f"appointments_{name}", help_text, labels=labels, unit="seconds")
    for of, timing in timings:
        family.add_metric(of, timing.at_most(), timing.sum_s)
    return family


def _deliveries(told: Mapping[str, Mapping[str, int]]) -> Metric:
    family = CounterMetricFamily(
        "appointments_outbox_deliveries",
        "Events that this process told subscribers, by what came of it.",
        labels=("target", "result"),
    )
    for target, results in sorted(told.items()):
        for result, n in results.items():
            family.add_metric((target, result), n)
    return family


def _spans(told: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily("appointments_spans", "Spans, by what became of them.", labels=("result",))
    for result, n in told.items():
        family.add_metric((result,), n)
    return family
