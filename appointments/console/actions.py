"""The pages that act: each action is an ordinary command, by the person who is signed in."""

from urllib.parse import quote

from starlette.responses import RedirectResponse, Response

from appointments.console.looks import PARKED_MAX
from appointments.console.parked import groups
from appointments.console.site import Site, Visit
from appointments.views import Appointment, AppointmentFilter
from domain.commands import Act, parse
from domain.errors import InvalidFields

WAIT_S = 3.0
"""How long a page waits for what an action comes to."""


def _asked(visit: Visit) -> Act:
    if visit.form.get("sure") != "yes":
        raise InvalidFields("the action was not confirmed: tick the box below the reason")
    return parse(Act, {"action": visit.form.get("action", ""), "reason": visit.form.get("reason", "").strip()})


async def act(at: Site, visit: Visit) -> Response:
    """One action on one appointment, for the version that was looked at."""
    id, asked, who = visit.request.path_params["id"], _asked(visit), visit.principal
    version = visit.form.get("version", "")
    expected = int(version) if version.isascii() and version.isdecimal() and len(version) < 10 else None
    done = await at.desk.act(
        id,
        asked.action,
        actor=who.actor,
        reason=asked.reason,
        tenant=who.tenant,
        expected_version=expected,
        wait=WAIT_S,
    )
    parked = f"; parked: {done.parked_reason}" if done.parked else ""
    told = f"{asked.action}: the appointment is {done.state}{parked}, at version {done.version}"
    return at.told(visit, "Done", told, "warn" if done.parked else "good", f"{at.root}/appointments/{quote(id)}")


async def act_on_group(at: Site, visit: Visit) -> Response:
    """One action on all that were parked for the same reason, one after the other."""
    asked, who = _asked(visit), visit.principal
    page = await at.desk.list(AppointmentFilter(tenant=who.tenant, parked=True, limit=PARKED_MAX))
    group = next((one for one in groups(page.items) if one.key == visit.form.get("group")), None)
    if group is None:
        raise InvalidFields("nothing is parked for this reason any more: load the page again")

    async def do(one: Appointment) -> Appointment:
        return await at.desk.act(
            one.id,
            asked.action,
            actor=who.actor,
            reason=asked.reason,
            tenant=who.tenant,
            expected_version=one.version,
            wait=WAIT_S,
        )

    batch = at.batches.begin(who.tenant, asked.action, group.items, do)
    return RedirectResponse(f"{at.root}/batches/{batch.id}", 303)
