"""The pure heart: what one appointment, or one entry that the log does not know, comes to.

The three sides are arguments, and so is the time. Nothing here looks anything up: whoever asks has to have read the
calendar after the log, and the log again after the calendar.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from domain.lifecycle import ENDED, State
from domain.provider import LIVE, BookingStatus, ProviderBooking
from projections.health import OVERDUE_AFTER
from projections.reconciliation.intended import Intended, text_hash
from projections.reconciliation.model import Attempted, Difference, Finding, Kind, Policy, Proposal


@dataclass(frozen=True, slots=True)
class Rules:
    """What is proposed for an edit, how late is overdue, and for how long an absence after a write proves nothing."""

    policy: Policy = Policy.PARK
    overdue_after: timedelta = OVERDUE_AFTER
    settle: timedelta = timedelta(0)


NO_RULES = Rules()


def classify(
    intended: Intended | None,
    attempted: Attempted,
    there: Sequence[ProviderBooking],
    now: datetime,
    rules: Rules = NO_RULES,
) -> tuple[Finding, ...]:
    """What the bookings under one reference come to; empty for an appointment that is in progress with nothing wrong.

    `intended` is None where the log knows nothing. More than one finding only for several leftovers.
    """
    live = tuple(booking for booking in there if booking.status in LIVE)
    if intended is None:
        return tuple(_stranger(booking) for booking in live)
    case = _Case(intended, attempted, live, there[-1] if there else None, now, rules)
    if intended.state in ENDED:
        return tuple(case.leftover(booking) for booking in live) or (case.matched(None),)
    found = case.wrong()
    return () if found is None else (found,)


def differences(intended: Intended, booking: ProviderBooking) -> tuple[Difference, ...]:
    """The fields in which a live booking is not as intended. Times count to the second, as calendars keep them."""
    found: list[Difference] = []
    times = (("start", intended.start, booking.start), ("end", intended.end, booking.end))
    for name, wanted, seen in times:
        if seen is not None and _second(seen) != _second(wanted):
            shown = {"intended": _shown(wanted), "there": _shown(seen)}
            found.append(Difference.model_validate({"field": name, **shown}))
    if booking.status is not intended.status:
        found.append(Difference(field="status", intended=intended.status, there=booking.status))
    if None not in (intended.summary, booking.summary) and text_hash(booking.summary or "") != intended.summary:
        found.append(Difference(field="summary", there="differs"))
    return tuple(found)


def as_intended(intended: Intended, attempted: Attempted) -> Finding:
    """A matched appointment, as a finding."""
    return _Case(intended, attempted, (), None, intended.changed_at, NO_RULES).matched(None)


@dataclass(frozen=True, slots=True)
class _Case:
    intended: Intended
    attempted: Attempted
    live: tuple[ProviderBooking, ...]
    over: ProviderBooking | None
    """What is there when nothing live is: a cancelled booking, or nothing."""
    now: datetime
    rules: Rules

    def wrong(self) -> Finding | None:
        """The finding on an appointment that has not ended; the gravest class first."""
        intended = self.intended
        if len(self.live) > 1:
            return self._told(
                Kind.DUPLICATED,
                f"{len(self.live)} live bookings under one reference: "
                + ", ".join(sorted(booking.provider_ref for booking in self.live)),
                Proposal.BY_HAND,
                self.live[0],
            )
        if intended.parked:
            return self._parked()
        if intended.doubt:
            since = f"since version {intended.origin.version} the outcome of a step is not known"
            return self._told(Kind.IN_DOUBT, f"{since}; {self._stands()}", Proposal.RETRY)
        if intended.state is not State.CONFIRMED:
            return self._stuck()
        if not self.live:
            return self._missing()
        fields = differences(intended, self.live[0])
        if fields or self.live[0].provider_ref != intended.provider_ref:
            return self._drifted(fields)
        return self.matched(self.live[0])

    def matched(self, booking: ProviderBooking | None) -> Finding:
        """It is as it should be."""
        return self._told(Kind.MATCHED, "as intended", Proposal.NONE, booking)

    def leftover(self, booking: ProviderBooking) -> Finding:
        """Live, though the appointment has ended."""
        undone = f"{self.attempted.calls} calls were made, the last one {self.attempted.outcome}"
        detail = f"the appointment is {self.intended.state}, yet its booking is live; {undone}"
        return self._told(Kind.ORPHANED, detail, Proposal.REMOVE, booking)

    def _parked(self) -> Finding:
        compared = self.intended.state is State.CONFIRMED and self.live
        fields = differences(self.intended, self.live[0]) if compared else ()
        by = "by the process" if self.intended.stopped else "by an operator"
        detail = f"{self.intended.state}, parked {by}; {self._stands()}; the audit trail says why"
        return self._told(Kind.PARKED, detail, Proposal.BY_HAND, fields=fields)

    def _stuck(self) -> Finding | None:
        intended = self.intended
        if not intended.work:
            detail = f"{intended.state}, without open work: nothing would ever take it up"
        elif intended.due_at is None or intended.due_at + self.rules.overdue_after < self.now:
            due = "at no time" if intended.due_at is None else f"at {_shown(intended.due_at)}"
            detail = f"{intended.state}, was due {due}"
        else:
            return None
        return self._told(Kind.STUCK, f"{detail}; {self._stands()}", Proposal.RETRY)

    def _missing(self) -> Finding | None:
        intended = self.intended
        if intended.provider_ref is None:
            return self.matched(None)  # completed by hand, without a booking: none is expected
        if self.over is None and self.now < intended.changed_at + self.rules.settle:
            return None
        fields: tuple[Difference, ...] = ()
        detail = "confirmed, but not in the calendar"
        if self.over is not None:
            fields = (Difference(field="status", intended=intended.status, there=self.over.status),)
            detail = f"confirmed, but {self.over.status} in the calendar"
        if self.rules.policy is Policy.RESTORE and intended.start <= self.now:
            detail += "; its time has begun, so it cannot be booked again"
            return self._told(Kind.MISSING, detail, Proposal.BY_HAND, self.over, fields)
        return self._told(Kind.MISSING, detail, Proposal(self.rules.policy), self.over, fields)

    def _drifted(self, fields: tuple[Difference, ...]) -> Finding:
        booking, policy = self.live[0], self.rules.policy
        names = sorted(difference.field for difference in fields)
        elsewhere = booking.provider_ref != self.intended.provider_ref
        told = [*names, *(["it stands under another reference than the log knows"] if elsewhere else [])]
        detail, repair = "edited in the calendar: " + ", ".join(told), Proposal(policy)
        if booking.etag is not None and booking.etag == self.intended.etag and not elsewhere:
            detail = "not edited since it was written; the provider keeps it otherwise: " + ", ".join(told)
            repair = Proposal.BY_HAND
        elif policy is not Policy.PARK and booking.status is BookingStatus.PENDING:
            detail += "; the provider has not settled it"
            repair = Proposal.BY_HAND
        elif policy is Policy.RESTORE and names == ["summary"] and not elsewhere:
            detail += "; a provider takes times back, no other field"
            repair = Proposal.BY_HAND
        return self._told(Kind.DRIFTED, detail, repair, booking, fields)

    def _stands(self) -> str:
        if self.live:
            return f"the calendar has it, {self.live[0].status}"
        return "the calendar does not have it" if self.over is None else f"the calendar has it, {self.over.status}"

    def _told(
        self,
        kind: Kind,
        detail: str,
        repair: Proposal,
        booking: ProviderBooking | None = None,
        fields: tuple[Difference, ...] = (),
    ) -> Finding:
        seen = booking or (self.live[0] if self.live else self.over)
        return Finding(
            kind=kind,
            appointment=self.intended.id,
            version=self.intended.version,
            provider_ref=seen.provider_ref if seen else self.intended.provider_ref,
            event=self.intended.origin,
            detail=detail,
            fields=fields,
            attempted=self.attempted,
            repair=repair,
            seen=seen,
        )


def _stranger(booking: ProviderBooking) -> Finding:
    return Finding(
        kind=Kind.ORPHANED,
        provider_ref=booking.provider_ref,
        detail="the log does not know it; it may be a person's own entry",
        repair=Proposal.BY_HAND,
        seen=booking,
    )


def _second(at: datetime) -> datetime:
    return at.replace(microsecond=0)


def _shown(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
