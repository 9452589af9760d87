"""The rules about clients that come with the program, and how those of a configuration go with them.

A rule of a configuration that has the name of a shipped one says only what is different, so that one line switches it
on or off; all others stand before the shipped ones, for the first that fits counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import TypeVar

import msgspec
import yaml

from bioproxy.config.schema import Clients, Shape, StabilizeRule

S = TypeVar("S", bound=Shape)
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
SAID = frozenset(Shape.__struct_fields__) - {"name", "why"}


@cache
def shipped() -> Clients:
    """The rules of the package."""
    text = resources.files("bioproxy.clients").joinpath("rules.yaml").read_text("utf-8")
    return msgspec.convert(yaml.load(text, Loader=LOADER), Clients)  # noqa: S506 - a safe one


def effective(clients: Clients) -> Clients:
    """All rules that there are, those of the configuration first."""
    given = shipped()
    return msgspec.structs.replace(
        clients,
        apps=merged(clients.apps, given.apps),
        side=merged(clients.side, given.side),
        stabilize=merged(clients.stabilize, given.stabilize),
    )


def merged(own: Sequence[S], given: Sequence[S]) -> tuple[S, ...]:
    """Own rules, then the shipped ones, changed by the own ones of their names."""
    names = {rule.name: rule for rule in own}
    known = {rule.name for rule in given}
    changed = [changed_by(rule, names[rule.name]) if rule.name in names else rule for rule in given]
    return (*(rule for rule in own if rule.name not in known), *changed)


def changed_by(rule: S, own: S) -> S:
    """A shipped rule with what an own one of its name says."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(own)}
    given = {name: value for name in defaults if (value := getattr(own, name)) != defaults[name]}
    return msgspec.structs.replace(rule, **given)


def for_all(rule: Shape) -> bool:
    """Whether any request meets what a rule says."""
    said = [value for name in SAID if (value := getattr(rule, name)) not in ((), "", "any", 0)]
    return all(set(value) <= {"*"} for value in said if isinstance(value, str | tuple)) and not any(
        isinstance(value, int) for value in said
    )


def wants_line(rule: StabilizeRule) -> bool:
    """Whether a rule is about lines and does not say which."""
    return not rule.line and not rule.do.endswith("tools") and rule.mode != "off"
