"""What a request needs of the engine that serves it, in one value.

`assembly/station.py` builds it from the parts; the front never looks past it. With many models there is one of these
for each: the way of a request does not change.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from bioproxy.engines.attach import Attachment
from bioproxy.gate.gate import Gate
from bioproxy.kv.keeper import Keeper
from bioproxy.templates.catalogue import Catalogue
from bioproxy.templates.pins import Pins
from bioproxy.warmup.heads import Heads
from bioproxy.wire.upstream import Pool


class Engine(msgspec.Struct):
    """One engine with its gate, its cache and its templates.

    `owned`: it is a child of ours, so a request that it lost before the first byte is worth a second try; `slots` and
    `context` are 0 until it told them. `too_long` is asked with a prefix and returns why that template cannot be used.
    """

    pool: Pool
    gate: Gate
    keeper: Keeper
    attachment: Attachment
    catalogue: Catalogue
    pins: Pins
    heads: Heads
    owned: bool
    key: str
    too_long: Callable[[str], str]
    scope: bytes = b""  # what keeps its pins apart from those of models with other templates
    wake: Callable[[], None] = lambda: None  # a request is here: start what was unloaded
    looked_after: bool = True  # its attachment looks for it; of many models each is started and met when it is needed

    @property
    def other(self) -> bool:
        """Whether it was met and is no llama-server; of one that was not met yet nothing is known."""
        facts = self.attachment.facts
        return facts is None or not facts.build

    @property
    def slots(self) -> int:
        """The engine's slots, 1 until it told."""
        facts = self.attachment.facts
        return facts.slots if facts is not None else 1
