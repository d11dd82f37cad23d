"""What an HTTP answer means for a write or a read: the one table that all adapters share.

A write is `Retryable` only where it is proven not to be applied; where it may be, it is `Unknown`.
"""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from domain.provider import Missing, Rejected, Retryable, Unknown
from providers.exchange import Answer, Failure

RETRY_AFTER_MAX_MS = 86_400_000
REASON_MAX = 500
QUOTA_WORDS = ("quota", "rate_limit", "ratelimit", "rate limit", "too_many_requests", "too many requests")


def failed(failure: Failure) -> Retryable | Unknown:
    """The outcome of a request without a whole answer."""
    reason = printable(failure.reason)
    return Unknown(reason=reason) if failure.sent else Retryable(reason=reason)


def refused_write(answer: Answer, detail: str = "", delay_ms: int | None = None) -> Rejected | Retryable | Unknown:
    """The outcome of a write whose answer is not its success; `delay_ms` stands in for a Retry-After header."""
    reason = printable(f"{answer.status} {detail}")
    delay_ms = retry_after_ms(answer, delay_ms)
    if answer.status in (423, 429) or (answer.status == 403 and _speaks_of_quota(answer, detail)):
        return Retryable(reason=reason, retry_after_ms=delay_ms, throttled=True)
    if answer.status == 425:
        return Retryable(reason=reason, retry_after_ms=delay_ms)
    # a success of another kind than this write has may have applied it as well; so may one that shows its result
    # elsewhere (RFC 9110, 15.4.4; many servers say 302 for 303)
    if answer.status >= 500 or answer.status in (302, 303, 408) or answer.status < 300:
        return Unknown(reason=reason, retry_after_ms=delay_ms)
    return Rejected(reason=reason)


def refused_read(
    answer: Answer, detail: str = "", delay_ms: int | None = None
) -> Missing | Rejected | Retryable | Unknown:
    """The outcome of a read whose answer is not its success."""
    return Missing() if answer.status in (404, 410) else refused_write(answer, detail, delay_ms)


def retry_after_ms(answer: Answer, default_ms: int | None = None) -> int | None:
    """Retry-After in milliseconds: seconds, or an HTTP date measured against the server's own Date (RFC 9110)."""
    value = answer.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdecimal():
        return min(int(value[:9]) * 1_000, RETRY_AFTER_MAX_MS)
    until, now = _http_date(value), _http_date(answer.headers.get("Date", ""))
    if until is None or now is None:
        return default_ms
    return min(max(int((until - now).total_seconds() * 1_000), 0), RETRY_AFTER_MAX_MS)


def describe(answer: Answer) -> str:
    """What a status means, in HTTP's words."""
    try:
        return HTTPStatus(answer.status).phrase
    except ValueError:
        return ""


def told(answer: Answer | Failure) -> str:
    """One exchange in a few words, for errors that people read."""
    return printable(answer.reason) if isinstance(answer, Failure) else f"{answer.status} {describe(answer)}"


def printable(text: str) -> str:
    """A provider's words as they go into the log and to operators: what prints, and no more than a reason holds."""
    return "".join(c if c.isprintable() else " " for c in text).strip()[:REASON_MAX]


def _http_date(value: str) -> datetime | None:
    try:
        instant = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _speaks_of_quota(answer: Answer, detail: str) -> bool:
    text = f"{detail} {answer.body[:2_000].decode('utf-8', 'replace')}".lower()
    return any(word in text for word in QUOTA_WORDS)
