"""The matrix: which engines may run together, said by listing the combinations (llama-swap's `matrix`).

    vars:        {g: gemma, q: qwen, v: voxtral, L: llama70B}      short names
    sets:        {standard: "(g | q) & v", full: "L"}              each a family of combinations (expression.py)
    evict_costs: {L: 30, v: 50}                                    what stopping one costs; default 1

A combination permits each of its subsets, and only what was asked for is started. For a model M that does not run:

1. Of all combinations with M, the one whose stops are cheapest: the sum of `evict_costs` over the running models that
   are not in it. If that is equal, or no costs are configured at all, the sum of what it takes to bring them back
   (measured seconds; before anything was measured, simply their number). If that is equal too, the earlier set,
   then the earlier alternative in it. A model with `pin` costs more than all others together.
2. What is not in that combination stops. In no combination: everything stops, M runs alone.

Sets are tried in the order given, each after those that it refers to. (llama-swap means "as defined", but its YAML
goes through a sorted map, so it is the order of the sorted names that scripts have come to rely on; `config` sorts.)

An expression is evaluated against what runs, not multiplied out: a combination is a mask with one bit per running
model (and M), and of two alternatives only the one that keeps more is followed. A million combinations of which six
models run are a handful of masks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from bioproxy.config.dialect.schema import Matrix as MatrixSettings
from bioproxy.errors import ConfigError, Problem
from bioproxy.models.expression import Branch, ExpressionError, Leaf, Node, leaves, parse
from bioproxy.models.rules import UNKNOWN

SOMETHING = 1e-6  # seconds; a model of which nothing was measured still costs more than none
MOST_SETS, LONGEST = 1000, 64 << 10  # characters of all sets: some thousand names
PINNED = 1e12  # more than any cost that a person writes
MOST = 256  # alternatives that are followed at once, the cheapest; more take at least sixteen models that all run

Cost = tuple[float, float]  # configured, then seconds


class Matrix:
    """The rule `matrix`. `models` are all model IDs; raises ConfigError with every wrong set, in llama-swap's words.

    That short names and costs are right was checked with the configuration.
    """

    name = "matrix"

    def __init__(self, settings: MatrixSettings, models: Iterable[str], *, pinned: Iterable[str] = ()) -> None:
        self.settings = settings
        self.models = frozenset(models)
        self.pinned = frozenset(pinned)
        self.problems: list[Problem] = []
        self.costs = {settings.vars.get(key, key): cost for key, cost in settings.evict_costs.items()}
        self.check_size()
        self.sets = in_order({name: self.compile(name, text) for name, text in settings.sets.items()}, self.circular)
        if self.problems:
            raise ConfigError(self.problems)
        self.mentioned: dict[str, frozenset[str]] = {}
        for name, node in self.sets.items():
            self.mentioned[name] = self.mentions(node)

    def problem(self, message: str, key: str) -> None:
        """Note what is wrong at `matrix.<key>`."""
        self.problems.append(Problem(f"matrix: {message}", key=f"matrix.{key}"))

    def check_size(self) -> None:
        """Each decision looks at every name in the sets, so there is an end to how many there may be (ConfigError)."""
        size = sum(map(len, self.settings.sets.values()))
        if len(self.settings.sets) > MOST_SETS or size > LONGEST:
            said = f"{len(self.settings.sets):,} sets with {size:,} characters are too many to look at for each swap"
            self.problem(f"{said}; at most {MOST_SETS:,} and {LONGEST:,} will do", "sets")
            raise ConfigError(self.problems)

    def circular(self, name: str) -> None:
        """Note that a set refers to itself, directly or through others."""
        self.problem(f'circular reference detected involving set "{name}"', f"sets.{name}")

    def resolve(self, name: str) -> str | None:
        """The model that `name` stands for; a short name wins over a model of the same name."""
        model = self.settings.vars.get(name, name)
        return model if model in self.models else None

    def compile(self, name: str, text: str) -> Node:
        """The tree of one set, with model IDs in its leaves; problems are noted."""
        try:
            node = parse(text)
        except ExpressionError as error:
            self.problem(f'set "{name}": {error}', f"sets.{name}")
            return Branch("any", ())
        for leaf in leaves(node):
            if leaf.reference and leaf.name not in self.settings.sets:
                self.problem(f'set "{name}" references undefined set "{leaf.name}"', f"sets.{name}")
            elif not leaf.reference and self.resolve(leaf.name) is None:
                self.problem(f'set "{name}": unknown var or model "{leaf.name}"', f"sets.{name}")
        return self.resolved(node)

    def resolved(self, node: Node) -> Node:
        """`node` with short names replaced by model IDs."""
        if isinstance(node, Branch):
            return Branch(node.kind, tuple(self.resolved(part) for part in node.parts))
        return node if node.reference else Leaf(self.resolve(node.name) or node.name)

    def mentions(self, node: Node) -> frozenset[str]:
        """All models that stand anywhere in `node`; those of the sets that it refers to are known already."""
        found: set[str] = set()
        for leaf in set(leaves(node)):
            found |= self.mentioned[leaf.name] if leaf.reference else {leaf.name}
        return frozenset(found)

    def evict(self, model: str, running: Collection[str], seconds: Mapping[str, float] = UNKNOWN) -> frozenset[str]:
        """The running models that must stop so that `model` may run; none if it runs already."""
        if model in running:
            return frozenset()
        search = Search(self, model, sorted(running), seconds)
        best: tuple[Cost, frozenset[str]] | None = None
        for name, mentioned in self.mentioned.items():
            if model not in mentioned:
                continue
            for mask in search.family(Leaf(name, reference=True)):
                if mask & 1 and (best is None or search.cost(mask) < best[0]):
                    best = search.cost(mask), search.outside(mask)
        return frozenset(running) if best is None else best[1]


def in_order(sets: dict[str, Node], circular: Callable[[str], object]) -> dict[str, Node]:
    """The sets, each after those that it refers to, else as given; `circular` hears of a set that needs itself."""
    done: dict[str, Node] = {}
    for first, node in sets.items():
        way: dict[str, Iterator[str]] = {first: references(node)}  # each set on it refers to the next one
        while way:
            name, left = next(reversed(way.items()))
            wanted = next((one for one in left if one in sets and one not in done), None)
            if wanted is None:
                done[name] = sets[name]
                del way[name]
            elif wanted in way:
                circular(wanted)
            else:
                way[wanted] = references(sets[wanted])
    return done


def references(node: Node) -> Iterator[str]:
    return (leaf.name for leaf in leaves(node) if leaf.reference)


class Search:
    """One question to a matrix: bit 0 of a mask is the model asked for, the others are what runs."""

    def __init__(self, matrix: Matrix, model: str, running: list[str], seconds: Mapping[str, float]) -> None:
        self.running = running
        self.bits = {name: 1 << place for place, name in enumerate([model, *running])}
        configured = matrix.costs
        costs = {name: float(configured.get(name, 1)) if configured else 0.0 for name in running}
        self.weights = [
            (costs[name] + PINNED * (name in matrix.pinned), seconds.get(name, 0.0) + SOMETHING) for name in running
        ]
        self.known: dict[str, list[int]] = {}
        self.left = iter(matrix.sets.items())

    def family(self, node: Node) -> list[int]:
        """The combinations that `node` stands for, as masks, in order, without those that another one contains."""
        if isinstance(node, Leaf):
            return self.set_family(node.name) if node.reference else [self.bits.get(node.name, 0)]
        families = [self.family(part) for part in node.parts]
        if node.kind == "any":
            return self.kept(mask for family in families for mask in family)
        masks = [0]
        for family in families:
            masks = self.kept(left | right for left in masks for right in family)
        return masks

    def set_family(self, name: str) -> list[int]:
        """The family of one set; each is worked out once."""
        while name not in self.known:  # in their order, so that no set asks for one that asks for one, without an end
            other, node = next(self.left)
            self.known[other] = self.family(node)
        return self.known[name]

    def kept(self, masks: Iterable[int]) -> list[int]:
        """`masks` in order, without those that another one contains."""
        distinct = list(dict.fromkeys(masks))
        if len(distinct) > MOST:
            best = set(sorted(distinct, key=self.cost)[:MOST])
            distinct = [one for one in distinct if one in best]
        return [one for one in distinct if not any(one | other == other for other in distinct if other != one)]

    def outside(self, mask: int) -> frozenset[str]:
        """The running models that are not in `mask`."""
        return frozenset(name for name in self.running if not mask & self.bits[name])

    def cost(self, mask: int) -> Cost:
        """What stopping everything outside of `mask` costs."""
        gone = [weight for place, weight in enumerate(self.weights) if not mask >> (place + 1) & 1]
        return sum(weight[0] for weight in gone), sum(weight[1] for weight in gone)
