"""Reconciliations: a report is made, shown in three formats, and healed."""

from collections import Counter
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Header
from pydantic import BaseModel, Field
from starlette.responses import Response

from appointments.http.answers import document
from appointments.http.asking import Admitted
from appointments.http.door import Door
from appointments.http.moments import Moment
from appointments.http.negotiation import best
from appointments.http.reports import KeptReport
from appointments.http.routing import router
from appointments.reconciling import Healed
from domain.errors import HistoryError, InvalidFields, UnknownAppointment
from domain.provider import Value
from projections.reconciliation.model import Finding, Kind, Policy, Report
from projections.reconciliation.page import page
from projections.reconciliation.table import to_csv

JSON, CSV, HTML = "application/json", "text/csv", "text/html"
FORMATS = (JSON, CSV, HTML)

routes = router("reconciliation")


class Reconcile(Value):
    """Which calendar to compare; with `from` or `to` only what lies between them is told."""

    calendar: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")]
    from_: Moment | None = Field(default=None, alias="from")
    to: Moment | None = None
    policy: Policy = Policy.PARK


class Heal(Value):
    """`dry_run` only shows what would be done."""

    dry_run: bool = True


class Healing(BaseModel):
    """Each command of the plan, and what came of it."""

    dry_run: bool
    items: tuple[Healed, ...]


@routes.post("/v1/reconciliations", status_code=201, response_model=KeptReport)
async def reconcile(visit: Admitted, asked: Reconcile) -> Response:
    """Compare a calendar with the log: intended, attempted, there. Changes nothing."""
    if asked.from_ and asked.to and asked.to <= asked.from_:
        raise InvalidFields("to must be later than from", (("/to", "not later than from"),))
    report = await visit.desk.reconcile(asked.calendar, policy=asked.policy, tenant=visit.tenant)
    kept = visit.door.reports.keep(await between(visit.door, report, asked.from_, asked.to))
    return document(kept, 201, {"Location": kept.links["self"]})


@routes.get(
    "/v1/reconciliations/{id}",
    response_model=KeptReport,
    responses={200: {"content": {CSV: {"schema": {"type": "string"}}, HTML: {"schema": {"type": "string"}}}}},
)
async def report(
    visit: Admitted, id: UUID, accept: Annotated[str, Header(max_length=1_000, include_in_schema=False)] = JSON
) -> Response:
    """The report, as JSON, CSV or a page to read and to print."""
    kept = visit.door.reports.of(visit.tenant, id)
    match best(accept, FORMATS):
        case "text/csv":
            return Response(to_csv(kept), media_type=CSV, headers={"Vary": "Accept"})
        case "text/html":
            return Response(page(kept), media_type=HTML, headers={"Vary": "Accept"})
        case _:
            return document(kept, headers={"Vary": "Accept"})


@routes.post("/v1/reconciliations/{id}/heal", response_model=Healing)
async def heal(visit: Admitted, id: UUID, asked: Heal) -> Response:
    """Give the commands that the report proposes, or only show them. A second time does nothing."""
    healed = await visit.desk.heal(
        visit.door.reports.of(visit.tenant, id), dry_run=asked.dry_run, actor=visit.who.actor
    )
    return document(Healing(dry_run=asked.dry_run, items=healed))


async def between(at: Door, report: Report, begin: datetime | None, end: datetime | None) -> Report:
    """The differences that lie between two instants; what has no known time is told in any case."""
    if begin is None and end is None:
        return report
    findings = tuple([one for one in report.findings if await _within(at, one, report.tenant, begin, end)])
    found = Counter(one.kind for one in findings)
    counts = {kind: report.counts[kind] if kind is Kind.MATCHED else found[kind] for kind in Kind}
    strangers = sum(one.appointment is None for one in findings)
    note = f"{report.note}; differences from {begin or 'the beginning'} to {end or 'the end'}".removeprefix("; ")
    return report.model_copy(update={"findings": findings, "counts": counts, "strangers": strangers, "note": note})


async def _within(at: Door, one: Finding, tenant: str, begin: datetime | None, end: datetime | None) -> bool:
    starts_at, ends_at = (one.seen.start, one.seen.end) if one.seen else (None, None)
    if one.appointment is not None:
        try:
            booked = await at.desk.show(one.appointment, tenant=tenant)
        except (HistoryError, UnknownAppointment):
            return True
        starts_at, ends_at = booked.start, booked.end
    if starts_at is None or ends_at is None:
        return True
    return (begin is None or ends_at > begin) and (end is None or starts_at < end)
