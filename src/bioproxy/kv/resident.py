"""What a request wants from the cache, what was done for it, and what the slots hold now.

A request comes as a `Want` (the cuts of its prompt and who asks), `prepare` answers with a `Prepared`, and `served`
gets both back with what the engine counted.

llama-server does not tell what a slot holds, and asking how much (`/slots`) too often breaks its cancellation (facts,
0.7). So we keep account: a request that was answered leaves its prompt and its answer in a slot; one that was cut off
leaves at least what it had in common with what was there; after a client's own slot action nothing is sure. Every doubt
is settled downwards: a `Resident` never claims more than is surely there, for a wrong claim costs a prefill that a
restore would have spared, while a missing one costs a restore of milliseconds.

A slot is in one of six states:

    EMPTY         certainly nothing is in it
    PART          it holds at least `cuts` (perhaps none); anything may follow, so it cannot be saved
    WHOLE         it holds `cuts` and what was generated after them, and nothing else: it may be saved
    CHANGING      a request is at work in it; `cuts` are what that request shares with what was there
    PARKED        WHOLE, but in the server's RAM cache and in no slot
    PARKED_PART   PART, in the same place

                  take       served        cut off    driven out     clear(empty=True)  clear(empty=False)
    EMPTY         CHANGING                            EMPTY          EMPTY              PART
    PART          CHANGING   WHOLE (fill)             PARKED_PART    EMPTY              PART
    WHOLE         CHANGING   WHOLE (fill)             PARKED         EMPTY              PART
    CHANGING                 WHOLE (fill)  PART                      EMPTY              CHANGING
    PARKED(_PART) CHANGING                            (stays)        EMPTY              PART

With several slots the server chooses by itself (longest common beginning above a tenth of the prompt, else the least
recently used); `Residents.choose` follows the same rule. `Resident.slot` is a number only if it is certain.

If slots share one buffer (llama-server's default of four), each request makes the server move the idle ones into its
RAM cache. The server brings such a conversation back by itself for the request that goes on from it, but no slot holds
it any more, so it cannot be saved as it is, and it is lost with the process. The same happens to what a slot held when
a request takes the slot that shares less than half of it. `Residents.parked` are those that no slot stands for.

The server's own account cannot be trusted with LoRA adapters: it gives a request without `lora` what was computed with
another one's scales, and ignores them in its RAM cache (tried). So after the first such request the scales are part of
our account: what may have been computed with others is *mixed*, and stays so until nothing is reused of it.

A prompt is found by its digests (`Residents.where`), not by trying all slots.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from enum import Enum
from operator import attrgetter
from typing import Literal

import msgspec

from bioproxy.engines.facts import EngineFacts
from bioproxy.errors import NOT_JSON
from bioproxy.kv.chain import common, tokens_at
from bioproxy.kv.policy import Question
from bioproxy.kv.snapshot import Snapshot
from bioproxy.prompt import Cut, Doubt

KEPT = 0.5  # share of a slot's content below which the server puts a copy into its RAM cache (facts, 4)
OFF_BY = 2  # tokens by which the engine's count may differ from ours: the last sampled one is not evaluated
SIMILAR = 0.10  # share of the prompt above which the server prefers a slot (--slot-prompt-similarity)
DIGEST, NUMBER = attrgetter("digest"), attrgetter("number")

Status = Literal["", "resident", "restored", "failed", "skipped"]


class Want(msgspec.Struct, frozen=True):
    """What a request would like to find in the slot: its cuts, `size` bytes in all, and whose conversation it is.

    `prefix` and `version` name the template of its last user message (empty: none); `store` is False if the client
    said `Cache-Control: no-store`: such a prompt may be served from snapshots and is never written into one. `side`: it
    is one beside a conversation, so what it displaces is saved first, whatever that costs.

    `shape` (Head.shape; empty: it goes past the chat template) and `fields` say what else may shape the prompt.
    chat_template.py makes a reading of them, in which both are empty and `day` and `doubts` are as in Resident.
    `background`: a warm-up's, so `kv.min_seconds` does not count (decisions.py says why). `head`: it is all of a head
    without a prefix, and this is its name. `lasts`: bytes of it that will be asked for again, for its head changes at
    each turn (0: all of it, as far as is known). `again`: path and body of the
    request as the engine got it, the only text in here. It is kept in memory until the conversation is on disk, for
    the engine brings back what it moved into its RAM cache for that request alone.
    """

    cuts: tuple[Cut, ...] = ()
    size: int = 0
    group: str = ""
    prefix: str = ""
    version: str = ""
    store: bool = True
    side: bool = False
    shape: str = ""
    fields: dict[Doubt, bytes] = {}
    lora: bytes = b""
    day: str = ""
    doubts: frozenset[Doubt] = frozenset()
    readings: dict[object, Want] = msgspec.field(default_factory=dict)
    background: bool = False
    again: tuple[str, bytes] | None = None
    head: str = ""
    lasts: int = 0

    @property
    def owner(self) -> str | None:
        """Whose snapshot a warm-up of it makes: None is everybody's."""
        return self.group if self.head else None

    @property
    def end(self) -> bytes:
        return self.cuts[-1].digest if self.cuts else b""


