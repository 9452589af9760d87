"""What a header says of a model's memory: which layers have a cache, a window or a state, how large their weights are.

Figures are what llama.cpp says of published models of these architectures.
"""

from __future__ import annotations

import io
from typing import Any

import pytest

from bioproxy.engines import gguf
from bioproxy.engines.shape import Shape, shape_of
from bioproxy.errors import BioproxyError
from support.gguf_files import QWEN, header, layers

Json = Any
MIB = 1 << 20


def shape(keys: Json, tensors: dict[str, int] | None = None, *, size: int = 0) -> Shape:
    """The shape of a file with this header; a file of so many bytes, if that counts."""
    data = header(keys, tensors)
    found = gguf.read_header(io.BytesIO(data))
    return shape_of([(found, size or len(data) + sum((tensors or {}).values()) + 4096)])


def model(architecture: str, count: int, **more: Json) -> Json:
    """Keys of a model with 16 heads of 128."""
    own = {
        "block_count": count, "embedding_length": 2048, "feed_forward_length": 8192, "attention.head_count": 16,
        "context_length": 131072, **{name.replace("__", "."): value for name, value in more.items()},
    }  # fmt: skip
    return {"general.architecture": architecture, **{f"{architecture}.{name}": value for name, value in own.items()}}


def caches(found: Shape) -> list[int]:
    return [layer.keys for layer in found.layers]


def states(found: Shape) -> list[int]:
    return [layer.state for layer in found.layers]


def test_grouped_heads_share_keys_and_values() -> None:
    """Qwen3 8B keeps 8 heads of 128 in each of its 36 layers."""
    found = shape(QWEN)
    assert caches(found) == [1024] * 36
    assert {layer.values for layer in found.layers} == {1024}
    assert (found.trained, found.queries, found.name) == (40960, 4096, "Qwen3 8B")


def test_without_their_own_key_all_heads_are_kept() -> None:
    """A model that says nothing of groups has none."""
    assert caches(shape(model("llama", 2))) == [2048, 2048]


def test_heads_may_differ_by_layer() -> None:
    """Deci's models drop the attention of some layers."""
    assert caches(shape(model("deci", 3, attention__head_count_kv=[8, 0, 4]))) == [1024, 0, 512]


@pytest.mark.parametrize(
    ("architecture", "count", "full"),
    [("gemma2", 4, [1, 3]), ("gemma3", 12, [5, 11]), ("gpt-oss", 4, [1, 3]), ("smallthinker", 8, [0, 4])],
)
def test_which_layers_see_a_window_only_is_known_by_architecture(
    architecture: str, count: int, full: list[int]
) -> None:
    """Where the header has the window's size alone."""
    found = shape(model(architecture, count, attention__sliding_window=1024))
    assert [number for number, layer in enumerate(found.layers) if not layer.window] == full
    assert found.window == 1024


def test_the_header_may_say_which_layers_see_a_window() -> None:
    """Gemma 4 does, and has other heads in them."""
    keys = model(
        "gemma4", 3, attention__sliding_window=512, attention__sliding_window_pattern=[True, True, False],
        attention__head_count_kv=[4, 4, 2], attention__key_length=512, attention__value_length=512,
        attention__key_length_swa=256, attention__value_length_swa=256,
    )  # fmt: skip
    found = shape(keys)
    assert [layer.window for layer in found.layers] == [True, True, False]
    assert caches(found) == [1024, 1024, 1024]


def test_a_window_that_no_layer_is_known_to_have_counts_for_none() -> None:
    """Too large an estimate is better than too small a one."""
    assert not any(layer.window for layer in shape(model("strange", 4, attention__sliding_window=512)).layers)


def test_layers_that_share_a_cache_have_none_of_their_own() -> None:
    """Gemma 3n's last layers use those before them."""
    assert caches(shape(model("gemma3n", 5, attention__shared_kv_layers=2))) == [2048, 2048, 2048, 0, 0]


def test_a_compressed_cache_has_one_row_and_no_values() -> None:
    """DeepSeek V3: 576 numbers for each token and layer."""
    keys = model(
        "deepseek2", 2, attention__head_count_kv=1, attention__key_length=576, attention__value_length=512,
        attention__key_length_mla=192, attention__value_length_mla=128, attention__kv_lora_rank=512,
        rope__dimension_count=64,
    )  # fmt: skip
    found = shape(keys)
    assert caches(found) == [576, 576]
    assert {layer.values for layer in found.layers} == {0}
    assert found.queries == 16 * 576


def test_a_recurrent_model_has_states_and_no_cache() -> None:
    """Mamba: the tail of a convolution, and 16 numbers for each of its inner ones."""
    keys = model("mamba", 2, ssm__conv_kernel=4, ssm__inner_size=4096, ssm__state_size=16)
    found = shape({**keys, "mamba.attention.head_count": 0})
    assert caches(found) == [0, 0]
    assert states(found) == [3 * 4096 + 16 * 4096] * 2


def test_a_hybrid_has_one_or_the_other() -> None:
    """Granite 4 lists no heads for its recurrent layers."""
    keys = model(
        "granitehybrid", 3, attention__head_count_kv=[0, 0, 4], ssm__conv_kernel=4, ssm__inner_size=3072,
        ssm__state_size=128, ssm__group_count=1,
    )  # fmt: skip
    found = shape(keys)
    assert caches(found) == [0, 0, 512]
    assert states(found) == [3 * (3072 + 256) + 128 * 3072] * 2 + [0]


