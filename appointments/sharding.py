"""Which of several databases keeps a tenant: the one with the greatest hash, which needs no table and no coordinator.

Rendezvous hashing: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998.
"""

from collections.abc import Collection
from hashlib import sha256


def shard_of(tenant: str, names: Collection[str]) -> str:
    """The name of the shard that keeps a tenant: of the same names always the same one, whatever their order."""
    return max(sorted(names), key=lambda name: sha256(f"{name}\x00{tenant}".encode()).digest())
