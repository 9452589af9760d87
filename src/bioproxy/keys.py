"""API keys: which one a request shows, and whose it is.

Only SHA-256 digests are kept. A key that comes in is hashed and the digest is looked up; an attacker who measures how
long that takes learns about a digest that he cannot choose, never how many letters of a key were right. The final word
is `hmac.compare_digest` all the same, so that no property of dictionaries has to be trusted.

Used by the proxy port and by the admin port, which judge what a key allows. Which keys exist stands in the config, and
what may be one in config/check.py.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
from collections.abc import Callable, Sequence

import msgspec

from bioproxy.config.check import digest, key_faults
from bioproxy.config.schema import Key
from bioproxy.errors import ConfigError, Problem

KEY_HEADERS = (b"x-api-key", b"api-key")  # a key alone, without a scheme
USER = " user:"  # in a group: what stands after it is one of a key's users
GROUP_DIGITS = 16  # of a key's digest, enough to tell keys apart


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who a key belongs to. `name` is safe to show; nothing here leads back to the key."""

    name: str
    group: str
    priority: int = 0
    max_running: int = 0
    tokens_per_day: int = 0
    models: tuple[str, ...] = ()
    captures: bool = True
    forwards_users: bool = False
    user: str = ""  # digits that stand for one of its users

    @property
    def scope(self) -> bytes:
        """What keeps this one's pins apart from those of others; no other key and user have the same."""
        return f"{self.group}\0{self.name}\0{self.user}".encode()

    def of_user(self, user: bytes) -> Principal:
        """One of the users behind this key, whom its holder tells apart: with a cache group of its own."""
        digits = hashlib.sha256(user).hexdigest()[:GROUP_DIGITS]
        return msgspec.structs.replace(self, user=digits, group=f"{self.group}{USER}{digits}")


def presented(header: Callable[[bytes], bytes | None]) -> str | None:
    """The key that a request shows: Bearer, the password of Basic, `x-api-key`, `api-key`; None when there is none.

    An empty one is none: SDKs that were given no key send `Authorization: Bearer` all the same, and the key that was
    meant stands in another header. `header` gives the first value of a header by its lower-case name.
    """
    scheme, _, value = (header(b"authorization") or b"").strip().partition(b" ")
    shown = None
    if scheme.lower() == b"bearer":
        shown = text(value.strip())
    elif scheme.lower() == b"basic":
        shown = basic_password(value.strip())
    return shown or next((text(given) for name in KEY_HEADERS if (given := (header(name) or b"").strip())), None)


def sent_by_itself(header: Callable[[bytes], bytes | None]) -> bool:
    """Whether a browser may have added the credentials by itself, because its user typed them once.

    Then they prove nothing about the page that asks: a page anywhere has them sent along.
    """
    scheme = (header(b"authorization") or b"").partition(b" ")[0].lower()
    return scheme in {b"basic", b"digest", b"negotiate", b"ntlm"}


def basic_password(encoded: bytes) -> str | None:
    """The password of Basic credentials (RFC 7617: base64 of `user:password`); None if they are malformed."""
    try:
        decoded = binascii.a2b_base64(encoded, strict_mode=True)
    except binascii.Error:
        return None
    _, colon, password = decoded.partition(b":")
    return text(password) if colon else None


def text(raw: bytes) -> str:
    """Header bytes as text that `digest_of` turns back into the same bytes."""
    return raw.decode("utf-8", "surrogateescape")


def digest_of(key: str) -> bytes:
    """SHA-256 of the key's bytes."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


class Keyring:
    """The keys of a configuration, by digest. Raises ConfigError with every entry that cannot be used."""

    def __init__(self, keys: Sequence[str | Key], *, where: str = "api_keys") -> None:
        faults = dict(key_faults(keys))
        for number, entry in enumerate(keys):
            if isinstance(entry, Key) and entry.key_file and not entry.key:
                faults.setdefault(number, "the file of the key was not read")
        if faults:
            raise ConfigError([Problem(fault, key=f"{where}[{number}]") for number, fault in sorted(faults.items())])
        digests = [bytes.fromhex(digest(entry)) for entry in keys]
        self.principals = {
            known: (known, principal_of(entry, number, known))
            for number, (entry, known) in enumerate(zip(keys, digests, strict=True))
        }

    def __len__(self) -> int:
        return len(self.principals)

    def find(self, key: str | None) -> Principal | None:
        """Whose key this is; None for an unknown one or none."""
        if key is None:
            return None
        digest = digest_of(key)
        known = self.principals.get(digest)
        return known[1] if known is not None and hmac.compare_digest(known[0], digest) else None


def everyone(keys: Sequence[str | Key]) -> str | None:
    """The group of everybody who may ask: "" without keys; None if requests of several groups may come."""
    if not keys:
        return ""
    principals = [principal for _, principal in Keyring(keys).principals.values()]
    groups = {principal.group for principal in principals}
    if len(groups) > 1 or any(principal.forwards_users for principal in principals):
        return None
    return groups.pop()


def bounds(keys: Sequence[str | Key]) -> dict[str, int]:
    """`max_running` by name; not of a name whose keys differ in it."""
    found: dict[str, set[int]] = {}
    for _, principal in Keyring(keys).principals.values():
        found.setdefault(principal.name, set()).add(principal.max_running)
    return {name: most for name, (most, *others) in found.items() if not others}


def groups(keys: Sequence[str | Key]) -> frozenset[str]:
    """The groups of all who may ask, those of a key's users left out; without keys the one that is called ""."""
    return frozenset(principal.group for _, principal in Keyring(keys).principals.values()) or frozenset([""])


def principal_of(entry: str | Key, number: int, digest: bytes) -> Principal:
    """Who an entry stands for. Without a group each key is its own, known by its digest: order and name may change."""
    alone = f"key:{digest.hex()[:GROUP_DIGITS]}"
    if isinstance(entry, str):
        return Principal(name=f"key {number + 1}", group=alone)
    return Principal(
        name=entry.name or f"key {number + 1}",
        group=entry.group or alone,
        priority=entry.priority,
        max_running=entry.max_running,
        tokens_per_day=entry.tokens_per_day,
        models=entry.models,
        captures=entry.captures,
        forwards_users=entry.forwards_users,
    )
