"""What a reload changes, and what it may: a key that is not live keeps the value of the start until a restart."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from bioproxy.config.dialect.schema import DialectConfig, File
from bioproxy.config.keys import KEYS, value_of
from bioproxy.config.load import build
from bioproxy.config.schema import Config


def difference(old: Config, new: Config) -> tuple[str, ...]:
    """The dotted keys that changed, in the table's order; `prefixes` and `api_keys` count as one key each."""
    return tuple(path for path in KEYS if value_of(old, path) != value_of(new, path))


def in_force(old: Config, new: Config) -> Config:
    """`new` as far as a reload takes it over, and `old` for the rest."""
    return build({path: value_of(new if option.kind.live else old, path) for path, option in KEYS.items()})


OURS = ("apiKeys", "logLevel")  # keys that became some of ours


def dialect_difference(old: DialectConfig, new: DialectConfig) -> tuple[str, ...]:
    """The keys of llama-swap's dialect that changed: `captureBuffer`, `store.path`, of entries which (`models.m`)."""
    return tuple(path for path in _changed(old, new, File) if path not in OURS)


def _changed(old: msgspec.Struct, new: msgspec.Struct, struct: type[msgspec.Struct]) -> Iterator[str]:
    for field in msgspec.structs.fields(struct):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        elif isinstance(before, msgspec.Struct) and type(before) is type(after):
            changed = [*_changed(before, after, type(before))]
        else:
            yield field.encode_name
            continue
        yield from (f"{field.encode_name}.{name}" for name in changed)