def test_a_hybrid_may_have_layers_with_neither() -> None:
    """Nemotron H's feed-forward layers have no heads, and no state."""
    keys = model(
        "nemotron_h", 3, attention__head_count_kv=[0, 0, 8], feed_forward_length=[0, 9216, 0], ssm__conv_kernel=4,
        ssm__inner_size=4096, ssm__state_size=128, ssm__group_count=8,
    )  # fmt: skip
    found = shape(keys)
    assert [bool(state) for state in states(found)] == [True, False, False]
    assert caches(found) == [0, 0, 1024]


def test_a_hybrid_may_have_both_in_each_layer() -> None:
    """Falcon H1 does."""
    keys = model("falcon-h1", 2, ssm__conv_kernel=4, ssm__inner_size=1024, ssm__state_size=128, ssm__group_count=1)
    assert all(layer.keys and layer.state for layer in shape(keys).layers)


def test_attention_may_come_at_intervals() -> None:
    """Qwen3 Next: every fourth layer; the others have a state."""
    keys = model("qwen3next", 8, ssm__conv_kernel=4, ssm__inner_size=4096, ssm__state_size=128, ssm__group_count=16)
    found = shape(keys)
    assert [number for number, layer in enumerate(found.layers) if layer.keys] == [3, 7]
    assert [number for number, layer in enumerate(found.layers) if not layer.state] == [3, 7]


@pytest.mark.parametrize(
    ("keys", "state"),
    [
        (model("rwkv7", 1, wkv__head_size=64, token_shift_count=2) | {"rwkv7.attention.head_count": 0}, 2048 * 66),
        (model("lfm2", 1, shortconv__l_cache=3, attention__head_count_kv=0), 2048 * 2),
        (model("kimi-linear", 1, ssm__conv_kernel=4, kda__head_dim=128), 3 * 3 * 2048 + 128 * 128 * 16),
    ],
    ids=["rwkv", "lfm2", "kimi"],
)
def test_other_states(keys: Json, state: int) -> None:
    """Each family of recurrent layers has a size of its own."""
    assert states(shape(keys)) == [state]


def test_an_encoder_has_no_cache() -> None:
    """BERT and its like read a text once; they embed it."""
    found = shape(model("nomic-bert", 2, pooling_type=1))
    assert (caches(found), found.kind) == ([0, 0], "embedding")


def test_a_model_that_ranks_says_so() -> None:
    """By the way in which it pools."""
    assert shape(model("qwen3", 2, pooling_type=4)).kind == "ranking"


def test_weights_are_known_layer_by_layer() -> None:
    """Experts apart, and what is before and after the layers."""
    tensors = {"token_embd.weight": 64 * MIB, "output.weight": 32 * MIB, "output_norm.weight": 8192}
    tensors |= layers(2, attn_q=1 * MIB, ffn_up_exps=4 * MIB, ffn_gate_exps=4 * MIB, ffn_down_exps=4 * MIB)
    keys = model("qwen3moe", 2, expert_count=32, expert_used_count=4, expert_feed_forward_length=768)
    size = -(-len(header(keys, tensors)) // 32) * 32 + sum(tensors.values())
    found = shape(keys, tensors, size=size)
    assert [(layer.weights, layer.experts) for layer in found.layers] == [(13 * MIB, 12 * MIB)] * 2
    assert (found.output, found.copied, found.weights) == (32 * MIB + 8192, 0, 122 * MIB + 8192)
    assert (found.inner, found.chosen) == (4 * 768, 4)


def test_an_embedding_that_serves_twice_is_copied() -> None:
    """A card gets its own; the processor looks tokens up in the other one."""
    tensors = {"token_embd.weight": 64 * MIB, **layers(1, attn_q=MIB)}
    assert shape(model("llama", 1), tensors).copied == 64 * MIB


def test_all_parts_of_a_split_model_count() -> None:
    """Keys stand in the first one, tensors in each."""
    first = gguf.read_header(io.BytesIO(header(model("llama", 2), {"blk.0.attn_q.weight": MIB})))
    second = gguf.read_header(io.BytesIO(header({}, {"blk.1.attn_q.weight": 2 * MIB})))
    found = shape_of([(first, first.size + MIB + 31), (second, second.size + 2 * MIB + 31)])
    assert [round(layer.weights / MIB) for layer in found.layers] == [1, 2]


def test_a_header_that_was_not_read_to_its_end_shares_the_weights_out() -> None:
    """The listing of a large folder stops at the vocabulary."""
    data = header({**QWEN, "tokenizer.ggml.tokens": ["x"] * 2000})
    found = gguf.read_header(io.BytesIO(data), whole=False)
    assert found.size < 1000
    seen = shape_of([(found, 36 * MIB)])
    assert not seen.exact
    assert seen.vocabulary == 2000
    assert seen.layers[0].weights == seen.layers[35].weights == seen.weights // 36


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"general.architecture": "clip"},
        model("llama", 0),
        model("llama", 10**6),
        model("llama", 2) | {"llama.embedding_length": "wide"},
    ],
)
def test_what_is_no_model_gets_a_sentence(keys: Json) -> None:
    """A projector, an adapter, nonsense."""
    with pytest.raises(BioproxyError, match="no language model"):
        shape(keys)


@pytest.mark.parametrize("name", ["head_count", "head_count_kv", "key_length", "sliding_window"])
@pytest.mark.parametrize("value", ["text", [], [1] * 2000, 2**32 - 1, True], ids=str)
def test_nonsense_in_a_key_is_no_crash(name: str, value: Json) -> None:
    """A header is somebody else's text."""
    found = shape(model("gemma3", 2) | {f"gemma3.attention.{name}": value, "tokenizer.ggml.tokens": "words"})
    assert len(found.layers) == 2
