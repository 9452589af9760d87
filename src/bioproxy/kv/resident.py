"""What the slots hold now, as far as we can know it without asking.

llama-server does not tell what a slot holds, and asking how much (`/slots`) too often breaks its cancellation (facts,
0.7). So we keep account: a request that was answered leaves its prompt and its answer in a slot; one that was cut off
leaves at least what it had in common with what was there; a slot action of somebody else leaves nothing we could trust.
Every doubt is settled downwards: a `Resident` never claims more than is surely there, for a wrong claim costs a
prefill that a restore would have spared, while a missing one costs a restore of milliseconds.

With several slots the server chooses by itself (longest common beginning above a tenth of the prompt, else the least
recently used); `Residents.take` follows the same rule. `Resident.slot` is a number only where it is certain.

Where slots share one buffer (llama-server's default of four), each request makes the server move the idle ones into its
RAM cache. What is there is *parked*: the server brings it back by itself for the request that goes on from it, but no
slot holds it any more, so it cannot be saved as it is, and it is lost with the process. The same becomes of what a slot
held when a request takes it that shares less than half of that. `Residents.parked` are those that no slot stands for.

LoRA adapters are where the server's account cannot be trusted: it gives a request without `lora` what was computed with
another one's scales, and takes no notice of them in its RAM cache (tried). So once such a request was seen, the scales
are part of the account: what may have been computed with others is *mixed*, and stays so until nothing is reused of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from bioproxy.engines.facts import EngineFacts
from bioproxy.kv.chain import common, tokens_at
from bioproxy.kv.policy import Question
from bioproxy.kv.snapshot import Snapshot
from bioproxy.prompt import Cut, Doubt

Status = Literal["", "resident", "restored", "failed", "skipped"]


class Want(msgspec.Struct, frozen=True):
    """What a request would like to find in the slot: its cuts, `size` bytes in all, and whose conversation it is.

    `prefix` and `version` name the template of its last user message (empty: none); `store` is False where the client
    said `Cache-Control: no-store`: such a prompt may be served from snapshots and is never written into one.

    `shape` (Head.shape; empty: it goes past the chat template) and `fields` say what else may shape the prompt.
    chat_template.py makes a reading of them, in which both are empty and `day` and `doubts` are as in Resident.
    `background`: a warm-up's, so `kv.min_seconds` does not count (decisions.py says why). `again`: path and body of the
    request as the engine got it, the only text in here. It is kept in memory until the conversation is on disk, for
    what the engine moved into its RAM cache comes back for that request alone.
    """

    cuts: tuple[Cut, ...] = ()
    size: int = 0
    group: str = ""
    prefix: str = ""
    version: str = ""
    store: bool = True
    shape: str = ""
    fields: dict[Doubt, bytes] = {}
    lora: bytes = b""
    day: str = ""
    doubts: frozenset[Doubt] = frozenset()
    readings: dict[object, Want] = msgspec.field(default_factory=dict)
    background: bool = False
    again: tuple[str, bytes] | None = None

    @property
    def end(self) -> bytes:
        """The digest of the whole prompt; empty if nothing is known of it."""
        return self.cuts[-1].digest if self.cuts else b""


class Prepared(msgspec.Struct):
    """What was done for a request before it was sent.

    `status`: empty (nothing known, nothing on disk), `resident` (the slot holds a beginning of it already), `restored`,
    `failed` (the slot is empty now; the engine evaluates) or `skipped` (a snapshot would have helped and was not used;
    `reason` says why). `seconds`: restoring; `save_seconds`: saving what was displaced; `expected`: tokens that should
    come from the cache. `question`: what the request does with the snapshot; fewer cached tokens are the file's fault
    only if it goes on from all of it (rule 6).
    `earlier`: seconds of a restore that was made before this request was let in (rule 21). `parked`: what was restored
    went through the server's RAM cache since, so fewer tokens say nothing about the snapshot. `reach`: bytes of the
    prompt that what is resident may share with it, at most. `want`: the prompt as it was read then. `unsure`: that too
    little came back may have another cause than the snapshot.
    """

    status: Status = ""
    seconds: float = 0.0
    save_seconds: float = 0.0
    snapshot: Snapshot | None = None
    expected: int = 0
    question: Question = "extends"
    earlier: float = 0.0
    parked: bool = False
    reach: int = 0
    reason: str = ""
    want: Want | None = None
    unsure: bool = False
    place: Resident | None = None  # the slot that this request will change, as far as we can tell

    @property
    def exact(self) -> bool:
        """Whether the request shares all of the snapshot."""
        return self.question != "diverges"


KEPT = 0.5  # share of a slot's content below which the server puts a copy into its RAM cache (facts, 4)
SIMILAR = 0.10  # share of the prompt above which the server prefers a slot (--slot-prompt-similarity)


class Brought(msgspec.Struct, frozen=True):
    """A snapshot that was restored before anybody asked (kv-rule 21): judged by the first request that uses it."""

    snapshot: Snapshot
    seconds: float


class Resident:
    """One slot's content.

    `cuts` describe its beginning, `prompt` tokens; `tokens` are in the slot in all (with what was generated); both 0
    where not known. `whole`: nothing is in it that we do not know, so that it may be saved. `empty`: certainly nothing.
    `shared`: only a template's static text, no user's. `busy`: a request is changing it. `saved`: its snapshot's id.
    `parked`: it is in the server's RAM cache and in no slot. `brought`: a restore that no request has used yet.
    `live`: the engine's present process evaluated all of it, nothing was read from a file. `again`: the request that
    brings it back from the RAM cache. `moved`: how much the server had moved there by then (see `Residents.moved`).
    `lora`: the scales of the last request there; None: not known. `mixed`: some of it was computed with others.
    `doubts`: fields that may shape its prompt. `day`: what the chat template printed beside it, if that changes.
    `source`: a snapshot (its id) that holds the first so many tokens of it, by the engine's own count.
    """

    __slots__ = (
        "again", "brought", "busy", "cuts", "day", "digests", "doubts", "empty", "group", "live", "lora", "mixed",
        "moved", "parked", "prefix", "prompt", "saved", "shared", "since", "slot", "source", "store", "tokens",
        "turn", "version", "whole",
    )  # fmt: skip

    def __init__(self, slot: int | None = None) -> None:
        self.slot = slot
        self.lora: bytes | None = b""
        self.busy = False
        self.turn = 0
        self.clear(empty=False)

    def clear(self, *, empty: bool) -> None:
        """Forget the content. `empty`: the slot surely holds nothing; else it may hold anything."""
        self.cuts: tuple[Cut, ...] = ()
        self.digests: frozenset[bytes] = frozenset()
        self.tokens = self.prompt = 0
        self.group = self.prefix = self.version = self.saved = self.day = ""
        self.doubts: frozenset[Doubt] = frozenset()
        self.shared = self.whole = self.mixed = False
        self.store = True
        self.empty = self.live = empty
        self.parked = False
        self.again: tuple[str, bytes] | None = None
        self.moved = 0
        self.brought: Brought | None = None
        self.source = ("", 0)
        self.since = 0.0

    def copy(self) -> Resident:
        """The same content, in no slot that we know."""
        other = Resident()
        for name in Resident.__slots__:
            setattr(other, name, getattr(self, name))
        other.slot = None
        return other

    def fill(self, cuts: tuple[Cut, ...], *, prompt: int, tokens: int, group: str, prefix: str, version: str) -> None:
        """The slot now holds a prompt that was evaluated to its end, and `tokens` in all."""
        live = self.live
        self.clear(empty=False)
        self.live = live
        self.cuts = cuts
        self.digests = frozenset([cut.digest for cut in cuts])
        self.prompt, self.tokens = prompt, max(prompt, tokens)
        self.group, self.prefix, self.version = group, prefix, version
        self.whole = bool(cuts) and prompt > 0

    def clip(self, digest: bytes) -> None:
        """From now on only what stands before the cut `digest` is sure: a request that shares it is under way."""
        if self.end != digest:
            self.prompt = self.tokens_at(digest)
            position = next((n for n, cut in enumerate(self.cuts, 1) if cut.digest == digest), 0)
            self.cuts = self.cuts[:position]
            self.digests = frozenset([cut.digest for cut in self.cuts])
        self.tokens = self.prompt
        self.whole = self.parked = False
        self.empty = False
        self.saved = ""
        self.again = None
        self.brought = None

    @property
    def savable(self) -> bool:
        """Whether a slot holds it, all of it is known, and it may be kept."""
        return self.whole and self.store and not (self.busy or self.parked or self.doubts)

    @property
    def recallable(self) -> bool:
        """Whether it may be kept, and would be in a slot again if its request were asked again."""
        return self.whole and self.store and not (self.busy or self.doubts) and self.parked and self.again is not None

    @property
    def end(self) -> bytes:
        """The digest of the whole prompt that it holds; empty where nothing is known."""
        return self.cuts[-1].digest if self.cuts else b""

    def tokens_at(self, digest: bytes) -> int:
        """About how many tokens stand before the cut `digest`; 0 for a strange one."""
        return tokens_at(self.cuts, self.prompt, digest)


class Scale(msgspec.Struct):
    """One entry of `lora`."""

    id: int = 0
    scale: float = 0.0


def canonical(lora: bytes, adapters: Sequence[tuple[int, float]]) -> bytes:
    """A request's `lora`, which may be written in many ways; empty if it asks for the `adapters` as they are."""
    try:
        asked = {one.id: one.scale for one in msgspec.json.decode(lora, type=list[Scale])}
    except msgspec.DecodeError:
        return lora
    return msgspec.json.encode(sorted(asked.items())) if asked and asked != dict(adapters) else b""