class Prepared(msgspec.Struct):
    """What was done for a request before it was sent.

    `status`: empty (nothing known, nothing on disk), `resident` (the slot holds a beginning of it already), `restored`,
    `failed` (the slot is empty now; the engine evaluates) or `skipped` (a snapshot would have helped and was not used;
    `reason` says why). `seconds`: restoring; `save_seconds`: saving what was displaced; `expected`: tokens that should
    come from the cache. `question`: what the request does with the snapshot; fewer cached tokens are the file's fault
    only if the request goes on from all of it (rule 6).
    `earlier`: seconds of a restore that was made before this request was let in (rule 21). `parked`: what was restored
    went through the server's RAM cache since, so fewer tokens say nothing about the snapshot. `reach`: bytes of the
    prompt that what is resident may share with it, at most. `want`: the prompt as it was read then. `unsure`: if too
    little came back, that may have another cause than the snapshot.
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
    kept: int = 0  # tokens that were saved because this request would have displaced them
    unsure: bool = False
    place: Resident | None = None  # the slot that this request will change, as far as we can tell


class Brought(msgspec.Struct, frozen=True):
    """A snapshot that was restored before any request asked (kv-rule 21): judged by the first request that uses it."""

    snapshot: Snapshot
    seconds: float


class State(Enum):
    """What we know of a slot's content; the table is in the head of this module."""

    EMPTY = "empty"
    PART = "part"
    WHOLE = "whole"
    CHANGING = "changing"
    PARKED = "parked"
    PARKED_PART = "parked part"


STANDING = (State.EMPTY, State.PART, State.WHOLE)  # in a slot, and no request is at work there
AWAY = (State.PARKED, State.PARKED_PART)
DRIVEN_OUT = {State.WHOLE: State.PARKED, State.PART: State.PARKED_PART}  # what stands in the table; others stay


