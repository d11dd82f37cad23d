"""The booking book of the mock provider: states, versions, keys, sync tokens and the ledger.

Pure: time is an argument (seconds since the epoch), nothing here does IO or waits.
"""

import heapq
import re
from collections import defaultdict
from dataclasses import asdict, replace
from typing import Any
from uuid import uuid4

from mocks.records import LIVE, Booking, Change, Commit, Notification, Page, Request, Settle, Status

TOKEN = re.compile(r"st_([0-9a-f]{12})_([0-9]{1,12})")


class Refused(Exception):
    """The book refuses; `code` says why. The routes turn it into a status."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Book:
    """All bookings of one mock provider."""

    def __init__(self) -> None:
        self.commits: list[Commit] = []
        self.notifications: list[Notification] = []
        self._bookings: dict[str, Booking] = {}
        self._ids_by_ref: dict[str, list[str]] = defaultdict(list)
        self._keys: dict[tuple[str, str], tuple[str, str]] = {}
        self._running: dict[tuple[str, str], str] = {}
        self._changes: list[Change] = []
        self._history: dict[str, list[Change]] = defaultdict(list)
        self._latest: dict[str, int] = {}
        self._due: list[tuple[float, str, Status]] = []
        self._generation = uuid4().hex[:12]

    def claim(self, op: str, key: str, fingerprint: str) -> str | None:
        """Take a key for a call that begins; answers the id that an earlier call with this key made."""
        slot = (op, key)
        known = self._keys.get(slot)
        earlier = self._running.get(slot) or (known[0] if known else None)
        if earlier not in (None, fingerprint):
            raise Refused("idempotency_key_reused", "This Idempotency-Key was used with another body.")
        if slot in self._running:
            raise Refused("in_flight", "The first call with this Idempotency-Key still runs.")
        self._running[slot] = fingerprint
        return known[1] if known else None

    def release(self, op: str, key: str) -> None:
        """The call that took this key has ended."""
        self._running.pop((op, key), None)

    def create(self, request: Request, key: str | None, fingerprint: str, now: float, settle: Settle | None) -> Commit:
        """Book; pending where `settle` is given, else accepted."""
        ref = request.client_ref
        if ref is not None and self._ids_by_ref.get(ref):
            raise Refused("client_ref_conflict", "A booking with this client_ref exists already.")
        identity = uuid4().hex
        booking = Booking(
            id=f"bk_{identity}",
            uid=f"{identity}@bookings.invalid",
            status="pending" if settle else "accepted",
            version=1,
            request=request,
            start=request.start,
            end=request.end,
            time_zone=request.time_zone,
            created_at=now,
            updated_at=now,
            notifies=settle is not None,
        )
        if ref is not None:
            self._ids_by_ref[ref].append(booking.id)
        if settle is not None and settle.due_at is not None:
            heapq.heappush(self._due, (settle.due_at, booking.id, settle.final))
        self._remember("create", key, fingerprint, booking.id)
        return self._commit("create", booking, key, now)

    def notify(
        self, client_ref: str | None, key: str | None, fingerprint: str, body: dict[str, Any], now: float
    ) -> Commit:
        """Take a notification."""
        taken = Notification("notify", f"ntf_{uuid4().hex}", client_ref, key, 1, "accepted", now, False, body)
        self.notifications.append(taken)
        self._remember("notify", key, fingerprint, taken.id)
        return taken

    def advance(self, now: float) -> None:
        """Settle every pending booking that is due."""
        while self._due and self._due[0][0] <= now:
            _, booking_id, final = heapq.heappop(self._due)
            self.settle(booking_id, final, now)

    def settle(self, booking_id: str, final: Status, now: float) -> None:
        """Settle one pending booking now; one that is not pending any more stays as it is."""
        booking = self._bookings[booking_id]
        if booking.status == "pending":
            self._commit("settle", _changed(booking, now, status=final), None, now)

    def touch(self, booking_id: str, now: float) -> None:
        """A change by the provider itself that moves nothing: a new version with the same content."""
        booking = self._bookings[booking_id]
        if booking.status != "cancelled":
            self._commit("touch", _changed(booking, now), None, now)

    def cancel(self, booking_id: str, if_match: str | None, key: str | None, now: float) -> Commit | None:
        """Cancel; None where there was nothing left to cancel."""
        booking = self.get(booking_id)
        _match(booking, if_match)
        if booking.status not in LIVE:
            return None
        return self._commit("cancel", _changed(booking, now, status="cancelled"), key, now)

    def reschedule(
        self, booking_id: str, if_match: str, times: dict[str, str], key: str | None, fingerprint: str, now: float
    ) -> Commit:
        """Move in place: same id, next version. `times` holds start, end and perhaps time_zone."""
        booking = self.get(booking_id)
        _match(booking, if_match)
        if booking.status != "accepted":
            raise Refused("not_reschedulable", f"The booking is {booking.status}.")
        commit = self._commit("reschedule", _changed(booking, now, **times), key, now)
        self._remember("reschedule", key, fingerprint, booking_id)
        return commit

    def get(self, booking_id: str) -> Booking:
        """The booking as it is now."""
        booking = self._bookings.get(booking_id)
        if booking is None:
            raise Refused("not_found", "No such booking.")
        return booking

    def find(self, client_ref: str, until: float | None = None) -> list[Booking]:
        """The bookings with this client reference; `until` shows them as they were at that time."""
        ids = self._ids_by_ref.get(client_ref, [])
        if until is None:
            return [self._bookings[booking_id] for booking_id in ids]
        earlier = ([change.booking for change in self._history[i] if change.at <= until] for i in ids)
        return [versions[-1] for versions in earlier if versions]

    def history(self, booking_id: str) -> list[Change]:
        """Every change of one booking, oldest first."""
        return list(self._history[booking_id])

    def page(self, token: str | None, limit: int, calendar_id: str | None = None, until: float | None = None) -> Page:
        """Bookings changed since the token, each once at its latest version, in the order of that change."""
        position = 0 if token is None else self._position(token)
        changes, latest = self._changes, self._latest
        if until is not None:
            changes = [change for change in self._changes if change.at <= until]
            latest = {change.booking.id: index for index, change in enumerate(changes)}
        found: list[Booking] = []
        for index in range(position, len(changes)):
            booking = changes[index].booking
            if latest[booking.id] != index or calendar_id not in (None, booking.request.calendar_id):
                continue
            if len(found) == limit:
                return Page(tuple(found), self._token(position), more=True)
            found.append(booking)
            position = index + 1
        return Page(tuple(found), self._token(max(position, len(changes))), more=False)

    def expire_tokens(self) -> None:
        """No token that was given out so far is known any more."""
        self._generation = uuid4().hex[:12]

    def live(self, client_ref: str | None = None) -> int:
        """How many bookings are pending or accepted, of one client reference or of all."""
        bookings = self._bookings.values() if client_ref is None else self.find(client_ref)
        return sum(booking.status in LIVE for booking in bookings)

    def ledger(self) -> dict[str, Any]:
        """The oracle of all tests, as plain data: commits, notifications, bookings, live counts."""
        by_ref: dict[str, int] = defaultdict(int)
        for booking in self._bookings.values():
            if booking.request.client_ref is not None:
                by_ref[booking.request.client_ref] += booking.status in LIVE
        return {
            "commits": [asdict(commit) for commit in self.commits],
            "notifications": [asdict(notification) for notification in self.notifications],
            "bookings": [
                booking.view() | {"calendar_id": booking.request.calendar_id, "summary": booking.request.summary}
                for booking in self._bookings.values()
            ],
            "live": self.live(),
            "live_by_client_ref": dict(by_ref),
        }

    def _commit(self, op: str, booking: Booking, key: str | None, now: float) -> Commit:
        self._bookings[booking.id] = booking
        self._latest[booking.id] = len(self._changes)
        # A listing that lags reads a prefix of the changes, so their times must never run backwards.
        change = Change(max(now, self._changes[-1].at) if self._changes else now, op, booking)
        self._changes.append(change)
        self._history[booking.id].append(change)
        commit = Commit(op, booking.id, booking.request.client_ref, key, booking.version, booking.status, now)
        self.commits.append(commit)
        return commit

    def _remember(self, op: str, key: str | None, fingerprint: str, made: str) -> None:
        if key is not None:
            self._keys[(op, key)] = (fingerprint, made)

    def _token(self, position: int) -> str:
        return f"st_{self._generation}_{position}"

    def _position(self, token: str) -> int:
        parts = TOKEN.fullmatch(token)
        if parts is None or parts[1] != self._generation or int(parts[2]) > len(self._changes):
            raise Refused("sync_token_expired", "This sync token is not known any more; list again without one.")
        return int(parts[2])


def _changed(booking: Booking, now: float, **fields: Any) -> Booking:
    return replace(booking, version=booking.version + 1, updated_at=now, **fields)


def _match(booking: Booking, if_match: str | None) -> None:
    if if_match is None or if_match.strip() == "*":
        return
    tags = [tag.strip() for tag in if_match.split(",")]
    # A tag without quotes is no entity tag by RFC 9110, but clients send it, and servers take it.
    if booking.etag not in tags and booking.etag.strip('"') not in tags:
        raise Refused("stale_etag", "The booking has changed since.")
