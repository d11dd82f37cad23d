"""What a check finds, collected without keeping more than can be read."""

from domain.provider import Value

SHOWN_MAX = 100
NO_FAULT = frozenset({"parked"})
"""Kinds that an operator should know of, while nothing is wrong."""


class Finding(Value):
    """Something that an operator should look at."""

    kind: str
    """Of the log: gap | changed | undecodable | unopenable | key_gone | key_kept | key_misnamed | checkpoint | cut_off.
    Of the read models: ahead | other_log. Of open work: unowned | leftover | overdue | parked | stale | contradiction |
    nobody_runs."""
    subject: str
    """The stream's id; `log`, the name of a read model."""
    detail: str


class Findings:
    """Findings as they come. The first are shown, faults before what is none; all are counted."""

    def __init__(self) -> None:
        self._faults: list[Finding] = []
        self._others: list[Finding] = []
        self.faults = self.total = 0

    def add(self, kind: str, subject: object, detail: str) -> None:
        """One more."""
        self.take(Finding(kind=kind, subject=str(subject), detail=detail))

    def take(self, *found: Finding) -> None:
        """These as well."""
        for finding in found:
            self.total += 1
            fault = finding.kind not in NO_FAULT
            self.faults += fault
            kept = self._faults if fault else self._others
            if len(kept) < SHOWN_MAX:
                kept.append(finding)

    @property
    def shown(self) -> tuple[Finding, ...]:
        """As many as can be read."""
        return tuple((*self._faults, *self._others)[:SHOWN_MAX])
