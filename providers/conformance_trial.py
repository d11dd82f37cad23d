"""One check of the conformance suite at work: its calls, its bookings, and how it fails or is skipped."""

from datetime import datetime, timedelta
from typing import Any

from domain.provider import (
    BookingDetails,
    BookingStatus,
    Call,
    Confirmed,
    Found,
    Outcome,
    Page,
    Party,
    Pending,
    Provider,
    ProviderBooking,
)

PAGES_MAX = 1_000
LIVE = (BookingStatus.PENDING, BookingStatus.ACCEPTED)


class Broken(Exception):
    """The provider broke the promise that is checked."""


class Skipped(Exception):
    """The provider does not make the promise that is checked."""


class Trial:
    """One check at work: makes calls and details that no other check uses, remembers what was booked."""

    def __init__(
        self,
        provider: Provider,
        calendar: str,
        run_id: str,
        start: datetime,
        timeout_ms: int,
        unreachable: Provider | None,
        silent: Provider | None,
    ) -> None:
        self.provider = provider
        self.calendar = calendar
        self.unreachable = unreachable
        self.silent = silent
        self._run_id = run_id
        self._start = start
        self._timeout_ms = timeout_ms
        self._slots = 0
        self._check = ""
        self._calls = 0
        self._booked: dict[str, tuple[Call, str | None]] = {}

    def begin(self, number: int) -> "Trial":
        """Start over for another check."""
        self._check, self._calls, self._booked = f"{number:02}", 0, {}
        return self

    def call(self, operation: str = "create", like: Call | None = None, timeout_ms: int | None = None) -> Call:
        """A call of its own; `like` keeps the client reference of an earlier one."""
        self._calls += 1
        number = self._calls
        reference = like.client_ref if like else f"check-{self._run_id}-{self._check}-{number}"
        return Call(
            operation_id=f"{self._run_id}-{self._check}-{number}-{operation}",
            client_ref=reference,
            timeout_ms=timeout_ms or self._timeout_ms,
            correlation_id=f"conformance-{self._run_id}",
        )

    def details(self, **changes: Any) -> BookingDetails:
        """A booking at an hour that no other check takes; `start` moves its end along."""
        self._slots += 1
        start = changes.setdefault("start", self._start + timedelta(hours=self._slots))
        fields = {
            "calendar": self.calendar,
            "end": start + timedelta(minutes=45),
            "time_zone": "Europe/Berlin",
            "summary": f"Conformance {self._check}",
            "organizer": Party(email="desk@example.com", name="Desk"),
            "attendees": (Party(email="guest@example.com", name="Guest"),),
            "metadata": {"check": self._check},
            **changes,
        }
        return BookingDetails.model_validate(fields)

    async def book(self, call: Call, details: BookingDetails) -> ProviderBooking:
        """Create, and expect that it is taken."""
        self._booked[call.client_ref] = call, None
        made = booking_of(await self.provider.create(call, details))
        self._booked[call.client_ref] = call, made.provider_ref
        return made

    async def clear(self) -> None:
        """Cancel every booking that this check made."""
        for call, reference in self._booked.values():
            if self.provider.capabilities.lookup:
                found = await self.provider.find(self.call("clear", call), self.calendar)
                live = isinstance(found, Found) and found.booking.status in LIVE
                reference = booking_of(found).provider_ref if live else None
            if reference is not None:
                cancel = self.call("clear-cancel", call)
                expect(await self.provider.cancel(cancel, self.calendar, reference), Confirmed)

    async def walk(self, token: str | None = None, limit: int = 100) -> tuple[list[ProviderBooking], Page]:
        """Every booking of a listing, and its last page."""
        seen: list[ProviderBooking] = []
        for _ in range(PAGES_MAX):
            page = await self.provider.listing(self.call("list"), self.calendar, token, limit)
            hold(len(page.bookings) <= limit, f"a page holds {len(page.bookings)} bookings, {limit} were asked for")
            seen += page.bookings
            if not page.more:
                return seen, page
            token = page.next_token
        raise Broken(f"the listing has no end after {PAGES_MAX} pages")


def hold(truth: bool, otherwise: str) -> None:
    """Fail the check unless it is so."""
    if not truth:
        raise Broken(otherwise)


def expect(outcome: Outcome, *kinds: type[Outcome]) -> Outcome:
    """Fail the check unless the outcome is one of these."""
    hold(isinstance(outcome, kinds), f"{' or '.join(kind.__name__ for kind in kinds)} was due, got {outcome!r}")
    return outcome


def booking_of(outcome: Outcome) -> ProviderBooking:
    """The booking of an outcome that must have one."""
    expect(outcome, Confirmed, Pending, Found)
    booking = getattr(outcome, "booking", None)
    hold(booking is not None, f"{outcome!r} holds no booking")
    assert isinstance(booking, ProviderBooking)
    return booking


def need(promised: bool, what: str) -> None:
    """Skip the check unless the provider promises this."""
    if not promised:
        raise Skipped(f"the provider does not promise {what}")
