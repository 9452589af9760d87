"""What each key alone cannot see: values that contradict each other, and texts that are no URL, host, network or key.

Pure: a Config in, problems and warnings out. A problem is something that cannot work or opens a door; what works but is
probably not meant is a warning.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from bioproxy.config.addresses import (
    arrives,
    host_fault,
    listen_fault,
    listens_at,
    network_fault,
    origin_fault,
    overlap,
    socket_path,
    stays_here,
    url_fault,
)
from bioproxy.config.schema import Config, Key, Prefix, Shape, StabilizeRule, as_prefix
from bioproxy.config.shipped import effective, for_all, wants_line
from bioproxy.config.tree import DEFAULT, Origin
from bioproxy.config.wildcards import pattern_fault
from bioproxy.errors import Problem

MOST_PREFIXES = 1000
SOCKET_MODE = re.compile(r"0?[0-7]{3}")
BASE_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+/?")
TAKEN = frozenset({  # with these our own paths begin
    "api", "apply-template", "audioapi", "chat", "comfyui", "completion", "completions", "detokenize",
    "embedding", "embeddings", "events", "health", "infill", "livez", "logs", "lora-adapters", "metrics", "models",
    "props", "readyz", "reload", "requests", "rerank", "reranking", "running", "sdapi", "slots", "status",
    "tokenize", "ui", "unload", "upstream", "v", "v1", "warmup", "wol-health",
})  # fmt: skip
SHA256 = re.compile(r"[0-9a-fA-F]{64}")
LISTS: dict[str, Callable[[str], str]] = {
    "admin_hosts": host_fault,
    "trusted_proxies": network_fault,
    "cors_origins": origin_fault,
}


class Complaint(NamedTuple):
    """A key, what is wrong with it, and the other key that this depends on."""

    key: str
    sentence: str
    other: str = ""


def find_problems(
    config: Config,
    origins: Mapping[str, Origin],
    *,
    broken: Collection[str] = frozenset(),
    models: bool = False,
) -> list[Problem]:
    """Everything in a Config that cannot work or opens a door, each at the place it was written at.

    `broken` are keys whose values could not be read: a complaint that rests on their defaults would be wrong. With
    `models` an admin port that was not configured may be the proxy's: then there is none, and the log says so.
    """
    found = [
        *_addresses(config),
        *_ollama(config),
        *_base_path(config),
        *_backend(config),
        *_prefixes(config),
        *_keys(config),
        *_budgets(config),
        *_lists(config),
        *_clients(config),
    ]
    if models and origins.get("admin_port", DEFAULT) is DEFAULT:
        found = [each for each in found if (each.key, each.other) != ("admin_port", "proxy_port")]
    if bool(config.tls_cert_file) != bool(config.tls_key_file):
        given, missing = ("cert", "key") if config.tls_cert_file else ("key", "cert")
        sentence = "both -tls-cert-file and -tls-key-file must be provided for TLS"
        found.append(Complaint(f"tls_{given}_file", sentence, f"tls_{missing}_file"))
    if config.admin_tls and not config.tls_cert_file:
        sentence = "is set, and there is no pair of files to speak TLS with: set tls_cert_file and tls_key_file"
        found.append(Complaint("admin_tls", sentence, "tls_cert_file"))
    if config.kv.engine_directory and not config.kv.directory:
        sentence = "is set, and kv.directory is not: set that too, to the slot folder as bioproxy itself sees it"
        found.append(Complaint("kv.engine_directory", sentence, "kv.directory"))
    unread = frozenset(broken)
    return _placed((each for each in found if not {each.key, each.other} & unread), origins)


def find_warnings(config: Config, origins: Mapping[str, Origin]) -> list[Problem]:
    """What works and is probably not meant."""
    return _placed(_doubts(config), origins)


def _placed(complaints: Iterator[Complaint], origins: Mapping[str, Origin]) -> list[Problem]:
    return [
        Problem(complaint.sentence, where=origins.get(complaint.key, DEFAULT).where, key=complaint.key)
        for complaint in complaints
    ]


def _addresses(config: Config) -> Iterator[Complaint]:
    for key, host in (("proxy_host", config.proxy_host), ("admin_host", config.admin_host)):
        if fault := listen_fault(host):
            yield Complaint(key, fault)
    if not SOCKET_MODE.fullmatch(config.socket_mode):
        yield Complaint("socket_mode", f'expected three octal digits such as "0660", got "{config.socket_mode}"')
    if not stays_here(config.admin_host) and not config.admin_key:
        said = f'"{config.admin_host}" can be reached from other machines, and there is no admin_key'
        yield Complaint("admin_host", f"{said}: set admin_key, or let admin_host be localhost", "admin_key")
    if socket_path(config.proxy_host):
        if overlap(config.proxy_host, config.admin_host):
            said = f"{config.admin_host} is proxy_host as well; each of the two needs a socket of its own"
            yield Complaint("admin_host", said, "proxy_host")
    elif config.proxy_port == config.admin_port != 0 and overlap(config.proxy_host, config.admin_host):
        said = f"{config.admin_port} is proxy_port as well; each of the two needs a port of its own"
        yield Complaint("admin_port", said, "proxy_port")


def _ollama(config: Config) -> Iterator[Complaint]:
    if not config.ollama.listen:
        return
    place = listens_at(config.ollama.listen)
    if place is None or (place[0] and host_fault(place[0])):
        said = f'expected an address such as 127.0.0.1:11434 or :11434 (all hosts), got "{config.ollama.listen}"'
        yield Complaint("ollama.listen", said)
        return
    for name, host, port in listeners(config):
        if place[1] == port != 0 and overlap(place[0], host):
            said = f"{port} is the {name} port as well; the proxy port has Ollama's routes without this key"
            yield Complaint("ollama.listen", said, f"{name}_port")


def _base_path(config: Config) -> Iterator[Complaint]:
    path = config.proxy.base_path
    if path and not BASE_PATH.fullmatch(path):
        yield Complaint("proxy.base_path", f'expected a path such as /llm (letters, digits, . _ ~ -), got "{path}"')
    elif (first := path.strip("/").partition("/")[0]) in TAKEN:
        yield Complaint("proxy.base_path", f"our own paths begin with /{first}; choose another one")


def listeners(config: Config) -> tuple[tuple[str, str, int], ...]:
    """The ports that there always are: name, host and number."""
    return (("proxy", config.proxy_host, config.proxy_port), ("admin", config.admin_host, config.admin_port))


def _backend(config: Config) -> Iterator[Complaint]:
    if not config.backend_url:
        return
    if fault := url_fault(config.backend_url):
        yield Complaint("backend_url", fault)
        return
    if path := socket_path(config.backend_url):
        for name, host, _ in listeners(config):
            if path == socket_path(host):
                said = f"{config.backend_url} is the {name} port of bioproxy itself; name the engine's socket"
                yield Complaint("backend_url", said, f"{name}_host")
        return
    url = urlsplit(config.backend_url)
    port = url.port or (443 if url.scheme == "https" else 80)
    for name, host, bound in listeners(config):
        if port == bound and arrives(url.hostname or "", host):
            said = f"{config.backend_url} is the {name} port of bioproxy itself; name the engine's address"
            yield Complaint("backend_url", said, f"{name}_port")


def prefix_faults(prefixes: Mapping[str, str | Prefix]) -> Iterator[tuple[str, str]]:
    """What is wrong with prefixes, each by its name; "" for all of them."""
    if len(prefixes) > MOST_PREFIXES:
        yield "", f"{len(prefixes):,} prefixes are too many to look for in each message; {MOST_PREFIXES:,} will do"
        return
    for name, prefix in prefixes.items():
        if not name:
            yield "", "a prefix must not be empty: it would stand before every message"
        elif name != name.strip():
            yield name, f'"{name}" begins or ends with a blank; a prefix may have blanks inside only'
        elif not name.isprintable():
            yield name, f'"{name}" has control characters in it; a prefix must not'
        if not as_prefix(prefix).template:
            yield name, "the path of its template is empty"


def _prefixes(config: Config) -> Iterator[Complaint]:
    for name, fault in prefix_faults(config.prefixes):
        yield Complaint(f"prefixes.{name}" if name else "prefixes", fault)


def _keys(config: Config) -> Iterator[Complaint]:
    for name in ("admin_key", "metrics_key", "backend_key"):
        if fault := key_fault(getattr(config, name)):
            yield Complaint(name, fault)
    for index, fault in key_faults(config.api_keys):
        yield Complaint(f"api_keys[{index}]", fault)


def key_faults(keys: Sequence[str | Key]) -> Iterator[tuple[int, str]]:
    """What is wrong with entries of `api_keys`, by their place. The keys themselves are never told."""
    first: dict[str, int] = {}
    for index, entry in enumerate(keys):
        if fault := entry_fault(entry):
            yield index, fault
        elif not getattr(entry, "key_file", "") and (known := first.setdefault(digest(entry), index)) != index:
            yield index, f"is the same key as api_keys[{known}]; each key must be another"


def _names(keys: Sequence[str | Key]) -> Iterator[Complaint]:
    """Keys that go by one name, also if it is what another one is called for want of a name."""
    first: dict[str, int] = {}
    for index, entry in enumerate(keys):
        name = getattr(entry, "name", "") or f"key {index + 1}"
        if (known := first.setdefault(name, index)) != index:
            said = f'"{name}" is api_keys[{known}] as well: they count as one, and each sees what the other asks'
            yield Complaint(f"api_keys[{index}]", f"{said}; if they are not one person's, give each a name of its own")


def entry_fault(entry: str | Key) -> str:
    """Why an entry of `api_keys` is no key; "" if it is one (or a file that is to be read)."""
    if isinstance(entry, str):
        return key_fault(entry) if entry else "a key must not be empty"
    given = [name for name in ("key", "key_file", "sha256") if getattr(entry, name)]
    if len(given) != 1:
        found = " and ".join(given) + " are given" if given else "none is given, or it is empty"
        return f"exactly one of key, key_file and sha256 belongs here: {found}"
    if entry.sha256 and not SHA256.fullmatch(entry.sha256):
        return "sha256 must be the 64 hex digits that `printf %s KEY | sha256sum` prints"
    return key_fault(entry.key)


def key_fault(text: str) -> str:
    """Why a text cannot be a key that comes in a header; "" if it can. The text itself is never told."""
    if any(character.isspace() for character in text):
        return "a key must not contain blanks or line ends"
    if not text.isascii() or not text.isprintable():
        return "a key must be made of ASCII letters, digits and signs, because it travels in a header"
    return ""


def digest(key: str | Key) -> str:
    """The SHA-256 of an API key in lower-case hex, whichever way it is given."""
    if isinstance(key, Key) and key.sha256:
        return key.sha256.lower()
    text = key if isinstance(key, str) else key.key
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _budgets(config: Config) -> Iterator[Complaint]:
    """A budget for a key that nobody has would bound nothing."""
    known = {"*"}.union(*({key.name, key.group} for key in config.api_keys if isinstance(key, Key)))
    known |= {f"key {number}" for number in range(1, 1 + len(config.api_keys))}
    for name in config.kv.key_budgets:
        if not name or name not in known:
            said = f'no key of api_keys has "{name}" as its name or group; `*` stands for each key that is not named'
            yield Complaint(f"kv.key_budgets.{name}", said, "api_keys")


def _lists(config: Config) -> Iterator[Complaint]:
    for name, fault_of in LISTS.items():
        for index, text in enumerate(getattr(config, name)):
            if fault := fault_of(text):
                yield Complaint(f"{name}[{index}]", fault)


def _clients(config: Config) -> Iterator[Complaint]:
    for kind in ("apps", "side", "stabilize"):
        rules: Sequence[object] = getattr(config.clients, kind)
        for index, rule in enumerate(rules):
            if not isinstance(rule, Shape):
                return  # it could not be read, and that was told
            for key, fault in rule_faults(rule):
                yield Complaint(f"clients.{kind}[{index}].{key}", fault)
    for rule in effective(config.clients).stabilize if config.clients.stabilize else ():
        if wants_line(rule):
            yield Complaint("clients.stabilize", f'the rule "{rule.name}" says no `line`, and `{rule.do}` is about one')


def rule_faults(rule: Shape) -> Iterator[tuple[str, str]]:
    """What is wrong with a rule of `clients`, by its key."""
    if not rule.name.strip():
        yield "name", "a rule needs a name: by it status and metrics count"
    texts = [(key, text) for key in ("agents", "paths", "system", "first", "last") for text in getattr(rule, key)]
    for key, text in (*texts, ("roles", rule.roles)):
        if fault := pattern_fault(text):
            yield key, fault
    for header in rule.headers:
        name, colon, pattern = header.partition(":")
        if not colon or not name.strip():
            yield "headers", f'expected "name: pattern", got {header!r}'
        elif fault := pattern_fault(pattern.strip()):
            yield "headers", fault
    if isinstance(rule, StabilizeRule) and rule.line and (fault := pattern_fault(rule.line, line=True)):
        yield "line", fault


def ollama_host(config: Config) -> str:
    """Where Ollama's clients connect to, if not to the proxy port alone."""
    return (listens_at(config.ollama.listen) or ("localhost", 0))[0] if config.ollama.listen else "localhost"


