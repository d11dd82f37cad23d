"""The hash chain of each stream: every event carries a digest of itself and of the one before it.

Owns the digest and its check. A changed, dropped, inserted or reordered event breaks the chain at its version; that
somebody has computed the whole chain anew shows against a signed checkpoint (`store/checkpoint.py`).
"""

import hashlib
from collections.abc import Sequence

from store.port import RecordedEvent
from store.rows import microseconds

DIGEST_BYTES = 16
START = bytes(DIGEST_BYTES)
"""What stands before the first event of a stream."""


def link(
    before: bytes, position: int, stream: bytes, version: int, type: str, at: int, body: bytes, sealed: bytes
) -> bytes:
    """The digest of an event: SHA-256, cut to 16 bytes, of the digest before it and of all that is stored of it.

    Numbers are 8 bytes, big-endian (`at`: microseconds since 1970); each text is preceded by its length.
    """
    name = type.encode()
    told = (
        before,
        position.to_bytes(8),
        stream,
        version.to_bytes(8),
        at.to_bytes(8, signed=True),
        len(name).to_bytes(8),
        name,
        len(body).to_bytes(8),
        body,
        len(sealed).to_bytes(8),
        sealed,
    )
    return hashlib.sha256(b"".join(told)).digest()[:DIGEST_BYTES]


def digest_of(before: bytes, event: RecordedEvent) -> bytes:
    """The digest that a stored event must carry, given the one before it."""
    return link(
        before,
        event.position,
        event.stream_id.bytes,
        event.version,
        event.type,
        microseconds(event.at),
        event.body,
        event.sealed,
    )


def verify_stream(events: Sequence[RecordedEvent]) -> int | None:
    """The first version at which a whole stream, in order of version, is not what was written; None: it is whole."""
    before, position, expected = START, 0, 1
    for event in events:
        if event.version != expected or event.position <= position or not _is_linked(before, event):
            return expected
        before, position, expected = event.digest, event.position, expected + 1
    return None


def _is_linked(before: bytes, event: RecordedEvent) -> bool:
    try:
        return event.digest == digest_of(before, event)
    except (TypeError, AttributeError, OverflowError):
        return False  # a column holds something of another kind than was ever written
