"""Dead letters: what no program takes up any more, as the API tells it, and what a subscriber did not take."""

from itertools import groupby
from typing import Annotated

from pydantic import Field
from starlette.responses import Response

from appointments.console.site import Site, Visit
from appointments.outbox.dead_letters import DeadLetter, ask_again, dead_letters
from domain.commands import Reason, parse
from domain.errors import InvalidFields
from domain.provider import Value


class _Why(Value):
    reason: Annotated[Reason, Field(min_length=1)]


async def letters(at: Site, visit: Visit) -> Response:
    """All of them, each kind by itself."""
    found = await visit.door.dead_letters(visit.tenant)
    by_sink = groupby(sorted(found.undelivered, key=_sink), key=_sink)
    sinks = [(sink, list(some)) for sink, some in by_sink]
    return at.page("letters", visit, "/dead-letters", found=found, sinks=sinks)


async def deliver_again(at: Site, visit: Visit) -> Response:
    """Have one letter of a subscriber told again, or all that it has; whoever relays does it."""
    visit.confirmed()
    why = parse(_Why, {"reason": visit.form.get("reason", "").strip()}).reason
    store, sink, id = visit.desk.runtime.store, visit.form.get("sink", ""), visit.form.get("letter", "")
    waiting = [one for one in await dead_letters(store, visit.tenant, sink) if one.stands == "dead"]
    asked = [one for one in waiting if id in ("", one.id)]
    if not asked:
        raise InvalidFields("this is no dead letter any more: load the page again", (("/letter", "unknown"),))
    for one in asked:
        await ask_again(store, one, visit.tenant, visit.principal.actor, why, visit.door.now())
    told = f"{len(asked)} to be told again to {sink}, under the same ids"
    return at.told(visit, "Done", told, "good", f"{at.root}/dead-letters")


def _sink(letter: DeadLetter) -> str:
    return letter.sink
