"""The fake engine's inside: slots, one inference thread, a FIFO of deferred tasks, a cache in memory.

The rules are llama-server's as they were seen, the awkward ones included: a slot is found by the longest common prefix,
else the least recently used one; a request whose slot is busy is deferred; when a slot becomes free exactly one
deferred task is woken (a slot action among them swallows the wake-up, unless `lost_wakeup` is off); a request that is
pinned to a slot overtakes. What no client may do to the real one is not simulated but written down in `violations`.

Time passes as `prompt_rate` and `decode_rate` (tokens a second, 0: at once) say, one batch at a time, and everything
that computes or moves a slot's content stands in one coroutine, `run`.
"""

from __future__ import annotations

import asyncio
import zlib
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fakes.fake_faults import Faults
from fakes.fake_files import Refused, load, save
from fakes.fake_text import tokenize

Json = Any
WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "seven",
    "calm",
    "engines",
    "hum",
    "in",
    "tune",
]


@dataclass
class Settings:
    """How the engine was started."""

    slots: int = 1
    context: int = 32768
    batch: int = 512
    prompt_rate: float = 0.0
    decode_rate: float = 0.0
    folder: str = ""
    ram: bool = True
    weights: str = "weights"
    shape: str = "tiny"
    bytes_per_token: int = 64
    predict: int = 16
    poll: float = 0.1


@dataclass(eq=False)
class Task:
    """Work in the queue: a completion, or a slot action (`kind` save, restore, erase)."""

    kind: str
    number: int
    done: asyncio.Future[Json]
    tokens: list[int] = field(default_factory=list)
    limit: int = 16
    slot: int = -1
    filename: str = ""
    cache_prompt: bool = True
    sink: Callable[[str, Json], None] = lambda _kind, _value: None
    hears: frozenset[str] = frozenset()  # of started, progress, token: what is sent to whoever waits
    cancelled: bool = False
    words: list[str] = field(default_factory=list)
    generated: list[int] = field(default_factory=list)
    cached: int = 0
    processed: int = 0
    started: float = 0.0
    prompt_end: float = 0.0
    ended: float = 0.0
    slot_used: int = -1
    checksum: int = 0


@dataclass
class Slot:
    """One slot: what it holds, and the task that runs on it."""

    number: int
    tokens: list[int] = field(default_factory=list)
    weights: str = ""
    task: Task | None = None
    last: Task | None = None
    used: float = 0.0
    worthless: bool = False


def common(left: list[int], right: list[int]) -> int:
    """How many leading tokens two lists share."""
    top = min(len(left), len(right))
    if left[:top] == right[:top]:
        return top
    return next(place for place in range(top) if left[place] != right[place])


