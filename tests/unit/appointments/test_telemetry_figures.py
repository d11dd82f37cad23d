"""Durations in buckets, as a scraper reads them."""

from prometheus_client.core import HistogramMetricFamily

from saga.timings import BORDERS_S, Timings


def test_every_duration_is_in_each_bucket_that_holds_it() -> None:
    timings = Timings()
    for seconds in (0.0, 0.001, 0.0011, 3.0, 11.0):
        timings.add(seconds)
    at_most = dict(timings.at_most())
    assert at_most["0.001"] == 2
    assert at_most["0.0025"] == 3
    assert at_most["5.0"] == 4
    assert at_most["10.0"] == 4
    assert at_most["+Inf"] == 5
    assert timings.sum_s == 14.0021


def test_buckets_stand_in_order_and_the_last_has_no_border() -> None:
    names = [name for name, _ in Timings().at_most()]
    assert names == [*map(str, BORDERS_S), "+Inf"]
    assert sorted(BORDERS_S) == list(BORDERS_S)


def test_the_library_takes_them_as_a_histogram() -> None:
    timings = Timings()
    timings.add(0.2)
    family = HistogramMetricFamily("x_seconds", "x", labels=("a",), unit="seconds")
    family.add_metric(("b",), timings.at_most(), timings.sum_s)
    told = {(sample.name, sample.labels.get("le")): sample.value for sample in family.samples}
    assert told["x_seconds_bucket", "0.1"] == 0
    assert told["x_seconds_bucket", "0.25"] == 1
    assert told["x_seconds_count", None] == 1
