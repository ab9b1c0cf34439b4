"""Which addresses may be asked when somebody else names them: a person, a model or a page.

Pure decisions over an address as it is written, and over what its name stands for. Resolves nothing and opens
nothing. The ranges are those of the registries of special-purpose addresses
(https://www.iana.org/assignments/iana-ipv4-special-registry, https://www.iana.org/assignments/iana-ipv6-special-registry).
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from yarl import URL

from plait.errors import ConfigurationError, SecurityError, excerpt

if TYPE_CHECKING:
    from collections.abc import Iterable

Kind = Literal["loopback", "private", "shared", "link-local", "multicast", "unspecified", "reserved", "tunnel"]
"""What an address that is not public is; ``shared`` is what carriers put between their customers and the Internet."""

_SCHEMES: Final = ("http", "https")
_PORTS: Final = (80, 443)
_OWN: Final[tuple[Kind, ...]] = ("loopback", "private", "shared")
"""What is reached by a program that lets addresses into its own network. Link-local ones, where clouds keep their
machines' credentials, are never reached."""

_IPV4: Final[tuple[tuple[str, Kind], ...]] = (
    ("0.0.0.0/8", "unspecified"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.2.0/24", "reserved"),
    ("192.88.99.0/24", "tunnel"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "reserved"),
    ("198.51.100.0/24", "reserved"),
    ("203.0.113.0/24", "reserved"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
)
_IPV6: Final[tuple[tuple[str, Kind], ...]] = (
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("2001::/32", "tunnel"),  # Teredo
    ("2001::/23", "reserved"),
    ("2001:db8::/32", "reserved"),
    ("2002::/16", "tunnel"),  # 6to4
    ("3fff::/20", "reserved"),
    ("fc00::/7", "private"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "private"),
    ("ff00::/8", "multicast"),
)
_NOT_PUBLIC_4: Final = tuple((IPv4Network(network), kind) for network, kind in _IPV4)
_NOT_PUBLIC_6: Final = tuple((IPv6Network(network), kind) for network, kind in _IPV6)
_PUBLIC_6: Final = IPv6Network("2000::/3")
_CARRIES_IPV4: Final = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))  # in its last 32 bits
_LIKE_A_NUMBER: Final = re.compile(r"(0x[0-9a-f]*|[0-9]+)\.?", re.IGNORECASE)


class Target(NamedTuple):
    """An address that may be asked, as far as its text tells.

    Attributes:
        url: what is asked.
        host: its host as it is looked up: a name, or an address in its plain form.
        port: its port.
        literal: the address, if the host is one.
    """

    url: URL
    host: str
    port: int
    literal: IPv4Address | IPv6Address | None


def kind_of(address: IPv4Address | IPv6Address) -> Kind | None:
    """Say what an address is; None for a public one.

    An IPv6 address that carries an IPv4 one (mapped, or NAT64) is what that one is. What tunnels carry depends on
    who runs them, so those are never public.
    """
    if isinstance(address, IPv6Address):
        if any(address in network for network in _CARRIES_IPV4):
            return kind_of(IPv4Address(int(address) & 0xFFFF_FFFF))
        found = next((kind for network, kind in _NOT_PUBLIC_6 if address in network), None)
        return found if found is not None or address in _PUBLIC_6 else "reserved"
    return next((kind for network, kind in _NOT_PUBLIC_4 if address in network), None)


def target_of(url: str, *, allow_private: bool) -> Target:
    """Check an address as it is written.

    Args:
        url: the address, absolute.
        allow_private: whether it may name a port other than 80 and 443.

    Raises:
        ConfigurationError: it is no address.
        SecurityError: its scheme, port, user or password is not allowed, or its host is an address in disguise.
    """
    try:
        parts = URL(url)
        host, port, scheme = parts.raw_host, parts.port, parts.scheme
    except (ValueError, UnicodeError):
        host, port, scheme, parts = None, None, "", URL()
    if scheme and scheme not in _SCHEMES:
        msg = f"an address with the scheme {excerpt(scheme, 20)!r} is not fetched; it must be http or https"
        raise SecurityError(msg)
    if not scheme or not host or port is None:
        msg = f"{excerpt(url, 60)!r} is no address; it must begin with http:// or https:// and a host"
        raise ConfigurationError(msg)
    shown = excerpt(host, 80)
    if parts.raw_user is not None or parts.raw_password is not None:
        msg = f"the address at {shown!r} has a user name or password in it, which is not sent"
        raise SecurityError(msg)
    if not allow_private and port not in _PORTS:
        msg = f"the address at {shown!r} names the port {port}; only 80 and 443 are asked"
        raise SecurityError(msg)
    try:
        literal = ip_address(host)
    except ValueError:
        literal = None
        if ":" in host or "%" in host or _LIKE_A_NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
            msg = f"the host {shown!r} is an address in disguise, which is not asked; write it plainly"
            raise SecurityError(msg) from None
    return Target(parts, host, port, literal)


def check_addresses(host: str, addresses: Iterable[IPv4Address | IPv6Address], *, allow_private: bool) -> None:
    """Check everything that a host stands for: one address that is not allowed is enough to ask none.

    Raises:
        SecurityError: it stands for an address that is not public, or with ``allow_private`` for one that is never
            asked. It says of what kind, and nothing else: the network behind is nobody's business.
    """
    for address in addresses:
        kind = kind_of(address)
        if kind is None or (allow_private and kind in _OWN):
            continue
        hint = "" if allow_private or kind not in _OWN else "; the program must allow private addresses to ask it"
        msg = f"{excerpt(host, 80)!r} is not fetched: it is a {kind} address, not a public one{hint}"
        raise SecurityError(msg)
