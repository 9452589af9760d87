"""What a GGUF header says of the memory that its model will take: a Shape, the same for every architecture.

llama.cpp gives each layer one of three kinds of memory, and some layers two or none: a cache of keys and values for
every token of the context; the same for the last tokens only (a sliding window); a state of fixed size for each
sequence (mamba, RWKV and the like). Which layer has which is in part in the header (`head_count_kv` as an array,
`sliding_window_pattern`, `full_attention_interval`) and in part in llama.cpp's source, by architecture (`PATTERNS`).
If neither says it, a layer counts as one that sees everything: an estimate may be too large, but not too small.

Pure. Names of keys: gguf.md in ggml's docs, `llama-arch.cpp`; what they mean for memory: `llama-hparams.cpp`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from bioproxy.engines.gguf import Header, Scalar
from bioproxy.errors import BioproxyError

ALIGNMENT = 32
MOST_LAYERS = 1024
BLOCK = re.compile(r"blk\.(\d+)\.")
EXPERTS = re.compile(r"\.ffn_(up|down|gate|gate_up)_(ch)?exps\.")
INPUT = ("token_embd.", "per_layer_token_embd.")  # looked up by the processor, wherever the layers are
CHUNKED = {"llama4": 8192}  # windows that stand in the source only
WINDOWED = {"exaone4": 64}  # of this architecture only the model with so many layers uses its windows
PATTERNS: dict[str, tuple[int, bool]] = {  # every n-th layer sees everything; the last of n, or the first
    "gemma2": (2, False),
    "gemma3": (6, False),
    "gemma3n": (5, False),
    "gemma-embedding": (6, False),
    "gpt-oss": (2, False),
    "cohere2": (4, False),
    "llama4": (4, False),
    "exaone4": (4, False),
    "olmo2": (4, False),
    "afmoe": (4, False),
    "modern-bert": (3, True),
    "smallthinker": (4, True),
}
CACHELESS = frozenset({
    "bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert",
    "gemma-embedding",
})  # fmt: skip
RANKS = 4  # the pooling of a model that ranks
INTERVALS = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4}  # every n-th layer has attention, the others a state


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One layer: numbers in its cache for each token, numbers (of four bytes) in its state, bytes of its weights."""

    keys: int = 0
    values: int = 0
    window: bool = False
    state: int = 0
    weights: int = 0
    experts: int = 0  # those of the weights that are a mixture's, of which a token uses few


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """A model's memory: its layers, and how wide it computes (numbers for each token of a batch).

    `weights` are all of them, in bytes; `output` those that follow the last layer. If the embedding serves as output,
    too, a card gets a copy of it: `copied`. `exact`: the header told the size of each tensor, not only of all.
    """

    architecture: str
    name: str = ""
    kind: Literal["chat", "embedding", "ranking"] = "chat"
    trained: int = 0
    vocabulary: int = 0
    window: int = 0
    width: int = 0
    queries: int = 0
    heads: int = 0
    inner: int = 0
    chosen: int = 0  # how many experts each token uses
    recurrent: int = 0
    layers: tuple[Layer, ...] = ()
    weights: int = 0
    output: int = 0
    copied: int = 0
    exact: bool = True

    @property
    def experts(self) -> int:
        return sum(layer.experts for layer in self.layers)


class Keys:
    """An architecture's keys; what is missing or no number is 0."""

    def __init__(self, header: Header) -> None:
        self.architecture = header.architecture
        self.header = header

    def whole(self, name: str, default: int = 0) -> int:
        value: Scalar | None = self.header.keys.get(f"{self.architecture}.{name}")
        return value if isinstance(value, int) and value >= 0 and not self.listed(name) else default

    def listed(self, name: str) -> tuple[Scalar, ...]:
        return self.header.lists.get(f"{self.architecture}.{name}", ())

    def each(self, name: str, layers: int, default: int = 0) -> list[int]:
        """A number for each layer: an array's, or the one that counts for all."""
        given = self.listed(name)
        if not given:
            return [self.whole(name, default)] * layers
        return [value if isinstance(value, int) and value > 0 else 0 for value in (*given, *[0] * layers)[:layers]]


