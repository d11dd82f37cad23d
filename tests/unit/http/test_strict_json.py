"""JSON from strangers: what it means, or that it means nothing."""

import json

import pytest
from hypothesis import given, seed
from hypothesis import strategies as st

from appointments.http.strict_json import DEPTH_MAX, Malformed, strict_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")), inner)
    ),
    max_leaves=20,
)


@seed(20261125)
@given(VALUES, st.booleans())
def test_what_is_json_is_read_as_it_was_written(value: object, ascii: bool) -> None:
    assert strict_json(json.dumps(value, ensure_ascii=ascii).encode()) == value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"'a'",
        b"{}{}",
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"1e400",
        b"-1E999",
        b"9" * 4_301,
        b'{"a":1,"a":1}',
        b'[{"b":{"a":1,"\\u0061":2}}]',
        b'"\\ud800"',
        b'{"\\udfff":1}',
        b'"\\u0000"',
        b'["a\\u0000"]',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf1",
        "1".encode("utf-16"),
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1),
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_has_no_one_meaning_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        strict_json(body)


def test_a_pair_of_surrogates_is_a_letter_and_the_greatest_depth_is_taken() -> None:
    assert strict_json(b'"\\ud83d\\ude00"') == "😀"
    assert strict_json(b"[" * DEPTH_MAX + b"]" * DEPTH_MAX)


def test_control_the_json_of_the_standard_library_takes_most_of_it() -> None:
    for body in (b"NaN", b"1e400", b'{"a":1,"a":1}', b'"\\ud800"', b'"\\u0000"', b"[" * 33 + b"]" * 33):
        json.loads(body)
