"""How much memory llama.cpp will take for a model before it is started: weights, KV cache, compute buffer, projector.

What is counted is what its log calls `model`, `KV`, `RS` and `compute buffer size`; a test compares the two. Weights
and caches are exact. The compute buffer is what the largest step of one batch needs at once, and how tightly the engine
packs its steps into it differs by build: `activations` follows measurements (llama.cpp of October 2026, flash attention
on) and is up to a fifth too large. Older builds also kept the logits of a whole batch (512 x vocabulary x 4 bytes), and
each card has a driver's context of a few hundred MiB; a proposal leaves room for both (placement.py, `RESERVE`).

Pure: numbers in, numbers out.
"""

from __future__ import annotations

import msgspec

from bioproxy.engines.shape import Layer, Shape

MIB, GIB = 1 << 20, 1 << 30
TYPES: dict[str, tuple[int, int]] = {  # of the KV cache: bytes for so many numbers
    "f32": (4, 1),
    "f16": (2, 1),
    "bf16": (2, 1),
    "q8_0": (34, 32),
    "q5_1": (24, 32),
    "q5_0": (22, 32),
    "q4_1": (20, 32),
    "q4_0": (18, 32),
    "iq4_nl": (18, 32),
}
CELLS = 256  # a cache has a multiple of so many
ALL = 1 << 16  # more layers than there are
FLOAT, HALF = 4, 2
COPIES = 4  # several cards work on so many batches at the same time, each with a mask of its own


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """llama-server's flags that decide about memory.

    `context`: -c, over all slots; 0 is what the model was trained for. `gpu_layers`: -ngl. `cpu_experts`: --n-cpu-moe,
    so many of the first layers leave their experts in the machine's memory. `batch`: -ub.
    """

    context: int = 0
    slots: int = 1
    unified: bool = False
    cache_k: str = "f16"
    cache_v: str = "f16"
    gpu_layers: int = ALL
    cpu_experts: int = 0
    batch: int = 512
    flash: bool = True


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes in one place: all cards together, or the machine's memory."""

    weights: int = 0
    kv: int = 0
    compute: int = 0
    projector: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.compute + self.projector


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """Where the bytes go. `slot`: tokens that one conversation may have; `layers`: how many of all are on the cards."""

    cards: Share
    memory: Share
    slot: int
    layers: int


def estimate(shape: Shape, settings: Settings, *, projector: int = 0, cards: int = 1) -> Estimate:
    """What `shape` takes with these settings, its `projector` (bytes of its file) and so many cards."""
    count = len(shape.layers)
    layers = min(settings.gpu_layers, count) if cards else 0
    whole = layers == count and settings.gpu_layers > count
    first = count - layers
    weights = sum(
        layer.weights - (layer.experts if number < settings.cpu_experts else 0)
        for number, layer in enumerate(shape.layers)
        if number >= first
    )
    weights += shape.output if whole else 0
    caches = [cache(layer, shape, settings) for layer in shape.layers]
    working, seen = activations(shape, settings), mask(shape, settings)
    copies = COPIES if cards > 1 and whole else 1
    logits = settings.slots * shape.vocabulary * FLOAT
    on_cards = Share(
        weights=weights,
        kv=sum(caches[first:]),
        compute=cards * (working + copies * seen) if layers else 0,
        projector=projector if layers else 0,
    )
    in_memory = Share(
        weights=shape.weights - weights + (shape.copied if whole else 0),
        kv=sum(caches[:first]),
        compute=logits + seen + (0 if whole and not settings.cpu_experts else working),
        projector=0 if layers else projector,
    )
    return Estimate(cards=on_cards, memory=in_memory, slot=per_slot(shape, settings), layers=layers)


def up(number: int, unit: int) -> int:
    """The next multiple of `unit`."""
    return -(-number // unit) * unit


def per_slot(shape: Shape, settings: Settings) -> int:
    """Tokens in a cache that sees everything: all of them if slots share one, else a slot's part."""
    context = up(settings.context or shape.trained or CELLS, CELLS)
    return context if settings.unified else up(context // settings.slots, CELLS)


def in_window(shape: Shape, settings: Settings) -> int:
    """Tokens in the cache of a layer with a window: it has room for a batch beside the window."""
    seen = shape.window * (settings.slots if settings.unified else 1) + rows(shape, settings)
    return up(min(per_slot(shape, settings), seen), CELLS)


def cache(layer: Layer, shape: Shape, settings: Settings) -> int:
    """Bytes of one layer's cache and state."""
    cells = in_window(shape, settings) if layer.window else per_slot(shape, settings)
    cells *= 1 if settings.unified else settings.slots
    row = sum(
        size * up(numbers, of) // of
        for numbers, (size, of) in ((layer.keys, TYPES[settings.cache_k]), (layer.values, TYPES[settings.cache_v]))
    )
    return cells * row + settings.slots * layer.state * FLOAT


def rows(shape: Shape, settings: Settings) -> int:
    """Tokens that are computed at once."""
    return min(settings.batch, per_slot(shape, settings) * (1 if settings.unified else settings.slots))


def mask(shape: Shape, settings: Settings) -> int:
    """Bytes that say which token of a batch sees which cell; one for each kind of cache."""
    attending = [layer for layer in shape.layers if layer.keys]
    cells = per_slot(shape, settings) if any(not layer.window for layer in attending) else 0
    cells += in_window(shape, settings) if any(layer.window for layer in attending) else 0
    return rows(shape, settings) * cells * (HALF if settings.flash else FLOAT)


def activations(shape: Shape, settings: Settings) -> int:
    """Bytes of what the hungriest step of a layer holds at once."""
    kept = max((layer.keys + layer.values for layer in shape.layers), default=0)
    attention = 3 * shape.queries + kept + 2 * shape.width
    feed = 3 * shape.inner + 5 * shape.width
    experts = (2 * shape.chosen + 3) * shape.width if shape.chosen else 0
    scores = 0 if settings.flash else shape.heads * per_slot(shape, settings) + attention
    widest = max(attention, feed, experts, scores, shape.recurrent)
    return rows(shape, settings) * widest * FLOAT
