"""Identity: every id is derived from its cause, so that a repeat finds what the first try made."""

import hashlib
import json
from functools import lru_cache
from uuid import UUID, uuid5

from pydantic import BaseModel

from domain.events import Operation

NAMESPACE = UUID("6f0c8a52-3b0e-5c8f-9a57-0d6d5c1f7e11")


def appointment_id(tenant: str, key: str) -> UUID:
    """The appointment that this tenant's key books. Keys are scoped to tenant and operation."""
    return uuid5(NAMESPACE, f"{tenant}\x00book\x00{key}")


def operation_id(appointment: UUID, step: str, operation: Operation, round: int = 0) -> str:
    """What a provider sees as idempotency key: the same over all attempts of one operation."""
    return str(uuid5(appointment, f"{step}\x00{operation}\x00{round}"))


def client_ref(appointment: UUID) -> str:
    """The reference under which the booking is known at the provider."""
    return str(appointment)


def definition_stream(digest: str) -> UUID:
    """The stream that holds a saga definition."""
    return uuid5(NAMESPACE, f"definition\x00{digest}")


def orphan_stream(provider: str, webhook_id: str) -> UUID:
    """The stream that keeps one callback for an unknown reference."""
    return uuid5(NAMESPACE, f"orphan-callback\x00{provider}\x00{webhook_id}")


def dead_letter_stream(sink: str, appointment: UUID, version: int) -> UUID:
    """The stream that keeps one event that a subscriber did not take."""
    return uuid5(NAMESPACE, f"dead-letter\x00{sink}\x00{appointment}\x00{version}")


def fingerprint(payload: BaseModel) -> str:
    """A short digest of a command's content, whatever the order of its fields."""
    content = json.dumps(payload.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:32]


@lru_cache(maxsize=4_096)
def spread(seed: str) -> float:
    """A number in [0, 1) that is a hash of its seed: jitter that replays exactly."""
    return int.from_bytes(hashlib.sha256(seed.encode()).digest()[:6]) / 2**48
