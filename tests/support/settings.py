"""Settings for parts that are tested alone: `settings(queue_limit=3, warmup__settle=5)`; two underscores are a dot."""

from __future__ import annotations

from typing import Any

from bioproxy.config.dialect.schema import DialectConfig
from bioproxy.config.keys import build
from bioproxy.config.schema import Config
from bioproxy.config.settings import Settings


def config(**keys: Any) -> Config:
    """A Config with these keys; nothing checks them."""
    return build({name.replace("__", "."): value for name, value in keys.items()})


def settings(swap: DialectConfig | None = None, **keys: Any) -> Settings:
    """Settings with these keys of bioproxy's own."""
    return Settings(config(**keys), swap)
