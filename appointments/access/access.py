"""Who asks, and whether it may: what every way in over the network looks at first."""

import ipaddress
from collections.abc import Callable
from datetime import datetime

from appointments.access.roles import Permission, Principal, allows
from appointments.access.throttle import Throttle
from appointments.access.tokens import TokenFile

FAILED_RATE, FAILED_BURST = 5.0, 50
"""Tokens that are none, a second and at once, for which one address is told that they are none."""


class Unauthenticated(Exception):
    """No token that is valid came with the request."""


class Access:
    """The door. `everybody`: the principal of requests without a token, where no tokens are asked for."""

    def __init__(
        self, tokens: TokenFile, throttle: Throttle, now: Callable[[], datetime], everybody: Principal | None = None
    ) -> None:
        self._tokens, self._throttle, self._now, self._everybody = tokens, throttle, now, everybody
        self._failed = Throttle(FAILED_RATE, FAILED_BURST)

    def authenticate(self, token: str | None) -> Principal:
        """Whose request it is. Raises `Unauthenticated`, and `StoreUnavailable` when the tokens cannot be read."""
        if token is None and self._everybody is not None:
            return self._everybody
        found = self._tokens.find(token, self._now()) if token else None
        if found is None:
            raise Unauthenticated("a valid bearer token is needed")
        return found

    def allows(self, principal: Principal, permission: Permission) -> bool:
        """Whether the principal's role may do that."""
        return allows(principal, permission)

    def throttle(self, tenant: str, now: datetime) -> float | None:
        """None: go on. Else how many seconds the tenant has to wait."""
        return self._throttle.wait_s(tenant, now)

    def failed(self, address: str, now: datetime) -> float | None:
        """A token came from there that is none. None: say so. Else how many seconds there is only that to be said.

        It is asked for afterwards: a token that is valid opens the door, whoever else comes from the same address.
        """
        return self._failed.wait_s(_network(address), now)

    def close(self) -> None:
        """Let go of the tokens."""
        self._tokens.close()


def _network(address: str) -> str:
    """What one host can choose its addresses from: of IPv6 all that share the first 64 bits."""
    try:
        told = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if told.version == 4:
        return address
    return str(told.ipv4_mapped or ipaddress.ip_network((told.packed[:8] + bytes(8), 64)))
