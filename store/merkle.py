"""The Merkle tree over the log (RFC 9162, section 2.1, SHA-256): its leaves, its root, and proofs that a leaf is in it.

Holds no more than the peaks of the tree, one hash for each bit of its size; the log itself is walked, never kept.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

from store.port import RecordedEvent
from store.rows import microseconds

HASH_BYTES = 32


def row_bytes(event: RecordedEvent) -> bytes:
    """Everything that is stored of an event, as it goes into the tree.

    As in `store/chain.py` numbers are 8 bytes, big-endian, and each text is preceded by its length; the digest of the
    event before is left out, its own comes last.
    """
    name = event.type.encode()
    told = (
        event.position.to_bytes(8),
        event.stream_id.bytes,
        event.version.to_bytes(8),
        microseconds(event.at).to_bytes(8, signed=True),
        len(name).to_bytes(8),
        name,
        len(event.body).to_bytes(8),
        event.body,
        len(event.sealed).to_bytes(8),
        event.sealed,
        event.digest,
    )
    return b"".join(told)


def leaf(content: bytes) -> bytes:
    """The hash of a leaf."""
    return hashlib.sha256(b"\x00" + content).digest()


def leaf_of(event: RecordedEvent) -> bytes:
    """The leaf of an event: number `position - 1` of the tree."""
    return leaf(row_bytes(event))


def node(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of(peaks: Sequence[bytes]) -> bytes:
    """The root of the tree with these peaks, the largest first."""
    if not peaks:
        return hashlib.sha256().digest()
    *others, root = peaks
    for peak in reversed(others):
        root = node(peak, root)
    return root


class Tree:
    """A tree that grows leaf by leaf. `proving`: the number (0-based) of a leaf to come whose proof is wanted."""

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = (), proving: int | None = None) -> None:
        self.size = size
        self.peaks = list(peaks)
        self._proving = proving
        self._path: list[bytes] = []
        assert len(self.peaks) == size.bit_count()

    def add(self, hashed: bytes) -> None:
        """Add a leaf by its hash."""
        self.size += 1
        rest, width = self.size, 1
        while rest % 2 == 0:
            left = self.peaks.pop()
            if self._proving is not None:
                self._follow(left, hashed, width)
            hashed = node(left, hashed)
            rest, width = rest // 2, width * 2
        self.peaks.append(hashed)

    @property
    def root(self) -> bytes:
        """The root as it stands."""
        return root_of(self.peaks)

    def proof(self) -> tuple[bytes, ...]:
        """The inclusion proof of the leaf that is `proving`, from the leaf up (RFC 9162, section 2.1.3.1)."""
        assert self._proving is not None
        assert self._proving < self.size
        widths = [1 << bit for bit in reversed(range(self.size.bit_length())) if self.size >> bit & 1]
        ends = list(accumulate(widths))
        within = bisect_right(ends, self._proving)
        right = self.peaks[within + 1 :]
        return (*self._path, *((root_of(right),) if right else ()), *reversed(self.peaks[:within]))

    def _follow(self, left: bytes, right: bytes, width: int) -> None:
        assert self._proving is not None
        begins = self.size - 2 * width
        if begins <= self._proving < begins + width:
            self._path.append(right)
        elif begins + width <= self._proving < self.size:
            self._path.append(left)
