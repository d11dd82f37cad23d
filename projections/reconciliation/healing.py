"""From findings to ordinary commands: what would be done about each. Plans only; the desk gives the commands.

A key follows from the finding and from what was seen, so that a plan that is carried out twice does nothing twice.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from pydantic import ValidationError

from domain.commands import Act, OperatorAction, Repair, ReportBooking
from domain.provider import LIVE, ProviderBooking
from projections.reconciliation.model import Finding, Kind, Proposal

REPORTED = frozenset({Proposal.ADOPT, Proposal.RESTORE, Proposal.PARK, Proposal.REMOVE})
REASON_MAX = 500


@dataclass(frozen=True, slots=True)
class Cure:
    """One command for one appointment."""

    appointment: UUID
    version: int
    """The version that was compared; the command is for no other."""
    command: Act | ReportBooking
    reason: str
    key: str
    seen: ProviderBooking | None
    """As it was compared; None: nothing was there."""

    def fits(self, there: Iterable[ProviderBooking]) -> bool:
        """Whether the bookings that stand there now are still what the command was planned for."""
        live = [booking for booking in there if booking.status in LIVE]
        if self.seen is None or self.seen.status not in LIVE:
            return not live
        # Of several leftovers each is taken away by itself.
        return live == [self.seen] or (self.word == Repair.REMOVE and self.seen in live)

    @property
    def word(self) -> str:
        """The command in a word."""
        return self.command.action if isinstance(self.command, Act) else self.command.repair


def plan(findings: Iterable[Finding]) -> tuple[Cure, ...]:
    """A command for each finding that a program may mend; what is to be decided by hand is left out.

    A finding that was read back from a file has lost what was seen: then only an absence can be told.
    """
    cures = (_cure(finding, finding.appointment) for finding in findings if finding.appointment is not None)
    return tuple(cure for cure in cures if cure is not None)


def _cure(finding: Finding, appointment: UUID) -> Cure | None:
    reason = f"reconciliation: {finding.kind}: {finding.detail}"[:REASON_MAX]
    command: Act | ReportBooking
    if finding.repair is Proposal.RETRY:
        command = Act(action=OperatorAction.RETRY, reason=reason)
    elif finding.repair in REPORTED and (finding.seen is not None or finding.kind is Kind.MISSING):
        try:
            repair = Repair(finding.repair)
            command = ReportBooking(seen=finding.seen, repair=repair, reason=reason)
        except ValidationError:  # an entry that no command takes, such as one with a start and no end
            return None
    else:
        return None
    return Cure(appointment, finding.version, command, reason, _key(finding), finding.seen)


def _key(finding: Finding) -> str:
    seen = finding.seen.model_dump_json(exclude={"summary"}) if finding.seen else ""
    print_ = hashlib.sha256(f"{finding.appointment}\x00{finding.version}\x00{seen}".encode()).hexdigest()[:24]
    return f"reconcile-{finding.kind}-{finding.repair}-{print_}"