class Core:
    """All slots, the queue and the thread."""

    def __init__(self, settings: Settings, faults: Faults) -> None:
        self.settings, self.faults = settings, faults
        self.slots = [Slot(number) for number in range(settings.slots)]
        self.queue: deque[Task] = deque()
        self.deferred: deque[Task] = deque()
        self.cache: list[tuple[list[int], str]] = []
        self.wake = asyncio.Event()
        self.numbers = 0
        self.last_result = 0.0
        self.violations: list[str] = []
        self.totals = {"prompt": 0, "cached": 0, "predicted": 0, "batches": 0, "cancelled": 0}
        self.time = asyncio.get_running_loop().time

    def post(self, kind: str, **more: Any) -> Task:
        """Queue a task."""
        self.numbers += 1
        task = Task(kind, self.numbers, asyncio.get_running_loop().create_future(), **more)
        self.queue.append(task)
        self.wake.set()
        return task

    def cancel(self, task: Task) -> None:
        """Take a task out of the queue, or let it end after the running batch."""
        task.cancelled = True
        self.totals["cancelled"] += 1
        for line in (self.queue, self.deferred):
            if task in line:
                line.remove(task)
        self.wake.set()

    def result(self, task: Task, kind: str, value: Json) -> None:
        """Something for the waiting request, if it hears that; any result of anybody resets the disconnect poll."""
        if kind in task.hears:
            self.last_result = self.time()
            task.sink(kind, value)

    def end(self, task: Task, value: Json) -> None:
        """The task's last result."""
        self.last_result = self.time()
        if not task.done.done():
            task.done.set_result(value)

    async def run(self) -> None:
        """The inference thread."""
        while True:
            while self.queue:
                await self.begin(self.queue.popleft())
            running = [slot for slot in self.slots if slot.task is not None]
            if not running or self.faults.stuck:
                self.wake.clear()
                await self.wake.wait()
                continue
            await self.step(running)

    async def begin(self, task: Task) -> None:
        """Start a task, or defer it."""
        if task.kind == "complete":
            slot = self.choose(task)
            if slot is None:
                self.deferred.append(task)
            else:
                self.start(slot, task)
            return
        slot = self.slots[task.slot % len(self.slots)]
        if slot.task is not None:
            self.violations.append(f"slot action {task.kind} while slot {slot.number} is busy")
            self.deferred.append(task)
            return
        if any(each.task is not None for each in self.slots):
            self.violations.append(f"slot action {task.kind} while another slot runs")
        await self.act(slot, task)
        if not self.faults.lost_wakeup:
            self.wake_deferred(slot)

    async def act(self, slot: Slot, task: Task) -> None:
        """Save, restore or erase; nothing else is computed meanwhile."""
        seconds = {"save": self.faults.save_seconds, "restore": self.faults.restore_seconds}.get(task.kind, 0.0)
        if seconds:
            await asyncio.sleep(seconds)
        try:
            if task.kind == "save":
                self.end(task, {**save(self.settings, self.faults, slot, task.filename), "id_slot": task.slot})
            elif task.kind == "restore":
                self.end(task, {**load(self.settings, self.faults, slot, task.filename), "id_slot": task.slot})
            else:
                erased, slot.tokens = len(slot.tokens), []
                self.end(task, {"id_slot": task.slot, "n_erased": erased})
        except Refused as error:
            self.end(task, error)

    def choose(self, task: Task) -> Slot | None:
        """The slot for a completion, its content swapped through the memory cache; None: all are busy."""
        if task.slot != -1:
            slot: Slot | None = self.slots[task.slot % len(self.slots)]
            if any(each.task for each in self.slots):
                self.violations.append("id_slot sent while something runs")
            return slot if slot is not None and slot.task is None else None
        idle = [slot for slot in self.slots if slot.task is None]
        share = {slot.number: common(slot.tokens, task.tokens) / len(task.tokens) for slot in idle if slot.tokens}
        best = max(share, key=lambda number: share[number], default=None)
        if best is not None and share[best] > 0.1:
            slot = self.slots[best]
            keep = common(slot.tokens, task.tokens) / len(slot.tokens)
            if keep < 0.5:
                self.swap(slot, task.tokens)
            return slot
        slot = min(reversed(idle), key=lambda each: each.used, default=None)
        if slot is not None:
            self.swap(slot, task.tokens)
        return slot

    def swap(self, slot: Slot, tokens: list[int]) -> None:
        """Put what `slot` holds into the memory cache, and take out what serves `tokens` better."""
        if not self.settings.ram:
            return
        if slot.tokens and not any(common(entry, slot.tokens) == len(slot.tokens) for entry, _ in self.cache):
            self.cache = [each for each in self.cache if common(each[0], slot.tokens) < len(each[0])]
            self.cache.append((list(slot.tokens), slot.weights))
        held = common(slot.tokens, tokens)
        best: tuple[list[int], str] | None = None
        keep, share = held / max(1, len(slot.tokens)), held / len(tokens)
        for entry in self.cache:
            shared = common(entry[0], tokens)
            if shared / len(entry[0]) >= 0.25 and shared / len(entry[0]) > keep and shared / len(tokens) > share:
                best, keep, share = entry, shared / len(entry[0]), shared / len(tokens)
        if best is not None:
            self.cache.remove(best)
            slot.tokens, slot.weights, slot.worthless = best[0], best[1], False

    def start(self, slot: Slot, task: Task) -> None:
        """Give a slot to a completion: keep the common prefix, at least one token is evaluated."""
        kept = common(slot.tokens, task.tokens) if task.cache_prompt and not slot.worthless else 0
        task.cached = task.processed = min(kept, len(task.tokens) - 1)
        slot.worthless = False
        if task.cached == 0:
            slot.weights = self.settings.weights
        slot.tokens = task.tokens[: task.cached]
        slot.task = slot.last = task
        task.slot_used, task.started, slot.used = slot.number, self.time(), self.time()
        self.totals["cached"] += task.cached
        self.result(task, "started", task)

    async def step(self, running: list[Slot]) -> None:
        """One llama_decode: a token for each generating slot, prompt tokens up to the batch size."""
        decoding = [slot for slot in running if slot.task and slot.task.processed == len(slot.task.tokens)]
        room = max(0, self.settings.batch - len(decoding))
        prompts: list[tuple[Slot, int]] = []
        for slot in running:
            if slot.task and slot not in decoding and room:
                count = min(room, len(slot.task.tokens) - slot.task.processed)
                prompts.append((slot, count))
                room -= count
        await self.pass_time(sum(count for _, count in prompts), decoding=bool(decoding))
        self.totals["batches"] += 1
        for slot, count in prompts:
            self.evaluated(slot, count)
        for slot in decoding:
            self.decoded(slot)

    async def pass_time(self, tokens: int, *, decoding: bool) -> None:
        """Take as long as the rates say."""
        rates = self.settings
        seconds = tokens / rates.prompt_rate if rates.prompt_rate else 0.0
        seconds += 1 / rates.decode_rate if decoding and rates.decode_rate else 0.0
        await asyncio.sleep(seconds)
        if tokens and self.faults.die == "prefill":
            self.faults.die_after -= 1
            if self.faults.die_after <= 0:
                self.faults.end_process()

    def evaluated(self, slot: Slot, count: int) -> None:
        """A batch of prompt tokens is in the slot; the first token is sampled with the last batch."""
        task = slot.task
        assert task is not None
        slot.tokens += task.tokens[task.processed : task.processed + count]
        task.processed += count
        self.totals["prompt"] += count
        if task.cancelled:
            self.release(slot)
            return
        self.result(task, "progress", task)
        if task.processed == len(task.tokens):
            task.prompt_end = self.time()
            self.sample(slot, task)

    def decoded(self, slot: Slot) -> None:
        """The last sampled token was evaluated, the next one is sampled."""
        task = slot.task
        assert task is not None
        if task.cancelled:
            self.release(slot)
            return
        slot.tokens.append(task.generated[-1])
        self.sample(slot, task)

    def sample(self, slot: Slot, task: Task) -> None:
        """The next token: it depends on every token before it, and on whose weights made the cache."""
        word, token = next_word(slot, task)
        task.words.append(word)
        task.generated.append(token)
        self.totals["predicted"] += 1
        self.result(task, "token", word)
        if self.faults.die == "stream" and len(task.words) >= self.faults.die_after:
            # what was written should be on its way first, as it is when a process dies some tokens later
            asyncio.get_running_loop().call_later(0.02, self.faults.end_process)
        if self.faults.error_event and len(task.words) >= self.faults.error_event:
            self.end(task, Refused(500, "Compute error.", "server_error"))
            self.release(slot)
        elif len(task.words) >= max(1, task.limit) or len(slot.tokens) + 1 >= self.settings.context:
            task.ended = self.time()
            self.end(task, task)
            self.release(slot)

    def release(self, slot: Slot) -> None:
        """The slot is free: one deferred task is woken, one pinned to this slot first."""
        slot.task = None
        slot.used = self.time()
        self.wake_deferred(slot)

    def wake_deferred(self, slot: Slot) -> None:
        """Pop one deferred task to the front of the queue."""
        pinned = next((t for t in self.deferred if t.kind == "complete" and t.slot == slot.number), None)
        task = pinned or (self.deferred[0] if self.deferred else None)
        if task is not None:
            self.deferred.remove(task)
            self.queue.appendleft(task)


def next_word(slot: Slot, task: Task) -> tuple[str, int]:
    """A word and its number, drawn from a checksum of what the slot holds and of the weights that made it."""
    new = slot.tokens[-1:] if task.words else slot.tokens
    task.checksum = zlib.crc32(array("i", new).tobytes(), task.checksum or zlib.crc32(slot.weights.encode()))
    word = " " + WORDS[task.checksum % len(WORDS)]
    return word, tokenize(word)[0]
