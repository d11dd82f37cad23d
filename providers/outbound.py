"""What may be called at an address that somebody else wrote down: no way into the network that we stand in.

Owns which addresses and ports are dialled. A name is resolved once for each connection, every address of it is
checked, and what was checked is what is dialled; Host and SNI stay those of the URL.
"""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import urlsplit

from aiohttp import ClientSession, DummyCookieJar, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult

from domain.errors import InvalidFields

Resolve = Callable[[str], Awaitable[Sequence[str]]]
"""From a name to all its addresses, as text."""

_PRIVATE_V4 = tuple(map(IPv4Network, ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))
_PRIVATE_V6 = tuple(map(IPv6Network, ("::1/128", "fc00::/7")))
_SPECIAL_V4 = tuple(
    IPv4Network(f"{network}")
    for network in (
        *("0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15"),
        *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    )
)
"""RFC 6890 and the registry that goes on with it."""
_GLOBAL_V6 = IPv6Network("2000::/3")
_SPECIAL_V6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "3fff::/20")))
_METADATA = frozenset({IPv4Address("100.100.100.200"), IPv6Address("fd00:ec2::254"), IPv6Address("fd20:ce::254")})
"""Where clouds tell a machine its secrets, as far as those lie in private networks; the others are never dialled."""
_LAST_32_BITS = tuple(map(IPv6Network, ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")))
"""IPv4-compatible, mapped, translated, NAT64: the IPv4 address is at the end."""
_SIX_TO_FOUR = IPv6Network("2002::/16")


class AddressRefused(OSError):
    """The address may not be dialled; nothing was sent."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EACCES, why)


@dataclass(frozen=True, slots=True)
class Outbound:
    """What may be called. `private` opens loopback and private networks, and plain HTTP with them."""

    ports: frozenset[int] = frozenset({443})
    private: bool = False

    def refusal(self, address: str) -> str | None:
        """Why an IP address may not be dialled; None where it may."""
        if "%" in address:
            return "it has a zone: it is of this link alone"
        try:
            ip = ip_address(address)
        except ValueError:
            return "it is no IP address"
        embedded = _embedded(ip)
        if embedded is not None:
            ip = embedded
        if ip in _METADATA:
            return "it tells the secrets of the machine"
        if any(ip in network for network in (_PRIVATE_V4 if ip.version == 4 else _PRIVATE_V6)):
            return None if self.private else "it is loopback or of a private network"
        if isinstance(ip, IPv4Address):
            special = any(ip in network for network in _SPECIAL_V4)
        else:
            special = ip not in _GLOBAL_V6 or any(ip in network for network in _SPECIAL_V6)
        return "it is no public unicast address" if special else None

    def check(self, url: str) -> None:
        """Raise `InvalidFields` for an address that is refused whatever its name resolves to."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as fault:  # brackets that are not closed, a port that is none
            raise _invalid(f"it cannot be read: {fault}") from None
        if parts.scheme != "https" and not (self.private and parts.scheme == "http"):
            raise _invalid("write https://host/path")
        if not host or parts.username is not None or parts.password is not None or parts.fragment:
            raise _invalid("name a host, and neither user, password nor fragment")
        port = port if port is not None else {"https": 443, "http": 80}[parts.scheme]
        if port not in self.ports:
            raise _invalid(f"port {port} is not allowed; these are: {', '.join(map(str, sorted(self.ports)))}")
        if _literal(host) and (why := self.refusal(host)):
            raise _invalid(why)

    def session(self, resolve: Resolve | None = None) -> ClientSession:
        """An HTTP session that dials nothing else; it raises aiohttp's `ClientError` where it refuses.

        Call it with `allow_redirects=False`, with addresses that `check` has passed. It keeps no cookies, obeys no
        proxy of the environment, and is to be closed.
        """
        connector = TCPConnector(
            resolver=_Checked(self, resolve or _system), use_dns_cache=False, socket_factory=self._socket
        )
        return ClientSession(connector=connector, trust_env=False, cookie_jar=DummyCookieJar())

    def _socket(self, found: Any) -> socket.socket:
        """The socket for an address about to be dialled: one that stands in the URL itself was never resolved."""
        family, kind, protocol, _, address = found
        if (why := self.refusal(address[0])) or (why := self._closed(address[1])):
            raise AddressRefused(f"{address[0]} is not dialled: {why}")
        return socket.socket(family, kind, protocol)

    def _closed(self, port: int) -> str | None:
        return None if port in self.ports else f"port {port} is not allowed"


class _Checked(AbstractResolver):
    """Resolves a name once, and refuses it when a single one of its addresses is refused."""

    def __init__(self, rules: Outbound, resolve: Resolve) -> None:
        self._rules, self._resolve = rules, resolve

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        addresses = await self._resolve(host)
        if not addresses:
            raise AddressRefused(f"{host} has no address")
        for address in addresses:
            if why := self._rules.refusal(address):
                raise AddressRefused(f"{host} is {address}, which is not dialled: {why}")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Nothing is kept open."""


async def _system(host: str) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


def _embedded(ip: IPv4Address | IPv6Address) -> IPv4Address | None:
    if isinstance(ip, IPv4Address) or int(ip) <= 1:  # :: and ::1 are themselves
        return None
    if ip in _SIX_TO_FOUR:
        return IPv4Address((int(ip) >> 80) & 0xFFFF_FFFF)
    if any(ip in network for network in _LAST_32_BITS):
        return IPv4Address(int(ip) & 0xFFFF_FFFF)
    return None


def _literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _invalid(why: str) -> InvalidFields:
    return InvalidFields(f"this address is not called: {why}", (("/url", why),))