def shape_of(parts: Sequence[tuple[Header, int]]) -> Shape:
    """The shape of a model whose files have these headers and sizes; the first one has the keys.

    BioproxyError if it is no model that can be asked something: a projector, an adapter, or a header without layers.
    """
    header = parts[0][0]
    keys = Keys(header)
    count = keys.whole("block_count")
    if (
        not header.architecture.isprintable()
        or not header.architecture
        or not 0 < count <= MOST_LAYERS
        or not keys.whole("embedding_length")
    ):
        kind = str(header.keys.get("general.type", "")) or header.architecture or "unknown"
        raise BioproxyError(f"this GGUF file is no language model: its kind is {kind!r}, with {count} layers")
    heads, width = keys.each("attention.head_count", count), keys.whole("embedding_length")
    sizes = tensor_sizes(parts)
    layers = tuple(
        msgspec.structs.replace(layer, weights=sizes.layers[number], experts=sizes.experts[number])
        if sizes.layers
        else layer
        for number, layer in enumerate(caches(keys, count))
    )
    widest, words = max(heads), header.keys.get("tokenizer.ggml.tokens")
    lora = keys.whole("attention.kv_lora_rank") if is_mla(keys) else 0
    return Shape(
        architecture=header.architecture,
        name=str(header.keys.get("general.name", "")),
        kind=kind_of(keys),
        trained=keys.whole("context_length"),
        vocabulary=keys.whole("vocab_size") or (words if isinstance(words, int) else 0),
        window=window_of(keys),
        width=width,
        queries=widest * ((lora + keys.whole("rope.dimension_count")) or head_size(keys, "key", widest)),
        heads=widest,
        inner=inner_of(keys, count),
        chosen=keys.whole("expert_used_count") if keys.whole("expert_count") else 0,
        recurrent=scan_of(keys) or (width if state_of(keys, widest) else 0),
        layers=layers if sizes.layers else evenly(layers, sizes.total),
        weights=sizes.total,
        output=sizes.output,
        copied=sizes.copied,
        exact=bool(sizes.layers),
    )


def kind_of(keys: Keys) -> Literal["chat", "embedding", "ranking"]:
    """What it is for: a model that pools its tokens does not chat."""
    if not has(keys, "pooling_type") and keys.architecture not in CACHELESS:
        return "chat"
    return "ranking" if keys.whole("pooling_type") == RANKS else "embedding"


def head_size(keys: Keys, of: str, heads: int, *, window: bool = False) -> int:
    """Numbers in one head's key or value."""
    usual = keys.whole("embedding_length") // heads if heads else 0
    size = keys.whole(f"attention.{of}_length", usual)
    return keys.whole(f"attention.{of}_length_swa", size) if window else size


def is_mla(keys: Keys) -> bool:
    """Whether keys and values are one compressed row (DeepSeek 2 and later): then no values are kept."""
    return bool(keys.whole("attention.key_length_mla") and keys.whole("attention.value_length_mla"))


def window_of(keys: Keys) -> int:
    """Tokens that a layer with a window sees; 0: all layers see everything."""
    return keys.whole("attention.sliding_window", CHUNKED.get(keys.architecture, 0))


def windows(keys: Keys, count: int) -> list[bool]:
    """Which layers see a window only."""
    given = keys.listed("attention.sliding_window_pattern")
    unknown = not given and keys.architecture not in PATTERNS
    if not window_of(keys) or unknown or WINDOWED.get(keys.architecture, count) != count:
        return [False] * count
    if given:
        return [bool(value) for value in (*given, *[False] * count)[:count]]
    every, first = PATTERNS[keys.architecture]
    every = keys.whole("attention.sliding_window_pattern", every) or 1
    return [number % every != (0 if first else every - 1) for number in range(count)]


def caches(keys: Keys, count: int) -> Iterable[Layer]:
    """The layers' caches and states, by their number."""
    heads = keys.each("attention.head_count", count)
    cached = keys.each("attention.head_count_kv", count) if has(keys, "attention.head_count_kv") else heads
    inner = keys.each("feed_forward_length", count)
    some = any(cached)
    uneven = some and not all(cached)
    interval = keys.whole("full_attention_interval", INTERVALS.get(keys.architecture, 0))
    without = keys.whole("nextn_predict_layers") + keys.whole("attention.shared_kv_layers")
    for number, window in enumerate(windows(keys, count)):
        state = state_of(keys, heads[number] or max(heads))
        if uneven:  # a layer without heads is a recurrent one, unless it is only a feed-forward layer
            state = state if not cached[number] and not (keys.listed("feed_forward_length") and inner[number]) else 0
        elif interval > 1:
            state = 0 if number % interval == interval - 1 else state
        has_cache = keys.architecture not in CACHELESS and number < count - without and not (interval > 1 and state)
        size = cached[number] if has_cache else 0
        yield Layer(
            keys=size * head_size(keys, "key", heads[number], window=window),
            values=0 if is_mla(keys) else size * head_size(keys, "value", heads[number], window=window),
            window=window,
            state=state,
        )


