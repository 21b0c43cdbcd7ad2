"""Which addresses may be sent to: whoever names a URL must not reach what only this machine can reach."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from headwater.errors import EndpointRefused

# Addresses that stand for IPv4 addresses which nobody has checked: NAT64, 6to4, Teredo.
_WRAPPING = [ipaddress.ip_network(net) for net in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart: where it goes, and the name that it goes by."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """The name and port, as the header Host tells them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = {"http": 80, "https": 443}[self.scheme]
        return host if self.port == usual else f"{host}:{self.port}"


def target_of(url: str) -> Target:
    """A URL taken apart. Raises EndpointRefused where it is no http or https URL, or carries a login."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise EndpointRefused(
            f"The URL is malformed: {error}.", hint="Write https://..."
        ) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        raise EndpointRefused(
            "The URL is not one that can be sent to.",
            hint="Use https://host/path, without a login in it.",
        )
    if not url.isascii() or not url.isprintable() or " " in url or len(url) > 2000:
        raise EndpointRefused(
            "The URL is malformed.", hint="Use up to 2,000 ASCII characters; escape others with %."
        )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    usual = 443 if parts.scheme == "https" else 80
    return Target(parts.scheme, parts.hostname, usual if port is None else port, path)


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return is_public(str(found.ipv4_mapped))
        if any(found in net for net in _WRAPPING):
            return False
    return found.is_global and not found.is_multicast


async def address_of(target: Target, *, private: bool) -> str:
    """The address to connect to, checked. Raises EndpointRefused where any that the name has is private."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise EndpointRefused(
            f"The name {target.host!r} is not known.", hint="See whether its DNS record is there."
        ) from error
    addresses = [str(one[4][0]) for one in found]
    if not private and (inside := [one for one in addresses if not is_public(one)]):
        raise EndpointRefused(
            f"{target.host!r} has the address {inside[0]}, which is of a private network.",
            hint="Allow private addresses for this endpoint if it is your own.",
        )
    return addresses[0]
