"""A configuration for people and programs: every effective value, where it came from, and no secret.

`describe` gives the rows of bioproxy's own keys, for `bioproxy config`, the start-up banner and /status;
`describe_dialect` those of llama-swap's. Of a model only what differs from what counts for every model is shown, and
`cmd` and `proxy` always: `cmd` as it will be started, which the caller knows (`--slot-save-path` may be added to it).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import msgspec

from bioproxy.config import units
from bioproxy.config.dialect.go import write_duration
from bioproxy.config.dialect.schema import DialectConfig, Model, Peer
from bioproxy.config.keys import KEYS, Option, value_of
from bioproxy.config.load import Loaded
from bioproxy.config.masking import (
    MASK,
    masked_command,
    masked_environment,
    masked_url_password,
    masked_value,
    masked_words,
)
from bioproxy.config.schema import Config, Key, Prefix
from bioproxy.config.tree import DEFAULT, Origin

Json: TypeAlias = Any
Commands: TypeAlias = Callable[[str, Model], str]

ENTRIES = ("models", "profiles", "selectors", "peers")  # a row for each key of each
ELSEWHERE = {
    *ENTRIES,
    "macros",
    "apiKeys",
    "logLevel",
    "groups",
    "matrix",
    "tailcat",
}  # filled in, or keys of ours, or moved


class Described(msgspec.Struct, frozen=True):
    """One effective value: `value` as JSON has it, `text` as a file or flag would take it, and where it came from."""

    key: str
    value: Any
    text: str
    origin: str


def describe(loaded: Loaded) -> list[Described]:
    """Every key, in the table's order; each prefix and each API key in a row of its own. Secrets are masked."""
    return [row for option in KEYS.values() for row in _rows(loaded.config, option, loaded.origins)]


def _rows(config: Config, option: Option, origins: Mapping[str, Origin]) -> Iterator[Described]:
    value = value_of(config, option.path)
    origin = origins.get(option.path, DEFAULT)
    if not value or not isinstance(value, dict | tuple) or option.path not in {"prefixes", "api_keys"}:
        shown = masked(option, value)
        yield Described(option.path, shown, write(option, shown), str(origin))
        return
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, item in items:
        path = f"{option.path}.{name}" if isinstance(value, dict) else f"{option.path}[{name}]"
        shown = _prefix(item) if isinstance(item, Prefix) else _masked_key(item) if option.kind.secret else item
        text = shown if isinstance(shown, str) else _json(shown)
        yield Described(path, shown, text, str(origins.get(path, origin)))


def _prefix(prefix: Prefix) -> Any:
    """A prefix as short as a file may write it."""
    return msgspec.to_builtins(prefix) if prefix.as_model else prefix.template


def _masked_key(key: str | Key) -> dict[str, Any]:
    """An API key without what is secret: the keys that differ from their defaults."""
    known = msgspec.to_builtins(Key(key=key) if isinstance(key, str) else key)
    defaults = msgspec.to_builtins(Key())
    shown = {name: value for name, value in known.items() if value != defaults[name]}
    return {name: MASK if name in {"key", "sha256"} else value for name, value in shown.items()}


def masked(option: Option, value: Any) -> Any:
    """A value as JSON has it, secrets replaced."""
    if option.kind.secret and isinstance(value, str):
        return MASK if value else ""
    if option.path == "engine_arguments":
        return masked_words(value)
    return list(value) if isinstance(value, tuple) else msgspec.to_builtins(value)


def write(option: Option, value: Any) -> str:
    """A value as a file, variable or flag would take it back: "30s", "20GiB", "true", lists as JSON."""
    if isinstance(value, str):
        return value
    for unit in (each.unit for each in option.kind.choices):
        if unit:
            return units.write_seconds(value) if unit == "seconds" else units.write_bytes(value)
    return _json(msgspec.to_builtins(value))


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def as_configured(_model_id: str, model: Model) -> str:
    """The command of a model as it stands in the file."""
    return model.cmd


