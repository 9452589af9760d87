"""bioproxy's own keys inside of a model: `kv` and `prefixes`.

They are read by the converter of our own dialect, with its units and its strictness: what is mistyped here is a
problem, not an unknown key that has no effect, for these keys are written for us.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from msgspec import UNSET
from msgspec.structs import replace

from bioproxy.config.check import MOST_PREFIXES, prefix_fault
from bioproxy.config.convert import Converter, Resolve
from bioproxy.config.dialect.notes import Notes, Path, dotted
from bioproxy.config.dialect.schema import Model
from bioproxy.config.keys import KEYS
from bioproxy.config.schema import Prefix
from bioproxy.config.tree import Node, describe_value, join

Json: TypeAlias = Any

OPTIONS = {path.removeprefix("kv."): option for path, option in KEYS.items() if path.startswith("kv.")}


def own_keys(name: str, node: Node, model: Model, *, resolve: Resolve, notes: Notes) -> Model:
    """The model with its `kv` and `prefixes`. `resolve` makes a path in them absolute."""
    if not isinstance(node.value, dict):
        return model
    kv, prefixes = node.value.get("kv"), node.value.get("prefixes")
    changes: dict[str, Any] = {}
    if kv is not None and kv.value is not None:
        converter = Converter(origin=notes.origin, resolve=resolve)
        changes["kv"] = _kv(kv, ("models", name, "kv"), converter)
        notes.problems += converter.problems
    if prefixes is not None and prefixes.value is not None:
        converter = Converter(origin=notes.origin, resolve=resolve)
        path = dotted(("models", name, "prefixes"))
        found = converter.convert(prefixes, KEYS["prefixes"].kind, path)
        notes.problems += converter.problems
        changes["prefixes"] = _normal({} if found is UNSET else found, ("models", name, "prefixes"), notes)
    return replace(model, **changes) if changes else model


def _kv(node: Node, path: Path, converter: Converter) -> dict[str, Json]:
    """The keys of `kv` that a model has of its own; a single word is its policy."""
    shown = dotted(path)
    if not isinstance(node.value, dict | tuple):
        policy = converter.convert(node, KEYS["kv.policy"].kind, shown)
        return {} if policy is UNSET else {"policy": policy}
    if isinstance(node.value, tuple):
        converter.complain(
            node, shown, f"expected auto, always, off or a mapping of kv keys, got {describe_value(node)}"
        )
        return {}
    values: dict[str, Json] = {}
    for key, child in node.value.items():
        if key in OPTIONS:
            values[key] = converter.convert(child, OPTIONS[key].kind, join(shown, key))
        else:
            converter.note_unknown(child, shown, key, OPTIONS)
    return {key: value for key, value in values.items() if value is not UNSET}


def _normal(prefixes: Mapping[str, str | Prefix], path: Path, notes: Notes) -> dict[str, Prefix]:
    """Prefixes as Structs, whichever way they are written."""
    found: dict[str, Prefix] = {}
    if len(prefixes) > MOST_PREFIXES:
        notes.complain(path, f"{len(prefixes):,} prefixes are too many to look for in each message")
        return found
    for name, value in prefixes.items():
        prefix = value if isinstance(value, Prefix) else Prefix(template=value)
        if fault := prefix_fault(name):
            notes.complain((*path, name), fault)
        elif not prefix.template:
            notes.complain((*path, name), "the path of its template is empty")
        else:
            found[name] = prefix
    return found
