"""Writes GGUF files with random weights: a model for the demo, small ones for tests, in seconds and without a download.

Such a model says nothing sensible, but everything that bioproxy is about is real in it: a prompt costs the engine time
in proportion to its tokens, the KV cache has its true size, and text depends on all that stands before it (queries
and keys are scaled so that attention is sharp; with the usual small random weights it averages over the whole prompt,
and a wrong cache would go unnoticed). Equal shape and seed give equal bytes; another seed is a model of the same shape
with other weights, which is what a test of mixed-up snapshots needs.

Needs the `[llama]` extra (`gguf`, `numpy`), imported where they are used, so that `bioproxy` starts without them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from bioproxy.embedded import vocabulary
from bioproxy.errors import BioproxyError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

Name = Literal["tiny", "demo", "swa", "mamba", "hybrid"]
EPSILON = 1e-5
LOGIT_SPREAD = 3.0  # standard deviation of the logits: peaked enough to sample from, far from one-hot
KERNEL = 3  # tokens that a short convolution sees
SHARPNESS = 1.7  # scale of queries and keys; their product's deviation is the square of it


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What the weights look like. `width` is the embedding's, `heads` are `width / heads` wide, `window` is gemma's."""

    architecture: Literal["llama", "gemma3", "mamba", "lfm2"]
    width: int
    layers: int
    heads: int
    inner: int
    context: int = 32768
    window: int = 0
    stops: float = 0.0  # weight of the end-of-turn row: 0 never ends by itself, 1.8 after some forty tokens


SHAPES: dict[Name, Shape] = {
    "tiny": Shape(architecture="llama", width=128, layers=2, heads=2, inner=256),
    "demo": Shape(architecture="llama", width=512, layers=8, heads=8, inner=1024, stops=1.8),
    "swa": Shape(architecture="gemma3", width=128, layers=6, heads=2, inner=256, window=256),
    "mamba": Shape(architecture="mamba", width=128, layers=2, heads=1, inner=256),
    "hybrid": Shape(architecture="lfm2", width=128, layers=4, heads=2, inner=256),
}


