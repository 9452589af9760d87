"""Whatever names models: groups, matrix, scheduler and preload; peers, selectors and profiles.

Both routers may stand in two places, an older one at the top and `routing.router`; afterwards all is in
`routing.router`, with `use` set. Only the router in use is checked, as in llama-swap. The matrix's expressions stay
texts: `models/matrix.py` reads them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec.structs import replace

from bioproxy.config.dialect.go import natural
from bioproxy.config.dialect.names import Meaning, Names
from bioproxy.config.dialect.schema import (
    DialectConfig,
    Group,
    Hooks,
    Matrix,
    OnStartup,
    Peer,
    Profile,
    Router,
    RouterSettings,
    Selector,
)
from bioproxy.config.dialect.settle import check_url, settle_filters, settle_timeouts
from bioproxy.config.notes import Notes
from bioproxy.config.tree import Path

STRATEGIES = ("warm", "pin", "spillover")
TUNNEL = "tailcat://"
NO_TUNNEL = "bioproxy has no tailcat tunnel"
VARIABLE = re.compile(r"[a-zA-Z0-9.-]{1,32}")
ROUTERS = ("group", "matrix")
SETTINGS: Path = ("routing", "router", "settings")
PRIORITY: Path = ("routing", "scheduler", "settings", "fifo", "priority")


def without_tunnels(config: DialectConfig, notes: Notes) -> DialectConfig:
    """The config without the peers that are reached by a private tunnel of llama-swap's; each is noted."""
    if config.tailcat is not None:
        notes.warn(("tailcat",), f"has no effect: {NO_TUNNEL}")
    there = {}
    for name, peer in config.peers.items():
        if peer.proxy.startswith(TUNNEL) or (peer.tailcat_key and not peer.proxy):
            notes.warn(("peers", name), f"{NO_TUNNEL}: the peer and its models are left out")
            notes.absent |= {f"{name}/{model}" for model in peer.models} | set(peer.models)
            continue
        if peer.tailcat_key:
            notes.warn(("peers", name, "tailcatKey"), f"has no effect: {NO_TUNNEL}")
        there[name] = replace(peer, tailcat_key="")
    return replace(config, peers=there)


def settle_peers(config: DialectConfig, notes: Notes) -> dict[str, Peer]:
    """The peers, checked."""
    peers = {}
    for name, peer in config.peers.items():
        path = ("peers", name)
        if not peer.proxy:
            notes.complain((*path, "proxy"), "proxy is required")
        elif fault := check_url(peer.proxy, (*path, "proxy"), notes):
            notes.complain((*path, "proxy"), f"invalid peer proxy URL ({fault})")
        if not peer.models:
            notes.complain((*path, "models"), "peer models can not be empty")
        timeouts = settle_timeouts(peer.timeouts, (*path, "timeouts"), notes)
        peers[name] = replace(peer, filters=settle_filters(peer.filters), timeouts=timeouts)
    return peers


def settle_selectors(config: DialectConfig, names: Names, notes: Notes) -> dict[str, Selector]:
    """The selectors, checked, without targets that are left out, once the router is settled."""
    selectors = {}
    groups = config.routing.router.settings.groups
    group_of = {member: group for group, settings in reversed(groups.items()) for member in settings.members}
    for name, selector in config.selectors.items():
        shown, path = f"selectors.{name}", ("selectors", name)
        for known, what in ((names.ids, "model ID"), (names.aliases, "model alias")):
            if name in known:
                notes.complain(path, f"{shown}: name conflicts with {what}")
        if not selector.strategy:
            notes.complain(path, f"{shown}.strategy is required")
        elif selector.strategy not in STRATEGIES:
            said = f'unknown strategy "{selector.strategy}" (valid: {", ".join(STRATEGIES)})'
            notes.complain((*path, "strategy"), f"{shown}.strategy: {said}")
        if not selector.targets:
            notes.complain((*path, "targets"), f"{shown}.targets must contain at least one entry")
        if selector.settings.spillover < 1:
            notes.complain((*path, "settings", "spillover"), f"{shown}.settings.spillover must be >= 1")
        there = tuple(target for target in selector.targets if not _is_absent(target, names, notes))
        if len(there) < len(selector.targets):
            notes.warn((*path, "targets"), f"{shown}: targets behind a tailcat tunnel are left out")
        if selector.targets and not there:
            notes.absent.add(name)
            continue
        selectors[name] = replace(selector, targets=there)
        found = _targets(name, selector, config, names, notes)
        if selector.strategy == "spillover":
            _spillover(name, found, config, group_of, notes)
    return selectors


