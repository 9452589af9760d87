"""What a model will take, against figures that llama.cpp was seen to print; the engine itself is asked below."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bioproxy.embedded.model import Name
from bioproxy.engines import gguf
from bioproxy.engines.estimate import GIB, MIB, Settings, Share, estimate
from bioproxy.engines.library import shape_in
from bioproxy.engines.shape import Layer, Shape, shape_of
from fakes.real_engine import RealEngine
from support.gguf_files import QWEN, header

Json = Any
PLAIN = Shape(
    architecture="llama", width=4096, queries=4096, heads=32, inner=14336, vocabulary=128256, trained=131072,
    layers=(Layer(keys=1024, values=1024, weights=100 * MIB),) * 32, weights=4200 * MIB, output=400 * MIB,
)  # fmt: skip


def taken(shape: Shape = PLAIN, **settings: Json) -> Share:
    """Without a card."""
    return estimate(shape, Settings(**settings), cards=0).memory


def test_a_cache_is_keys_and_values_of_each_layer() -> None:
    """128 KiB for each token of Llama 3 8B, as everybody knows."""
    assert taken(context=8192).kv == 1 * GIB


@pytest.mark.parametrize(("kind", "bytes_per_32"), [("f32", 128), ("q8_0", 34), ("q5_1", 24), ("q4_0", 18)])
def test_cache_types_differ_in_size(kind: str, bytes_per_32: int) -> None:
    """A quantised one has a scale for 32 numbers."""
    assert taken(context=8192, cache_k=kind, cache_v=kind).kv == 8192 * 32 * 2048 * bytes_per_32 // 32


def test_keys_and_values_may_have_types_of_their_own() -> None:
    """-ctk and -ctv."""
    assert taken(context=8192, cache_k="q8_0").kv == (8192 * 32 * 1024) * 34 // 32 + 8192 * 32 * 1024 * 2


def test_no_context_means_all_that_it_was_trained_for() -> None:
    """As llama-server's -c 0."""
    assert taken().kv == 16 * GIB


def test_slots_divide_the_context_and_round_up() -> None:
    """5000 tokens for three slots are three caches of 1792 (seen in llama.cpp's log)."""
    found = estimate(PLAIN, Settings(context=5000, slots=3), cards=0)
    assert (found.slot, found.memory.kv) == (1792, 3 * 1792 * 128 * 1024)


def test_slots_may_share_one_cache() -> None:
    """Then each may have all of it."""
    assert estimate(PLAIN, Settings(context=8192, slots=4, unified=True), cards=0).slot == 8192


def test_a_window_keeps_itself_and_a_batch() -> None:
    """However long the context is; slots that share a cache need a window each."""
    windowed = msgspec.structs.replace(PLAIN, window=1024, layers=(Layer(keys=1024, values=1024, window=True),) * 32)
    assert taken(windowed, context=65536).kv == 1536 * 128 * 1024
    assert taken(windowed, context=65536, slots=2).kv == 2 * 1536 * 128 * 1024
    assert taken(windowed, context=65536, slots=2, unified=True).kv == 2560 * 128 * 1024


def test_a_state_is_kept_for_each_slot_whatever_the_context() -> None:
    """Recurrent layers."""
    recurrent = msgspec.structs.replace(PLAIN, layers=(Layer(state=1000),) * 32)
    assert taken(recurrent, context=4096).kv == taken(recurrent, context=65536).kv == 128_000
    assert taken(recurrent, context=65536, slots=4).kv == 512_000


def test_without_flash_attention_all_scores_stand_at_once() -> None:
    """Heads x context x batch."""
    scores = 32 * 8192 * 512 * 4
    assert taken(context=8192, flash=False).compute > scores > 2 * taken(context=8192).compute


def test_experts_that_a_token_uses_make_the_step_wide() -> None:
    """Seen with 32 experts, of which 8 are used: 46.5 MiB instead of 22.5."""
    keys = {"block_count": 6, "embedding_length": 1024, "feed_forward_length": 2048, "expert_count": 32}
    keys |= {"expert_used_count": 8, "expert_feed_forward_length": 768, "attention.head_count": 8}
    data = header({"general.architecture": "qwen3moe", **{f"qwen3moe.{name}": value for name, value in keys.items()}})
    shape = shape_of([(gguf.read_header(io.BytesIO(data)), len(data))])
    assert taken(shape, context=512).compute / MIB == pytest.approx(46.5, rel=0.02)


def test_cards_take_layers_from_the_end_with_their_caches() -> None:
    """-ngl 8 of 32; all of them and one more take what follows the layers, too."""
    some, every = (estimate(PLAIN, Settings(context=8192, gpu_layers=count)) for count in (8, 99))
    assert (some.cards.weights, some.cards.kv, some.layers) == (800 * MIB, 256 * MIB, 8)
    assert (some.memory.weights, some.memory.kv) == (3400 * MIB, 768 * MIB)
    assert (every.cards.weights, every.cards.kv) == (3600 * MIB, 1 * GIB)
    assert (every.memory.weights, every.memory.kv) == (600 * MIB, 0)


def test_experts_may_stay_in_memory() -> None:
    """--n-cpu-moe 4: those of the first four layers."""
    layers = (Layer(keys=1024, values=1024, weights=100 * MIB, experts=90 * MIB),) * 32
    found = estimate(msgspec.structs.replace(PLAIN, layers=layers), Settings(context=8192, cpu_experts=4))
    assert found.cards.weights == (3600 - 4 * 90) * MIB
    assert found.cards.kv == 1 * GIB


