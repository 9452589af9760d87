"""What each key alone cannot see: values that contradict each other, and texts that are no URL, host, network or key.

Pure: a Config in, problems out. `check` raises; `load` calls the two `find_` functions itself, so that these problems
stand beside those of the file. A problem is something that cannot work or opens a door; what works but is probably
not meant is a warning.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from bioproxy.config.schema import Config, Key, Prefix
from bioproxy.config.tree import DEFAULT, Origin
from bioproxy.errors import ConfigError, Problem

Complaint = tuple[str, str]  # key, sentence
SHA256 = re.compile(r"[0-9a-fA-F]{64}")
HOST_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def check(config: Config) -> None:
    """Raise ConfigError with every problem of a Config that was made by hand (a loaded one is checked already)."""
    if problems := find_problems(config, {}):
        raise ConfigError(problems)


def find_problems(config: Config, origins: Mapping[str, Origin]) -> list[Problem]:
    """Everything in a Config that cannot work or opens a door, each at the place where it was written."""
    complaints = [
        *_addresses(config),
        *_backend(config),
        *_prefixes(config),
        *_keys(config),
        *_networks(config),
        *_pages(config),
        *_folders(config),
    ]
    return [Problem(sentence, where=_where(origins, key), key=key) for key, sentence in complaints]


def find_warnings(config: Config, origins: Mapping[str, Origin]) -> list[Problem]:
    """What works and is probably not meant."""
    return [Problem(sentence, where=_where(origins, key), key=key) for key, sentence in _doubts(config)]


def _where(origins: Mapping[str, Origin], key: str) -> str:
    return origins.get(key, DEFAULT).where


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only: localhost, 127.x.x.x, ::1."""
    if host.lower().rstrip(".") == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return False


def is_any(host: str) -> bool:
    """Whether an address stands for all of this machine's: 0.0.0.0, ::, empty, *."""
    return host.strip("[]") in {"", "*", "0.0.0.0", "::"}  # noqa: S104 - compared, not bound


def _overlap(one: str, other: str) -> bool:
    same = one.lower() == other.lower() or (is_loopback(one) and is_loopback(other))
    return same or is_any(one) or is_any(other)


def _addresses(config: Config) -> Iterator[Complaint]:
    for key in ("proxy_host", "admin_host"):
        host = getattr(config, key)
        if "/" in host or any(character.isspace() for character in host):
            yield key, f'"{host}" is no address; write a name or an IP address, such as localhost or 0.0.0.0'
    if not is_loopback(config.admin_host) and not config.admin_key:
        mend = "set admin_key, or let admin_host be localhost"
        yield (
            "admin_host",
            f'"{config.admin_host}" can be reached from other machines, and there is no admin_key: {mend}',
        )
    same_port = config.proxy_port == config.admin_port != 0
    if same_port and _overlap(config.proxy_host, config.admin_host):
        yield "admin_port", f"{config.admin_port} is proxy_port as well; each of the two needs a port of its own"


def _backend(config: Config) -> Iterator[Complaint]:
    if not config.backend_url:
        return
    if sentence := url_fault(config.backend_url):
        yield "backend_url", sentence
        return
    url = urlsplit(config.backend_url)
    port = url.port or (443 if url.scheme == "https" else 80)
    for name in ("proxy", "admin"):
        host = getattr(config, f"{name}_host")
        if port == getattr(config, f"{name}_port") and _same_place(url.hostname or "", host):
            yield (
                "backend_url",
                f"{config.backend_url} is the {name} port of bioproxy itself; name the engine's address",
            )


def _same_place(host: str, bound: str) -> bool:
    """Whether a connection to `host` arrives where `bound` listens, as far as the texts tell."""
    return host == bound.lower() or (is_loopback(host) and (is_loopback(bound) or is_any(bound)))


def url_fault(url: str) -> str:
    """Why a text is no URL of an engine; "" where it is one."""
    example = "write it as http://localhost:8081"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return f'"{url}" has no valid address or port; {example}'
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return f'"{url}" is no http or https URL; {example}'
    if parts.username is not None or parts.password is not None:
        return "a name or password in the URL is not supported; give the engine's key as backend_key"
    if parts.query or parts.fragment or any(character.isspace() for character in url) or port == 0:
        return f'"{url}" has more or less than scheme, host, port and path; {example}'
    return ""


