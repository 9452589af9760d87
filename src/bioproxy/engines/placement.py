"""Which context, cache type and offload a model gets on a machine: what people try one after the other.

Best is every layer on the cards, a cache of f16 and a long context. A cache of q8_0 takes half the memory and costs
hardly any quality; a shorter context costs nothing until a conversation is longer. Then comes what costs speed: the
experts of some layers in the machine's memory (a token uses few of them), some layers there, all layers there.

One slot is proposed unless somebody asks for more: conversations that leave it come back from the disk, and while
several compute there can be no slot action. How many would fit is said beside it.

Pure. What a machine has is found out elsewhere (cli/machine.py).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator

import msgspec

from bioproxy.engines.estimate import ALL, GIB, Estimate, Settings, estimate
from bioproxy.engines.shape import Shape

RESERVE = 1 * GIB  # of each card: the driver's context, a desktop, buffers of older builds
KEPT = 2 * GIB  # of the machine's memory at least, else an eighth: the system, other programs
LONGEST, LONGEST_ALONE = 131072, 32768  # tokens; alone: without a card, a long prompt takes minutes
GOOD, ENOUGH, LEAST = 32768, 16384, 8192
QUANTISED = "q8_0"
MOST_SLOTS = 8  # that are looked at
EVERY = 999  # what people write for all layers
BLOCK = 32  # numbers of a quantised cache that share a scale


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """A graphics card, or what an engine may have of a memory that it shares with the processor."""

    name: str
    bytes: int


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What models can have. `shared`: the cards' memory is the machine's."""

    memory: int
    cards: tuple[Card, ...] = ()
    shared: bool = False

    @property
    def capacity(self) -> int:
        """Bytes of all cards."""
        return sum(card.bytes for card in self.cards)

    @property
    def room(self) -> int:
        """Bytes of the memory that a model may take."""
        return max(self.memory - max(KEPT, self.memory // 8), 0)


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """A model's settings, what they take, and whether the machine has that. `why`: of each flag that needs a reason.

    `slots`: so many would fit on the cards with this context for each.
    """

    settings: Settings
    estimate: Estimate
    fits: bool
    why: dict[str, str] = {}
    slots: int = 1


def fits(shape: Shape, found: Estimate, machine: Machine) -> bool:
    """Whether the machine has what the estimate says; cards that share a model lose a part of a layer each."""
    largest = max((layer.weights for layer in shape.layers), default=0)
    lost = (len(machine.cards) - 1) * largest if found.layers else 0
    room = sum(max(card.bytes - RESERVE, 0) for card in machine.cards) - lost
    together = found.memory.total + (found.cards.total if machine.shared else 0)
    return found.cards.total <= max(room, 0) and together <= machine.room


def place(shape: Shape, machine: Machine, *, projector: int = 0, slots: int = 1) -> Placement:
    """The best placement that fits; if none does, the smallest one, which says so.

    It has `slots` slots, or as many of them as leave all layers on the cards.
    """
    numbers = range(slots if shape.kind == "chat" else 1, 0, -1)

    def holds(number: int) -> bool:
        found = best(shape, machine, projector=projector, slots=number)
        return found.fits and (not machine.cards or found.settings.gpu_layers == ALL)

    number = numbers[bisect_left(numbers[:-1], True, key=holds)]
    return best(shape, machine, projector=projector, slots=number)


def best(shape: Shape, machine: Machine, *, projector: int, slots: int) -> Placement:
    """The same with exactly so many slots: choices have the context of one, the placement has that of all."""

    def take(settings: Settings, slots: int = slots) -> Placement:
        settings = msgspec.structs.replace(settings, slots=slots, context=slots * settings.context)
        found = estimate(shape, settings, projector=projector, cards=len(machine.cards))
        return Placement(settings=settings, estimate=found, fits=fits(shape, found, machine))

    for why, settings in choices(shape, machine, take):
        placement = take(settings)
        if placement.fits:
            more = range(slots + 1, MOST_SLOTS + 1 if settings.gpu_layers == ALL and shape.kind == "chat" else 0)
            room = slots + bisect_left(more, True, key=lambda number: not take(settings, number).fits)
            return msgspec.structs.replace(placement, why=why, slots=room)
    return take(Settings(context=min(contexts(shape, LEAST)), gpu_layers=0))


def choices(
    shape: Shape, machine: Machine, take: Callable[[Settings], Placement]
) -> Iterator[tuple[dict[str, str], Settings]]:
    """Settings worth a try, the best first, each with its reasons."""
    if shape.kind != "chat":
        batch = min(shape.trained or LEAST, LEAST)
        for layers in (ALL, 0) if machine.cards else (0,):
            yield {"-b": "a text is embedded in one batch"}, Settings(context=batch, batch=batch, gpu_layers=layers)
        return
    if machine.cards:
        yield from on_cards(shape, take)
    for context in contexts(shape, LONGEST_ALONE):
        yield context_reason(shape, context, LONGEST_ALONE), Settings(context=context, gpu_layers=0)


def on_cards(shape: Shape, take: Callable[[Settings], Placement]) -> Iterator[tuple[dict[str, str], Settings]]:
    """Those that use the cards."""
    tried: set[tuple[str, int]] = set()
    types = ("f16", QUANTISED) if quantises(shape) else ("f16",)
    good, enough, count = contexts(shape, GOOD)[0], contexts(shape, ENOUGH)[0], len(shape.layers)
    for least in (GOOD, ENOUGH, LEAST):
        if least == LEAST and shape.experts:
            yield from partly(shape, take, lambda less: Settings(context=good, cpu_experts=less), flag="--n-cpu-moe")
        for kind in types:
            for context in contexts(shape, LONGEST):
                if context >= min(least, shape.trained or least) and (kind, context) not in tried:
                    tried.add((kind, context))
                    yield reasons(shape, context, kind), Settings(context=context, cache_k=kind, cache_v=kind)
    yield from partly(shape, take, lambda less: Settings(context=enough, gpu_layers=count - less), flag="-ngl")


def partly(
    shape: Shape, take: Callable[[Settings], Placement], settings: Callable[[int], Settings], *, flag: str
) -> Iterator[tuple[dict[str, str], Settings]]:
    """With as few layers in memory (or experts of layers, by `flag`) as they must be for the rest to fit."""
    count = len(shape.layers)
    less = bisect_left(range(count + 1), True, key=lambda number: take(settings(number)).fits)
    if less < count:
        stay = "stay in memory" if flag == "-ngl" else "leave their experts in memory"
        context = settings(less).context
        why = {**context_reason(shape, context, context), flag: f"{less} of {count} layers {stay}: the rest fits"}
        yield why, settings(less)


def contexts(shape: Shape, most: int) -> list[int]:
    """Contexts to try, the longest first: what the model was trained for, and less."""
    trained = shape.trained or LEAST
    steps = {LONGEST >> step for step in range(6)}
    return sorted({one for one in (*steps, trained) if one <= min(most, trained)}, reverse=True) or [min(trained, most)]


def quantises(shape: Shape) -> bool:
    """Whether each layer's cache can be one of q8_0."""
    return all(layer.keys % BLOCK == layer.values % BLOCK == 0 for layer in shape.layers)


def reasons(shape: Shape, context: int, kind: str) -> dict[str, str]:
    found = context_reason(shape, context, LONGEST)
    if kind == QUANTISED:
        found["-ctk"] = "half the memory of f16 and hardly worse; with f16 the context would be shorter"
    return found


def context_reason(shape: Shape, context: int, most: int) -> dict[str, str]:
    """Why the context is what it is."""
    if context == shape.trained:
        return {"-c": "what it was trained for"}
    trained = f"trained for {shape.trained:,}" if shape.trained else "its header does not say what it was trained for"
    if context == LONGEST == most:
        return {"-c": f"{trained}; more is seldom of use"}
    if context == LONGEST_ALONE == most:
        return {"-c": f"{trained}; without all of it on a card more takes minutes to read"}
    return {"-c": f"the longest that fits; {trained}"}


def flags(placement: Placement, *, cards: bool) -> list[str]:
    """llama-server's flags for a placement; those that are its defaults are left out."""
    settings, usual = placement.settings, Settings()
    words = ["-c", str(settings.context), "-np", str(settings.slots)]
    if settings.batch != usual.batch:
        words += ["-b", str(settings.batch), "-ub", str(settings.batch)]
    if cards:
        words += ["-ngl", str(min(settings.gpu_layers, EVERY))]
    if settings.cpu_experts:
        words += ["--n-cpu-moe", str(settings.cpu_experts)]
    for flag, kind in (("-ctk", settings.cache_k), ("-ctv", settings.cache_v)):
        if kind != "f16":
            words += [flag, kind]
    return words
