"""What a host, a URL, a network or an origin may look like, and whose address a text names. Pure.

One reader, `host_of`, for every place in which a host is written: a key of the configuration, `Host`, `Origin`,
a URL, an engine's argument. It sees through brackets, ports, zones, case and the forms in which one address can be
written, so `[::1]:8088`, `::1` and `http://[::1]/` are one host, and `::ffff:127.0.0.1` is 127.0.0.1. A
comparison of texts would lock out the operator whose address is IPv6, or let in a page that writes it in another way.

Where a host is listened on or asked, a unix socket may stand instead, `unix:/run/bioproxy.sock` (`socket_path`). It is
no host: `host_of` finds none in it.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import urlsplit

from bioproxy.config.masking import masked_url_password

HOST_NAME = re.compile(r"[A-Za-z0-9_.-]+")
ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:\*|[^\s/?#*]+)")
SHORT_IPV4 = re.compile(r"[0-9a-fx.]+")  # "127.1", "0", "0x7f.1": the system's resolver takes these as addresses
MOST_PORTS = 65535
MAPPED = 96  # bits before an address of IPv4 that is written as one of IPv6
UNIX = "unix:"  # begins the place of a unix socket
UNIX_PEERS = "unix"  # stands for the address of whoever connects to one
LONGEST_SOCKET = 103  # bytes of its path: what macOS takes; Linux takes four more
EVERYWHERE = frozenset({"", "*", "0.0.0.0", "::"})  # noqa: S104 - compared, not bound


def host_of(text: str) -> str:
    """The host that a text names, in the one form in which hosts are compared; "" if it names none.

    An IP address is in its shortest form, without a zone; a name is in lower case, without the root's dot.
    """
    if text.startswith(UNIX):
        return ""
    place = text.rpartition("://")[2].partition("/")[0]
    if place.startswith("["):
        name, closing, port = place[1:].partition("]")
        if not closing or (port and not port.startswith(":")):
            return ""
        port = port[1:]
    elif place.count(":") > 1:  # IPv6 without brackets has no port
        name, port = place, ""
    else:
        name, _, port = place.partition(":")
    if port and not (port.isascii() and port.isdecimal()):
        return ""
    name = name.partition("%")[0].lower().removesuffix(".")
    return _address(name) or name


def _address(name: str) -> str:
    """An IP address in its shortest form; "" for what is none."""
    try:
        found = ipaddress.ip_address(name)
    except ValueError:
        try:
            return socket.inet_ntoa(socket.inet_aton(name)) if SHORT_IPV4.fullmatch(name) else ""
        except OSError:
            return ""
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def is_address(text: str) -> bool:
    """Whether a text names an IP address: no resolver ever sees it, so it cannot be pointed somewhere else."""
    return bool(_address(host_of(text)))


def listens_at(text: str) -> tuple[str, int] | None:
    """Host and port of an address to listen at, `127.0.0.1:11434` or `:11434` (all hosts); None if it is none."""
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    bracketed = host.startswith("[") and host.endswith("]")
    good = colon and port.isascii() and port.isdecimal() and int(port) <= MOST_PORTS and (":" not in host or bracketed)
    return (bare, int(port)) if good else None


def socket_path(text: str) -> str:
    """The path of a unix socket, written `unix:/path` or `unix:///path`; "" if the text names none."""
    path = text.removeprefix(UNIX)
    return "/" + path.lstrip("/") if path != text and path.startswith("/") else ""


def stays_here(place: str) -> bool:
    """Whether what listens at a host, a URL or a unix socket can be reached from this machine only."""
    return place.startswith(UNIX) or is_loopback(place)


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only: localhost, 127.x.x.x, ::1.

    Names below `.localhost` count, because RFC 6761 (6.3) reserves them for it, and browsers ask no DNS for them.
    """
    name = host_of(host)
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_any(host: str) -> bool:
    """Whether an address stands for all of this machine's: 0.0.0.0, ::, empty, *."""
    return host in EVERYWHERE or (bool(name := host_of(host)) and name in EVERYWHERE)


def overlap(one: str, other: str) -> bool:
    """Whether two listeners on one port would collide, as far as the texts tell."""
    if socket_path(one) or socket_path(other):
        return socket_path(one) == socket_path(other)
    same = host_of(one) == host_of(other) or (is_loopback(one) and is_loopback(other))
    return same or is_any(one) or is_any(other)


def arrives(host: str, bound: str) -> bool:
    """Whether a connection to `host` arrives where `bound` listens, as far as the texts tell."""
    return host_of(host) == host_of(bound) or (is_loopback(host) and (is_loopback(bound) or is_any(bound)))


def authority(host: str, port: int | str) -> str:
    """Host and port as they stand in a URL or a `Host` header; an empty host, as Go writes it, for all addresses."""
    bare = host.strip("[]")
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"


