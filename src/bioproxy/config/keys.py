"""The table of keys, made from the schema: path, default, unit, environment variable, flags.

Everything that lists keys reads this table: environment and flags (`layers.py`, `flags.py`), unknown keys and their
nearest known one (`nearest.py`), `bioproxy config` (`describe.py`) and docs/configuration.md (`tools/reference.py`). So
a key that is added to the schema is in all of them at once. Tests make sure that no two names collide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

from bioproxy.config.schema import Config
from bioproxy.config.tree import join

ENVIRONMENT = "BIOPROXY_"
SCHEMA_KEY = "$schema"  # editors look for it; it says nothing to us
CONFIG_VARIABLE = "BIOPROXY_CONFIG"
CONFIG_FLAG = "-config"
FOLDER_VARIABLE = "BIOPROXY_CONFIG_DIR"
FOLDER_FLAG = "-config-dir"
LISTEN_FLAG = "-listen"  # proxy_host and proxy_port in one word, as Go programs have it
WATCH_FLAG = "-watch-config"
TUNNEL_FLAG = "-listen-tailcat"  # llama-swap's, for a tunnel that bioproxy does not have

# The flags of the seed that are not made from a key's path.
ALIASES = {"proxy_host": ("-host",), "proxy_port": ("-port",), "backend_url": ("-backend",)}


class Kind(msgspec.Struct, frozen=True):
    """The type of a value as msgspec sees it, and what the schema's `extra` says of it."""

    type: inspect.Type
    unit: str = ""
    path: bool = False
    secret: bool = False
    live: bool = False
    process: bool = False
    own: bool = False

    @property
    def choices(self) -> tuple[Kind, ...]:
        """What a value may be: the kinds of a union, else this one alone."""
        return tuple(self.of(each) for each in self.type.types) if isinstance(self.type, inspect.UnionType) else (self,)

    @property
    def present(self) -> Kind:
        """The kind of a value that is there, of a union that says "or not given"; else this one."""
        return next(each for each in self.choices if not isinstance(each.type, inspect.NoneType))

    def of(self, inner: inspect.Type | Kind) -> Kind:
        """The kind of an item, member or field of this value: what is secret or a path here is so inside, too."""
        kind = inner if isinstance(inner, Kind) else unfold(inner)
        if not (self.path or self.secret):
            return kind
        return Kind(kind.type, kind.unit, self.path or kind.path, self.secret or kind.secret)


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """One key of the table. `default` is a value of the Config; `flags` are written with one dash, two work as well."""

    path: str
    kind: Kind
    default: Any
    description: str
    environment: str
    flags: tuple[str, ...]

    @property
    def section(self) -> str:
        """The Struct that it belongs to: "kv" for "kv.policy", "" at the top."""
        return self.path.rpartition(".")[0]

    @property
    def name(self) -> str:
        """Its name within its section."""
        return self.path.rpartition(".")[2]

    @property
    def boolean(self) -> bool:
        """Whether its flag stands for true when no value follows."""
        return isinstance(self.kind.type, inspect.BoolType)


def unfold(type_: inspect.Type) -> Kind:
    """Take msgspec's Metadata off a type."""
    if not isinstance(type_, inspect.Metadata):
        return Kind(type_)
    extra = type_.extra or {}
    marks = {name: extra.get(name, False) for name in ("path", "secret", "live", "process", "own")}
    return Kind(type_.type, extra.get("unit", ""), **marks)


def description(type_: inspect.Type) -> str:
    """The sentence of the schema that says what a key does."""
    extra = type_.extra_json_schema if isinstance(type_, inspect.Metadata) else None
    return str((extra or {}).get("description", ""))


def default(field: inspect.Field) -> Any:
    """A field's default as a value; NODEFAULT if a value must be given."""
    return (
        field.default_factory()
        if field.default is msgspec.NODEFAULT and callable(field.default_factory)
        else field.default
    )


@cache
def fields(struct: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    """The fields of a Struct as msgspec sees them; asked once, because it takes half a millisecond."""
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    return info.fields


class Member(msgspec.Struct, frozen=True):
    """A key of a Struct: the attribute, its kind, and whether it must be given."""

    attribute: str
    kind: Kind
    required: bool


@cache
def members(struct: type[msgspec.Struct]) -> dict[str, Member]:
    """The keys of a Struct as a file has them."""
    return {field.encode_name: Member(field.name, unfold(field.type), field.required) for field in fields(struct)}


def _options(found: Sequence[inspect.Field], section: str) -> Iterator[Option]:
    for field in found:
        path = join(section, field.name)
        kind = unfold(field.type)
        if isinstance(kind.type, inspect.StructType):
            yield from _options(kind.type.fields, path)
            continue
        yield Option(
            path=path,
            kind=kind,
            default=default(field),
            description=description(field.type),
            environment=ENVIRONMENT + path.replace(".", "_").upper(),  # BIOPROXY_KV_POLICY
            flags=(*ALIASES.get(path, ()), "-" + path.replace(".", "-").replace("_", "-")),
        )


KEYS: dict[str, Option] = {option.path: option for option in _options(fields(Config), "")}
SECTIONS: dict[str, type[msgspec.Struct]] = {
    field.name: kind.type.cls
    for field in fields(Config)
    if isinstance((kind := unfold(field.type)).type, inspect.StructType)
}
FLAGS: dict[str, Option] = {flag: option for option in KEYS.values() for flag in option.flags}
VARIABLES: dict[str, Option] = {option.environment: option for option in KEYS.values()}


def value_of(config: Config, path: str) -> Any:
    """The value of a key in a Config."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def build(values: Mapping[str, Any]) -> Config:
    """A Config of values by dotted key; what is not given has its default."""
    arguments: dict[str, Any] = {path: value for path, value in values.items() if "." not in path}
    for section, struct in SECTIONS.items():
        inner = {path.partition(".")[2]: value for path, value in values.items() if path.startswith(f"{section}.")}
        arguments[section] = struct(**inner)
    return Config(**arguments)
