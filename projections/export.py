"""The history in a form that outlives this program: lines of JSON that anybody can verify (docs/audit.md).

A header, a line for each event, and a last line that signs them: with a checkpoint of the whole log, and for one
appointment a proof that its last event, and so its chain, is in that log.
"""

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any
from uuid import UUID

from domain.errors import HistoryError, InvalidFields
from projections.log_check import Progress
from store.checkpoint import Signer
from store.mapper import decode
from store.merkle import Tree, leaf_of
from store.port import RecordedEvent, Store
from store.rows import microseconds

FORMAT = "appointments-export/1"
PAGE = 1_000


class _Lines:
    """Writes lines, and remembers all of them as one hash."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def line(self, fields: dict[str, Any]) -> bytes:
        """One line."""
        line = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        self._hash.update(line)
        return line

    def last(self, by: Signer, fields: dict[str, Any]) -> bytes:
        """The line that signs all those before it."""
        sha256 = self._hash.hexdigest()
        signature = by.sign(signed_text(sha256))
        return self.line({**fields, "sha256": sha256, "signature": signature})


def signed_text(sha256: str) -> bytes:
    """What is signed of an export: two lines of text."""
    return f"{FORMAT}\n{sha256}\n".encode()


async def export(
    store: Store, by: Signer, at: datetime, one: UUID | None, personal: bool, progress: Progress
) -> AsyncIterator[bytes]:
    """The lines of one stream's history, or of the whole log. Without `personal`, events are not told in clear.

    Raises `InvalidFields` for an empty log, `HistoryError` for one with a gap: what was written up to there has no end.
    """
    first = await store.log(0, 1)
    if not first:
        raise InvalidFields("the log is empty: there is nothing to export yet")
    lines, log = _Lines(), leaf_of(first[0]).hex()
    header = {
        "format": FORMAT,
        "log": log,
        "public_key": by.public_key,
        "stream": one and str(one),
        "personal": personal,
    }
    yield lines.line(header)
    goal, tree = await store.position(), Tree()
    if one is not None:
        events = [event for event in await store.events(one) if event.position <= goal]
        for event in events:
            yield lines.line(_told(event, personal))
        tree = Tree(proving=events[-1].position - 1)
    while tree.size < goal:
        batch = await store.log(tree.size, min(PAGE, goal - tree.size))
        for event in batch:
            if event.position != tree.size + 1:
                raise HistoryError(f"position {tree.size + 1} of the log is missing: run `appointments check`")
            tree.add(leaf_of(event))
            if one is None:
                yield lines.line(_told(event, personal))
        progress(len(batch))
    proof = None if one is None else {"position": events[-1].position, "path": [one.hex() for one in tree.proof()]}
    checkpoint = by.checkpoint(log, tree, at).model_dump(mode="json")
    yield lines.last(by, {"checkpoint": checkpoint, "proof": proof})


def _told(event: RecordedEvent, personal: bool) -> dict[str, Any]:
    told: dict[str, Any] = {
        "position": event.position,
        "stream": str(event.stream_id),
        "version": event.version,
        "type": event.type,
        "at": microseconds(event.at),
        "body": event.body.decode(errors="replace"),
        "sealed": base64.b64encode(event.sealed).decode(),
        "digest": event.digest.hex(),
    }
    return {**told, "event": _in_clear(event)} if personal else told


def _in_clear(event: RecordedEvent) -> Any:
    """None for an event that cannot be read; what was erased says so."""
    try:
        return decode(event).model_dump(mode="json")
    except HistoryError:
        return None