def write_model(path: str | Path, *, shape: Name = "demo", seed: int = 0) -> None:
    """Write the model `shape` with the weights of `seed` to `path`; whole or not at all.

    `tiny` is about 3 MB, `demo` 50 MB. Raises BioproxyError if the `[llama]` extra is missing.
    """
    try:
        import gguf  # an extra
    except ImportError as error:
        raise BioproxyError("writing a demo model needs the extra: pip install 'bioproxy[llama]'") from error
    partial = Path(f"{path}.{os.getpid()}.part")
    try:
        writer = gguf.GGUFWriter(str(partial), SHAPES[shape].architecture)
        describe(writer, SHAPES[shape], name=f"bioproxy {shape} {seed}")
        for name, values in tensors(SHAPES[shape], seed=seed):
            writer.add_tensor(name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def ensure_model(folder: str | Path, *, shape: Name = "demo", seed: int = 0) -> Path:
    """The path of the model in `folder` (made if it is missing), written only if it is not there yet."""
    path = Path(folder) / f"bioproxy-{shape}-{seed}.gguf"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_model(path, shape=shape, seed=seed)
    return path


def describe(writer: Any, shape: Shape, *, name: str) -> None:
    """The header: hyper-parameters, tokenizer, chat template."""
    import gguf  # an extra

    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_layer_norm_rms_eps(EPSILON)
    if shape.architecture == "mamba":
        writer.add_feed_forward_length(0)
        writer.add_head_count(0)
        writer.add_ssm_conv_kernel(4)
        writer.add_ssm_inner_size(shape.inner)
        writer.add_ssm_state_size(16)
        writer.add_ssm_time_step_rank(8)
    else:
        writer.add_feed_forward_length(shape.inner)
        writer.add_head_count(shape.heads)
        writer.add_head_count_kv(attention(shape))
        writer.add_key_length(shape.width // shape.heads)
        writer.add_value_length(shape.width // shape.heads)
        writer.add_rope_freq_base(100_000.0)
    if shape.window:
        writer.add_sliding_window(shape.window)
    if shape.architecture == "lfm2":
        writer.add_shortconv_l_cache(KERNEL)
    describe_tokenizer(writer)


def attention(shape: Shape) -> int | list[int]:
    """Heads of the cache: of a hybrid by layer, of which every second one has a state instead."""
    if shape.architecture != "lfm2":
        return shape.heads
    return [shape.heads * (number % 2) for number in range(shape.layers)]


def describe_tokenizer(writer: Any) -> None:
    """The part of the header that the tokenizer and `/apply-template` read."""
    words = vocabulary.load()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_vocab_size(len(words.tokens))
    writer.add_token_list(list(words.tokens))
    writer.add_token_types(list(words.types))
    writer.add_token_merges(list(words.merges))
    writer.add_bos_token_id(words.id(vocabulary.BEGIN))
    writer.add_eos_token_id(words.id(vocabulary.TURN_END))
    writer.add_pad_token_id(words.id(vocabulary.END))
    writer.add_add_bos_token(True)
    writer.add_chat_template(vocabulary.CHAT_TEMPLATE)


def tensors(shape: Shape, *, seed: int) -> Iterator[tuple[str, Array]]:
    """Every tensor by its GGUF name, in file order: matrices of float16 (rows = outputs), vectors of float32."""
    import numpy as np  # an extra

    random = Random(seed)
    words = vocabulary.load()
    yield "token_embd.weight", random.matrix(len(words.tokens), shape.width, scale=shape.width**0.5)
    norm = "token_embd_norm.weight" if shape.architecture == "lfm2" else "output_norm.weight"
    yield norm, np.ones(shape.width, dtype=np.float32)
    output = np.zeros((len(words.tokens), shape.width), dtype=np.float16)
    spoken = list(words.speakable)
    output[spoken] = random.matrix(len(spoken), shape.width, scale=LOGIT_SPREAD)
    output[words.id(vocabulary.TURN_END)] = random.matrix(1, shape.width, scale=LOGIT_SPREAD * shape.stops)[0]
    yield "output.weight", output
    kinds = {"llama": [llama_layer], "gemma3": [gemma_layer], "mamba": [mamba_layer], "lfm2": [conv_layer, lfm_layer]}
    layers = kinds[shape.architecture]
    for number in range(shape.layers):
        for name, values in layers[number % len(layers)](shape, random):
            yield f"blk.{number}.{name}", values


class Random:
    """A stream of weights; the same seed gives the same stream."""

    def __init__(self, seed: int) -> None:
        import numpy as np  # an extra

        self.np = np
        self.generator = np.random.default_rng(seed)

    def matrix(self, rows: int, columns: int, *, scale: float = 1.0) -> Array:
        """`rows` x `columns`, float16, scaled so that an input of unit variance gives an output of `scale`."""
        values = self.generator.standard_normal((rows, columns), dtype=self.np.float32)
        weights: Array = (values * (scale / columns**0.5)).astype(self.np.float16)
        return weights

    def ones(self, length: int) -> Array:
        """A norm's weight or a skip's: it leaves values as they are."""
        ones: Array = self.np.ones(length, dtype=self.np.float32)
        return ones


def llama_layer(shape: Shape, random: Random) -> Iterator[tuple[str, Array]]:
    """Attention and SwiGLU as in Llama."""
    width = shape.width
    yield "attn_norm.weight", random.ones(width)
    yield "attn_q.weight", random.matrix(width, width, scale=SHARPNESS)
    yield "attn_k.weight", random.matrix(width, width, scale=SHARPNESS)
    yield "attn_v.weight", random.matrix(width, width)
    yield "attn_output.weight", random.matrix(width, width)
    yield from swiglu(shape, random)


def swiglu(shape: Shape, random: Random) -> Iterator[tuple[str, Array]]:
    """What follows in every layer of the kind."""
    yield "ffn_norm.weight", random.ones(shape.width)
    yield "ffn_gate.weight", random.matrix(shape.inner, shape.width)
    yield "ffn_up.weight", random.matrix(shape.inner, shape.width)
    yield "ffn_down.weight", random.matrix(shape.width, shape.inner)


def gemma_layer(shape: Shape, random: Random) -> Iterator[tuple[str, Array]]:
    """A Llama layer with the norms that Gemma 3 adds; five of six layers see a window only."""
    yield from llama_layer(shape, random)
    yield "attn_q_norm.weight", random.ones(shape.width // shape.heads) * SHARPNESS
    yield "attn_k_norm.weight", random.ones(shape.width // shape.heads) * SHARPNESS
    yield "post_attention_norm.weight", random.ones(shape.width)
    yield "post_ffw_norm.weight", random.ones(shape.width)


def lfm_layer(shape: Shape, random: Random) -> Iterator[tuple[str, Array]]:
    """A Llama layer with the norms of LFM2."""
    yield from llama_layer(shape, random)
    yield "attn_q_norm.weight", random.ones(shape.width // shape.heads) * SHARPNESS
    yield "attn_k_norm.weight", random.ones(shape.width // shape.heads) * SHARPNESS


def conv_layer(shape: Shape, random: Random) -> Iterator[tuple[str, Array]]:
    """LFM2's short convolution: what it knows of the prompt is its last tokens, which cannot be cut back."""
    import numpy as np  # an extra

    yield "attn_norm.weight", random.ones(shape.width)
    yield "shortconv.in_proj.weight", random.matrix(3 * shape.width, shape.width)
    yield "shortconv.conv.weight", random.matrix(shape.width, KERNEL).astype(np.float32)
    yield "shortconv.out_proj.weight", random.matrix(shape.width, shape.width)
    yield from swiglu(shape, random)


def mamba_layer(shape: Shape, random: Random) -> Iterator[tuple[str, Array]]:
    """A selective state space layer: its state does not grow with the prompt, and cannot be cut back."""
    import numpy as np  # an extra

    states, rank, kernel = 16, 8, 4
    decay = -np.tile(np.arange(1, states + 1, dtype=np.float32), (shape.inner, 1))
    yield "attn_norm.weight", random.ones(shape.width)
    yield "ssm_in.weight", random.matrix(2 * shape.inner, shape.width)
    yield "ssm_conv1d.weight", random.matrix(shape.inner, kernel).astype(np.float32)
    yield "ssm_conv1d.bias", random.ones(shape.inner) * 0
    yield "ssm_x.weight", random.matrix(rank + 2 * states, shape.inner)
    yield "ssm_dt.weight", random.matrix(shape.inner, rank)
    yield "ssm_dt.bias", random.ones(shape.inner) * -4
    yield "ssm_a", decay
    yield "ssm_d", random.ones(shape.inner)
    yield "ssm_out.weight", random.matrix(shape.width, shape.inner)
