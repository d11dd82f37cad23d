"""The whole check, for those who may audit: what the figures of every second cannot tell, such as what nobody runs."""

from uuid import UUID

from starlette.responses import RedirectResponse, Response

from appointments.access.roles import Permission
from appointments.console.jobs import Job, Row
from appointments.console.site import Site, Visit
from projections.findings import NO_FAULT, Finding
from projections.ownership import tenant_of


async def check(at: Site, visit: Visit) -> Response:
    """Begin to look through the whole log. Changes nothing."""

    async def work(job: Job) -> None:
        job.doing = "looking through the whole log"
        findings = (await visit.desk.health()).findings
        job.rows += [row for finding in findings if (row := await _row(visit, finding)) is not None]
        job.tell("findings", len(job.rows), len(job.rows))

    job = at.jobs.begin(Job(visit.tenant, Permission.AUDIT, "Check", "/"), work)
    return RedirectResponse(f"{at.root}/jobs/{job.id}", 303)


async def _row(visit: Visit, finding: Finding) -> Row | None:
    """What this tenant may know of it: of its own all, and that of the settings what nobody can tell whose it is."""
    try:
        id = UUID(finding.subject)
    except ValueError:
        id = None
    owner = await tenant_of(visit.desk.runtime.store, id) if id else None
    if (owner or visit.desk.settings.tenant) != visit.tenant:
        return None
    tone = "warn" if finding.kind in NO_FAULT else "bad"
    told = finding.detail if owner or id is None else "nobody can tell whose it is; `appointments check` names it"
    return Row(id if owner else None, finding.kind.replace("_", " "), tone, told)
