"""`python -m fuzz [--rounds N] [--seconds S] [TARGET ...]`: N inputs for each target; exit 1 if one finds something.

`--input FILE TARGET` tries one input again. `--write` keeps the figures in bench/kept/fuzz.md, which `make bench` puts
into its page.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import math
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

import msgspec

from bioproxy.cli.serve import loop_factory, share_one_heap
from fuzz import files, ports, requests
from fuzz.mutate import mutated, seeds

ROOT = Path(__file__).parents[1]
FINDINGS = ROOT / "build" / "fuzz"
KEPT = ROOT / "bench" / "kept" / "fuzz.md"
AT_ONCE = 96  # inputs at the ports
MOST = 20  # findings, then a target ends
LOOK = 1000  # inputs between two looks whether the ports serve
Check = Callable[[bytes, Random], Awaitable[str]]


class Target(msgspec.Struct, frozen=True):
    """What reads bytes: where its seeds are, what mutations put in, how many inputs it gets if nobody says."""

    title: str
    folder: str
    words: tuple[bytes, ...]
    rounds: int


TARGETS = {
    "requests": Target("request heads and bodies, beside h11", "requests", requests.WORDS, 20_000),
    "ports": Target("bytes at both ports, one engine and many models", "ports", ports.WORDS, 4_000),
    "configs": Target("configuration files of both dialects", "configs", files.YAML_WORDS, 1_000),
    "templates": Target("templates", "templates", files.TEMPLATE_WORDS, 3_000),
    "bodies": Target("bodies that templates are filled into", "bodies", files.JSON_WORDS, 10_000),
    "index": Target("what lies in a folder of snapshots", "index", files.JSON_WORDS, 3_000),
}


class Run:
    """One target's inputs: what became of them, how long the slowest took, what was found."""

    def __init__(self, name: str, *, seed: str) -> None:
        self.name, self.target, self.seed = name, TARGETS[name], seed
        self.known = seeds(self.target.folder)
        self.outcomes: Counter[str] = Counter()
        self.slowest = 0.0
        self.found: list[str] = []
        self.early = 0  # bytes of memory after a tenth of the inputs

    def input(self, number: int) -> tuple[bytes, Random]:
        """The input of that number; the seeds themselves come first."""
        random = Random(f"{self.seed} {self.name} {number}")
        if number < len(self.known):
            return self.known[number], random
        return mutated(random, self.known, self.target.words), random

    async def one(self, check: Check, number: int) -> None:
        """Try one input, and keep it if it finds something."""
        data, random = self.input(number)
        started = time.monotonic()
        try:
            self.outcomes[await check(data, random)] += 1
        except Exception as error:
            FINDINGS.mkdir(parents=True, exist_ok=True)
            path = FINDINGS / f"{self.name}-{hashlib.sha256(data).hexdigest()[:12]}"
            path.write_bytes(data)
            words = f"{type(error).__name__}: {str(error)[:2000]}"
            self.found.append(words)
            print(f"{self.name} {number} (seed {self.seed}): {words}\n  {path.relative_to(ROOT)}", flush=True)
        self.slowest = max(self.slowest, time.monotonic() - started)

    def row(self, seconds: float) -> str:
        """A row of the table."""
        count = sum(self.outcomes.values()) + len(self.found)
        became = ", ".join(f"{name} {number:,}" for name, number in self.outcomes.most_common(6))
        grown = f", memory x {memory() / self.early:.2f} of what it was after a tenth" if self.early else ""
        return f"| {self.target.title} | {count:,} in {seconds:,.0f} s{grown} | {became} | {len(self.found)} |"


def memory() -> int:
    """Bytes that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def run(name: str, rounds: int, *, seconds: float, seed: str, only: bytes | None) -> Run:
    """Give a target its inputs, for so many seconds at most."""
    end = time.monotonic() + seconds
    one = Run(name, seed=seed)
    if only is not None:
        one.known, rounds = [only], 1
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fuzz-")))
        site = await stack.enter_async_context(ports.running(folder)) if name == "ports" else None
        check = site.check if site is not None else plain(name, stack)
        numbers = iter(range(rounds))

        async def work() -> None:
            for number in numbers:
                await one.one(check, number)
                if len(one.found) >= MOST or time.monotonic() > end:
                    break
                if site is not None and number % LOOK == LOOK - 1:
                    await site.alive()
                    one.early = one.early or (memory() if number > rounds // 10 else 0)

        await asyncio.gather(*(work() for _ in range(AT_ONCE if site is not None else 1)))
    return one


def plain(name: str, stack: AsyncExitStack) -> Check:
    """A check that waits for nothing."""
    if name == "requests":
        check = requests.check
    else:
        place = files.Files()
        stack.callback(place.close)
        check = {"configs": place.config, "templates": place.template, "bodies": place.body, "index": place.index}[name]

    async def awaited(data: bytes, random: Random) -> str:
        return check(data, random)

    return awaited


HEAD = """## Fuzz

Written by `make fuzz`; what was found in earlier runs is a test by now.

| target | inputs | what became of them | found |
|---|---|---|---|
"""


def keep(rows: dict[str, str]) -> None:
    """Write these rows, and those of the other targets as they were."""
    KEPT.parent.mkdir(exist_ok=True)
    before = KEPT.read_text().splitlines() if KEPT.exists() else []
    for name, target in TARGETS.items():
        for row in before:
            if row.startswith(f"| {target.title} |"):
                rows.setdefault(name, row)
    KEPT.write_text(HEAD + "\n".join(rows[name] for name in TARGETS if name in rows) + "\n")


def main() -> int:
    """Exit 0 if nothing was found."""
    parser = argparse.ArgumentParser(prog="fuzz")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--rounds", type=int, default=0, help="inputs of each target")
    parser.add_argument("--seconds", type=float, default=math.inf, help="the longest that a target goes on")
    parser.add_argument("--seed", default="0", help="another one gives other inputs")
    parser.add_argument("--input", type=Path, help="try this one input")
    parser.add_argument("--write", action="store_true", help="keep the figures in bench/kept/fuzz.md")
    options = parser.parse_args()
    share_one_heap()  # as the program does
    if unknown := [name for name in options.targets if name not in TARGETS]:
        parser.error(f"there is no target {unknown[0]}; there are {', '.join(TARGETS)}")
    only = options.input.read_bytes() if options.input else None
    rows, found = dict[str, str](), 0
    for name in options.targets or TARGETS:
        started = time.monotonic()
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            rounds = options.rounds or TARGETS[name].rounds
            one = runner.run(run(name, rounds, seconds=options.seconds, seed=options.seed, only=only))
        rows[name] = one.row(time.monotonic() - started)
        found += len(one.found)
        print(rows[name], f"slowest {one.slowest * 1e3:.0f} ms", flush=True)
    if options.write:
        keep(rows)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
