"""Reports of reconciliations, kept for a while in the memory of this process: a few, the newest."""

from collections import OrderedDict, defaultdict
from uuid import UUID, uuid5

from appointments.http.problems import Refusal
from domain.identity import NAMESPACE
from projections.reconciliation.model import Report

REPORTS_MAX = 32
"""Of one tenant: a tenant that makes many pushes out nobody else's. The oldest goes first."""


class KeptReport(Report):
    """A report under its id."""

    id: UUID
    links: dict[str, str]


class Reports:
    """The reports that are kept."""

    def __init__(self) -> None:
        self._kept: defaultdict[str, OrderedDict[UUID, KeptReport]] = defaultdict(OrderedDict)

    def keep(self, report: Report) -> KeptReport:
        """Keep one, in place of the oldest."""
        id = uuid5(NAMESPACE, f"report\0{report.tenant}\0{report.calendar}\0{report.began.isoformat()}")
        here = f"/v1/reconciliations/{id}"
        links = {"self": here, "heal": f"{here}/heal"}
        fields = {name: getattr(report, name) for name in Report.model_fields}
        mine = self._kept[report.tenant]
        kept = mine[id] = KeptReport.model_construct(**fields, id=id, links=links)
        while len(mine) > REPORTS_MAX:
            mine.popitem(last=False)
        return kept

    def of(self, tenant: str, id: UUID) -> KeptReport:
        """One of a tenant's. Raises `Refusal`."""
        found = self._kept.get(tenant, OrderedDict()).get(id)
        if found is None:
            raise Refusal("unknown-report", f"there is no report {id} (any more): make a new one")
        return found
