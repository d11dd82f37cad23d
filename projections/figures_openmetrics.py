"""The figures as OpenMetrics text, for a scraper. No tenant and nothing of one appointment becomes a label.

The exposition is written by `prometheus_client`: https://prometheus.io/docs/specs/om/open_metrics_spec/
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from projections.figures_report import FiguresReport, ProviderFigures, Took
from projections.histogram import Latency

CONTENT_TYPE: str = CONTENT_TYPE_LATEST
"""What the text is sent as over HTTP."""
PROVIDERS_MAX = 50
"""Providers that are shown, those with the most requests; how many are left out is a figure of its own."""


def openmetrics(report: FiguresReport | None, *others: Collector) -> str:
    """The report (None: there is none to be told), and what others tell, as OpenMetrics text.

    Counters only grow when the report is of the whole log, without a window.
    """
    registry = CollectorRegistry(auto_describe=False)
    for one in (*([_Families(report)] if report else ()), *others):
        registry.register(one)
    text: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]
    return text.decode()


Samples = Iterable[tuple[Sequence[str], float]]


class _Families(Collector):
    def __init__(self, report: FiguresReport) -> None:
        by_requests = sorted(report.providers, key=lambda one: (-one.requested, one.provider))
        self._providers = sorted(by_requests[:PROVIDERS_MAX], key=lambda one: one.provider)
        self._left_out = len(by_requests) - len(self._providers)
        shown = {one.provider for one in self._providers}
        self._steps = [step for step in report.steps if step.provider in shown]
        self._breakers = report.breakers

    def collect(self) -> Iterator[Metric]:
        yield from self._of_providers()
        yield from self._of_steps()
        yield _counter(
            "breaker_openings",
            "Openings of a breaker that held up a call.",
            ("target",),
            (((one.target,), one.openings) for one in self._breakers),
        )
        yield _gauge("providers_left_out", "Providers that are not shown here.", (), (((), self._left_out),))

    def _of_providers(self) -> Iterator[Metric]:
        for name, help_text, field in _PROVIDER_COUNTERS:
            samples = (((one.provider,), getattr(one, field)) for one in self._providers)
            yield _counter(name, help_text, ("provider",), samples)
        for name, help_text, label, field in _PROVIDER_COUNTERS_BY:
            yield _counter(name, help_text, ("provider", label), _by(self._providers, field))
        rates = (((one.provider,), one.success_rate) for one in self._providers if one.success_rate is not None)
        yield _gauge("success_ratio", "confirmed / (confirmed + failed).", ("provider",), rates)
        yield _gauge("standing", "Appointments by state, now.", ("provider", "state"), _by(self._providers, "now"))
        for name, help_text in (("unfinished", "Appointments under way, now."), ("parked_now", "Parked, now.")):
            yield _gauge(
                name, help_text, ("provider",), (((one.provider,), getattr(one, name)) for one in self._providers)
            )
        yield _histogram(
            "duration_seconds",
            "From request to end: of a booking, a rebooking, a move, a cancel, a clean-up.",
            ("provider", "what", "outcome"),
            (
                ((one.provider, what, outcome), latency)
                for one in self._providers
                for what in ("booking", "rebooking", "move", "cancel", "cleanup")
                for outcome, latency in _outcomes(getattr(one, what))
            ),
        )

    def _of_steps(self) -> Iterator[Metric]:
        labels = ("provider", "step", "operation")
        operations = [
            ((step.provider, step.step, one.operation), one) for step in self._steps for one in step.operations
        ]
        yield _counter("attempts", "Calls announced.", labels, ((where, one.attempts) for where, one in operations))
        yield _counter(
            "retries", "Calls that were not the first.", labels, ((where, one.retries) for where, one in operations)
        )
        yield _histogram(
            "call_duration_seconds",
            "From a call's announcement to its recorded outcome.",
            (*labels, "outcome"),
            (((*where, outcome), latency) for where, one in operations for outcome, latency in _outcomes(one.took)),
        )
        whole = ("provider", "step")
        for name, help_text, field in _STEP_COUNTERS:
            samples = (((one.provider, one.step), getattr(one, field)) for one in self._steps)
            yield _counter(name, help_text, whole, samples)
        yield _counter(
            "lookups",
            "Look-ups after an unknown outcome.",
            (*whole, "result"),
            (((one.provider, one.step, result), n) for one in self._steps for result, n in one.lookups.items()),
        )


_PROVIDER_COUNTERS = (
    ("requested", "Bookings asked for.", "requested"),
    ("imported", "Bookings taken over from another system.", "imported"),
    ("confirmed", "Bookings confirmed.", "confirmed"),
    ("withdrawn", "Bookings cancelled before they had ended.", "withdrawn"),
    ("cancelled", "Bookings cancelled after they had been confirmed.", "cancelled"),
    ("forced", "Ends that an operator forced.", "forced"),
    ("rescheduled", "Bookings moved.", "rescheduled"),
    ("rebooked", "Bookings made again.", "rebooked"),
    ("callbacks", "Callbacks that told something new.", "callbacks"),
    ("orphan_callbacks", "Callbacks for a reference that nobody here knows.", "orphan_callbacks"),
    ("late_successes", "Bookings that came to life after they had been given up.", "late_successes"),
    ("parked", "Times that an appointment was parked.", "parked"),
)
_PROVIDER_COUNTERS_BY = (
    ("failed", "Bookings that failed.", "reason", "failed"),
    ("reschedules_failed", "Moves that failed.", "reason", "reschedules_failed"),
    ("rebookings_failed", "Bookings that could not be made again.", "reason", "rebookings_failed"),
    ("repairs", "Bookings that were seen otherwise than the log says.", "repair", "repairs"),
    ("compensations", "Times that a booking was given up.", "reason", "compensations"),
    ("operator_actions", "Actions of operators.", "action", "operator_actions"),
)
_STEP_COUNTERS = (
    ("in_doubt", "Operations whose outcome had to be looked up.", "in_doubt"),
    ("deferred", "Waits for a breaker.", "deferred"),
)


def _by(those: Sequence[ProviderFigures], field: str) -> Iterator[tuple[Sequence[str], int]]:
    for one in those:
        counts: Mapping[str, int] = getattr(one, field)
        yield from (((one.provider, name), n) for name, n in counts.items())


def _outcomes(took: Took) -> Iterable[tuple[str, Latency]]:
    return took.by_outcome.items()


def _counter(name: str, help_text: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = CounterMetricFamily(f"appointments_{name}", help_text, labels=labels)
    for values, n in samples:
        family.add_metric(values, n)
    return family


def _gauge(name: str, help_text: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = GaugeMetricFamily(f"appointments_{name}", help_text, labels=labels)
    for values, n in samples:
        family.add_metric(values, n)
    return family


def _histogram(
    name: str, help_text: str, labels: Sequence[str], samples: Iterable[tuple[Sequence[str], Latency]]
) -> Metric:
    family = HistogramMetricFamily(f"appointments_{name}", help_text, labels=labels, unit="seconds")
    for values, latency in samples:
        borders = [(str(ms / 1_000), float(n)) for ms, n in latency.at_most]
        family.add_metric(values, [*borders, ("+Inf", float(latency.count))], latency.sum_ms / 1_000)
    return family