def _is_absent(name: str, names: Names, notes: Notes) -> bool:
    """Whether a name means only what is left out."""
    return name in notes.absent and names.find(name) is None


def _targets(name: str, selector: Selector, config: DialectConfig, names: Names, notes: Notes) -> list[Meaning]:
    """What the targets of a selector resolve to."""
    found: dict[Meaning, None] = {}
    for index, target in enumerate(selector.targets):
        shown, path = f"selectors.{name}.targets[{index}]", ("selectors", name, "targets", index)
        meant = names.find(target)
        if target in config.selectors and not names.real(target):
            notes.complain(path, f'{shown} references selector "{target}"; selector chaining is not supported')
        elif ambiguous := names.ambiguous(target):
            notes.complain(path, ambiguous)
        elif meant is None and not _is_absent(target, names, notes):
            notes.complain(path, f'{shown} references unknown model "{target}"')
        elif selector.strategy == "warm" and meant is not None and meant.peer:
            notes.complain(path, f'{shown} must resolve to a local model for strategy "warm"')
        elif selector.strategy == "spillover" and meant in found:
            notes.complain(path, f'{shown} contains duplicate resolved model "{target}"')
        elif meant is not None:
            found[meant] = None
    return [*found]


def _spillover(
    name: str, targets: list[Meaning], config: DialectConfig, group_of: Mapping[str, str], notes: Notes
) -> None:
    """Local targets must be able to run together. With a matrix its sets decide, which `models/matrix.py` knows."""
    router = config.routing.router
    models = [target.model for target in targets if not target.peer]
    if router.use != "group" or len(models) < 2:
        return
    groups = router.settings.groups
    homes = {group_of.get(model, "") for model in models}
    path: Path = ("selectors", name, "targets")
    if len(homes) > 1:
        notes.complain(path, f"selectors.{name}: spillover targets must share one routing group")
    elif (home := homes.pop()) not in groups or groups[home].swap:
        notes.complain(path, f"selectors.{name}: spillover targets must share a group with swap: false")


def settle_profiles(config: DialectConfig, names: Names, notes: Notes) -> dict[str, Profile]:
    """The profiles, checked, with trimmed targets; an empty one disables its name."""
    profiles = {}
    for name, profile in config.profiles.items():
        path: Path = ("profiles", name)
        if not name.strip():
            notes.complain(path, "profiles: the name of a profile must not be empty")
        if not profile.pins:
            notes.complain((*path, "pins"), f"profiles.{name}.pins must contain at least one entry")
        pins = {pin: target.strip() for pin, target in profile.pins.items()}
        for pin in [pin for pin, target in pins.items() if _is_absent(target, names, notes)]:
            notes.warn((*path, "pins", pin), f'"{pins[pin]}" is behind a tailcat tunnel: {pin} is switched off')
            pins[pin] = ""
        for pin, target in pins.items():
            _pin(name, (pin, target), config, names, notes)
        profiles[name] = replace(profile, pins=pins)
    return profiles


def _pin(profile: str, entry: tuple[str, str], config: DialectConfig, names: Names, notes: Notes) -> None:
    pin, target = entry
    path: Path = ("profiles", profile, "pins", pin)
    if not pin.strip():
        notes.complain(path, f"profiles.{profile}.pins: the name of a pin must not be empty")
    if not target or target in config.selectors or names.find(target) is not None:
        return
    ambiguous = names.ambiguous(target)
    notes.complain(path, ambiguous or f'profiles.{profile}.pins.{pin} references unknown model "{target}"')


def settle_routing(config: DialectConfig, names: Names, notes: Notes) -> DialectConfig:
    """The config with one place for its router, checked; preload resolved to IDs."""
    older = bool(config.groups) or config.matrix is not None
    router = _older(config, notes) if older else config.routing.router
    use = router.use or "group"
    place: Path = () if older else SETTINGS
    matrix = router.settings.matrix
    if use not in ROUTERS:
        said = f'routing.router.use: unknown router "{use}" (valid: {", ".join(ROUTERS)})'
        notes.complain(("routing", "router", "use"), said)
    elif use == "matrix" and matrix is None:
        said = "routing.router.use is 'matrix' but routing.router.settings.matrix is not set"
        notes.complain(("routing", "router", "use"), said)
    elif use == "matrix" and matrix is not None:
        _check_matrix(matrix, (*place, "matrix"), names, notes)
    else:
        _check_groups(router.settings.groups, (*place, "groups"), names, notes)
        if matrix is not None:
            notes.warn((*place, "matrix"), "is not used, because routing.router.use is not matrix")
    _scheduler(config, names, notes)
    settings = replace(router.settings, matrix=matrix and in_order(matrix))
    routing = replace(config.routing, router=Router(use=use, settings=settings))
    return replace(config, groups={}, matrix=None, routing=routing, hooks=_on_startup(config, names, notes))


