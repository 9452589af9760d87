"""What the rules about clients did since the start, by rule. Plain numbers; dispatch.py owns them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class SideCounts(msgspec.Struct, kw_only=True):
    """The side requests of one rule.

    `waited`: seconds until they began; `kept`: tokens of conversations that were saved before a side request took their
    place; `spared`: tokens that were not evaluated because they were refused, one for each four bytes.
    """

    matched: int = 0
    refused: int = 0
    rerouted: int = 0
    waited: float = 0.0
    kept: int = 0
    spared: int = 0


class MendCounts(msgspec.Struct, kw_only=True):
    """The prompts that one rule is for.

    `changed`: requests in which what it is about had changed; `mended`: those that it changed; `spared`: tokens that
    are not evaluated anew for that, or would not be if the rule were on, one for each four bytes.
    """

    matched: int = 0
    changed: int = 0
    mended: int = 0
    spared: int = 0


class ClientsStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Side requests and mended prompts, each by the rules that were for a request."""

    side: Mapping[str, SideCounts]
    stabilize: Mapping[str, MendCounts]
