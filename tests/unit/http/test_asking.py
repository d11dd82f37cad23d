"""What the headers of a request say: entity tags, preferences, formats, instants."""

import gzip
import json

import pytest
from pydantic import TypeAdapter, ValidationError

from appointments.http.asking import versions
from appointments.http.moments import Moment
from appointments.http.negotiation import best
from appointments.http.problems import Refusal
from tests.unit.http.wire import BOOKING, JSON, ask, head, post, serving

NOBODY = "/v1/appointments/00000000-0000-4000-8000-000000000000"
FORMATS = ("application/json", "text/csv", "text/html")


@pytest.mark.parametrize(
    ("tags", "named"),
    [
        ("*", None),
        ('"3"', (3,)),
        ('"3", "4"', (3, 4)),
        ('"3","4"', (3, 4)),
        ('W/"3"', ()),
        ('W/"3", "4"', (4,)),
        ('"another"', (0,)),
        ('"03"', (0,)),
        ('""', (0,)),
        ('"9999999999"', (0,)),
        ('"a,b"', (0,)),
        ('"3,", W/"4,5" ,"6"', (0, 6)),
        (', "3",, "4" ,', (3, 4)),
    ],
)
def test_if_match_names_versions_and_weak_tags_name_none(tags: str, named: tuple[int, ...] | None) -> None:
    assert versions(tags) == named


@pytest.mark.parametrize("tags", ["3", '"3', 'w/"3"', '"3" "4"', "", ",", '"3", x', "*, *", '*, "3"', '"3 "'])
def test_what_is_no_list_of_entity_tags_is_refused(tags: str) -> None:
    with pytest.raises(Refusal, match="entity tags"):
        versions(tags)


async def test_entity_tags_guard_commands_strongly_and_reads_weakly() -> None:
    body = json.dumps(BOOKING).encode()
    async with serving() as port:
        booked = await ask(port, post(body, JSON, "Prefer: wait=5"))
        here, tag = booked.headers["location"], booked.headers["etag"]
        for tags, status in ((tag, 304), (f"W/{tag}", 304), (f'"1", W/{tag}', 304), ("*", 304), ('"1"', 200)):
            known = await ask(port, head("GET", here, f"If-None-Match: {tags}"))
            assert (known.status, known.headers["etag"]) == (status, tag)
        assert (await ask(port, head("GET", here, 'If-None-Match: "a,b"', f"If-None-Match: {tag}"))).status == 304
        for n, tags in enumerate(('"1"', f"W/{tag}", '"1", "2"', '"none"', '"a,b"', f'"a,{tag[1:]}')):
            stale = await ask(port, post(b"", f"If-Match: {tags}", target=f"{here}/cancel", key=f"c{n}"))
            assert stale.problem == "stale-version"
        assert (await ask(port, head("GET", here))).headers["etag"] == tag
        lines = ('If-Match: "1"', f'If-Match: "x,y", {tag}')
        fresh = await ask(port, post(b"", *lines, target=f"{here}/cancel", key="c"))
        assert fresh.status == 202


@pytest.mark.parametrize(
    ("told", "status", "applied"),
    [
        ("wait=5", 201, "wait=5"),
        ("wait=99999999999", 201, "wait=60"),
        ("respond-async, wait=5", 201, "respond-async, wait=5"),
        ("respond-async", 202, "respond-async"),
        ("wait=-1", 202, None),
        ("wait=²", 202, None),
        ("return=minimal", 202, None),
        ("wait=5; foo", 201, "wait=5"),
        ('wait = "5" ;foo="a,b";bar, respond-async;x=1', 201, "wait=5, respond-async"),
        ('foo="a, wait=5", bar', 202, None),
        ('foo="a\\", wait=5', 202, None),
        ("wait=0, wait=5", 202, "wait=0"),
        ("wait=soon, wait=5", 202, None),
    ],
)
async def test_a_preference_that_is_not_understood_is_left_out(told: str, status: int, applied: str | None) -> None:
    async with serving() as port:
        answer = await ask(port, post(json.dumps(BOOKING).encode(), JSON, f"Prefer: {told}"))
        assert (answer.status, answer.headers.get("preference-applied")) == (status, applied)


async def test_a_preference_may_stand_on_any_line() -> None:
    async with serving() as port:
        lines = ("Prefer: return=minimal", "Prefer: respond-async", "Prefer: wait=5;x")
        answer = await ask(port, post(json.dumps(BOOKING).encode(), JSON, *lines))
        assert (answer.status, answer.headers["preference-applied"]) == (201, "respond-async, wait=5")


@pytest.mark.parametrize("target", ["/v1/appointments", "/v1/callbacks/main", f"{NOBODY}/cancel"])
@pytest.mark.parametrize("coding", ["gzip", "identity, GZIP", "x"])
async def test_a_body_in_a_coding_is_refused_and_it_is_told_which_are_read(target: str, coding: str) -> None:
    sent = gzip.compress(json.dumps(BOOKING).encode())
    async with serving() as port:
        refused = await ask(port, post(sent, JSON, f"Content-Encoding: {coding}", target=target))
        assert (refused.problem, refused.headers["accept-encoding"]) == ("unsupported-media-type", "identity")


async def test_control_a_body_in_no_coding_is_read() -> None:
    async with serving() as port:
        taken = await ask(port, post(json.dumps(BOOKING).encode(), JSON, "Content-Encoding: Identity"))
        assert taken.status == 202


@pytest.mark.parametrize(
    ("accept", "format"),
    [
        ("*/*", "application/json"),
        ("text/*", "text/csv"),
        ("text/html, */*;q=0.1", "text/html"),
        ("application/json;q=0.2, text/csv;q=0.5", "text/csv"),
        ("text/html;q=0, text/*", "text/csv"),
        ("TEXT/HTML", "text/html"),
        ("text/csv;q=2, text/html", "text/csv"),
    ],
)
def test_the_format_with_the_highest_weight_is_sent(accept: str, format: str) -> None:
    assert best(accept, FORMATS) == format


@pytest.mark.parametrize("accept", ["image/png", "", "text/csv;q=0", "text/csv;q=x", ",;,", "text"])
def test_a_format_that_is_not_there_is_refused(accept: str) -> None:
    with pytest.raises(Refusal):
        best(accept, FORMATS)


async def test_all_fields_at_fault_are_told_at_once() -> None:
    wrong = {
        **BOOKING,
        "calendar": "Main",
        "start": "2031-03-03",
        "end": 1930208400,
        "summary": "",
        "time_zone": "Berlin",
    }
    async with serving() as port:
        answer = await ask(port, post(json.dumps(wrong).encode(), JSON))
    assert answer.problem == "invalid-fields"
    pointers = [one["pointer"] for one in json.loads(answer.body)["errors"]]
    assert pointers == ["/start", "/end", "/calendar", "/time_zone", "/summary"]


@pytest.mark.parametrize("text", ["2031-03-03T09:00:00Z", "2031-03-03t09:00:00.123z", "2031-03-03 09:00:00-01:00"])
def test_instants_are_written_with_an_offset(text: str) -> None:
    assert TypeAdapter(Moment).validate_python(text).year == 2031


@pytest.mark.parametrize(
    "text", ["2031-03-03T09:00:00", "2031-03-03", "1930208400", 1930208400, "20310303T090000Z", None]
)
def test_everything_else_is_no_instant(text: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Moment).validate_python(text)
