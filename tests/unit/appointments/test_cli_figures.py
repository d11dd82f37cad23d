"""`figures` on the command line: for people, as JSON and for a scraper; what cannot be asked is refused and said."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from command_line import appointments, booked
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed
from rich.console import Console

from appointments.cli.figures_table import COLUMNS_MAX, shown
from projections.figures_report import (
    BreakerFigures,
    FiguresReport,
    OperationFigures,
    ProviderFigures,
    StepFigures,
    Took,
)
from projections.histogram import Latency, bucket_of, latency

pytestmark = pytest.mark.usefixtures("own_folder")


def test_people_see_the_rate_the_counts_and_each_step() -> None:
    booked("a")
    booked("b")
    said = appointments("figures")
    assert said.code == 0, said
    lines = [line.split() for line in said.out.splitlines()]
    assert lines[0] == ["from", "the", "beginning,", "tenant", "default"]
    assert ["success", "rate", "100.00%"] in lines
    assert ["requested", "2"] in lines
    assert [line[:5] for line in lines if line[:1] == ["main"] and line[1:]] == [
        ["main", "request", "to", "end", "booking"],
        ["main", "calendar", "action", "2", "0"],
        ["main", "notify", "action", "2", "0"],
    ]


def test_a_window_is_named_and_keeps_what_stands_now() -> None:
    booked("a")
    said = appointments("figures", "--until", "2026-01-01T10:30", "--json")
    assert said.code == 0, said
    assert said.json["until"] == "2026-01-01T11:00:00Z"
    assert (said.json["total"]["requested"], said.json["total"]["now"]) == (0, {"confirmed": 1})


@pytest.mark.parametrize("words", [("--json",), ("--format", "json")])
def test_the_report_as_json_is_the_whole_report(words: tuple[str, ...]) -> None:
    booked("a")
    assert FiguresReport.model_validate(appointments("figures", *words).json).total.confirmed == 1


def test_a_tenant_sees_its_own_unless_all_are_asked_for() -> None:
    booked("a")
    booked("b", "--tenant", "other")
    assert appointments("figures", "--tenant", "other", "--json").json["total"]["requested"] == 1
    assert appointments("figures", "--all-tenants", "--json").json["total"]["requested"] == 2


def test_a_scraper_gets_openmetrics() -> None:
    booked("a")
    said = appointments("figures", "--format", "openmetrics")
    families = {family.name: family for family in parsed(said.out)}
    assert families["appointments_confirmed"].samples[0].value == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--since", "yesterday"), "--since: not an RFC 3339 time"),
        (("--until", "9999-12-31T23:59:59Z"), "/until: the year must lie in 1970..2199"),
        (("--since", "0001-01-01T00:00:00Z"), "/since: the year must lie in 1970..2199"),
        (("--since", "2026-01-02T00:00:00Z", "--until", "2026-01-01T00:00:00Z"), "until must be later than since"),
        (("--format", "openmetrics", "--until", "2026-01-01T00:00:00Z"), "leave out --since and --until"),
        (("--format", "openmetrics", "--json"), "leave one out"),
    ],
)
def test_what_cannot_be_asked_is_refused(words: tuple[str, ...], told: str) -> None:
    booked("a")
    said = appointments("figures", *words)
    assert said.code == 2
    assert told in said.out + said.err


def test_no_store_is_said_and_none_is_made(own_folder: Path) -> None:
    said = appointments("figures")
    assert said.code != 0
    assert "no store" in said.err
    assert list(own_folder.iterdir()) == []


# -- the table -------------------------------------------------------------------------------------------------------


def provider(name: str, requested: int = 0, booking: Latency | None = None) -> ProviderFigures:
    counts = dict.fromkeys(ProviderFigures.model_fields, 0)
    plain: dict[str, object] = {
        name: {} for name in ("failed", "reschedules_failed", "rebookings_failed", "repairs", "compensations", "now")
    }
    spans = {name: Took() for name in ("rebooking", "move", "cancel", "cleanup")}
    own = {"provider": name, "requested": requested, "success_rate": None, "operator_actions": {}}
    return ProviderFigures.model_validate(
        {**counts, **plain, **spans, **own, "booking": Took(all=booking or Latency())}
    )


def report(*providers: ProviderFigures, steps: tuple[StepFigures, ...] = ()) -> FiguresReport:
    return FiguresReport(
        since=datetime(2026, 3, 2, 12, tzinfo=UTC),
        until=None,
        tenant=None,
        total=provider("*", requested=99),
        providers=providers,
        steps=steps,
        breakers=(BreakerFigures(target="mail", openings=3),),
    )


def printed(what: FiguresReport, **more: str) -> str:
    console = Console(width=200, record=True, markup=False)
    with console.capture() as kept:
        console.print(shown(what, **more))
    return kept.get()


def took(*durations_ms: float) -> Latency:
    buckets: dict[int, int] = {}
    for ms in durations_ms:
        bucket = bucket_of(round(1_000 * ms))
        buckets[bucket] = buckets.get(bucket, 0) + 1
    return latency(buckets, round(1_000 * sum(durations_ms)))


def test_a_bar_stands_for_each_doubling_and_the_few_are_seen() -> None:
    times = took(*[3] * 100, 30, 120_000)
    step = StepFigures(
        provider="main",
        step="calendar",
        operations=(OperationFigures(operation="action", attempts=102, retries=2, took=Took(all=times)),),
        lookups={},
        in_doubt=0,
        deferred=0,
    )
    lines = printed(report(provider("main"), steps=(step,)), bars=".:-=+*%#").splitlines()
    assert lines[0].rstrip() == "from 2026-03-02 12:00 UTC, all tenants"
    assert lines[-2].rstrip().endswith("2 ms to 2.18 min")
    assert lines[-1].rstrip().endswith("#  .           .")
    assert lines[-1].split()[3:11] == ["102", "2", "2.99", "ms", "2.99", "ms", "30.3", "ms"]
    assert any(line.split() == ["breaker", "openings,", "mail", "3"] for line in lines)


def test_the_busiest_providers_get_a_column_and_all_are_in_the_total() -> None:
    many = [provider(f"p{number}", requested=number) for number in range(COLUMNS_MAX + 2)]
    head = printed(report(*many)).splitlines()[1].split()
    assert head == ["p6", "p5", "p4", "p3", "p2", "all"]


def test_nothing_at_all_is_said_in_words() -> None:
    assert printed(report()).strip() == "no appointments"