class Resident:
    """One slot's content.

    `cuts` describe its beginning, `prompt` tokens; `tokens` are in the slot in all (with what was generated); both are
    0 if that is not known. `end`: the digest of the last cut; empty if there is none. `shared`: it is only a template's
    static text, no user's. `head`: it is only the head of this name, its group's. `lasts`: as of its
    Want. `saved`: its snapshot's id.
    `brought`: a restore that no request has used yet.
    `live`: the engine's present process evaluated all of it, nothing was read from a file. `again`: the request that
    brings it back from the RAM cache. `moved`: how much the server had moved there by then (see `Residents.moved`).
    `turn`, `over`: how many requests had begun in all when the last one there did, and when it ended.
    `lora`: the scales of the last request there; None: not known. `mixed`: some of it was computed with others.
    `by`: the only group whose requests left anything in it but templates; None: not known.
    `doubts`: fields that may shape its prompt. `day`: what the chat template printed beside it, if that changes.
    `source`: a snapshot (its id) that holds the first so many tokens of it, by the engine's own count.
    """

    __slots__ = (
        "again", "brought", "by", "cuts", "day", "digests", "doubts", "end", "group", "head", "lasts", "live", "lora",
        "mixed", "moved", "number", "over", "prefix", "prompt", "saved", "shared", "since", "slot", "source", "state",
        "store", "tokens", "turn", "version", "where",
    )  # fmt: skip

    def __init__(
        self, slot: int | None = None, *, number: int = 0, where: dict[bytes, list[Resident]] | None = None
    ) -> None:
        self.slot = slot
        self.number = number
        self.where: dict[bytes, list[Resident]] = {} if where is None else where
        self.lora: bytes | None = b""
        self.turn = self.over = 0
        self.state = State.PART
        self.cuts: tuple[Cut, ...] = ()
        self.digests: frozenset[bytes] = frozenset()
        self.clear(empty=False)

    def clear(self, *, empty: bool) -> None:
        """Forget the content. `empty`: the slot surely holds nothing; else it may hold anything."""
        if self.cuts:
            self.hold(())
        self.end = b""
        self.tokens = self.prompt = self.lasts = 0
        self.group = self.prefix = self.version = self.saved = self.day = self.head = ""
        self.by: str | None = None
        self.doubts: frozenset[Doubt] = frozenset()
        self.shared = self.mixed = False
        self.store = True
        self.live = empty
        self.again: tuple[str, bytes] | None = None
        self.moved = 0
        self.brought: Brought | None = None
        self.source = ("", 0)
        self.since = 0.0
        if empty:
            self.state = State.EMPTY
        elif self.state is not State.CHANGING:
            self.state = State.PART

    def copy(self) -> Resident:
        other = Resident()
        for name in Resident.__slots__:
            setattr(other, name, getattr(self, name))
        other.slot, other.where = None, {digest: [other] for digest in self.digests}
        return other

    def hold(self, cuts: tuple[Cut, ...]) -> None:
        """Be found by these cuts, and by no others."""
        digests = frozenset(map(DIGEST, cuts))
        for digest in self.digests - digests:
            holders = self.where[digest]
            holders.remove(self)
            if not holders:
                del self.where[digest]
        for digest in digests - self.digests:
            holders = self.where.setdefault(digest, [])
            holders.append(self)
            if len(holders) > 1:
                holders.sort(key=NUMBER)
        self.cuts, self.digests = cuts, digests
        self.end = cuts[-1].digest if cuts else b""

    def fill(self, cuts: tuple[Cut, ...], *, prompt: int, tokens: int, group: str, prefix: str, version: str) -> None:
        """The slot now holds a prompt that was evaluated to its end, and `tokens` in all."""
        self.hold(cuts)
        self.prompt, self.tokens = prompt, max(prompt, tokens)
        self.group, self.prefix, self.version = group, prefix, version
        self.by = group
        self.state = State.WHOLE if cuts and prompt > 0 else State.PART
        self.saved = self.day = self.head = ""
        self.doubts = frozenset()
        self.shared = self.mixed = False
        self.store = True
        self.again = self.brought = None
        self.moved = self.lasts = 0
        self.source = ("", 0)
        self.since = 0.0

    def clip(self, digest: bytes, group: str | None = None) -> None:
        """From now on only what stands before the cut `digest` is sure: a request of `group` that shares it is at work.

        What it does not share stays until the engine has begun with it, and for good if it is cut off before.
        """
        self.by = None if self.foreign(group) else group
        self.shared, self.head = False, ""
        if self.end != digest:
            self.prompt = self.tokens_at(digest)
            position = next((n for n, cut in enumerate(self.cuts, 1) if cut.digest == digest), 0)
            self.hold(self.cuts[:position])
        self.tokens = self.prompt
        self.state = State.CHANGING
        self.saved = ""
        self.again = self.brought = None

    @property
    def empty(self) -> bool:
        return self.state is State.EMPTY

    @property
    def bounded(self) -> bool:
        """Whether it ends where a template or a head does."""
        return self.shared or bool(self.head)

    def foreign(self, group: str | None) -> bool:
        """Whether anything of another group than this one may be in it."""
        return not (self.empty or self.shared or (self.by is not None and self.by == group))

    @property
    def parked(self) -> bool:
        """Whether it is in the server's RAM cache and in no slot."""
        return self.state in AWAY

    @property
    def whole(self) -> bool:
        """Whether everything in it is known, in a slot or in the RAM cache."""
        return self.state is State.WHOLE or self.state is State.PARKED

    @property
    def savable(self) -> bool:
        """Whether a slot holds it, all of it is known, and it may be kept."""
        return self.state is State.WHOLE and self.store and not self.doubts

    @property
    def recallable(self) -> bool:
        """Whether it may be kept, and would be in a slot again if its request were asked again."""
        return self.state is State.PARKED and self.store and not self.doubts and self.again is not None

    def tokens_at(self, digest: bytes) -> int:
        """About how many tokens stand before the cut `digest`; 0 for one that it does not have."""
        return tokens_at(self.cuts, self.prompt, digest)

    def __repr__(self) -> str:
        where = "" if self.slot is None else f" {self.slot}"
        return f"<Resident{where} {self.state.value}, {self.tokens} tokens{', saved' if self.saved else ''}>"


