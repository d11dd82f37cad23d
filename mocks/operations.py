"""The operations of `/api/v2` on the book: each takes its key, is applied once, becomes an answer. Nothing waits."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from mocks.answers import Answer, Refusal, json_answer
from mocks.behaviors import Behavior, Op, Pending, ResetSync, StaleList
from mocks.bodies import CreateBody, NotifyBody, RescheduleBody, fingerprint
from mocks.bookings import Book, Refused
from mocks.records import Booking, Commit, Request, Settle

REFUSALS: dict[str, tuple[int, bool]] = {
    "idempotency_key_reused": (422, False),
    "in_flight": (409, True),
    "client_ref_conflict": (409, False),
    "not_reschedulable": (409, False),
    "stale_etag": (412, False),
    "not_found": (404, False),
    "sync_token_expired": (410, False),
}
REPLAYED = {"Idempotency-Replayed": "true"}
BOOKINGS = "/api/v2/bookings"

Result = TypeVar("Result")


@dataclass
class Operation:
    """One call on the book. `act` is given the behaviour scripted for it; `replay` the id that an earlier call made."""

    op: Op
    book: Book
    act: Callable[[Behavior | None], Answer]
    client_ref: str | None = None
    calendar_id: str | None = None
    key: str | None = None
    fingerprint: str = ""
    replay: Callable[[str], Answer] | None = None
    _admitted: bool = False
    _made: str | None = None

    def admit(self) -> None:
        """Take the key for as long as this call runs; refuses when it runs already, or came with another body."""
        if self.replay is not None and self.key is not None and not self._admitted:
            key = self.key
            self._made = _translated(lambda: self.book.claim(self.op, key, self.fingerprint))
            self._admitted = True

    def perform(self, behavior: Behavior | None = None) -> Answer:
        """Apply once, or answer again what an earlier call with this key made."""
        self.admit()
        self.book.advance(time.time())
        replay, made = self.replay, self._made
        if replay is not None and made is not None:
            return _translated(lambda: replay(made))
        return _translated(lambda: self.act(behavior))

    def release(self) -> None:
        """The call has ended: its key may be used again."""
        if self._admitted and self.key is not None:
            self.book.release(self.op, self.key)


def create(book: Book, body: CreateBody, content: Any, key: str | None) -> Operation:
    """POST /bookings."""
    mark = fingerprint("create", content)
    details = body.model_dump(mode="json", include={"location", "organizer", "attendees", "metadata"})
    request = Request(
        body.client_ref,
        body.calendar_id,
        body.start,
        body.end,
        body.time_zone,
        body.summary,
        body.callback_url,
        details,
    )

    def act(behavior: Behavior | None) -> Answer:
        now = time.time()
        if not isinstance(behavior, Pending):
            return _booked(201, book, book.create(request, key, mark, now, settle=None))
        due_at = None if behavior.final == "never" else now + behavior.settle_ms / 1000
        final = "accepted" if behavior.final == "never" else behavior.final
        commit = book.create(request, key, mark, now, Settle(due_at, final))
        wait_s = 1 if due_at is None else math.ceil(behavior.settle_ms / 1000)
        return _booked(202, book, commit, {"Location": f"{BOOKINGS}/{commit.id}", "Retry-After": str(wait_s)})

    return Operation(
        "create",
        book,
        act,
        body.client_ref,
        body.calendar_id,
        key,
        mark,
        replay=lambda booking_id: _shown(book.get(booking_id), REPLAYED),
    )


def get(book: Book, booking_id: str) -> Operation:
    """GET /bookings/{id}."""
    return _about(book, booking_id, "get", lambda _: _shown(book.get(booking_id)))


def cancel(book: Book, booking_id: str, if_match: str | None, key: str | None) -> Operation:
    """POST /bookings/{id}/cancel: repeatable, with or without a key."""

    def act(_: Behavior | None) -> Answer:
        commit = book.cancel(booking_id, if_match, key, time.time())
        return _shown(book.get(booking_id)) if commit is None else _booked(200, book, commit)

    operation = _about(book, booking_id, "cancel", act)
    operation.key = key
    return operation


def reschedule(book: Book, booking_id: str, if_match: str | None, body: RescheduleBody, key: str | None) -> Operation:
    """POST /bookings/{id}/reschedule: in place."""
    mark = fingerprint("reschedule", booking_id, body.model_dump())

    def act(_: Behavior | None) -> Answer:
        book.get(booking_id)
        if if_match is None:
            raise Refusal(428, "precondition_required", "If-Match is required.")
        times = body.model_dump(exclude_none=True)
        return _booked(200, book, book.reschedule(booking_id, if_match, times, key, mark, time.time()))

    operation = _about(book, booking_id, "reschedule", act)
    operation.key, operation.fingerprint = key, mark
    operation.replay = lambda made: _shown(book.get(made), REPLAYED)
    return operation


def find(book: Book, client_ref: str) -> Operation:
    """GET /bookings?client_ref=."""

    def act(behavior: Behavior | None) -> Answer:
        found = book.find(client_ref, _until(behavior))
        return json_answer(200, {"items": [booking.view() for booking in found]})

    return Operation("find", book, act, client_ref, _calendar_of(book.find(client_ref)))


def listing(book: Book, token: str | None, limit: int, calendar_id: str | None) -> Operation:
    """GET /bookings?sync_token=&limit=&calendar_id=."""

    def act(behavior: Behavior | None) -> Answer:
        if isinstance(behavior, ResetSync):
            book.expire_tokens()
        page = book.page(token, limit, calendar_id, _until(behavior))
        items = [booking.view() for booking in page.bookings]
        return json_answer(200, {"items": items, "next_sync_token": page.next_token, "has_more": page.more})

    return Operation("list", book, act, None, calendar_id)


def notify(book: Book, body: NotifyBody, content: dict[str, Any], key: str | None) -> Operation:
    """POST /notifications."""
    mark = fingerprint("notify", content)

    def answer(status: int, taken: str, commit: Commit | None = None) -> Answer:
        headers = REPLAYED if commit is None else None
        return json_answer(status, {"id": taken, "status": "accepted"}, headers, commit)

    def act(_: Behavior | None) -> Answer:
        taken = book.notify(body.client_ref, key, mark, content, time.time())
        return answer(202, taken.id, taken)

    calendar = None if body.client_ref is None else _calendar_of(book.find(body.client_ref))
    return Operation("notify", book, act, body.client_ref, calendar, key, mark, replay=lambda taken: answer(200, taken))


def _about(book: Book, booking_id: str, op: Op, act: Callable[[Behavior | None], Answer]) -> Operation:
    try:
        request = book.get(booking_id).request
    except Refused:
        return Operation(op, book, act)
    return Operation(op, book, act, request.client_ref, request.calendar_id)


def _calendar_of(found: list[Booking]) -> str | None:
    return found[0].request.calendar_id if found else None


def _until(behavior: Behavior | None) -> float | None:
    return time.time() - behavior.lag_ms / 1000 if isinstance(behavior, StaleList) else None


def _shown(booking: Booking, headers: dict[str, str] | None = None) -> Answer:
    return json_answer(200, booking.view(), {"ETag": booking.etag} | (headers or {}))


def _booked(status: int, book: Book, commit: Commit, headers: dict[str, str] | None = None) -> Answer:
    booking = book.get(commit.id)
    return json_answer(status, booking.view(), {"ETag": booking.etag} | (headers or {}), commit)


def _translated(act: Callable[[], Result]) -> Result:
    try:
        return act()
    except Refused as refused:
        status, retryable = REFUSALS[refused.code]
        raise Refusal(status, refused.code, refused.message, retryable=retryable) from None
