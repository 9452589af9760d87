"""What a host, a URL, a network or an origin may look like, and which addresses other machines can reach. Pure."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

HOST_NAME = re.compile(r"[A-Za-z0-9_.-]+")
ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s/?#]+")


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only: localhost, 127.x.x.x, ::1."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return False


def is_any(host: str) -> bool:
    """Whether an address stands for all of this machine's: 0.0.0.0, ::, empty, *."""
    return host.strip("[]") in {"", "*", "0.0.0.0", "::"}  # noqa: S104 - compared, not bound


def overlap(one: str, other: str) -> bool:
    """Whether two listeners on one port would be in each other's way, as far as the texts tell."""
    same = one.lower() == other.lower() or (is_loopback(one) and is_loopback(other))
    return same or is_any(one) or is_any(other)


def arrives(host: str, bound: str) -> bool:
    """Whether a connection to `host` arrives where `bound` listens, as far as the texts tell."""
    return host.lower() == bound.lower() or (is_loopback(host) and (is_loopback(bound) or is_any(bound)))


def is_address(text: str) -> bool:
    """Whether a text is an IP address, in brackets or not."""
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


def host_fault(host: str) -> str:
    """Why a text is nothing to listen on or to be called; "" where it can be."""
    if is_any(host) or is_address(host.partition("%")[0]) or HOST_NAME.fullmatch(host):
        return ""
    return f'"{host}" is no host; write a name or an IP address without scheme, port and path'


def network_fault(network: str) -> str:
    """Why a text is no network; "" where it is one."""
    try:
        ipaddress.ip_network(network, strict=False)
    except ValueError:
        return f'"{network}" is no network; write it as 10.0.0.0/8 or fd00::/8'
    return ""


def origin_fault(origin: str) -> str:
    """Why a text is no origin of a page, as a browser sends it; "" where it is one."""
    if origin in {"*", "null"} or ORIGIN.fullmatch(origin):
        return ""
    return f'"{origin}" is no origin; write it as https://chat.example.org, without a path, or * for any'


def url_fault(url: str) -> str:
    """Why a text is no URL of an engine; "" where it is one."""
    example = "write it as http://localhost:8081"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return f'"{url}" has no valid address or port; {example}'
    if parts.username is not None or parts.password is not None:
        return "a name or password in the URL is not supported; give the engine's key as backend_key"
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return f'"{url}" is no http or https URL; {example}'
    if parts.query or parts.fragment or any(character.isspace() for character in url) or port == 0:
        return f'"{url}" has more or less than scheme, host, port and path; {example}'
    return ""
