"""The configuration in force: one object for the whole program, read at the moment a value is used.

A part that copied a value when it was made would keep it over a reload, and nobody would notice. So a part holds these
settings and not the value: `settings.config.queue_limit`. What costs something to make of a configuration (a keyring)
is made once for each configuration, by `made`.

Which keys a reload may change stands in the schema (`about(…, live=True)`); the others keep the value here that they
had at the start, whatever the file says by now. `difference.in_force` sees to that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from bioproxy.config.dialect.schema import DialectConfig
from bioproxy.config.schema import Config

T = TypeVar("T")


class Settings:
    """`config` are bioproxy's own keys, `dialect` those of llama-swap's (all defaults if one engine is served)."""

    def __init__(self, config: Config, dialect: DialectConfig | None = None) -> None:
        self.take(config, dialect)

    def take(self, config: Config, dialect: DialectConfig | None = None) -> None:
        """Put another configuration in force."""
        self.config, self.dialect = config, dialect or DialectConfig()
        self.known: dict[Any, Any] = {}

    def made(self, make: Callable[[Config], T]) -> T:
        """What `make` makes of the configuration in force, once for each."""
        if make not in self.known:
            self.known[make] = make(self.config)
        return cast("T", self.known[make])


def among_strangers(config: Config) -> bool:
    """Whether several keys may use the models and there is no admin: then no key sees what the others ask and get."""
    return len(config.api_keys) > 1 and not config.admin_key
