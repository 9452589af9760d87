"""What the name in a request means: one registry of every name that may stand there.

    requested ─► profile's pin ─► selector ─► local ID ─► alias ─► peer/model ─► a peer's model by its bare name
                                                └─ else: `<name>+<prefix>`, a model with a template before the first
                                                   user message, for clients in which a user cannot type one

Each step on top happens at most once: a pin may lead to a selector, never to another pin. A local name beats a peer's
bare name, a bare name that two peers have means nothing, and `peer/model` always works: `config/dialect/names.py` knows
these, and checks the configuration by them.

The body keeps the name as the client wrote it (engines echo it, and clients compare) unless something above changed
what is meant; then `Target.body` says what to write. Filters by ID look at `Target.name`: the name after profile and
selector, before aliases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import msgspec

from bioproxy.config.dialect.names import Meaning, Names
from bioproxy.config.dialect.schema import DialectConfig, Selector

Choose = Callable[[str, Selector], str | None]  # by the ID of a selector
NO_PINS: Mapping[str, str] = MappingProxyType({})
NO_PREFIXES: Mapping[str, tuple[str, ...]] = MappingProxyType({})


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a name means: `model` is a local ID, or a peer's model if `peer` is set.

    `requested` is what the client wrote; `name` what that became through profile and selector; `body` what to write
    into the request ("": leave it); `prefix` the template of a `<model>+prefix` name; `selector` who chose.
    """

    model: str
    peer: str = ""
    requested: str
    name: str
    body: str = ""
    prefix: str = ""
    selector: str = ""


class NoTarget(msgspec.Struct, frozen=True):
    """The name means nothing: `unknown`, `disabled` by the profile, or its selector has none that is `available`."""

    reason: str  # "unknown", "disabled", "unavailable"
    name: str


class Registry:
    """Resolves names. It does not change but for `profile`, the active one ("": none).

    `prefixes` are those of templates that make names, by model. An empty pin of a profile switches a name off.
    """

    def __init__(
        self, config: DialectConfig, *, prefixes: Mapping[str, tuple[str, ...]] = NO_PREFIXES, profile: str = ""
    ) -> None:
        self.profiles = {name: one.pins for name, one in config.profiles.items()}
        self.profile = profile
        self.selectors = config.selectors
        peers = {name: peer.models for name, peer in config.peers.items()}
        self.known = Names(ids=config.models, aliases=config.aliases, peers=peers)
        self.prefixes = {model: {prefix.lstrip("@"): prefix for prefix in found} for model, found in prefixes.items()}
        every = [*self.known.meanings, *(pin for pins in self.profiles.values() for pin in pins)]
        self.depth = max((name.count("/") for name in every), default=0)
        plain = [name for name in config.models if name not in config.selectors]
        self.plain = {name: Target(model=name, requested=name, name=name) for name in plain}  # most requests name these

    @property
    def pins(self) -> Mapping[str, str]:
        return self.profiles.get(self.profile, NO_PINS)

    def resolve(self, requested: str, choose: Choose) -> Target | NoTarget:
        """What `requested` means now; `choose` picks a selector's target (selectors.choose with the present view)."""
        if not self.profile and (target := self.plain.get(requested)) is not None:
            return target
        name, pins = requested, self.pins
        if requested in pins:
            name = pins[requested]
            if not name:
                return NoTarget("disabled", requested)
        selector = name if name in self.selectors else ""
        if selector:
            name = choose(selector, self.selectors[selector]) or ""
            if not name:
                return NoTarget("unavailable", selector)
        found = self.find(name)
        if found is None:
            return NoTarget("unknown", requested)
        meaning, plain, prefix = found
        rewritten = meaning.model if meaning.peer else plain
        return Target(
            model=meaning.model, peer=meaning.peer, requested=requested, name=plain, prefix=prefix,
            body="" if rewritten == requested else rewritten, selector=selector,
        )  # fmt: skip

    def find(self, name: str) -> tuple[Meaning, str, str] | None:
        """What a name means, the name without a template's, and the template's prefix."""
        direct = self.known.meanings.get(name)
        if direct is not None:
            return direct, name, ""
        plain, plus, prefix = name.rpartition("+")
        direct = self.known.find(plain) if plus else None
        if direct is not None and not direct.peer and prefix in self.prefixes.get(direct.model, ()):
            return direct, plain, self.prefixes[direct.model][prefix]
        return None

    def in_path(self, path: str, choose: Choose) -> tuple[Target | NoTarget, str] | None:
        """The target that the longest beginning of `path` (no leading slash) names, and the rest; None if nothing does.

        For `/upstream/<model>/<rest>`: IDs have slashes, so only looking tells where the name ends. A pin counts as a
        name, selectors do not: a path means one engine.
        """
        for end in path_ends(path, self.depth):
            name = path[:end]
            if name in self.pins or self.known.find(name) is not None:
                target = self.resolve(name, choose)
                selected = isinstance(target, Target) and target.selector
                return None if selected else (target, path[end + 1 :])
        return None


def path_ends(path: str, depth: int) -> Iterable[int]:
    """Where a name of at most `depth` slashes at the beginning of `path` may end, the longest first."""
    ends: list[int] = []
    at = path.find("/")
    while at >= 0 and len(ends) <= depth:
        ends.append(at)
        at = path.find("/", at + 1)
    if at < 0 and len(ends) <= depth:
        ends.append(len(path))
    return reversed([end for end in ends if end])
