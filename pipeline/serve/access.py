"""Who may ask: the host that a request names, the page that it comes from, and the token.

A page of another site can let a browser ask a service on the same machine, under a name of its own that it points to
127.0.0.1 (DNS rebinding). So the name in the Host header has to be known. An address in it was typed or linked as such,
and its page is of the service itself.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from featurecache.base.errors import UsageError
from featurecache.base.text import printable
from featurecache.serve.replies import Refused

LOOPBACK_NAMES = frozenset({"localhost"})
LEAST_TOKEN = 16


@dataclass(frozen=True)
class Access:
    """Who may ask.

    host: the address or name that is listened on. allowed: further names in the Host header. token: of all requests but
    those for the page, the description and the health; empty for none.
    Raises UsageError for an address beyond the machine without a token, or a token that can be guessed.
    """

    host: str = "127.0.0.1"
    allowed: tuple[str, ...] = ()
    token: str = ""

    def __post_init__(self) -> None:
        if not self.is_loopback and not self.token:
            raise UsageError(
                f"'{printable(self.host)}' can be reached from other machines, so requests need a token: set "
                "FEATURECACHE_TOKEN, or listen on 127.0.0.1."
            )
        if self.token and (len(self.token) < LEAST_TOKEN or not self.token.isascii() or not self.token.isprintable()):
            raise UsageError(
                f"A token needs at least {LEAST_TOKEN} ASCII characters: 'openssl rand -hex 16' makes one."
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can ask."""
        return is_loopback(self.host)

    def check_host(self, headers: Mapping[str, str]) -> None:
        """Raise Refused where a request names a host that is not this one, or comes from a page of another."""
        host = name_of(headers.get("host", ""))
        if not host:
            raise Refused(400, "A request needs a Host header.")
        if not self._knows(host):
            raise Refused(403, "The Host header names another host: start the service with --allow-host NAME for it.")
        origin = headers.get("origin")
        if origin is not None and not self._knows(name_of(origin.partition("://")[2])):
            raise Refused(403, "Pages of other sites may not use this service.")

    def check_token(self, headers: Mapping[str, str]) -> None:
        """Raise Refused where a request lacks the token."""
        if not self.token:
            return
        kind, _, given = headers.get("authorization", "").partition(" ")
        is_right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self.token.encode())
        if kind.lower() != "bearer" or not is_right:
            reason = "A request needs the header 'Authorization: Bearer TOKEN', with the token of the service."
            raise Refused(401, reason, {"www-authenticate": "Bearer"})

    def _knows(self, host: str) -> bool:
        if host in LOOPBACK_NAMES or host == self.host.lower() or host in self.allowed:
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return address.is_loopback or not self.is_loopback


def is_loopback(host: str) -> bool:
    """Whether an address or name is of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() in LOOPBACK_NAMES


def name_of(host: str) -> str:
    """Return a host without its port, in lower case: `[::1]:8000` is `::1`; empty for what is no host and port."""
    if host.startswith("["):
        name, end, port = host[1:].partition("]")
        port = port.removeprefix(":") if not port or port.startswith(":") else "no port"
        host = name if end else ""
    else:
        host, _, port = host.partition(":")
    is_port = not port or (port.isascii() and port.isdigit())
    return host.lower().rstrip(".") if is_port else ""
