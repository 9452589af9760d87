"""The whole tree expanded: global macros everywhere but in models, each model's own list in that model, then ports.

Ports are given out in the order of the sorted IDs, to the models whose `cmd` asks for one once its macros are filled
in, exactly as in llama-swap. There a reload with one model more moves the ports of others, which are then other
processes; here each keeps the port that it has (`ports`), as long as that is not below `startPort`.

What then still looks like a macro is an error: a shell's `${HOME}` would reach the engine as it stands, for no shell is
involved.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import msgspec

from bioproxy.config.dialect.macros import COMMANDS, USE, Macro, Macros, declared, fill, fill_value, strip_comments
from bioproxy.config.dialect.models import DEFAULT_PROXY, Model
from bioproxy.config.dialect.notes import Notes, Path, dotted
from bioproxy.config.dialect.scalars import Scalar, write_scalar
from bioproxy.config.dialect.schema import File
from bioproxy.config.tree import Node

PORT = "${PORT}"
FIRST_PORT, HIGHEST_PORT = 5800, 65535
CONTINUED = re.compile(r"(?<!\\)((?:\\\\)*)\\[^\S\n]*\Z")  # an odd number of backslashes ends the line
NO_PORTS: Mapping[str, int] = MappingProxyType({})
NAMED_FIELDS: tuple[Path, ...] = (
    ("cmd",), ("cmdStop",), ("proxy",), ("checkEndpoint",), ("filters", "stripParams"), ("name",), ("description",),
)  # fmt: skip
TOP = frozenset(field.encode_name for field in msgspec.structs.fields(File))
MODEL = frozenset(field.encode_name for field in msgspec.structs.fields(Model))


class Expanded(msgspec.Struct, frozen=True):
    """The tree without its macro blocks, and the macros: global ones, and those of each model; the ports given out."""

    root: Node
    macros: dict[str, Scalar]
    model_macros: dict[str, dict[str, Scalar]]
    ports: dict[str, int]


def expand(root: dict[str, Node], notes: Notes, *, ports: Mapping[str, int] = NO_PORTS) -> Expanded:
    """Fill in macros and ports; what is wrong with them is noted. `ports`: what models had before a reload."""
    shared = declared(root.get("macros"), ("macros",), notes)
    common = Macros(shared)
    members = {
        name: node if name == "models" else fill(node, common, (name,), notes)
        for name, node in root.items()
        if name != "macros"
    }
    first = first_port(members.get("startPort"), notes)
    model_macros: dict[str, dict[str, Scalar]] = {}
    given: dict[str, int] = {}
    models = members.get("models")
    if models is not None and isinstance(models.value, dict):
        filled = {}
        for name, node in models.value.items():
            filled[name], special = _model(name, node, common, notes)
            model_macros[name] = _table(special)
        given = _ports(filled, first, notes, before=ports)
        filled = {name: in_commands(node, clean) for name, node in filled.items()}
        members["models"] = Node(filled, models.line)
        for name, node in filled.items():
            _model_leftovers(name, node, notes)
    _leftovers(members, notes)
    return Expanded(Node(members), _table(shared), model_macros, given)


def _table(macros: tuple[Macro, ...]) -> dict[str, Scalar]:
    return {macro.name: macro.value for macro in macros}


def clean(command: str) -> str:
    """A command as it will be split: without comment lines, and without the backslash that ends a line.

    Once more after macros were filled in, for they may hold both. A blank may stand after the backslash, which nobody
    sees in an editor.
    """
    lines = [line for line in command.split("\n") if not line.lstrip().startswith("#")]
    return "\n".join(CONTINUED.sub(r"\1 ", line) for line in lines)


def in_commands(node: Node, change: Callable[[str], str]) -> Node:
    """A model with its commands changed."""
    if not isinstance(node.value, dict):
        return node
    commands = {key: node.value[key] for (key,) in COMMANDS if key in node.value}
    changed = {key: Node(change(one.value), one.line) for key, one in commands.items() if isinstance(one.value, str)}
    return Node({**node.value, **changed}, node.line)


def _model(name: str, node: Node, common: Macros, notes: Notes) -> tuple[Node, tuple[Macro, ...]]:
    """One model with its macros filled in, and the macros that it declares."""
    members = {} if node.value is None else node.value
    if not isinstance(members, dict):
        return node, ()
    members = dict(members)
    special = declared(members.pop("macros", None), ("models", name, "macros"), notes, shown=f"model {name}: ")
    if "proxy" not in members or members["proxy"].value is None:
        members["proxy"] = Node(DEFAULT_PROXY, node.line)
    macros = Macros(special, common=common, model=name)
    filled = fill(in_commands(Node(members, node.line), strip_comments), macros, ("models", name), notes)
    return _fill_ids(name, filled, macros, notes), special


def _fill_ids(name: str, node: Node, macros: Macros, notes: Notes) -> Node:
    """The keys of filters.setParamsByID, the only keys in which macros count."""
    assert isinstance(node.value, dict)
    filters = node.value.get("filters")
    by_id = filters.value.get("setParamsByID") if filters and isinstance(filters.value, dict) else None
    if filters is None or by_id is None or not isinstance(filters.value, dict) or not isinstance(by_id.value, dict):
        return node
    written: dict[str, str] = {}
    members: dict[str, Node] = {}
    for key, child in by_id.value.items():
        filled = write_scalar(fill_value(key, macros, ("models", name, "filters", "setParamsByID", key), notes))
        if filled in members:
            said = f'keys "{written[filled]}" and "{key}" resolve to the same value'
            notes.complain(
                ("models", name, "filters", "setParamsByID", key), f"model {name} filters.setParamsByID: {said}"
            )
            continue
        for unknown in USE.findall(filled):
            said = f"unknown macro '${{{unknown}}}' found in model {name} filters.setParamsByID key"
            notes.complain(("models", name, "filters", "setParamsByID", key), said)
        written[filled] = key
        members[filled] = child
    changed = Node({**filters.value, "setParamsByID": Node(members, by_id.line)}, filters.line)
    return Node({**node.value, "filters": changed}, node.line)


def _text(node: Node, path: Path) -> str:
    """The text at a path of a model; "" where there is none."""
    for part in path:
        if not isinstance(node.value, dict) or part not in node.value:
            return ""
        node = node.value[str(part)]
    return node.value if isinstance(node.value, str) else ""


def first_port(start: Node | None, notes: Notes) -> int:
    """The first number for `${PORT}`."""
    value = start.value if start is not None else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return FIRST_PORT  # what it is instead was noted, or will be
    if value < 1:
        notes.complain(("startPort",), "startPort must be greater than 1")
    elif value > HIGHEST_PORT:
        notes.complain(("startPort",), f"startPort must be at most {HIGHEST_PORT}, got {value}")
    else:
        return int(value)
    return FIRST_PORT


def _ports(models: dict[str, Node], first: int, notes: Notes, *, before: Mapping[str, int]) -> dict[str, int]:
    """Give each model whose cmd asks for one its port, and return them; `models` is changed in place."""
    asking = [name for name in sorted(models) if PORT in _text(models[name], ("cmd",))]
    given = {name: before[name] for name in asking if before.get(name, -1) >= first}
    taken, port = set(given.values()), first
    for name in asking:
        if name not in given:
            while port in taken:
                port += 1
            given[name], port = port, port + 1
    for name in sorted(models):
        if name in given:
            if given[name] > HIGHEST_PORT:
                notes.complain(
                    ("models", name, "cmd"),
                    f"there is no port left for it: startPort and the models before it reach {given[name]}",
                )
                notes.judged.add(("models", name, "proxy"))
            models[name] = fill(models[name], Macros([Macro("PORT", given[name])]), ("models", name), notes)
        elif PORT in _text(models[name], ("proxy",)):
            said = f"model {name}: proxy uses {PORT} but cmd does not - {PORT} is only available when used in cmd"
            notes.complain(("models", name, "proxy"), said)
    return given


def leftovers(node: Node, path: Path) -> Iterator[tuple[Path, str]]:
    """Every use of a macro that is left in a tree, with its place."""
    match node.value:
        case str() if "${" in node.value:
            for name in dict.fromkeys(USE.findall(node.value)):
                yield path, name
        case dict():
            for key, child in node.value.items():
                yield from leftovers(child, (*path, key))
        case tuple():
            for index, child in enumerate(node.value):
                yield from leftovers(child, (*path, index))


def _leftovers(members: Mapping[str, Node], notes: Notes) -> None:
    for name, node in members.items():
        if name in TOP and name != "models":
            for path, macro in leftovers(node, (name,)):
                notes.complain(path, f"{dotted(path)}: unknown macro '${{{macro}}}'")
            notes.judged |= {path for path, _ in leftovers(node, (name,))}


def _model_leftovers(model: str, node: Node, notes: Notes) -> None:
    if not isinstance(node.value, dict):
        return
    found = [
        (path, macro) for key, child in node.value.items() if key in MODEL for path, macro in leftovers(child, (key,))
    ]
    order = {path: index for index, path in enumerate(NAMED_FIELDS)}
    found.sort(key=lambda each: order.get(each[0], len(order)))
    for path, macro in found:
        if message := leftover_message(model, path, macro):
            notes.complain(("models", model, *path), message)
    notes.judged |= {("models", model, *path) for path, _ in found}


def leftover_message(model: str, path: Path, macro: str) -> str:
    """What is said about `${macro}` in a field of a model; "" where it may stay, or was said already."""
    field, use = dotted(path), f"${{{macro}}}"
    if path == ("cmdStop",) and macro == "PID":
        return ""
    if path == ("proxy",) and macro == "PORT":
        return ""  # the ports' own message tells more
    if path in NAMED_FIELDS:
        if macro in {"PORT", "MODEL_ID"}:
            return f"macro '{use}' should have been substituted in {model}.{field}"
        return f"unknown macro '{use}' found in {model}.{field}"
    if path[0] in {"metadata", "capabilities"}:
        return f"model {model} {path[0]}: unknown macro '{use}'"
    return f"model {model} {field}: unknown macro '{use}'"
