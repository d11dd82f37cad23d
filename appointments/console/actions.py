"""The pages that act: each action is an ordinary command, by the person who is signed in."""

from functools import partial
from urllib.parse import quote

from starlette.responses import RedirectResponse, Response

from appointments.access.roles import Permission
from appointments.console.jobs import Job
from appointments.console.looks import PARKED_MAX
from appointments.console.parked import ask_each, groups
from appointments.console.site import Site, Visit
from appointments.http.problems import Refusal
from appointments.views import Appointment, AppointmentFilter
from domain.commands import Act, parse
from domain.errors import InvalidFields

WAIT_S = 3.0
"""How long a page waits for what an action comes to."""


async def act(at: Site, visit: Visit) -> Response:
    """One action on one appointment, for the version that was looked at."""
    id, asked = visit.request.path_params["id"], _asked(visit)
    version = visit.form.get("version", "")
    expected = int(version) if version.isascii() and version.isdecimal() and len(version) < 10 else None
    done = await _act(visit, asked, id, expected)
    parked = f"; parked: {done.parked_reason}" if done.parked else ""
    told = f"{asked.action}: the appointment is {done.state}{parked}, at version {done.version}"
    return at.told(visit, "Done", told, "warn" if done.parked else "good", f"{at.root}/appointments/{quote(id)}")


async def act_on_group(at: Site, visit: Visit) -> Response:
    """One action on all that were parked for the same reason, one after the other."""
    asked = _asked(visit)
    page = await visit.desk.list(AppointmentFilter(tenant=visit.tenant, parked=True, limit=PARKED_MAX))
    group = next((one for one in groups(page.items) if one.key == visit.form.get("group")), None)
    if group is None:
        raise InvalidFields("nothing is parked for this reason any more: load the page again")

    async def do(one: Appointment) -> Appointment:
        return await _act(visit, asked, str(one.id), one.version)

    title = f"{str(asked.action).replace('_', ' ').capitalize()}: {group.reason}"
    job = Job(visit.tenant, Permission.OPERATE, title, "/parked")
    at.jobs.begin(job, partial(ask_each, items=group.items, act=do))
    return RedirectResponse(f"{at.root}/jobs/{job.id}", 303)


def _asked(visit: Visit) -> Act:
    visit.confirmed()
    return parse(Act, {"action": visit.form.get("action", ""), "reason": visit.form.get("reason", "").strip()})


async def _act(visit: Visit, asked: Act, id: str, version: int | None) -> Appointment:
    return await visit.desk.act(
        id,
        asked.action,
        actor=visit.principal.actor,
        reason=asked.reason,
        tenant=visit.tenant,
        expected_version=version,
        wait=WAIT_S,
    )


async def job(at: Site, visit: Visit) -> Response:
    """How far a job is; an open page asks until it has ended, and is then loaded anew."""
    found = at.jobs.get(visit.request.path_params["job"], visit.tenant)
    if found is None:
        raise Refusal("not-found", "there is no such job (any more); each appointment's trail tells what was done")
    at.check(visit.principal, found.needs)
    if found.leads_to and not visit.partial:
        return RedirectResponse(f"{at.root}{found.leads_to}", 303)
    page = at.page("job_progress" if visit.partial else "job", visit, found.back, job=found)
    if found.ended and visit.partial:
        page.headers["HX-Refresh"] = "true"
    return page
