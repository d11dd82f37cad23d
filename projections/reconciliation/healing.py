"""From findings to ordinary commands: what would be done about each. Plans only; the desk gives the commands.

A key follows from the finding and from what was seen, so that a plan that is carried out twice does nothing twice.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from domain.commands import Act, OperatorAction
from domain.provider import ProviderBooking
from projections.reconciliation.model import Finding, Kind, Proposal

OBSERVED = frozenset({Proposal.ADOPT, Proposal.RESTORE, Proposal.PARK, Proposal.REMOVE})
REASON_MAX = 500


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen at the provider, told to the appointment, and what is to come of it. None: nothing was there."""

    seen: ProviderBooking | None
    repair: Proposal


@dataclass(frozen=True, slots=True)
class Cure:
    """One command for one appointment."""

    appointment: UUID
    version: int
    """The version that was compared; the command is for no other."""
    command: Act | Observation
    reason: str
    key: str
    finding: Finding

    @property
    def word(self) -> str:
        """The command in a word."""
        return self.command.action if isinstance(self.command, Act) else self.command.repair


def plan(findings: Iterable[Finding]) -> tuple[Cure, ...]:
    """A command for each finding that a program may mend; what is to be decided by hand is left out.

    A finding that was read back from a file has lost what was seen: then only an absence can be told.
    """
    return tuple(
        _cure(finding, finding.appointment)
        for finding in findings
        if finding.appointment is not None
        and (
            finding.repair is Proposal.RETRY
            or (finding.repair in OBSERVED and (finding.seen is not None or finding.kind is Kind.MISSING))
        )
    )


def _cure(finding: Finding, appointment: UUID) -> Cure:
    reason = f"reconciliation: {finding.kind}: {finding.detail}"[:REASON_MAX]
    command: Act | Observation = Observation(finding.seen, finding.repair)
    if finding.repair is Proposal.RETRY:
        command = Act(action=OperatorAction.RETRY, reason=reason)
    return Cure(appointment, finding.version, command, reason, _key(finding), finding)


def _key(finding: Finding) -> str:
    seen = finding.seen.model_dump_json(exclude={"summary"}) if finding.seen else ""
    print_ = hashlib.sha256(f"{finding.appointment}\x00{finding.version}\x00{seen}".encode()).hexdigest()[:24]
    return f"reconcile-{finding.kind}-{finding.repair}-{print_}"