def _prefixes(config: Config) -> Iterator[Complaint]:
    for name, prefix in config.prefixes.items():
        key = f"prefixes.{name}"
        if not name:
            yield "prefixes", "a prefix must not be empty: it would stand before every message"
        elif any(character.isspace() for character in name):
            yield key, f'"{name}" has a blank in it; a prefix is one word, for it ends at the first blank'
        elif not name.isprintable():
            yield key, "a prefix must not contain control characters"
        if not (prefix.template if isinstance(prefix, Prefix) else prefix):
            yield key, "the path of its template is empty"


def key_fault(text: str) -> str:
    """Why a text cannot be a key that comes in a header; "" where it can. The text itself is never told."""
    if any(character.isspace() for character in text):
        return "a key must not contain blanks or newlines"
    if not text.isascii() or not text.isprintable():
        return "a key must be made of ASCII letters, digits and signs, for it travels in a header"
    return ""


def digest(key: str | Key) -> str:
    """The SHA-256 of an API key in lower-case hex, whichever way it is given."""
    if isinstance(key, Key) and key.sha256:
        return key.sha256.lower()
    text = key if isinstance(key, str) else key.key
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _keys(config: Config) -> Iterator[Complaint]:
    for name in ("admin_key", "metrics_key", "backend_key"):
        if fault := key_fault(getattr(config, name)):
            yield name, fault
    first: dict[str, int] = {}
    for index, value in enumerate(config.api_keys):
        place = f"api_keys[{index}]"
        key = value if isinstance(value, Key) else Key(key=value)
        given = [part for part in (key.key, key.key_file, key.sha256) if part]
        if len(given) != 1:
            yield place, "exactly one of key, key_file and sha256 belongs here"
        elif key.key and (fault := key_fault(key.key)):
            yield place, fault
        elif key.sha256 and not SHA256.fullmatch(key.sha256):
            yield place, "sha256 must be the 64 hex digits that `printf %s KEY | sha256sum` prints"
        elif not key.key_file and (known := first.setdefault(digest(key), index)) != index:
            yield place, f"is the same key as api_keys[{known}]; each key must be another"


def _networks(config: Config) -> Iterator[Complaint]:
    for index, network in enumerate(config.trusted_proxies):
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            yield f"trusted_proxies[{index}]", f'"{network}" is no network; write it as 10.0.0.0/8 or fd00::/8'


def _pages(config: Config) -> Iterator[Complaint]:
    for index, host in enumerate(config.admin_hosts):
        if not HOST_NAME.fullmatch(host) and not _is_address(host):
            yield f"admin_hosts[{index}]", f'"{host}" is no host name; write it without scheme, port and path'
    for index, origin in enumerate(config.cors_origins):
        scheme, separator, rest = origin.partition("://")
        if origin not in {"*", "null"} and (not scheme or not separator or not rest or "/" in rest or " " in rest):
            yield (
                f"cors_origins[{index}]",
                f'"{origin}" is no origin; write it as https://chat.lan, or * for any',
            )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _folders(config: Config) -> Iterator[Complaint]:
    if config.kv.engine_directory and not config.kv.directory:
        yield (
            "kv.engine_directory",
            "is set, and kv.directory is not: where bioproxy itself sees the slot folder must be said, too",
        )


def _doubts(config: Config) -> Iterator[Complaint]:
    if not is_loopback(config.proxy_host) and not config.api_keys:
        yield "proxy_host", f'whoever reaches "{config.proxy_host}" may use the engine, for there are no api_keys'
    if config.engine_arguments and not config.model:
        yield "engine_arguments", "have no effect with backend_url: the engine was started by somebody else"
    if config.admin_key and hashlib.sha256(config.admin_key.encode()).hexdigest() in map(digest, config.api_keys):
        yield "admin_key", "is one of the api_keys, too: who has that key is an operator"
