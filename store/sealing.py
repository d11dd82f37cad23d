"""Seals what is private of an event under the keys of those whom it is about, so that it can be erased for good.

AES-256-GCM (NIST SP 800-38D) with a random nonce; the place of the event is authenticated with it, so that a sealed
part cannot be moved to another event. What is about several subjects needs the keys of all of them (HKDF, RFC 5869):
when one is destroyed, nobody can read it any more.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from store.port import Private

REF_BYTES, KEY_BYTES, NONCE_BYTES, NAME_BYTES = 8, 32, 12, 16
CIPHERS_KEPT = 256


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """A subject's key, and the random reference by which sealed parts name it."""

    ref: bytes
    key: bytes

    @classmethod
    def new(cls) -> "SubjectKey":
        """A key that nobody has seen before."""
        return cls(secrets.token_bytes(REF_BYTES), secrets.token_bytes(KEY_BYTES))


def hashed(subject: str) -> bytes:
    """A subject's name as the table of keys holds it; the row goes with the key, so nothing is left to guess at."""
    return hashlib.sha256(subject.encode()).digest()[:NAME_BYTES]


def seal(parts: Iterable[Private], key_of: Callable[[str], SubjectKey], stream_id: UUID, version: int) -> bytes:
    """The parts as one blob: for each the number of refs (1 byte), the refs, the length (4 bytes), nonce and text."""
    place = _place(stream_id, version)
    sealed = bytearray()
    for part in parts:
        assert part.body is not None
        keys = sorted((key_of(name) for name in part.subjects), key=lambda one: one.ref)
        nonce = secrets.token_bytes(NONCE_BYTES)
        text = _cipher(tuple(one.key for one in keys)).encrypt(nonce, part.body, place)
        sealed += bytes((len(keys),)) + b"".join(one.ref for one in keys)
        sealed += (NONCE_BYTES + len(text)).to_bytes(4) + nonce + text
    return bytes(sealed)


def unseal(sealed: bytes, keys: Mapping[bytes, bytes], stream_id: UUID, version: int) -> tuple[Private, ...]:
    """The parts of a blob; None for the body of one of which a key is gone. A blob that is none is `damaged`."""
    try:
        return tuple(_opened(refs, nonce, text, keys, stream_id, version) for refs, nonce, text in _parts(sealed))
    except (ValueError, IndexError):
        return (Private((), None, damaged=True),)


def refs_in(sealed: bytes) -> set[bytes]:
    """The references of all subjects that a blob is about; none for a blob that cannot be read."""
    try:
        return {ref for refs, _, _ in _parts(sealed) for ref in refs}
    except (ValueError, IndexError, TypeError):
        return set()


def _opened(
    refs: tuple[bytes, ...], nonce: bytes, text: bytes, keys: Mapping[bytes, bytes], stream_id: UUID, version: int
) -> Private:
    if any(ref not in keys for ref in refs):
        return Private((), None)
    try:
        body = _cipher(tuple(keys[ref] for ref in refs)).decrypt(nonce, text, _place(stream_id, version))
    except (InvalidTag, ValueError):
        return Private((), None, damaged=True)
    return Private((), body)


def _parts(sealed: bytes) -> Sequence[tuple[tuple[bytes, ...], bytes, bytes]]:
    found, at = [], 0
    while at < len(sealed):
        count, at = sealed[at], at + 1
        refs = tuple(sealed[at + n * REF_BYTES : at + (n + 1) * REF_BYTES] for n in range(count))
        at += count * REF_BYTES
        length, at = int.from_bytes(sealed[at : at + 4]), at + 4
        if not count or length <= NONCE_BYTES or at + length > len(sealed):
            raise ValueError("a sealed part is cut short")
        found.append((refs, sealed[at : at + NONCE_BYTES], sealed[at + NONCE_BYTES : at + length]))
        at += length
    return found


def _place(stream_id: UUID, version: int) -> bytes:
    return stream_id.bytes + version.to_bytes(4)


@lru_cache(maxsize=CIPHERS_KEPT)
def _cipher(keys: tuple[bytes, ...]) -> AESGCM:
    if len(keys) == 1:
        return AESGCM(keys[0])
    return AESGCM(HKDF(SHA256(), KEY_BYTES, None, b"appointments: about several subjects").derive(b"".join(keys)))


def forget_ciphers() -> None:
    """Hold on to no key: to be called when one was destroyed."""
    _cipher.cache_clear()