def test_each_card_needs_buffers_of_its_own() -> None:
    """And several at the same time, because they work on more than one batch."""
    one, two = (estimate(PLAIN, Settings(context=8192), cards=count).cards.compute for count in (1, 2))
    assert two > 2 * one


def test_a_projector_goes_where_the_layers_are() -> None:
    """Onto the cards, if there are any."""
    assert estimate(PLAIN, Settings(context=8192), projector=GIB).cards.projector == GIB
    assert estimate(PLAIN, Settings(context=8192), projector=GIB, cards=0).memory.projector == GIB


def test_qwen3_takes_what_its_users_see() -> None:
    """5.6 GiB of cache for its whole context (llama.cpp: 5760.00 MiB)."""
    data = header(QWEN)
    shape = shape_of([(gguf.read_header(io.BytesIO(data)), len(data))])
    assert taken(shape).kv == 5760 * MIB


def family(architecture: str, layers: int = 4, **more: Json) -> Shape:
    """A small model of a family, with heads of 64."""
    keys = {"block_count": layers, "embedding_length": 256, "feed_forward_length": 512, "attention.head_count": 4}
    keys |= {"attention.head_count_kv": 2, "attention.key_length": 64, "attention.value_length": 64}
    keys |= {name.replace("__", "."): value for name, value in more.items()}
    data = header({"general.architecture": architecture, **{f"{architecture}.{name}": keys[name] for name in keys}})
    return shape_of([(gguf.read_header(io.BytesIO(data)), len(data))])


SSM = {"ssm__conv_kernel": 4, "ssm__inner_size": 512, "ssm__state_size": 64, "ssm__group_count": 1}
MLA = {"head_count_kv": 1, "kv_lora_rank": 128, "key_length": 160, "value_length": 128}
MLA |= {"key_length_mla": 96, "value_length_mla": 64}


@pytest.mark.parametrize(
    ("shape", "cache", "compute"),
    [
        (family("lfm2", attention__head_count_kv=[0, 0, 2, 0], shortconv__l_cache=3), 8.01, 13.5),
        (family("granitehybrid", attention__head_count_kv=[0, 0, 2, 0], **SSM), 8.79, 16.3),
        (family("falcon-h1", **SSM), 33.06, 16.8),
        (family("mamba2", attention__head_count=0, attention__head_count_kv=0, **SSM), 1.06, 8.3),
        (family("deepseek2", rope__dimension_count=32, **{f"attention__{n}": v for n, v in MLA.items()}), 20.0, 13.5),
        (family("gemma2", attention__sliding_window=512), 18.0, 14.5),
        (family("cohere2", 8, attention__sliding_window=512), 22.0, 15.0),
        (family("olmo2", 8, attention__sliding_window=512), 22.0, 14.5),
        (family("exaone4", 8, attention__sliding_window=512), 64.0, 13.5),
        (family("exaone4", 64, attention__sliding_window=512), 176.0, 14.5),
        (family("llama4", 8, expert_count=4, expert_used_count=1, expert_feed_forward_length=256), 64.0, 20.0),
        (family("phi3", attention__sliding_window=512), 32.0, 13.5),
    ],
    ids=lambda value: f"{value.architecture} {len(value.layers)}" if isinstance(value, Shape) else "",
)
def test_families_take_what_the_engine_was_seen_to_take(shape: Shape, cache: float, compute: float) -> None:
    """MiB of caches and compute buffer for two slots of 8192 tokens, as llama.cpp of October 2026 prints them."""
    share = taken(shape, context=16384, slots=2)
    assert share.kv / MIB == pytest.approx(cache, abs=0.01)
    assert share.compute / MIB == pytest.approx(compute, rel=0.1)


# the engine's own word

BUFFER = re.compile(r"(model|output|KV|RS|compute) buffer size = +([\d.]+) MiB")


@pytest.mark.real_engine
@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("tiny", {"context": 8192, "cache_k": "q8_0", "cache_v": "q8_0"}),
        ("swa", {"context": 16384, "slots": 2}),
        ("mamba", {"context": 4096, "slots": 4}),
    ],
)
async def test_the_estimate_is_what_the_engine_takes(family: Name, settings: Json, tmp_path: Path) -> None:
    """Within ten per cent of the sum of the buffers in its log; weights and caches to the rounding of that."""
    flags = {"ctx_size": settings["context"], "parallel": settings.get("slots", 1)}
    flags |= {f"cache_type_{which}": settings.get(f"cache_{which}", "f16") for which in "kv"}
    async with RealEngine(shape=family, verbosity=4, **flags) as engine:
        sizes = [(found[1], float(found[2])) for line in engine.lines if (found := BUFFER.search(line))]
    told = {kind: sum(size for name, size in sizes if name in kinds) for kind, kinds in KINDS.items()}
    _, shape = shape_in(str(engine.model))
    share = taken(shape, **settings)
    assert share.weights / MIB == pytest.approx(told["weights"], abs=0.02)
    assert share.kv / MIB == pytest.approx(told["kv"], abs=0.02)
    assert share.compute / MIB == pytest.approx(told["compute"], rel=0.25)
    assert share.total / MIB == pytest.approx(sum(told.values()), rel=0.1)


KINDS = {"weights": ("model",), "kv": ("KV", "RS"), "compute": ("compute", "output")}