def describe_dialect(
    config: DialectConfig, origins: Mapping[str, Origin], *, command: Commands = as_configured
) -> list[Described]:
    """Every key at the top, then models, profiles, selectors and peers; `command` tells what is started for a model.

    A key that a section does not set is a default, wherever the section stands.
    """
    sections = {key.rpartition(".")[0] for key in origins}
    origins = {key: DEFAULT if key in sections else origin for key, origin in origins.items()}
    return [*_top(config, origins), *_models(config, origins, command), *_others(config, origins)]


def _row(path: str, value: Json, origins: Mapping[str, Origin]) -> Described:
    """One value with the place of the key that it is part of."""
    place = next((origins[start] for start in _starts(path) if start in origins), DEFAULT)
    value = masked_value(msgspec.to_builtins(value), path.rpartition(".")[2])
    encoded = msgspec.json.encode(value)
    text = value if isinstance(value, str) else encoded.decode()
    return Described(path, msgspec.json.decode(encoded), " ".join(text.split()), str(place))


def _starts(path: str) -> Iterator[str]:
    """A path and what it is part of, the longest first."""
    while path:
        yield path
        path = path.rpartition(".")[0]


def _top(config: DialectConfig, origins: Mapping[str, Origin]) -> Iterator[Described]:
    for field in msgspec.structs.fields(DialectConfig):
        name = field.encode_name
        if name not in ELSEWHERE and name not in {"aliases", "unknown", "warnings"}:
            value = msgspec.to_builtins(getattr(config, field.name))
            if name == "performance":
                value["every"] = write_duration(config.performance.every)
            yield from _leaves(name, value, origins)


def _leaves(path: str, value: Json, origins: Mapping[str, Origin]) -> Iterator[Described]:
    """A row for each key of a section; whatever has names of the user's own in it is one value."""
    if isinstance(value, dict) and value and path not in {"routing.router.settings", "routing.scheduler.settings"}:
        for key, inner in value.items():
            yield from _leaves(f"{path}.{key}", inner, origins)
    else:
        yield _row(path, value, origins)


def _models(config: DialectConfig, origins: Mapping[str, Origin], command: Commands) -> Iterator[Described]:
    common = Model(
        ttl=config.global_ttl,
        unload_timeout=config.unload_timeout,
        send_loading_state=config.send_loading_state,
        health_check_timeout=config.health_check_timeout,
    )
    for name, model in config.models.items():
        for key, value in _model(name, model, common, command).items():
            yield _row(f"models.{name}.{key}", value, origins)


def _model(name: str, model: Model, common: Model, command: Commands) -> dict[str, Json]:
    """What counts for one model, as JSON has it, without its secrets."""
    shown: dict[str, Json] = {"cmd": masked_command(command(name, model)), "proxy": masked_url_password(model.proxy)}
    shown = _changed(model, common) | shown
    if model.cmd_stop:
        shown["cmdStop"] = masked_command(model.cmd_stop)
    if model.env:
        shown["env"] = masked_environment(model.env)
    shown.pop("macros", None)
    return shown


def _changed(struct: msgspec.Struct, default: msgspec.Struct) -> dict[str, Json]:
    """The keys whose values are not those of `default`, by their names in a file."""
    return {
        field.encode_name: msgspec.to_builtins(getattr(struct, field.name))
        for field in msgspec.structs.fields(struct)
        if getattr(struct, field.name) != getattr(default, field.name)
    }


def _others(config: DialectConfig, origins: Mapping[str, Origin]) -> Iterator[Described]:
    tables: tuple[tuple[str, Mapping[str, msgspec.Struct]], ...] = (
        ("profiles", config.profiles),
        ("selectors", config.selectors),
        ("peers", config.peers),
    )
    for table, entries in tables:
        for name, entry in entries.items():
            shown = _changed(entry, type(entry)())
            if isinstance(entry, Peer):
                shown |= {"proxy": masked_url_password(entry.proxy)} | ({"apiKey": MASK} if entry.api_key else {})
            for key, value in shown.items():
                yield _row(f"{table}.{name}.{key}", value, origins)
