"""Which context, cache type and offload a model gets on which machine."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bioproxy.engines.estimate import ALL, GIB, MIB
from bioproxy.engines.placement import RESERVE, Card, Machine, Placement, fits, flags, place
from bioproxy.engines.shape import Layer, Shape

Json = Any
EIGHT_B = Shape(
    architecture="llama", width=4096, queries=4096, heads=32, inner=14336, vocabulary=128256, trained=131072,
    layers=(Layer(keys=1024, values=1024, weights=130 * MIB),) * 32, weights=4700 * MIB, output=400 * MIB,
)  # fmt: skip
EXPERTS = msgspec.structs.replace(
    EIGHT_B, layers=(Layer(keys=512, values=512, weights=600 * MIB, experts=560 * MIB),) * 32, weights=19600 * MIB
)


def machine(*cards: int, memory: int = 64, shared: bool = False) -> Machine:
    """Cards of so many GiB."""
    names = tuple(Card(name=f"card {size}", bytes=size * GIB) for size in cards)
    return Machine(memory=memory * GIB, cards=names, shared=shared)


def words(shape: Shape, where: Machine) -> str:
    """The flags that are proposed."""
    return " ".join(flags(place(shape, where), cards=bool(where.cards)))


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (machine(48), "-c 131072 -np 1 -ngl 999"),
        (machine(24), "-c 131072 -np 1 -ngl 999"),
        (machine(16), "-c 65536 -np 1 -ngl 999"),
        (machine(12), "-c 32768 -np 1 -ngl 999"),
        (machine(8), "-c 32768 -np 1 -ngl 999 -ctk q8_0 -ctv q8_0"),
        (machine(7), "-c 16384 -np 1 -ngl 999 -ctk q8_0 -ctv q8_0"),
        (machine(4), "-c 16384 -np 1 -ngl 15"),
        (machine(), "-c 32768 -np 1"),
        (machine(memory=8), "-c 8192 -np 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_model_of_8b_on_machines_of_all_sizes(where: Machine, expected: str) -> None:
    """Long and exact first, then quantised, then shorter, then layers in memory."""
    found = place(EIGHT_B, where)
    assert found.fits
    assert words(EIGHT_B, where).startswith(expected)


@pytest.mark.parametrize(
    ("trained", "size", "asked", "expected"),
    [
        (131072, 48, 2, "-c 262144 -np 2 -ngl 999"),
        (131072, 24, 2, "-c 131072 -np 2 -ngl 999"),
        (40960, 24, 3, "-c 122880 -np 3 -ngl 999"),
        (131072, 8, 4, "-c 32768 -np 4 -ngl 999 -ctk q8_0 -ctv q8_0"),
        (131072, 6, 4, "-c 16384 -np 1 -ngl 25"),
        (131072, 0, 2, "-c 65536 -np 2"),
    ],
)
def test_slots_that_are_asked_for_share_the_context(trained: int, size: int, asked: int, expected: str) -> None:
    """Fewer of them rather than a layer in memory."""
    shape = msgspec.structs.replace(EIGHT_B, trained=trained)
    where = machine(*([size] if size else []))
    assert " ".join(flags(place(shape, where, slots=asked), cards=bool(size))) == expected


def test_how_many_slots_would_fit_is_known() -> None:
    """With the context that is proposed for each; eight are enough for anybody."""
    short = msgspec.structs.replace(EIGHT_B, trained=40960)
    assert [place(short, machine(size)).slots for size in (12, 24, 80)] == [1, 3, 8]
    assert place(short, machine(24), slots=2).slots == 3
    assert place(EIGHT_B, machine(24)).slots == place(EIGHT_B, machine()).slots == place(EIGHT_B, machine(4)).slots == 1


def test_a_mixture_leaves_as_few_experts_in_memory_as_it_must() -> None:
    """One layer's less would not fit."""
    where = machine(16)
    found = place(EXPERTS, where)
    assert found.fits
    assert found.settings.gpu_layers == ALL
    assert 0 < found.settings.cpu_experts < 32
    assert "--n-cpu-moe" in found.why
    less = msgspec.structs.replace(found.settings, cpu_experts=found.settings.cpu_experts - 1)
    assert not fits(EXPERTS, taken(EXPERTS, less), where)


def taken(shape: Shape, settings: Json) -> Json:
    from bioproxy.engines.estimate import estimate

    return estimate(shape, settings)


def test_two_cards_share_a_model_that_one_could_not_hold() -> None:
    """All layers are on cards."""
    large = msgspec.structs.replace(
        EIGHT_B, layers=(Layer(keys=1024, values=1024, weights=400 * MIB),) * 80, weights=33000 * MIB
    )
    assert place(large, machine(24)).settings.gpu_layers < 80
    assert place(large, machine(24, 24)).settings.gpu_layers == ALL


def test_a_memory_that_is_shared_is_counted_once() -> None:
    """Apple's machines, and processors with graphics of their own."""
    assert place(EIGHT_B, machine(21, memory=32, shared=True)).fits
    assert not place(EXPERTS, machine(12, memory=16, shared=True)).fits


def test_what_fits_nowhere_says_so() -> None:
    """The smallest setting is shown, so that one sees how much is missing."""
    found = place(EIGHT_B, machine(memory=4))
    assert not found.fits
    assert found.settings.context == 4096
    assert found.estimate.memory.total > 4 * GIB


def test_a_card_is_never_filled_to_its_edge() -> None:
    """The driver, a desktop and older builds want some of it."""
    for size in range(4, 33):
        found = place(EIGHT_B, machine(size))
        assert found.estimate.cards.total <= size * GIB - RESERVE


def test_an_odd_width_is_not_quantised() -> None:
    """A quantised cache is in blocks of 32."""
    odd = msgspec.structs.replace(EIGHT_B, layers=(Layer(keys=80, values=80, weights=130 * MIB),) * 32)
    assert all(place(odd, machine(size)).settings.cache_k == "f16" for size in range(4, 24))


@pytest.mark.parametrize("trained", [512, 2048, 40960, 1 << 20, 0])
def test_a_context_is_never_longer_than_it_was_trained_for(trained: int) -> None:
    """A header that does not say counts as 8192."""
    found = place(msgspec.structs.replace(EIGHT_B, trained=trained), machine(48))
    assert found.settings.context == min(trained or 8192, 131072)


def test_each_choice_has_its_reason() -> None:
    """What is written into the file's comments."""

    def why(found: Placement) -> Json:
        return found.why

    assert why(place(msgspec.structs.replace(EIGHT_B, trained=40960), machine(24))) == {"-c": "what it was trained for"}
    assert "half the memory" in why(place(EIGHT_B, machine(8)))["-ctk"]
    assert "takes minutes" in why(place(EIGHT_B, machine()))["-c"]
    assert "of 32 layers stay in memory" in why(place(EIGHT_B, machine(4)))["-ngl"]


def test_a_model_that_embeds_gets_its_whole_text_in_one_batch() -> None:
    """Otherwise llama-server refuses a text that is longer than the batch."""
    encoder = msgspec.structs.replace(EIGHT_B, kind="embedding", trained=2048, layers=(Layer(weights=MIB),) * 4)
    assert words(encoder, machine(8)) == "-c 2048 -np 1 -b 2048 -ub 2048 -ngl 999"
