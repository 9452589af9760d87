"""A Config for people and programs: every effective value, where it came from, and no secret.

`describe` feeds `bioproxy config` (plain and JSON), the start-up banner and /status. `encode` is the opposite of
`load`: a JSON config file with everything in it, secrets too; nothing prints it. `json_schema` is for editors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from bioproxy.config import units
from bioproxy.config.keys import KEYS, Option, value_of
from bioproxy.config.load import Loaded
from bioproxy.config.masking import MASK, masked_words
from bioproxy.config.schema import Config, Key, Prefix
from bioproxy.config.tree import DEFAULT, Origin


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


def encode(config: Config) -> bytes:
    """A Config as a JSON file that `load` reads as the same Config. It holds the secrets: mode 0600, never shown."""
    return msgspec.json.format(msgspec.json.encode(config), indent=2)
