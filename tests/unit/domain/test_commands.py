"""Commands at the border: limits, control characters, years, zones; every fault named, no value repeated."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from domain.commands import (
    Act,
    BookAppointment,
    CancelAppointment,
    PolicyOverride,
    Request,
    RescheduleAppointment,
    parse,
)
from domain.errors import CommandRefused, InvalidFields

FIELDS: dict[str, Any] = {
    "calendar": "main",
    "start": "2026-03-03T10:00:00Z",
    "end": "2026-03-03T11:00:00Z",
    "time_zone": "Europe/Berlin",
    "summary": "Check-up",
}


def book(**changes: Any) -> BookAppointment:
    return parse(BookAppointment, {**FIELDS, **changes})


def fault(**changes: Any) -> tuple[tuple[str, str], ...]:
    with pytest.raises(InvalidFields) as refused:
        book(**changes)
    return refused.value.errors


def test_what_is_right_is_taken_and_times_become_utc() -> None:
    command = book(start="2026-03-03T11:00:00+01:00", attendees=[{"email": "a@b.c"}])
    assert command.start == datetime(2026, 3, 3, 10, tzinfo=UTC)
    assert command.start.tzinfo is UTC
    assert command.attendees[0].email == "a@b.c"


@pytest.mark.parametrize("name", FIELDS)
def test_a_missing_field_is_named(name: str) -> None:
    with pytest.raises(InvalidFields) as refused:
        parse(BookAppointment, {key: value for key, value in FIELDS.items() if key != name})
    assert refused.value.errors == ((f"/{name}", "Field required"),)


def test_every_fault_is_named_at_once_and_values_are_not_repeated() -> None:
    errors = fault(summary="", calendar="SECRET NAME", attendees=[{"email": "secret"}])
    assert [pointer for pointer, _ in errors] == ["/calendar", "/summary", "/attendees/0/email"]
    assert "SECRET" not in str(errors)


def test_a_field_that_we_do_not_know_is_refused() -> None:
    assert fault(colour="red") == (("/colour", "Extra inputs are not permitted"),)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("summary", "x" * 255, "x" * 256),
        ("summary", "x", ""),
        ("location", "x" * 255, "x" * 256),
        ("calendar", "a" * 64, "a" * 65),
        ("calendar", "a-1", "A"),
        ("calendar", "main", "main\n"),
        ("attendees", [{"email": "a@b.c"}] * 50, [{"email": "a@b.c"}] * 51),
        ("metadata", {f"k{n}": "v" for n in range(50)}, {f"k{n}": "v" for n in range(51)}),
        ("metadata", {"k" * 40: "v" * 500}, {"k" * 41: "v"}),
        ("metadata", {}, {"k": "v" * 501}),
        ("metadata", {"k": ""}, {"": "v"}),
        ("deadline_ms", 100, 99),
        ("deadline_ms", 86_400_000, 86_400_001),
        ("recurrence", "FREQ=DAILY", ""),
        ("time_zone", "America/Argentina/ComodRivadavia", "Mars/Olympus"),
        ("time_zone", "UTC", "../../etc/passwd"),
        ("time_zone", "Etc/GMT+5", "/etc/localtime"),
        ("time_zone", "Europe/Berlin", "Europe"),
        ("time_zone", "Europe/Berlin", "right/Europe/Berlin"),
        ("time_zone", "Europe/Berlin", "localtime"),
        ("time_zone", "Europe/Berlin", "Factory"),
        ("time_zone", "Europe/Berlin", "Europe/Berlin\0"),
        ("time_zone", "Europe/Berlin", ""),
        ("time_zone", "Asia/Kathmandu", "x" * 65),
        ("organizer", {"email": "a@b"}, {"email": "a b@c"}),
        ("organizer", {"email": "a@b", "name": "x" * 255}, {"email": "a@b", "name": "x" * 256}),
        ("organizer", {"email": "a@b"}, {"email": "a@b\n"}),
    ],
)
def test_limits(name: str, right: Any, wrong: Any) -> None:
    book(**{name: right})
    assert fault(**{name: wrong})[0][0].startswith(f"/{name}")


@pytest.mark.parametrize("character", ["\0", "\x1b", "\x07", "\x7f", "\x85", "\x9f", "\ud800", "\r"])
@pytest.mark.parametrize("place", ["summary", "location", "metadata", "organizer", "attendees", "recurrence"])
def test_control_characters_and_lone_surrogates_are_refused_everywhere(place: str, character: str) -> None:
    text = f"a{character}b"
    value: Any = text
    if place == "metadata":
        value = {"k": text}
    if place == "organizer":
        value = {"email": "a@b.c", "name": text}
    if place == "attendees":
        value = [{"email": f"a{character}@b.c"}]
    assert fault(**{place: value})


@pytest.mark.parametrize("text", ["Zürich", "予約", "👩‍⚕️", "line one\nline two", "tab\there", "ع"])
def test_the_words_of_the_world_are_taken(text: str) -> None:
    assert book(summary=text).summary == text


class TestTimes:
    @pytest.mark.parametrize(
        ("start", "end"),
        [
            ("2026-03-03T10:00:00Z", "2026-03-03T10:00:00Z"),
            ("2026-03-03T10:00:00Z", "2026-03-03T09:59:59Z"),
            ("2026-01-01T00:00:00Z", "2027-01-02T00:00:01Z"),
        ],
    )
    def test_the_end_follows_the_start_by_at_most_a_leap_year(self, start: str, end: str) -> None:
        assert fault(start=start, end=end)

    @pytest.mark.parametrize("start", ["2026-03-03T10:00:00", "2026-03-03", "tomorrow", "", None, "NaN", [], 1e400])
    def test_a_time_without_an_offset_is_no_instant(self, start: Any) -> None:
        assert fault(start=start)[0][0] == "/start"

    @pytest.mark.parametrize("year", ["0001", "1969", "2200", "9999"])
    def test_years_far_away_are_refused(self, year: str) -> None:
        assert fault(start=f"{year}-03-03T10:00:00Z", end=f"{year}-03-03T11:00:00Z")[0][0] == "/start"

    @pytest.mark.parametrize("year", ["1970", "2024", "2199"])
    def test_years_within_sight_are_taken(self, year: str) -> None:
        assert book(start=f"{year}-02-28T10:00:00Z", end=f"{year}-03-01T11:00:00Z").start.year == int(year)

    def test_an_offset_at_the_edge_of_time_is_a_refusal_not_a_crash(self) -> None:
        edge = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))
        assert fault(start=edge, end=edge + timedelta(hours=1))
        edge = datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-12)))
        assert fault(start=edge, end=edge)

    def test_a_leap_day_is_a_day(self) -> None:
        book(start="2028-02-29T10:00:00Z", end="2028-02-29T11:00:00Z")
        assert fault(start="2027-02-29T10:00:00Z")

    @given(st.datetimes(timezones=st.timezones()), st.timedeltas())
    @example(datetime.max.replace(tzinfo=UTC), timedelta.max)
    def test_whatever_two_times_are_given_the_answer_is_a_command_or_a_refusal(
        self, start: datetime, length: timedelta
    ) -> None:
        try:
            end = start + length
        except OverflowError:
            end = start
        try:
            command = book(start=start, end=end)
        except CommandRefused:
            return
        assert command.start < command.end


ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=9), inner, max_size=3)),
    max_leaves=6,
)


@given(ANYTHING, st.sampled_from([BookAppointment, CancelAppointment, RescheduleAppointment, Act, Request]))
def test_whatever_is_given_the_answer_is_a_command_or_a_refusal(given_fields: Any, model: type) -> None:
    with suppress(InvalidFields):
        assert isinstance(parse(model, given_fields), model)


@given(st.sampled_from([*FIELDS, "attendees", "metadata", "organizer", "policy", "deadline_ms"]), ANYTHING)
def test_whatever_one_field_holds_the_answer_is_a_command_or_a_refusal(name: str, value: Any) -> None:
    with suppress(InvalidFields):
        book(**{name: value})


class TestTheOthers:
    def test_a_cancel_needs_nothing(self) -> None:
        assert parse(CancelAppointment, {}).reason == ""

    @pytest.mark.parametrize("reason", ["x" * 501, "a\0b"])
    def test_a_reason_has_limits(self, reason: str) -> None:
        with pytest.raises(InvalidFields):
            parse(CancelAppointment, {"reason": reason})

    def test_a_reschedule_without_a_zone_keeps_the_one_it_has(self) -> None:
        fields = {"start": FIELDS["start"], "end": FIELDS["end"]}
        assert parse(RescheduleAppointment, fields).time_zone is None
        with pytest.raises(InvalidFields):
            parse(RescheduleAppointment, {**fields, "end": fields["start"]})

    @pytest.mark.parametrize(
        "fields", [{"action": "retry"}, {"action": "retry", "reason": ""}, {"action": "delete", "reason": "x"}]
    )
    def test_an_operator_says_what_and_why(self, fields: dict[str, str]) -> None:
        with pytest.raises(InvalidFields):
            parse(Act, fields)

    @pytest.mark.parametrize("key", ["", "a b", "ä", "k" * 256, "k\n", "\x7f"])
    def test_a_key_is_printable_ascii_without_spaces(self, key: str) -> None:
        with pytest.raises(InvalidFields):
            parse(Request, {"key": key})
        assert parse(Request, {"key": "k" * 255}).key

    @pytest.mark.parametrize("tenant", ["", "a/b", "a\0b", "t" * 129])
    def test_a_tenant_cannot_reach_into_another_ones_names(self, tenant: str) -> None:
        with pytest.raises(InvalidFields):
            parse(Request, {"key": "k", "tenant": tenant})

    @pytest.mark.parametrize(
        "fields", [{"attempts_max": 0}, {"attempts_max": 101}, {"timeout_ms": 9}, {"backoff_ms": -1}]
    )
    def test_a_policy_has_limits(self, fields: dict[str, int]) -> None:
        with pytest.raises(InvalidFields):
            parse(PolicyOverride, fields)

    def test_a_command_cannot_be_changed(self) -> None:
        with pytest.raises(ValueError, match="frozen"):
            book().summary = "other"  # type: ignore[misc]
