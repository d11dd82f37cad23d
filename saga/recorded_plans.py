"""Definitions as the log holds them: read once, and believed only when they are what their name says."""

import hashlib

from pydantic import ValidationError
from pydantic_core import to_json

from domain import events as e
from domain.definition import SagaPlan
from domain.errors import HistoryError
from domain.identity import definition_stream
from store.mapper import decode
from store.port import RecordedEvent, Store


class RecordedPlans:
    """The plans of one store, by digest."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, SagaPlan | HistoryError] = {}

    async def get(self, digest: str) -> SagaPlan | HistoryError:
        """The plan of this digest, or why there is none that can be believed."""
        if digest not in self._known:
            recorded = await self._store.events(definition_stream(digest), limit=1)
            try:
                self._known[digest] = plan_of(recorded[0], digest) if recorded else _missing(digest)
            except HistoryError as fault:
                self._known[digest] = fault
        return self._known[digest]


def plan_of(recorded: RecordedEvent, digest: str) -> SagaPlan:
    """The plan of a definition's event; raises `HistoryError` unless it is the one that has this digest.

    The digest is that of the plan as it was written, so that a field which plans have got since changes nothing.
    """
    fact = decode(recorded)
    if not isinstance(fact, e.DefinitionRegistered):
        raise HistoryError(f"the definition {digest} cannot be read: {fact.type} stands in its place")
    try:
        plan = SagaPlan.model_validate(fact.plan)
    except ValidationError as fault:
        raise HistoryError(f"the definition {digest} cannot be read: {fault}") from None
    found = f"{plan.name}/{plan.version}@{hashlib.sha256(to_json(fact.plan)).hexdigest()[:12]}"
    if not digest == fact.digest == found:
        raise HistoryError(f"the definition {digest} was changed: what is written there has the digest {found}")
    return plan


def _missing(digest: str) -> HistoryError:
    return HistoryError(f"the log holds no definition {digest}")
