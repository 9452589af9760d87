"""Groups, matrix, scheduler and preload: which router counts, and whether what it names exists.

Both routers may stand in two places, an older one at the top and `routing.router`; afterwards all is in
`routing.router`, with `use` set. Only the router in use is checked, as in llama-swap. The matrix's expressions stay
texts: `models/matrix.py` reads them.
"""

from __future__ import annotations

import re

from msgspec.structs import replace

from bioproxy.config.dialect.names import Names
from bioproxy.config.dialect.notes import Notes, Path
from bioproxy.config.dialect.scalars import natural
from bioproxy.config.dialect.schema import File, Group, Hooks, Matrix, OnStartup, Router, RouterSettings

VARIABLE = re.compile(r"[a-zA-Z0-9.-]{1,32}")
ROUTERS = ("group", "matrix")
SETTINGS: Path = ("routing", "router", "settings")
PRIORITY: Path = ("routing", "scheduler", "settings", "fifo", "priority")


def settle_routing(file: File, names: Names, notes: Notes) -> File:
    """The file with one place for its router, checked; preload resolved to IDs."""
    older = bool(file.groups) or file.matrix is not None
    router = _older(file, notes) if older else file.routing.router
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
            notes.warn((*place, "matrix"), "is not used, for routing.router.use is not matrix")
    _scheduler(file, names, notes)
    settings = replace(router.settings, matrix=matrix and in_order(matrix))
    routing = replace(file.routing, router=Router(use=use, settings=settings))
    return replace(file, groups={}, matrix=None, routing=routing, hooks=_on_startup(file, names, notes))


def _older(file: File, notes: Notes) -> Router:
    """The router that the older top-level keys describe; noted where they stand beside others."""
    if file.groups and file.matrix is not None:
        notes.complain(("matrix",), "config cannot use both 'groups' and 'matrix'")
    newer = file.routing.router
    if newer.use or newer.settings.groups or newer.settings.matrix is not None:
        said = (
            "config uses both the legacy top-level 'matrix'/'groups' keys and the new 'routing.router' block; "
            "please migrate the top-level keys to routing.router.settings"
        )
        notes.complain(("routing", "router"), said)
    settings = RouterSettings(groups=file.groups, matrix=file.matrix)
    return Router(use="matrix" if file.matrix is not None else "group", settings=settings)


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
    """A hint for an alias where only an ID counts."""
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


def _scheduler(file: File, names: Names, notes: Notes) -> None:
    scheduler = file.routing.scheduler
    if scheduler.use not in {"fifo", ""}:
        said = f'routing.scheduler.use: unknown scheduler "{scheduler.use}" (valid: fifo)'
        notes.complain(("routing", "scheduler", "use"), said)
    for name in scheduler.settings.fifo.priority:
        if not names.real(name):
            said = f'routing.scheduler.settings.fifo.priority references unknown model "{name}"'
            notes.complain((*PRIORITY, name), said)
        elif name not in names.ids:
            notes.warn((*PRIORITY, name), f"is an alias and has no effect here; write {names.real(name)}")


def _on_startup(file: File, names: Names, notes: Notes) -> Hooks:
    models = []
    for index, name in enumerate(file.hooks.on_startup.preload):
        if model := names.real(name.strip()):
            models.append(model)
        else:
            notes.warn(("hooks", "on_startup", "preload", index), f'"{name}" is no model; it is not preloaded')
    profile = file.hooks.on_startup.profile.strip()
    if profile and profile not in file.profiles:
        said = f'hooks.on_startup.profile references unknown profile "{profile}"'
        notes.complain(("hooks", "on_startup", "profile"), said)
    return replace(file.hooks, on_startup=OnStartup(preload=tuple(models), profile=profile))
