"""What a rule of groups or of a matrix says of several models at once."""

from __future__ import annotations

from collections.abc import Iterable

from bioproxy.models.rules import Rules


def together(models: Iterable[str], rules: Rules) -> bool:
    """Whether all `models` may run at once, whichever of them comes last."""
    names = set(models)
    return not any(rules.evict(name, names - {name}) for name in names)