def _older(config: DialectConfig, notes: Notes) -> Router:
    """The router that the older top-level keys describe; a problem if there are newer ones too."""
    if config.groups and config.matrix is not None:
        notes.complain(("matrix",), "config cannot use both 'groups' and 'matrix'")
    newer = config.routing.router
    if newer.use or newer.settings.groups or newer.settings.matrix is not None:
        said = (
            "config uses both the legacy top-level 'matrix'/'groups' keys and the new 'routing.router' block; "
            "please migrate the top-level keys to routing.router.settings"
        )
        notes.complain(("routing", "router"), said)
    settings = RouterSettings(groups=config.groups, matrix=config.matrix)
    return Router(use="matrix" if config.matrix is not None else "group", settings=settings)


def in_order(matrix: Matrix) -> Matrix:
    """The matrix with its sets in the order in which llama-swap breaks ties: by name, digits as numbers."""
    return replace(matrix, sets={name: matrix.sets[name] for name in sorted(matrix.sets, key=natural)})


def _check_groups(groups: dict[str, Group], place: Path, names: Names, notes: Notes) -> None:
    owner: dict[str, str] = {}
    for group, settings in groups.items():
        for index, member in enumerate(settings.members):
            path = (*place, group, "members", index)
            if member not in names.ids:
                notes.complain(path, f'no model config for "{member}"{_meant(member, names)}')
            elif owner.get(member) == group:
                notes.complain(path, f"duplicate model member {member} found in group: {group}")
            elif member in owner:
                notes.complain(path, f"model member {member} is used in multiple groups: {owner[member]} and {group}")
            owner.setdefault(member, group)


def _meant(name: str, names: Names) -> str:
    """A hint for an alias used instead of an ID."""
    return f"; it is an alias, write {names.aliases[name]}" if name in names.aliases else ""


def _check_matrix(matrix: Matrix, place: Path, names: Names, notes: Notes) -> None:
    if not matrix.sets:
        notes.complain((*place, "sets"), "matrix: matrix must define at least one set")
    for key, model in matrix.vars.items():
        path = (*place, "vars", key)
        if not VARIABLE.fullmatch(key):
            said = (
                f"var key \"{key}\" must contain only alphanumeric, '-' or '.' characters and be 1-32 characters long"
            )
            notes.complain(path, f"matrix: {said}")
        if model not in names.ids:
            said = f'var key "{key}" references unknown model "{model}"{_meant(model, names)}'
            notes.complain(path, f"matrix: {said}")
    for key, cost in matrix.evict_costs.items():
        path = (*place, "evict_costs", key)
        if cost < 1:
            notes.complain(path, f'matrix: evict_cost for "{key}" must be a positive integer, got {cost}')
        if key not in matrix.vars and key not in names.ids:
            notes.complain(path, f'matrix: evict_costs: unknown var or model "{key}"')


def _scheduler(config: DialectConfig, names: Names, notes: Notes) -> None:
    scheduler = config.routing.scheduler
    if scheduler.use not in {"fifo", ""}:
        said = f'routing.scheduler.use: unknown scheduler "{scheduler.use}" (valid: fifo)'
        notes.complain(("routing", "scheduler", "use"), said)
    for name in scheduler.settings.fifo.priority:
        if not names.real(name):
            said = f'routing.scheduler.settings.fifo.priority references unknown model "{name}"'
            notes.complain((*PRIORITY, name), said)
        elif name not in names.ids:
            notes.warn((*PRIORITY, name), f"is an alias and has no effect here; write {names.real(name)}")


def _on_startup(config: DialectConfig, names: Names, notes: Notes) -> Hooks:
    models = []
    for index, name in enumerate(config.hooks.on_startup.preload):
        if model := names.real(name.strip()):
            models.append(model)
        else:
            notes.warn(("hooks", "on_startup", "preload", index), f'"{name}" is no model; it is not preloaded')
    profile = config.hooks.on_startup.profile.strip()
    if profile and profile not in config.profiles:
        said = f'hooks.on_startup.profile references unknown profile "{profile}"'
        notes.complain(("hooks", "on_startup", "profile"), said)
    return replace(config.hooks, on_startup=OnStartup(preload=tuple(models), profile=profile))