class Scale(msgspec.Struct):
    """One entry of `lora`."""

    id: int = 0
    scale: float = 0.0


def canonical(lora: bytes, adapters: Sequence[tuple[int, float]]) -> bytes:
    """A request's `lora`, which may be written in many ways; empty if it asks for the `adapters` as they are."""
    try:
        asked = {one.id: one.scale for one in msgspec.json.decode(lora, type=list[Scale])}
    except NOT_JSON:
        return lora
    return msgspec.json.encode(sorted(asked.items())) if asked and asked != dict(adapters) else b""


class Residents:
    """All slots of one engine. `parks`: each request moves idle slots into the server's RAM cache.

    `where`: the slots that have a cut, by its digest. `order`: all slots, the one that was used least recently first.
    `parked`: what slots held before and the RAM cache should have. `moved`: tokens that went there in all. With its
    limit (`memory`, bytes; 0: there is none) that tells what was thrown out since: the least recently used goes first.
    """

    def __init__(self, slots: int = 1) -> None:
        self.turns = self.moved = 0
        self.process: tuple[object, ...] = ()
        self.adapters: tuple[tuple[int, float], ...] = ()  # the LoRA adapters of the engine, with their scales
        self.adapted = False  # a request asked for scales of its own, or the engine's were changed
        self.memory = 0.0
        self.parks = False
        self.last = time.monotonic()  # when a request ended
        self.sleeps_after = math.inf  # seconds without one after which the engine drops everything
        self.parked: list[Resident] = []
        self.resize(slots)

    def resize(self, slots: int) -> None:
        """Start anew with `slots` slots of unknown content."""
        self.where: dict[bytes, list[Resident]] = {}
        count = max(1, slots)
        self.slots = [Resident(0 if count == 1 else None, number=n, where=self.where) for n in range(count)]
        self.order = dict.fromkeys(self.slots)
        self.parked.clear()

    def meet(self, facts: EngineFacts) -> None:
        """An engine is there, with slots of unknown content; what was adapted in its process may still be in memory."""
        process = facts.url, facts.pid, facts.started
        same = self.process in (process, (facts.url, None, None))  # the second one was not seen
        self.adapted = same and (self.adapted or self.adapters != facts.adapters)
        self.process, self.adapters = process, facts.adapters
        self.resize(facts.slots)
        for slot in self.slots if same else ():
            slot.lora = None

    def clear(self, *, empty: bool) -> None:
        """Forget all content. `empty`: the slots surely hold nothing; else they may hold anything."""
        self.parked.clear()
        for number, slot in enumerate(self.slots):
            slot.clear(empty=empty)
            slot.lora = b"" if empty else None
            if len(self.slots) > 1:
                slot.slot = number if empty else None  # which of the empty ones is which does not matter

    def choose(self, cuts: Sequence[Cut], size: int) -> tuple[Resident, int]:
        """The slot that the server will take for a prompt of `size` bytes, and how many cuts it shares."""
        if len(self.slots) == 1:
            return self.slots[0], common(cuts, self.where)
        resident, position = self.sharing(cuts)
        if resident is not None and cuts[position - 1].offset > SIMILAR * size:
            return resident, position
        oldest = next((slot for slot in self.order if slot.state is not State.CHANGING), None) or next(iter(self.order))
        return oldest, common(cuts, oldest.digests)

    def sharing(self, cuts: Sequence[Cut]) -> tuple[Resident | None, int]:
        """The slot that shares the longest beginning, and how many cuts that is; a busy one only if all are busy."""
        busy: tuple[Resident | None, int] = None, 0
        for position in range(len(cuts), 0, -1):
            for slot in self.where.get(cuts[position - 1].digest, ()):
                if slot.state is not State.CHANGING:
                    return slot, position
                if busy[0] is None:
                    busy = slot, position
        everything = busy[0] is not None and all(slot.state is State.CHANGING for slot in self.slots)
        return busy if everything else (None, 0)

    def somewhere(self, resident: Resident) -> None:
        """A request that shares nothing goes where the server likes: its slot's number is not known any more.

        Neither are those of the empty slots, for the server may have taken any of them.
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
        if gone.state in DRIVEN_OUT:
            gone.state, gone.moved = DRIVEN_OUT[gone.state], self.moved + gone.tokens
        self.parked.append(gone)

    def goes_on(self, digests: frozenset[bytes]) -> None:
        """A slot holds `digests` now: what ends within that was taken out of the RAM cache, or is of no use there."""
        self.parked = [one for one in self.parked if one.end not in digests]

    def endangered(self, resident: Resident) -> list[Resident]:
        """What a request that changes `resident` would drive out of the other slots."""
        if not self.parks:
            return []
        return [other for other in self.slots if other is not resident and other.state in STANDING]

    def taken(self) -> set[int]:
        """The slots of which we know whose content they hold."""
        return {one.slot for one in self.slots if one.slot is not None and one.tokens}

    def disproved(self, counts: Mapping[int, int]) -> list[Resident]:
        """What cannot be where we think, if the slots (all idle) hold so many tokens: the server chose another one.

        It compares tokens, of which a prompt may share more with a slot than its cuts tell. `counts` leaves out slots
        that tell nothing: one without a task yet, or with what was restored since.
        """

        def wrong(one: Resident) -> bool:
            if one.slot is not None:
                told = counts.get(one.slot)
                return told is not None and abs(told - one.tokens) > OFF_BY
            return one.brought is None and all(abs(told - one.tokens) > OFF_BY for told in counts.values())

        return [one for one in self.slots if one.state is State.WHOLE and wrong(one)] if counts else []

    def settle(self, resident: Resident, slot: int) -> None:
        """We put `resident` into `slot`, as the last one that was used."""
        self.found(resident, slot)
        self.used(resident)

    def used(self, resident: Resident) -> None:
        self.turns += 1
        resident.turn = self.turns
        if resident in self.order:  # not if the engine came back since it was chosen
            del self.order[resident]
            self.order[resident] = None

    def found(self, resident: Resident, slot: int) -> None:
        """`resident` turned out to be in `slot`; what was thought to be there is not."""
        if len(self.slots) > 1:
            for other in self.slots:
                if other is not resident and other.slot == slot:
                    other.slot = None
                    other.clear(empty=False)
            resident.slot = slot

    def take(self, resident: Resident, shared: bytes, group: str | None = None) -> None:
        """A request that shares what stands before the cut `shared` (empty: nothing) is about to change `resident`.

        `group`: whose it is; None: not known.
        """
        for other in self.endangered(resident) if self.parks else ():
            other.slot = None
            other.state = DRIVEN_OUT.get(other.state, other.state)
            self.moved += other.tokens
            other.moved = self.moved
        kept = resident.prompt if shared and resident.end == shared else resident.tokens_at(shared)
        if kept < KEPT * resident.tokens and resident.state not in AWAY:
            self.moved += resident.tokens
        self.used(resident)
        if len(alike := self.where.get(shared, ())) > 1:  # the server takes any of them
            for one in (resident, *alike):
                one.slot = None
        resident.clip(shared, group)

    def extends(self, cuts: Sequence[Cut]) -> bool:
        """Whether a prompt goes on from all that some slot holds."""
        return any(slot.end == cut.digest for cut in cuts for slot in self.where.get(cut.digest, ()))
