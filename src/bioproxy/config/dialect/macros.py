"""Macros: `${NAME}` in any text stands for a text or a number that is declared once.

A list of macros is applied from its last to its first. So a macro may use those declared before it, never itself or
later ones, and the expansion ends after one pass, whatever is written. A text that is nothing but `${NAME}` takes the
macro's own type: a number stays a number.

`expand` does it for the whole tree: global macros everywhere but in models, each model's own list in that model, then
ports. Ports are given out in the order of the sorted IDs, to the models whose `cmd` asks for one once its macros are
filled in, exactly as in llama-swap. There a reload with one model more moves the ports of others, which are then other
processes; here each keeps the port that it has (`ports`), as long as that is not below `startPort`.

Whatever still looks like a macro then is an error: a shell's `${HOME}` would reach the engine as it stands, because no
shell is involved.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
from types import MappingProxyType
from typing import Any

import msgspec

from bioproxy.config.dialect.go import Scalar, scalar, write_scalar
from bioproxy.config.dialect.schema import DEFAULT_PROXY, File, Model
from bioproxy.config.notes import Notes
from bioproxy.config.tree import Node, Path, dotted

NAME = re.compile(r"[a-zA-Z0-9_-]+")
USE = re.compile(r"\$\{([a-zA-Z0-9_-]+)\}")
COMMENT = re.compile(r"^[^\S\n]*#.*(?:\n|\Z)", re.MULTILINE)
COMMANDS: tuple[Path, ...] = (("cmd",), ("cmdStop",))  # in a model
RESERVED = ("PID", "PORT", "MODEL_ID")
NAME_LIMIT = 63
PORT = "${PORT}"
FIRST_PORT, HIGHEST_PORT = 5800, 65535
CONTINUED = re.compile(r"(?<!\\)((?:\\\\)*)\\[^\S\n]*\Z")  # an odd number of backslashes ends the line
NOTHING: Mapping[str, Any] = MappingProxyType({})
NAMED_FIELDS: tuple[Path, ...] = (
    ("cmd",), ("cmdStop",), ("proxy",), ("checkEndpoint",), ("filters", "stripParams"), ("name",), ("description",),
)  # fmt: skip
TOP = frozenset(File.__struct_encode_fields__)
MODEL = frozenset(Model.__struct_encode_fields__)


class Macro(msgspec.Struct, frozen=True):
    """A name and what stands for `${name}`."""

    name: str
    value: Scalar

    @property
    def use(self) -> str:
        """How it is written in a text."""
        return f"${{{self.name}}}"


def declared(node: Node | None, path: Path, notes: Notes, *, shown: str = "") -> tuple[Macro, ...]:
    """The macros of a `macros` block, broken ones noted and left out; `shown` begins the messages ("model M: ")."""
    if node is None or node.value is None:
        return ()
    if not isinstance(node.value, dict):
        notes.complain(path, f"{shown}macros must be a mapping")
        return ()
    macros = []
    for name, child in node.value.items():
        if fault := macro_fault(name, child):
            notes.complain((*path, name), shown + fault)
        else:
            value = scalar(child)
            assert value is not None
            macros.append(Macro(name, value))
    return tuple(macros)


def macro_fault(name: str, node: Node) -> str:
    """What is wrong with a declaration; "" if nothing is."""
    if len(name) > NAME_LIMIT:
        return f"macro name '{name}' exceeds maximum length of {NAME_LIMIT} characters"
    if not NAME.fullmatch(name):
        return f"macro name '{name}' contains invalid characters, must match pattern ^[a-zA-Z0-9_-]+$"
    if name in RESERVED:
        return f"macro name '{name}' is reserved"
    if node.value is None or isinstance(node.value, dict | tuple):
        mapping, nothing = isinstance(node.value, dict), node.value is None
        kind = "map[string]interface {}" if mapping else "<nil>" if nothing else "[]interface {}"
        return f"macro '{name}' has invalid type {kind}, must be a scalar type (string, int, float, or bool)"
    if isinstance(node.value, str) and f"${{{name}}}" in node.value:
        return f"macro '{name}' contains self-reference"
    return ""


def strip_comments(command: str) -> str:
    """A command without its lines that begin with #."""
    return COMMENT.sub("", command) if "#" in command else command


