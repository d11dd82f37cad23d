"""The drawings of the overview: hours as bars, and how long calls took."""

from datetime import UTC, datetime, timedelta

from appointments.console.charts import HEIGHT, HOURS, WIDTH, hour_chart
from projections.figures_report import HourFigures

NOW = datetime(2031, 3, 3, 9, 30, tzinfo=UTC)


def hour(ago: int, confirmed: int, failed: int) -> HourFigures:
    at = NOW.replace(minute=0) - timedelta(hours=ago)
    return HourFigures(hour=at, confirmed=confirmed, failed=failed)


def test_the_present_hour_is_the_last_bar_and_the_greatest_is_as_high_as_the_chart() -> None:
    chart = hour_chart([hour(0, 3, 1), hour(HOURS - 1, 1, 0)], NOW)
    first, last = chart.bars
    assert chart.most == 4
    assert first.x < WIDTH / HOURS
    assert last.x + last.width <= WIDTH
    assert (last.bad_y, round(last.good_height + last.bad_height, 2)) == (0, HEIGHT)
    assert first.good_height == HEIGHT / 4


def test_what_is_older_than_two_days_is_left_out_and_nothing_is_nothing() -> None:
    assert hour_chart([hour(HOURS, 3, 1)], NOW).bars == ()
    assert hour_chart([], NOW).most == 0
