"""JSON from a stranger: what is no answer is unreadable, never an error of another kind."""

import json

import pytest

from domain.provider import BookingStatus
from providers.untrusted import BookingAnswer, Unreadable, read_json

GOOD = {
    "id": "bk_1",
    "client_ref": "booking-1",
    "status": "accepted",
    "version": 1,
    "etag": '"1"',
    "start": "2027-03-01T10:00:00+01:00",
    "end": "2027-03-01T09:30:00Z",
    "further": {"any": [1, 2]},
}


def changed(**fields: object) -> bytes:
    return json.dumps({**GOOD, **fields}).encode()


def test_a_booking_is_read_and_its_times_are_utc() -> None:
    booking = read_json(changed(), BookingAnswer).booking("booking-1")
    assert (booking.provider_ref, booking.status) == ("bk_1", BookingStatus.ACCEPTED)
    assert booking.start is not None
    assert booking.start.isoformat() == "2027-03-01T09:00:00+00:00"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"<html></html>",
        changed()[:40],
        changed() + b"x",
        b"\xff" + changed(),
        b'{"id": "a", "id": "b", "status": "accepted"}',
        b'{"id": "a", "status": "accepted", "version": NaN}',
        b'{"id": "a", "status": "accepted", "more": 1e999}',
        b'{"id": "a", "status": "accepted", "more": ' + b"9" * 10_000 + b"}",
        b"[" * 100_000,
        changed(id=7),
        changed(id=""),
        changed(id="a\u0000b"),
        changed(id="x" * 2_000),
        changed(status="gone"),
        changed(version="1"),
        changed(version=-1),
        changed(version=True),
        changed(version=2**60),
        changed(start=1_700_000_000),
        changed(start="2027-03-01T10:00:00"),
        changed(start="0001-01-01T00:00:00+23:00"),
        changed(etag="a\r\nX: y"),
        changed(summary="\ud800"),
        changed(summary="x" * 2_000),
    ],
)
def test_what_is_no_booking_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        read_json(body, BookingAnswer)
