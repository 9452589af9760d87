"""The doctor: looks at each request that computed, a moment after its answer, and says why its prompt was read anew.

On a request's way there is one call, `see`, which puts it into a queue: nothing is copied or hashed for it. `run` takes
it out when the answer is on its way, finds the nearest earlier prompt of the same conversation, compares them (large
ones in a thread), and asks the engine's tokenizer for the exact place if the miss was worth more than `kv.min_seconds`.
The finding is written into the request's record, added up, and told to the bus.

Requests with `Cache-Control: no-store` never come here. One group's prompts are compared with its own only.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from bioproxy.activity import Cause, Finding, Record
from bioproxy.config.settings import Settings
from bioproxy.doctor.compare import Difference, Prompt, Shapes, arguments_of, aside_of, compare
from bioproxy.doctor.exact import LARGEST, shared_tokens
from bioproxy.doctor.memory import Kept, Memory, Visit, nearest, of_one
from bioproxy.doctor.nearest import goes_on, like
from bioproxy.doctor.totals import Totals
from bioproxy.doctor.verdict import LEAST, Evidence, judge, usual
from bioproxy.errors import NOT_JSON, BioproxyError, in_words
from bioproxy.events import Bus, PromptMissed
from bioproxy.kv.keeper import Keeper
from bioproxy.kv.policy import ENOUGH, FieldKnowledge
from bioproxy.kv.resident import Prepared, Want
from bioproxy.templates.bodies import Body, Dialect
from bioproxy.templates.expand import Expanded
from bioproxy.wire.relay import Tail

Json: TypeAlias = Any
log = logging.getLogger(__name__)

REST = 0.02  # seconds in which requests that ended are left alone: answers come first
HEAVY = 64 << 10  # bytes of these from which on they are looked at now: the next request's buffers are made of theirs
LARGE = 256 << 10  # bytes of a request from which on it is compared in a thread
PATIENCE = 10.0  # seconds for the engine to render and tokenize two prompts
DATA = re.compile(rb"^data:\s*(\{.*\})\s*$", re.MULTILINE)
RECURRENT = (
    "a recurrent or hybrid model goes on only from exactly what it holds, or from a checkpoint before that "
    "(--ctx-checkpoints)"
)
WINDOW = (
    "a model with a sliding window cannot go back to what has left the window, but for a checkpoint (--ctx-checkpoints)"
)
STRANGER = "another key"
UNSTABLE: tuple[Cause, ...] = ("system_changed", "tools_changed", "arguments_changed")
NOT_WRITTEN = "it changes at each turn, so of this conversation only what stands before it is kept on disk"
UNSAVED = "nothing is saved at present; `bioproxy status` says why"
NO_CACHE = "cache_prompt is false: the engine was told to reuse nothing"
NO_PROMPT = "it has several prompts, or a body that cannot be read"
SEVERAL = "the engine has several slots and took another one (--slot-prompt-similarity)"


class Case(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request that was answered. `life` counts the engine's processes, `fingerprint` names what they can share.

    `answer`: its answer's id, if that is known already. `aside`: what it said that is no part of `body` any more and
    shapes no prompt.
    """

    record: Record
    body: Body
    expanded: Expanded
    dialect: Dialect
    want: Want
    prepared: Prepared
    keeper: Keeper
    tail: Tail
    life: int
    fingerprint: str
    answer: str = ""
    aside: Mapping[str, bytes] = {}


class DoctorStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that were looked at, and `skipped`: they came too fast, or were too large for `doctor.memory`."""

    requests: int
    skipped: int
    waiting: int
    prompts: int
    bytes: int
    since: float  # unix time


class Doctor:
    """One for the whole program."""

    def __init__(self, settings: Settings, bus: Bus) -> None:
        self.settings = settings
        self.bus = bus
        self.memory = Memory()
        self.totals = Totals()
        self.cases: deque[Case] = deque()
        self.due = asyncio.Event()
        self.rest: asyncio.TimerHandle | None = None  # until which those that wait are left alone
        self.waiting = 0  # bytes of the requests in `cases`
        self.requests = self.skipped = 0
        self.since = time.time()

    def see(self, case: Case) -> None:
        """A request was answered. This is on its way: what there is to do is done later."""
        size, limit = len(case.body.raw), self.settings.config.doctor.memory
        if self.waiting + size > limit:
            self.skipped += limit > 0
            self.memory.keep_within(limit)  # it may be less than it was
            return
        self.waiting += size
        self.cases.append(case)
        if self.waiting >= HEAVY:
            self.begin()
        elif self.rest is None:
            self.rest = asyncio.get_running_loop().call_later(REST, self.begin)

    def begin(self) -> None:
        """Have those that wait looked at."""
        if self.rest is not None:
            self.rest.cancel()
            self.rest = None
        self.due.set()

    async def run(self) -> None:
        """Look at what was seen; until cancelled (a guarded service)."""
        while True:
            while self.cases:  # there are some after a fault, too
                case = self.cases.popleft()
                self.waiting -= len(case.body.raw)
                await self.examine(case)
            self.due.clear()
            await self.due.wait()

    def find(self, group: str, identity: str) -> Kept | None:
        """The prompt of an earlier request of this group, by its id or by its answer's."""
        for case in self.cases:  # it may not have been looked at yet
            if case.want.group == group and identity in ids_of(case):
                return Kept(number=0, prompt=prompt_of(case), visit=visit_of(case), ids=ids_of(case), size=0)
        return self.memory.find(group, identity)

    def statistics(self) -> DoctorStatistics:
        return DoctorStatistics(
            requests=self.requests,
            skipped=self.skipped,
            waiting=len(self.cases),
            prompts=len(self.memory.kept),
            bytes=self.memory.bytes,
            since=self.since,
        )

    # one request

    async def examine(self, case: Case) -> None:
        """Find out why, write it down, and keep the prompt for the next one."""
        record, prompt = case.record, prompt_of(case)
        if record.status != 200:
            return
        if not prompt.pieces:
            told = prompt.aside.get("cache_prompt") == b"false"
            record.finding = Finding(cause="not_comparable", note=NO_CACHE if told else NO_PROMPT)
            self.requests += 1
            return
        alike = self.memory.alike(prompt.group, prompt)
        earlier = alike[0] if alike and of_one(alike[0].visit.session, record.session) else None
        if earlier is not None and (finding := usual(earlier.prompt, prompt, cached=record.tokens_cached)) is not None:
            record.finding, record.why = finding, ""  # its sentence is made anew
        else:
            earlier = await self.compare(case, prompt, alike)
        limit = self.settings.config.doctor.memory
        self.memory.add(prompt, visit_of(case), ids_of(case), limit=limit, earlier=earlier)
        self.requests += 1

    async def compare(self, case: Case, prompt: Prompt, alike: Sequence[Kept]) -> Kept | None:
        """Look closer, at others that do not open alike, too; the earlier prompt, if this one goes on from it."""
        record = case.record
        others = self.memory.newest(prompt.group) if record.cache == "miss" else ()
        known = alike, others, prompt, record.session, shapes_of(case.keeper)
        large = len(case.body.raw) > LARGE
        earlier, difference = await asyncio.to_thread(look, *known) if large else look(*known)
        if record.tokens_cached is not None and record.tokens_evaluated is not None:
            finding = await self.judge(case, prompt, earlier, difference)
            if case.want.lasts and finding.cause in UNSTABLE:
                note = "; ".join(filter(None, (finding.note, NOT_WRITTEN)))
                finding = msgspec.structs.replace(finding, note=note)
            record.finding, record.why = finding, ""
            self.count(record, finding, prompt)
        return earlier if earlier is not None and goes_on(earlier.prompt, prompt) else None

    async def judge(self, case: Case, prompt: Prompt, earlier: Kept | None, difference: Difference | None) -> Finding:
        """The finding, to the token if it is worth a question."""
        evidence = self.evidence(case, prompt, earlier)
        was = earlier.prompt if earlier is not None else None
        found = judge(difference, was, evidence)
        facts = case.keeper.decisions.facts
        if was is None or facts is None or found.seconds < case.keeper.config.min_seconds:
            return found
        can = facts.capabilities
        if not (can.tokenize and can.apply_template):
            return found
        try:
            async with asyncio.timeout(PATIENCE):
                shared = await shared_tokens(case.keeper.template.engine, was, prompt)
        except (BioproxyError, TimeoutError) as error:
            log.debug("the place of a miss is not known to the token: %s", in_words(error))
            return found
        return found if shared is None else judge(difference, was, evidence, shared=shared)

    def evidence(self, case: Case, prompt: Prompt, earlier: Kept | None) -> Evidence:
        """What record and keeper know of the request's way."""
        record, prepared, decisions = case.record, case.prepared, case.keeper.decisions
        evaluated = record.tokens_evaluated or 0
        measured = record.prefill / evaluated if record.prefill and evaluated >= ENOUGH else case.keeper.speeds.prefill
        restarted = earlier is not None and earlier.visit.life != case.life
        by = self.driven_out_by(earlier, prompt) if earlier is not None else ""
        reasons = [prepared.reason]
        if restarted:
            saves = decisions.findings.saves and not (decisions.fault or decisions.elsewhere)
            off = decisions.config.policy == "off"
            reasons.append("kv.policy is off" if off else "" if saves else UNSAVED)
        return Evidence(
            cached=record.tokens_cached or 0,
            evaluated=evaluated,
            token=measured,
            held=0 if restarted and prepared.status == "resident" else held_by(case, alone=not by),
            failed=prepared.status == "failed",
            restarted=restarted,
            by=by,
            why=next(filter(None, reasons), ""),
            family=family_of(case.keeper),
        )

    def driven_out_by(self, earlier: Kept, prompt: Prompt) -> str:
        """Who asked the same model first in between, in words that tell a key nothing of those of other groups."""
        between = self.memory.since(earlier, prompt.model)
        if not between:
            return ""
        first = between[0]
        if first.prompt.group != prompt.group:
            return STRANGER
        what = first.prompt.prefix or first.visit.side
        return f"{first.visit.client}{f' ({what})' if what else ''}"

    def count(self, record: Record, finding: Finding, prompt: Prompt) -> None:
        """Add a miss to the totals and tell the bus."""
        first = finding.cause == "first_time" and (record.tokens_evaluated or 0) >= LEAST
        if not first and finding.tokens < LEAST:
            return
        if first and self.memory.elsewhere(prompt):  # for the operator only: the record says nothing of other groups
            finding = msgspec.structs.replace(finding, cause="group_changed")
        self.totals.add(record, finding)
        self.bus.publish(
            PromptMissed(
                id=record.id,
                model=record.model,
                client=record.client,
                cause=finding.cause,
                tokens=finding.tokens,
                seconds=finding.seconds,
            )
        )


