"""The configuration in force: one object for the whole program, read at the moment a value is used.

A part that copied a value when it was made would keep it over a reload, and no message would say so. So a part holds
these settings and not the value: `settings.config.queue_limit`. What costs something to make of a configuration (a
keyring) is made once for each configuration, by `made`.

Which keys a reload may change stands in the schema (`about(…, live=True)`); the others keep the value here that they
had at the start, whatever the file says by now. `in_force` sees to that, and `difference` tells what a reload changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import msgspec

from bioproxy.config.dialect.schema import DialectConfig, File
from bioproxy.config.keys import KEYS, build, value_of
from bioproxy.config.schema import Config

T = TypeVar("T")


class Settings:
    """`config` are bioproxy's own keys, `dialect` those of llama-swap's (all defaults if `one` engine is served)."""

    def __init__(self, config: Config, dialect: DialectConfig | None = None) -> None:
        self.take(config, dialect)

    def take(self, config: Config, dialect: DialectConfig | None = None) -> None:
        """Put another configuration in force."""
        self.config, self.dialect, self.one = config, dialect or DialectConfig(), dialect is None
        self.known: dict[Any, Any] = {}

    def made(self, make: Callable[[Config], T]) -> T:
        """What `make` makes of the configuration in force, once for each."""
        if make not in self.known:
            self.known[make] = make(self.config)
        return cast("T", self.known[make])


def among_strangers(config: Config) -> bool:
    """Whether several keys may use the models and there is no admin: then no key sees what the others ask and get."""
    return len(config.api_keys) > 1 and not config.admin_key


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
