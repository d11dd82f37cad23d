"""Room in the memory of this process: each tenant has some, and who needs more pushes out its own oldest alone."""

from collections import Counter, OrderedDict
from typing import Protocol, TypeVar


class OfTenant(Protocol):
    """What is kept: somebody's."""

    tenant: str


K = TypeVar("K")
V = TypeVar("V", bound=OfTenant)


def keep(kept: OrderedDict[K, V], key: K, one: V, each: int, all_: int) -> None:
    """Keep the newest `each` of its tenant; of more than `all_`, whoever has most of them loses its oldest."""
    kept[key] = one
    of = Counter(other.tenant for other in kept.values())
    if of[one.tenant] > each:
        crowded = one.tenant
    elif len(kept) > all_:
        ((crowded, _),) = of.most_common(1)
    else:
        return
    del kept[next(key for key, other in kept.items() if other.tenant == crowded)]