class Macros:
    """A list of macros in its order, found by name: most texts use a few of very many.

    A model's list is its ID, the global macros (`common`) in their order, then those that only it has. A macro of a
    global one's name takes the global one's place, so that global macros after it see the model's value.
    """

    def __init__(self, macros: Iterable[Macro] = (), *, common: Macros | None = None, model: str | None = None) -> None:
        self.common = common
        self.own: dict[str, tuple[int, Macro]] = {} if model is None else {"MODEL_ID": (-1, Macro("MODEL_ID", model))}
        first = len(common.own) if common is not None else 0
        for place, macro in enumerate(macros, first):
            known = common.own.get(macro.name) if common is not None else None
            self.own[macro.name] = (known[0] if known is not None else place, macro)

    def find(self, name: str) -> tuple[int, Macro] | None:
        """A macro and its place in the order; None if there is none of that name."""
        return self.own.get(name) or (self.common.own.get(name) if self.common is not None else None)


def fill_value(text: str, macros: Macros, path: Path, notes: Notes) -> Scalar:
    """A text with the macros applied, last to first; what makes it too long ends the reading (ConfigError)."""
    last: float = math.inf
    while True:
        notes.work(len(text), path)
        found = [known for name in set(USE.findall(text)) if (known := macros.find(name)) and known[0] < last]
        if not found:
            return text
        last, macro = max(found, key=itemgetter(0))
        if text == macro.use:
            if not isinstance(macro.value, str):
                return macro.value
            notes.grow(len(macro.value), path)
            text = macro.value
            continue
        piece = write_scalar(macro.value)
        if path[2:] in COMMANDS and "\n" in piece.strip("\n"):
            piece = strip_comments(piece)  # one at its beginning would stand in the middle of a line, and stay
        notes.grow(text.count(macro.use) * (len(piece) - len(macro.use)), path)
        text = text.replace(macro.use, piece)


def fill(node: Node, macros: Macros, path: Path, notes: Notes) -> Node:
    """A tree with the macros applied to every text that is not a key."""
    match node.value:
        case str() if "${" in node.value:
            return Node(fill_value(node.value, macros, path, notes), node.line)
        case dict():
            members = {key: fill(child, macros, (*path, key), notes) for key, child in node.value.items()}
            return Node(members, node.line, node.raw)
        case tuple():
            items = (fill(child, macros, (*path, index), notes) for index, child in enumerate(node.value))
            return Node(tuple(items), node.line, node.raw)
        case _:
            return node


class Expanded(msgspec.Struct, frozen=True):
    """The tree without its macro blocks, and the macros: global ones, and those of each model; the ports given out."""

    root: Node
    macros: dict[str, Scalar]
    model_macros: dict[str, dict[str, Scalar]]
    ports: dict[str, int]


def expand(root: dict[str, Node], notes: Notes, *, ports: Mapping[str, int] = NOTHING) -> Expanded:
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

    This is done again after macros were filled in, because they may contain both. A blank may stand after the
    backslash: no editor shows it.
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
        members["proxy"] = Node(DEFAULT_PROXY)
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
        path = ("models", name, "filters", "setParamsByID", key)
        filled = write_scalar(fill_value(key, macros, path, notes))
        if filled in members:
            said = f'keys "{written[filled]}" and "{key}" resolve to the same value'
            notes.complain(path, f"model {name} filters.setParamsByID: {said}")
            continue
        for unknown in USE.findall(filled):
            said = f"unknown macro '${{{unknown}}}' found in model {name} filters.setParamsByID key"
            notes.complain(path, said)
        written[filled] = key
        members[filled] = child
    changed = Node({**filters.value, "setParamsByID": Node(members, by_id.line)}, filters.line)
    return Node({**node.value, "filters": changed}, node.line)


def _text(model: Node, key: str) -> str:
    """A key's text of a model; "" if there is none."""
    node = model.value.get(key) if isinstance(model.value, dict) else None
    return node.value if node is not None and isinstance(node.value, str) else ""


def first_port(start: Node | None, notes: Notes) -> int:
    """The first number for `${PORT}`."""
    value = start.value if start is not None else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return FIRST_PORT  # what is wrong with it was noted, or will be
    if value < 1:
        notes.complain(("startPort",), "startPort must be greater than 1")
    elif value > HIGHEST_PORT:
        notes.complain(("startPort",), f"startPort must be at most {HIGHEST_PORT}, got {value}")
    else:
        return int(value)
    return FIRST_PORT


def _ports(models: dict[str, Node], first: int, notes: Notes, *, before: Mapping[str, int]) -> dict[str, int]:
    """Give each model whose cmd asks for one its port, and return them; `models` is changed in place."""
    asking = [name for name in sorted(models) if PORT in _text(models[name], "cmd")]
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
        elif PORT in _text(models[name], "proxy"):
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
            found = list(leftovers(node, (name,)))
            for path, macro in found:
                notes.complain(path, f"{dotted(path)}: unknown macro '${{{macro}}}'")
            notes.judged |= {path for path, _ in found}


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
    """The sentence about `${macro}` in a field of a model; "" if it may stay, or was told already."""
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