def _doubts(config: Config) -> Iterator[Complaint]:
    for key, host in (("proxy_host", config.proxy_host), ("ollama.listen", ollama_host(config))):
        if not stays_here(host) and not config.api_keys:
            said = f'any client that reaches "{host or "all addresses"}" may use the engine: there are no api_keys'
            yield Complaint(key, said)
    if config.engine_arguments and not config.model:
        said = "have no effect without model: bioproxy did not start the engine at backend_url"
        if not config.backend_url:
            said = "have no effect without model; the arguments of one of the models stand in its cmd"
        yield Complaint("engine_arguments", said)
    if config.clients.side:
        for rule in effective(config.clients).side:
            if rule.side != "off" and for_all(rule):
                said = f'the rule "{rule.name}" is for every request: all wait for each other as side requests'
                yield Complaint("clients.side", said)
    yield from _names(config.api_keys)
    if config.admin_key and digest(config.admin_key) in {digest(key) for key in config.api_keys}:
        yield Complaint("admin_key", "is one of the api_keys, too: its holder is an operator")
    if config.metrics_key and config.metrics_key == config.admin_key:
        yield Complaint("metrics_key", "is the admin_key, too: whoever scrapes is an operator")
    if config.captures.disk and len(config.api_keys) > 1 and not config.admin_key:
        yield Complaint("captures.disk", "nothing is kept: several keys may use the models; set admin_key")
