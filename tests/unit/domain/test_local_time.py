"""Local times become instants, or are refused."""

# ruff: noqa: DTZ001, DTZ901, PT017 - times without a zone are the subject here; at the edges either answer is right

from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidFields
from domain.local_time import instants, parse_instant, parse_local, start_of_day, to_instant, zone_named


def test_a_wall_clock_time_becomes_utc() -> None:
    assert to_instant(datetime(2027, 1, 15, 9), "Europe/Berlin") == datetime(2027, 1, 15, 8, tzinfo=UTC)
    assert to_instant(datetime(2027, 7, 15, 9), "Europe/Berlin") == datetime(2027, 7, 15, 7, tzinfo=UTC)
    assert to_instant(datetime(2027, 7, 15, 9), "Europe/Berlin").tzinfo is UTC


@pytest.mark.parametrize(
    ("local", "zone"),
    [
        (datetime(2027, 3, 28, 2, 30), "Europe/Berlin"),
        (datetime(2027, 3, 14, 2, 0), "America/New_York"),
        (datetime(2011, 12, 30, 12, 0), "Pacific/Apia"),
    ],
)
def test_a_time_that_clocks_skip_is_refused_whatever_fold_says(local: datetime, zone: str) -> None:
    for fold in (None, 0, 1):
        with pytest.raises(InvalidFields, match="does not exist"):
            to_instant(local, zone, fold)


def test_a_time_that_clocks_repeat_is_refused_unless_told_which() -> None:
    twice = datetime(2027, 10, 31, 2, 30)
    with pytest.raises(InvalidFields, match="happens twice"):
        to_instant(twice, "Europe/Berlin")
    assert to_instant(twice, "Europe/Berlin", fold=0) == datetime(2027, 10, 31, 0, 30, tzinfo=UTC)
    assert to_instant(twice, "Europe/Berlin", fold=1) == datetime(2027, 10, 31, 1, 30, tzinfo=UTC)


def test_a_fold_of_half_an_hour_is_seen() -> None:
    assert len(instants(datetime(2027, 4, 4, 1, 45), ZoneInfo("Australia/Lord_Howe"))) == 2


def test_fold_is_ignored_where_there_is_only_one() -> None:
    plain = datetime(2027, 6, 1, 12)
    assert {to_instant(plain, "Europe/Berlin", fold) for fold in (None, 0, 1)} == {to_instant(plain, "Europe/Berlin")}


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("europe/berlin", "Europe/Berlin"),
        ("Europe/Berln", "Europe/Berlin"),
        ("Berlin", "Europe/Berlin"),
        ("America/New York", "America/New_York"),
        ("", "Europe/Berlin"),
        ("../../etc/passwd", "Europe/Berlin"),
        ("Europe", "Europe"),
        ("localtime", ""),
        ("x\x00" * 5_000, ""),
    ],
)
def test_an_unknown_zone_is_refused_with_a_suggestion(wrong: str, meant: str) -> None:
    with pytest.raises(InvalidFields, match="did you mean") as refused:
        zone_named(wrong)
    assert meant in refused.value.detail
    assert len(refused.value.detail) < 400


def test_a_time_with_an_offset_is_no_local_time() -> None:
    with pytest.raises(InvalidFields, match="no offset"):
        to_instant(datetime(2027, 1, 1, tzinfo=UTC), "Europe/Berlin")


@pytest.mark.parametrize("edge", [datetime.min, datetime.max])
@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
def test_the_edges_of_the_calendar_never_overflow(edge: datetime, zone: str) -> None:
    try:
        to_instant(edge, zone)
    except InvalidFields as refused:
        assert "outside the calendar" in refused.detail


def test_a_day_begins_at_its_first_instant() -> None:
    assert start_of_day(date(2027, 3, 1), "Europe/Berlin") == datetime(2027, 2, 28, 23, tzinfo=UTC)
    # Havana sets clocks forward at midnight and back at one: the day begins at 01:00, and at the first 00:00
    assert start_of_day(date(2024, 3, 10), "America/Havana") == datetime(2024, 3, 10, 5, tzinfo=UTC)
    assert start_of_day(date(2024, 11, 3), "America/Havana") == datetime(2024, 11, 3, 4, tzinfo=UTC)


def test_a_day_that_a_zone_skipped_is_refused() -> None:
    with pytest.raises(InvalidFields, match="skip that day"):
        start_of_day(date(2011, 12, 30), "Pacific/Apia")
    for edge in (date.min, date.max):
        for zone in ("Asia/Tokyo", "America/New_York"):
            try:
                start_of_day(edge, zone)
            except InvalidFields as refused:
                assert "outside the calendar" in refused.detail


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2027-03-01T09:00:00Z", datetime(2027, 3, 1, 9, tzinfo=UTC)),
        ("2027-03-01t09:00:00z", datetime(2027, 3, 1, 9, tzinfo=UTC)),
        ("2027-03-01 09:00:00+01:00", datetime(2027, 3, 1, 8, tzinfo=UTC)),
        ("2027-03-01T09:00:00.5-05:30", datetime(2027, 3, 1, 14, 30, 0, 500_000, tzinfo=UTC)),
        ("2027-03-01T09:00:00.1234567-00:00", datetime(2027, 3, 1, 9, 0, 0, 123_456, tzinfo=UTC)),
    ],
)
def test_rfc_3339_is_read(text: str, instant: datetime) -> None:
    assert parse_instant(text) == instant


@pytest.mark.parametrize(
    "text",
    [
        "2027-03-01",
        "2027-03-01T09:00:00",
        "2027-03-01T09:00Z",
        "2027-02-30T09:00:00Z",
        "2027-03-01T09:00:60Z",
        "2027-03-01T24:00:00Z",
        "2027-03-01T09:00:00+24:00",
        "0001-01-01T00:00:00+10:00",
        "1740816000",
        "٢٠٢٧-03-01T09:00:00Z",
        "",
    ],
)
def test_anything_else_is_no_instant(text: str) -> None:
    with pytest.raises(InvalidFields):
        parse_instant(text)


def test_a_local_time_is_told_from_an_instant() -> None:
    assert parse_local("2027-03-01T09:00") == datetime(2027, 3, 1, 9)
    assert parse_local("2027-03-01 09:00:30") == datetime(2027, 3, 1, 9, 0, 30)
    assert parse_local("2027-03-01T09:00:00Z") is None
    with pytest.raises(InvalidFields):
        parse_local("2027-02-30T09:00")


@given(
    st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2199, 1, 1)),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kolkata"]),
)
def test_every_instant_found_reads_back_as_the_local_time(local: datetime, zone: str) -> None:
    for instant in instants(local, ZoneInfo(zone)):
        assert instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0) == local


@given(st.datetimes(timezones=st.just(UTC)), st.integers(-1439, 1439))
def test_what_is_written_as_rfc_3339_is_read_back(instant: datetime, minutes: int) -> None:
    try:
        shown = instant.astimezone(timezone(timedelta(minutes=minutes)))
    except OverflowError:
        return
    assert parse_instant(shown.isoformat()) == instant