def address_of(host: str, port: int) -> str:
    """Where this machine asks a listener that is bound to `host`, as it stands in a URL."""
    return authority("localhost" if is_any(host) else host, port)


def url_of(host: str, port: int, *, tls: bool = False) -> str:
    """Where this machine asks a listener that is bound to `host`; a unix socket speaks no TLS."""
    if path := socket_path(host):
        return UNIX + path
    return f"{'https' if tls else 'http'}://{address_of(host, port)}"


def listen_fault(host: str) -> str:
    """Why nothing can listen there; "" if a port or a unix socket can."""
    if host.startswith(UNIX):
        return socket_fault(host, example="unix:/run/bioproxy/proxy.sock")
    if host.startswith("/"):
        return f'"{host}" is no host; write unix:{host} for a unix socket'
    return host_fault(host)


def socket_fault(place: str, *, example: str = "unix:/run/llama.sock") -> str:
    """Why a text that begins with `unix:` names no socket that can be had; "" if it does.

    A relative path is refused, in flags and files alike: whoever connects is in another folder.
    """
    if not hasattr(socket, "AF_UNIX"):
        return f"{place} cannot be used: this system has no unix sockets; use a host and a port"
    if not (path := socket_path(place)) or path.endswith("/") or "\0" in path:
        lacks = "names a folder" if path.endswith("/") else "has a relative path" if place != UNIX else "has no path"
        return f'"{place}" {lacks}; write the absolute path of a unix socket, as in {example}'
    if (size := len(path.encode())) > LONGEST_SOCKET:
        return f"{path} is too long for a unix socket: {size} bytes, and systems take {LONGEST_SOCKET}"
    return ""


def host_fault(host: str) -> str:
    """Why a text cannot be a host to listen on, or the name of one; "" if it can."""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if host in EVERYWHERE or _address(bare.partition("%")[0].lower()) or HOST_NAME.fullmatch(host):
        return ""
    return f'"{host}" is no host; write a name or an IP address without scheme, port and path'


def network_of(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """A network of addresses as `host_of` writes them: `::ffff:10.0.0.0/104` is 10.0.0.0/8. ValueError."""
    found = ipaddress.ip_network(text, strict=False)
    if isinstance(found, ipaddress.IPv6Network) and (mapped := found.network_address.ipv4_mapped):
        return ipaddress.IPv4Network((mapped, found.prefixlen - MAPPED))
    return found


def network_fault(network: str) -> str:
    """Why a text is no network; "" if it is one, or stands for unix sockets."""
    if network == UNIX_PEERS:
        return ""
    try:
        network_of(network)
    except ValueError:
        return f'"{network}" is no network; write it as 10.0.0.0/8 or fd00::/8, or unix for unix sockets'
    return ""


def origin_fault(origin: str) -> str:
    """Why a text is no origin of a page, as a browser sends it; "" if it is one, or stands for all of one scheme."""
    if origin in {"*", "null"} or ORIGIN.fullmatch(origin):
        return ""
    forms = "app://* for all of one scheme, or * for any"
    return f'"{origin}" is no origin; write it as https://chat.example.org, without a path, {forms}'


def engine_parts(url: str) -> tuple[str, str, int | str | None, str]:
    """Scheme, host, port and path of an engine's URL, in which `http://` may be missing; ValueError says what is wrong.

    The host is in ASCII: a name with other letters as DNS has it (`xn--…`). Of `unix:/path` it is `localhost`, and the
    port is the socket's path.
    """
    if url.startswith(UNIX) and not url.removeprefix(UNIX)[:1].isdecimal():  # that is the port of a host of this name
        if fault := socket_fault(url):
            raise ValueError(fault)
        return "http", "localhost", socket_path(url), ""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port, host = parts.port, parts.hostname or ""
        host = host if host.isascii() else host.encode("idna").decode()
    except ValueError as error:
        raise ValueError(f"{masked_url_password(url)!r} is no URL: {error}") from error
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment:
        raise ValueError(f"{masked_url_password(url)!r} is no engine's address; write http://host:port")
    return parts.scheme, host, port, parts.path


def url_fault(url: str) -> str:
    """Why a text is no URL of an engine; "" if it is one."""
    if url.startswith(UNIX):
        return socket_fault(url)
    shown, example = masked_url_password(url), "write it as http://localhost:8081"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return f'"{shown}" has no valid address or port; {example}'
    if parts.username is not None or parts.password is not None:
        return "a name or password in the URL is not supported; give the engine's key as backend_key"
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return f'"{shown}" is no http or https URL; {example}'
    if parts.query or parts.fragment or any(character.isspace() for character in url) or port == 0:
        return f'"{shown}" has more or less than scheme, host, port and path; {example}'
    return ""
