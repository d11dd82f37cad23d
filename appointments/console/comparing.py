"""Reconciliation: a calendar is compared with the log, the report is looked at, and healed after a dry run.

Each command of a healing gives as its reason the difference that it mends; its actor is who applied it.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from starlette.responses import RedirectResponse, Response

from appointments.access.roles import Permission
from appointments.console.jobs import Job, Row
from appointments.console.looks import DAY
from appointments.console.site import Site, Visit
from appointments.http.problems import Refusal
from appointments.http.reconciliations import Reconcile, between
from appointments.http.reports import KeptReport
from appointments.reconciling import Healed
from domain.commands import parse
from domain.errors import InvalidFields
from projections.reconciliation.model import Kind, Policy
from projections.reconciliation.page import MEANINGS, by_class

HERE = "/reconciliation"
WAIT_S = 10.0
"""How long each command of a healing is waited for."""
ROWS_MAX = 500
TONES = {"given": "good", "repeated": "still", "planned": "", "refused": "bad", "failed": "bad"}


async def compare_page(at: Site, visit: Visit) -> Response:
    """Where a comparison is asked for."""
    calendars = sorted({*visit.desk.settings.calendars, "main"})
    return at.page("compare", visit, HERE, calendars=calendars, policies=[policy.value for policy in Policy])


async def compare(at: Site, visit: Visit) -> Response:
    """Begin to compare. Changes nothing."""
    asked = _asked(visit)

    async def work(job: Job) -> None:
        report = await visit.desk.reconcile(asked.calendar, policy=asked.policy, tenant=visit.tenant, told=job.tell)
        kept = visit.door.reports.keep(await between(visit.door, report, asked.from_, asked.to))
        job.leads_to = f"{HERE}/{kept.id}"

    job = at.jobs.begin(Job(visit.tenant, Permission.RECONCILE, f"Compare {asked.calendar}", HERE), work)
    return RedirectResponse(f"{at.root}/jobs/{job.id}", 303)


def _asked(visit: Visit) -> Reconcile:
    form: dict[str, Any] = {name: visit.form.get(name, "") for name in ("calendar", "policy")}
    for name in ("from", "to"):
        day = visit.form.get(name, "")
        if day and not DAY.fullmatch(day):
            raise InvalidFields(f"{name}: write a day as 2031-03-03", ((f"/{name}", "no day"),))
        form[name] = f"{day}T00:00:00Z" if day else None
    asked = parse(Reconcile, form)
    if asked.from_ and asked.to and asked.to <= asked.from_:
        raise InvalidFields("until must be later than from", (("/to", "not later than from"),))
    return asked


async def report(at: Site, visit: Visit) -> Response:
    """What a comparison came to."""
    found = _report(visit)
    kinds = list(Kind)
    findings = sorted(found.findings, key=lambda finding: kinds.index(finding.kind))
    return at.page(
        "report",
        visit,
        HERE,
        report=found,
        findings=findings[:ROWS_MAX],
        left_out=max(0, len(findings) - ROWS_MAX),
        classes=by_class(found),
        meanings=MEANINGS,
    )


async def planned(at: Site, visit: Visit) -> Response:
    """The dry run: what would be done about it. Changes nothing."""
    found = _report(visit)
    return at.page("healing", visit, HERE, report=found, plan=await visit.desk.heal(found, dry_run=True))


async def heal(at: Site, visit: Visit) -> Response:
    """Give the commands of the plan. A second time does nothing."""
    visit.confirmed()
    found = _report(visit)

    async def work(job: Job) -> None:
        healed = await visit.desk.heal(found, dry_run=False, wait=WAIT_S, told=job.tell, actor=visit.principal.actor)
        job.rows += _rows(healed)

    job = Job(visit.tenant, Permission.HEAL, f"Heal {found.calendar}", f"{HERE}/{found.id}")
    at.jobs.begin(job, work)
    return RedirectResponse(f"{at.root}/jobs/{job.id}", 303)


def _rows(healed: Sequence[Healed]) -> list[Row]:
    return [Row(one.appointment, one.outcome, TONES[one.outcome], f"{one.command}: {one.detail}") for one in healed]


def _report(visit: Visit) -> KeptReport:
    text = visit.request.path_params["report"]
    try:
        return visit.door.reports.of(visit.tenant, UUID(text))
    except ValueError:
        raise Refusal("unknown-report", f"{text!r} is no id of a report") from None
