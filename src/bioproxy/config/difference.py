"""What a reload changes: the keys whose values differ between two Configs."""

from __future__ import annotations

from bioproxy.config.keys import KEYS, value_of
from bioproxy.config.schema import Config


def difference(old: Config, new: Config) -> tuple[str, ...]:
    """The dotted keys that changed, in the table's order; `prefixes` and `api_keys` count as one key each."""
    return tuple(path for path in KEYS if value_of(old, path) != value_of(new, path))
