"""Erasure of a subject's personal data, for good: the key is destroyed, and every stream concerned says so."""

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

from domain.appointment import Appointment
from domain.commands import Name
from domain.decide import erasure
from domain.errors import ConcurrencyConflict, IllegalTransition
from domain.events import DeliveryAbandoned
from domain.evolve import evolve
from domain.lifecycle import SETTLED
from domain.provider import Value
from saga.clock import Clock
from store.mapper import decode, encode
from store.port import Append, Store

CONFLICTS_MAX = 20
SHOWN_MAX = 10


class Erasure(Value):
    """What erasing a subject means, or has meant. `unfinished`: what must come to its end first."""

    appointments: tuple[UUID, ...]
    unfinished: tuple[UUID, ...] = ()
    applied: bool = False


class ErasureRequest(Value):
    """Who asks for it, and the number of the request; a name does not belong into it."""

    actor: Name
    reference: Name


async def erasure_of(store: Store, subject: str) -> Erasure:
    """What is known of a subject. Changes nothing."""
    return (await _plan(store, subject))[0]


async def erase(
    store: Store, subject: str, request: ErasureRequest, clock: Clock, forget: Callable[[UUID], None]
) -> Erasure:
    """Destroy the subject's key. `forget` lets go of what is remembered of a stream.

    Raises `IllegalTransition`, with nothing done, while an appointment of the subject is unfinished. A subject of whom
    nothing is known is no fault: there is nothing to erase.
    """
    for _ in range(CONFLICTS_MAX):
        plan, letters = await _plan(store, subject)
        if plan.unfinished:
            shown = ", ".join(map(str, plan.unfinished[:SHOWN_MAX]))
            raise IllegalTransition(
                f"{len(plan.unfinished)} appointments of this person are unfinished ({shown}): cancel them, or wait "
                "until they have come to their end, and erase then"
            )
        told = [await _telling(store, id, request, clock) for id in plan.appointments] + letters
        try:
            await store.erase(subject, told)
        except ConcurrencyConflict:
            continue
        for id in plan.appointments:
            forget(id)
        return plan.model_copy(update={"applied": bool(told)})
    raise ConcurrencyConflict(f"the appointments of this person moved on {CONFLICTS_MAX} times: try again")


async def _plan(store: Store, subject: str) -> tuple[Erasure, list[Append]]:
    """And the dead letters that say something about it: their appointments' streams tell of the erasure."""
    appointments: list[UUID] = []
    letters: list[Append] = []
    for id in await store.sealed_for(subject):
        if (await store.events(id, limit=1))[0].type == DeliveryAbandoned.type:
            letters.append(Append(id, len(await store.events(id)), (), touches_work=False))
        else:
            appointments.append(id)
    unfinished = [id for id in appointments if (await _state(store, id)).state not in SETTLED]
    return Erasure(appointments=tuple(appointments), unfinished=tuple(unfinished)), letters


async def _telling(store: Store, id: UUID, request: ErasureRequest, clock: Clock) -> Append:
    state, work = await _state(store, id), await store.work(id)
    fact = erasure(state, request.actor, request.reference, clock.now())
    version = state.version + 1
    row = None if work is None else replace(work, version=version)
    return Append(id, state.version, (encode(id, version, fact),), row)


async def _state(store: Store, id: UUID) -> Appointment:
    state = Appointment(id)
    for recorded in await store.events(id):
        state = evolve(state, decode(recorded))
    return state