def has(keys: Keys, name: str) -> bool:
    return f"{keys.architecture}.{name}" in keys.header.keys


def state_of(keys: Keys, heads: int) -> int:
    """Numbers in a recurrent layer's state for one sequence; 0 for an architecture that has none."""
    width = keys.whole("embedding_length")
    if head := keys.whole("wkv.head_size"):  # RWKV
        return width * (keys.whole("token_shift_count", 2) + head)
    if cells := keys.whole("shortconv.l_cache"):  # LFM2
        return width * (cells - 1)
    kernel = keys.whole("ssm.conv_kernel")
    if head := keys.whole("kda.head_dim"):  # Kimi Linear
        return 3 * max(kernel - 1, 0) * head * heads + head * head * heads
    inner, states = keys.whole("ssm.inner_size"), keys.whole("ssm.state_size")
    return max(kernel - 1, 0) * (inner + 2 * keys.whole("ssm.group_count") * states) + states * inner


def scan_of(keys: Keys) -> int:
    """Numbers for each token that a step of a state space layer holds at once, as measured."""
    return keys.whole("ssm.inner_size") * 15 // 2 + 8 * keys.whole("ssm.group_count") * keys.whole("ssm.state_size")


def inner_of(keys: Keys, count: int) -> int:
    """How wide the feed-forward part computes: of experts, those that one token uses."""
    dense = max(keys.each("feed_forward_length", count))
    if not keys.whole("expert_count"):
        return dense
    expert = keys.whole("expert_feed_forward_length", dense)
    shared = keys.whole("expert_shared_feed_forward_length", expert * keys.whole("expert_shared_count"))
    leading = dense if keys.whole("leading_dense_block_count") else 0
    return max(keys.whole("expert_used_count") * expert, shared, leading)


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of weights: all, those of each layer, of its experts, and outside the layers (Shape says which)."""

    total: int
    layers: tuple[int, ...] = ()
    experts: tuple[int, ...] = ()
    output: int = 0
    copied: int = 0


def tensor_sizes(parts: Sequence[tuple[Header, int]]) -> Sizes:
    """How large the weights are. A tensor ends where the next one begins, so that no table of types is needed."""
    total = sum(max(size - aligned(header), 0) for header, size in parts)
    keys = Keys(parts[0][0])
    count = keys.whole("block_count")
    if not any(header.table for header, _ in parts):
        return Sizes(total=total)
    layers, experts, inputs, output, tied = [0] * count, [0] * count, 0, 0, True
    for name, size in (entry for header, length in parts for entry in tensors(header, length)):
        found = BLOCK.match(name)
        if found is not None and len(found[1]) < 5 and int(found[1]) < count:
            layers[int(found[1])] += size
            experts[int(found[1])] += size if EXPERTS.search(name) else 0
        elif name.startswith(INPUT):
            inputs += size
        else:
            tied = tied and not name.startswith("output.")
            output += size
    copied = inputs if tied else 0
    return Sizes(total=total, layers=tuple(layers), experts=tuple(experts), output=output + copied, copied=copied)


def aligned(header: Header) -> int:
    """Where the weights begin."""
    unit = header.keys.get("general.alignment", ALIGNMENT)
    unit = unit if isinstance(unit, int) and unit > 0 else ALIGNMENT
    return -(-header.size // unit) * unit


def tensors(header: Header, length: int) -> Iterable[tuple[str, int]]:
    """Each tensor and its bytes; of a table that does not fit the file, what fits."""
    data = max(length - aligned(header), 0)
    begins = sorted((min(max(begin, 0), data), name) for name, begin in header.table)
    ends = [begin for begin, _ in begins[1:]] + [data]
    return ((name, end - begin) for (begin, name), end in zip(begins, ends, strict=True))


def evenly(layers: Sequence[Layer], total: int) -> tuple[Layer, ...]:
    """Layers that share the weights, for a header that was not read to its end."""
    return tuple(msgspec.structs.replace(layer, weights=total // len(layers)) for layer in layers)