def look(
    alike: Sequence[Kept], others: Sequence[Kept], prompt: Prompt, session: str, shapes: Shapes
) -> tuple[Kept | None, Difference | None]:
    """The nearest prompt of the same conversation, and what changed since: of those that open `alike`, or of others.

    A new conversation may begin almost as another one did: then it is said where its head differs.
    """
    earlier = nearest(alike, prompt, session)
    if earlier is None and (session or len(prompt.pieces) > 2):
        earlier = nearest(others, prompt, session)
    if earlier is not None:
        return earlier, compare(earlier.prompt, prompt, shapes=shapes)
    other = like([kept.prompt for kept in others], prompt)
    return None, None if other is None else compare(beginning(other), beginning(prompt), shapes=shapes)


def beginning(prompt: Prompt) -> Prompt:
    """A prompt's head alone."""
    return msgspec.structs.replace(prompt, pieces=prompt.pieces[:1], sent=prompt.sent[:1])


def prompt_of(case: Case) -> Prompt:
    """A request's prompt as it is compared and kept."""
    expanded, record, want = case.expanded, case.record, case.want
    read = case.keeper.template.read(want) if want.shape else want
    return Prompt(
        pieces=expanded.pieces,
        sent=expanded.sent,
        arguments=arguments_of(expanded.head),
        aside={**aside_of(case.body.fields or {}), **case.aside},
        dialect=case.dialect,
        model=case.keeper.decisions.model,
        engine=case.fingerprint,
        group=want.group,
        prefix=expanded.prefix,
        version=expanded.version,
        day=read.day,
        body=expanded.body if len(expanded.body) <= LARGEST else b"",
        tokens=(record.tokens_cached or 0) + (record.tokens_evaluated or 0),
    )


def held_by(case: Case, *, alone: bool) -> int:
    """The tokens of a prompt that the slot had, as far as the keeper knew.

    It knows them up to a cut. If nobody came in between (`alone`), the slot had what stands before the next one, too.
    """
    prepared, record = case.prepared, case.record
    if prepared.status not in {"resident", "restored"} or prepared.parked:
        return 0
    prompt = (record.tokens_cached or 0) + (record.tokens_evaluated or 0)
    most = prompt * prepared.reach // max(1, case.want.size) if alone else 0
    return max(prepared.expected, most)


def visit_of(case: Case) -> Visit:
    record = case.record
    return Visit(client=record.client, session=record.session, side=record.side, life=case.life)


def ids_of(case: Case) -> tuple[str, ...]:
    """What a request is found by: its id, and its answer's."""
    answer = case.answer or response_id(case.tail)
    return (case.record.id, answer) if answer else (case.record.id,)


def response_id(tail: Tail) -> str:
    """The id that an answer has in its body; empty if it has none."""
    if tail.events:
        found = DATA.search(tail.opening)
        data = found[1] if found else b""
    else:
        data = b"" if tail.forgotten else tail.last()
    try:
        said: Json = msgspec.json.decode(data) if data else None
    except NOT_JSON:
        return ""
    for inner in (said, *(said.get(name) for name in ("message", "response"))) if isinstance(said, dict) else ():
        if isinstance(inner, Mapping) and isinstance(identity := inner.get("id"), str):
            return identity
    return ""


def shapes_of(keeper: Keeper) -> Shapes:
    """What was learnt of the fields that an engine's chat template looks at."""
    known = keeper.tenant.knowledge.fields

    def shapes(name: str, value: bytes) -> bool | None:
        return known.get(name, FieldKnowledge()).answer(hashlib.sha256(value).digest()[:16])

    return shapes


def family_of(keeper: Keeper) -> str:
    """What this model's cache cannot do, in words."""
    decisions = keeper.decisions
    if decisions.traits.recurrent:
        return RECURRENT
    return WINDOW if decisions.traits.window else SEVERAL if decisions.several else "the engine does not say why"