class Residents:
    """All slots of one engine. `parks`: each request moves idle slots into the server's RAM cache.

    `parked`: what slots held before and the RAM cache should have. `moved`: tokens that went there in all. With its
    limit (`memory`, bytes; 0: there is none) that tells what was thrown out since: the least recently used goes first.
    """

    def __init__(self, slots: int = 1) -> None:
        self.turns = self.moved = 0
        self.process: tuple[object, ...] = ()
        self.adapters: tuple[tuple[int, float], ...] = ()  # the LoRA adapters of the engine, with their scales
        self.adapted = False  # requests asked for scales of their own, or somebody changed the engine's
        self.memory = 0.0
        self.parks = False
        self.parked: list[Resident] = []
        self.resize(slots)

    def resize(self, slots: int) -> None:
        """Start anew with `slots` slots of unknown content."""
        self.slots = [Resident(number if slots == 1 else None) for number in range(max(1, slots))]
        self.parked.clear()

    def meet(self, facts: EngineFacts) -> None:
        """An engine is there, with slots of unknown content; what was adapted in its process may still be in memory."""
        process = facts.url, facts.pid, facts.started
        same = process == self.process
        self.adapted = same and (self.adapted or self.adapters != facts.adapters)
        self.process, self.adapters = process, facts.adapters
        self.resize(facts.slots)
        for slot in self.slots if same else ():
            slot.lora = None

    def numbers(self) -> list[int | None]:
        """The slots' numbers, where they are certain."""
        return [slot.slot for slot in self.slots]

    def clear(self, *, empty: bool) -> None:
        """Forget everything, in place of which nothing (`empty`) or anything may be there."""
        self.parked.clear()
        for number, slot in enumerate(self.slots):
            slot.clear(empty=empty)
            slot.lora = b"" if empty else None
            if len(self.slots) > 1:
                slot.slot = number if empty else None  # which of the empty ones is which does not matter

    def best(self, cuts: Sequence[Cut]) -> tuple[Resident, int]:
        """The slot that shares the longest beginning with `cuts`, and how many cuts that is."""
        if len(self.slots) == 1:
            return self.slots[0], common(cuts, self.slots[0].digests)
        found = [(common(cuts, slot.digests), slot) for slot in self.slots]
        position, resident = max(found, key=lambda pair: (pair[0], -pair[1].turn))
        return resident, position

    def choose(self, cuts: Sequence[Cut], size: int) -> tuple[Resident, int]:
        """The slot that the server will take for a prompt of `size` bytes, and how many cuts it shares."""
        if len(self.slots) == 1:
            return self.slots[0], common(cuts, self.slots[0].digests)
        free = [slot for slot in self.slots if not slot.busy] or self.slots
        found = [(common(cuts, slot.digests), slot) for slot in free]
        position, resident = max(found, key=lambda pair: pair[0])
        if position and cuts[position - 1].offset > SIMILAR * size:
            return resident, position
        oldest = min(free, key=lambda slot: slot.turn)
        return oldest, common(cuts, oldest.digests)

    def somewhere(self, resident: Resident) -> None:
        """A request that shares nothing goes where the server likes: `resident` is a slot of unknown number now.

        So are the empty ones, for it is one of them as likely as not.
        """
        if len(self.slots) > 1:
            resident.slot = None
            for other in self.slots:
                if other.empty:
                    other.slot = None

    def scales(self, lora: bytes) -> tuple[bytes, bool]:
        """The scales that a request asks for, and whether it may be given what was computed with others.

        `lora` as it came; the result can be compared, and is empty for the engine's own scales. Which slot it will run
        in is not always known, so all count.
        """
        if lora:
            lora = canonical(lora, self.adapters)
            self.adapted = self.adapted or bool(lora)
        return lora, self.adapted and any(slot.lora != lora for slot in self.slots)

    def park(self, place: Resident) -> None:
        """The server moves what `place` holds into its RAM cache, for it needs the slot."""
        gone = place.copy()
        if not gone.parked:
            gone.parked, gone.moved = True, self.moved + gone.tokens
        self.parked.append(gone)

    def goes_on(self, digests: frozenset[bytes]) -> None:
        """A slot holds `digests` now: what ends within that was taken out of the RAM cache, or is of no use there."""
        if self.parked:
            self.parked = [one for one in self.parked if one.end not in digests]

    def endangered(self, resident: Resident) -> list[Resident]:
        """What a request that changes `resident` would drive out of the other slots."""
        if not self.parks:
            return []
        return [other for other in self.slots if other is not resident and not (other.busy or other.parked)]

    def taken(self) -> set[int]:
        """The slots of which we know whose content they hold."""
        return {one.slot for one in self.slots if one.slot is not None and one.tokens}

    def lost(self) -> list[Resident]:
        """What is in some slot, and we do not know in which."""
        return [one for one in self.slots if one.slot is None and one.tokens and not one.parked]

    def settle(self, resident: Resident, slot: int) -> None:
        """`resident` was put into `slot` by us, as the last one that was used."""
        self.found(resident, slot)
        self.turns += 1
        resident.turn = self.turns

    def found(self, resident: Resident, slot: int) -> None:
        """`resident` turned out to be in `slot`; whoever was thought to be there is not."""
        if len(self.slots) > 1:
            for other in self.slots:
                if other is not resident and other.slot == slot:
                    other.slot = None
                    other.clear(empty=False)
            resident.slot = slot

    def take(self, resident: Resident, shared: bytes) -> None:
        """A request that shares what stands before the cut `shared` (empty: nothing) is about to change `resident`."""
        for other in self.endangered(resident):
            other.slot = None
            other.parked = not other.empty
            self.moved += other.tokens
            other.moved = self.moved
        if not resident.parked and resident.tokens_at(shared) < KEPT * resident.tokens:
            self.moved += resident.tokens
        self.turns += 1
        resident.turn = self.turns
        resident.busy = True
        resident.clip(shared)

    def extends(self, cuts: Sequence[Cut]) -> bool:
        """Whether a prompt goes on from what some slot holds."""
        return any(slot.cuts and common(cuts, slot.digests) == len(slot.cuts) for slot in self.slots)
