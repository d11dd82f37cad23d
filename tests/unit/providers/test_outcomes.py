"""What each status means for a write and for a read."""

import pytest

from domain.provider import Missing, Rejected, Retryable, Unknown
from providers.exchange import Answer, Failure
from providers.outcomes import failed, refused_read, refused_write, retry_after_ms

DATE = "Tue, 05 Jan 2027 12:00:00 GMT"


@pytest.mark.parametrize("status", [300, 301, 304, 307, 400, 401, 403, 404, 405, 409, 410, 412, 413, 422, 428, 451])
def test_a_client_error_on_a_write_is_rejected(status: int) -> None:
    assert isinstance(refused_write(Answer(status)), Rejected)


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 507, 599, 408, 202, 206, 302, 303])
def test_a_server_error_or_an_odd_or_elsewhere_shown_success_on_a_write_is_unknown(status: int) -> None:
    assert isinstance(refused_write(Answer(status)), Unknown)


@pytest.mark.parametrize("answer", [Answer(429), Answer(423), Answer(403, b'{"reason": "rateLimitExceeded quota"}')])
def test_a_throttled_write_is_retryable_and_says_so(answer: Answer) -> None:
    outcome = refused_write(answer)
    assert isinstance(outcome, Retryable)
    assert outcome.throttled


@pytest.mark.parametrize("status", [404, 410])
def test_absence_on_a_read_is_missing(status: int) -> None:
    assert refused_read(Answer(status)) == Missing()


def test_a_server_error_on_a_read_is_unknown() -> None:
    assert isinstance(refused_read(Answer(503)), Unknown)


def test_a_failure_counts_as_applied_once_bytes_may_have_left() -> None:
    assert isinstance(failed(Failure("reset", sent=True)), Unknown)
    assert isinstance(failed(Failure("refused", sent=False)), Retryable)


@pytest.mark.parametrize(
    ("headers", "ms"),
    [
        ({"Retry-After": "3"}, 3_000),
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": "999999999999999999999"}, 86_400_000),
        ({"Retry-After": "Tue, 05 Jan 2027 12:00:05 GMT", "Date": DATE}, 5_000),
        ({"Retry-After": "Tue, 05 Jan 2027 11:00:00 GMT", "Date": DATE}, 0),
        ({"Retry-After": "Tue, 05 Jan 2027 12:00:05 GMT"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "soon", "Date": DATE}, None),
        ({"Retry-After": "٣"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_by_the_servers_clock(headers: dict[str, str], ms: int | None) -> None:
    assert retry_after_ms(Answer(429, headers=headers)) == ms


def test_a_reason_holds_no_control_characters_and_is_bounded() -> None:
    reason = refused_write(Answer(400), "a\x00b\x1b[31m\n" + "x" * 9_000).reason
    assert reason.isprintable()
    assert len(reason) == 500


def test_the_reason_of_a_failure_prints_and_is_bounded() -> None:
    reason = failed(Failure("a\r\n\x1b[31m\udcff" + "x" * 9_000, sent=True)).reason
    assert reason.isprintable()
    assert len(reason) == 500
