"""What to do about one request: the rules of policy.py applied to what is resident and what is on disk.

Everything here reads and decides; nothing is changed, asked or awaited. `plan` is on the way of every request and
mostly is not even asked (`nothing_to_do`): the slot holds the conversation's beginning, and no snapshot holds more.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import get_args

import msgspec

from bioproxy.config.schema import Kv
from bioproxy.engines.facts import EngineFacts
from bioproxy.kv import policy
from bioproxy.kv.fingerprint import Fingerprint, Traits
from bioproxy.kv.index import Match, owner, usable
from bioproxy.kv.policy import Answer, Question
from bioproxy.kv.resident import SIMILAR, Resident, State, Want
from bioproxy.kv.shelves import Tenant
from bioproxy.prompt import Cut

log = logging.getLogger(__name__)

RETRY = 86400.0  # seconds after which something worthless may be tried anew: a date in a chat template changes daily
CANDIDATES = 8  # snapshots that are weighed for one request, the longest beginnings first
UNTRIED = 0.5  # what a gain counts that was never seen on this model: a surer one wins
HOPELESS = (
    "restores brought nothing back on this model with this build, not even those of templates: no snapshots are used "
    "or written, until one is tried again after a day"
)
NO_CONVERSATIONS = (
    "conversations brought nothing back on this model with this build: only templates are restored and written, until "
    "one is tried again after a day"
)
ENDS_EXACTLY = "with --swa-full only templates are restored: a request may leave a conversation before its end"


class Findings(msgspec.Struct):
    """What may be done with this engine, and the sentences for `/status` and the log."""

    restores: bool = True
    saves: bool = True
    diverging: bool = True
    notes: tuple[str, ...] = ()

    def deny(self, note: str) -> None:
        """No snapshots at all, because of `note`."""
        self.restores = self.saves = False
        self.notes += (note,)

    def remark(self, note: str) -> None:
        """Something that the operator should know; nothing is forbidden."""
        self.notes += (note,)


class Plan(msgspec.Struct):
    """What a request needs before it is sent: slot actions on `place`, and saves of what it drives out elsewhere.

    `displaces`: what `place` holds would be worth a save if no user waited, and the request, which shares `shared` of
    it, takes its slot. `fork`: the context that the request goes on from, as others may at the same time.
    """

    place: Resident
    shared: bytes = b""
    save: bool = False
    displaces: bool = False
    erase: bool = False
    match: Match | None = None
    others: tuple[Resident, ...] = ()
    fork: Match | None = None

    @property
    def saves(self) -> tuple[Resident, ...]:
        return (self.place, *self.others) if self.save else self.others


class Decisions:
    """The rules for one engine, and what was found out about it; one-slot engines may be treated literally.

    `facts`: what the engine told; None while there is none. `findings`: what it cannot do. `fault`: why there are no
    snapshots at present (the folder, or a fault of ours); `elsewhere`: why its slot files are not in the folder. Both
    are looked at again. `doubt`: why what the slots hold is not known; until a response has ended there is no slot
    action then (kv-rule 4).
    `everyone`: the group of all who may ask at present; None if requests of several groups may come.
    `model` stands before what is logged; "" if there is only one.
    """

    def __init__(
        self, config: Kv, tenant: Tenant, *, everyone: Callable[[], str | None] = lambda: "", model: str = ""
    ) -> None:
        self.config = config
        self.tenant = tenant
        self.everyone = everyone
        self.model = model
        self.facts: EngineFacts | None = None
        self.fingerprint = Fingerprint()
        self.findings = Findings(restores=False, saves=False)
        self.fault = self.elsewhere = self.doubt = ""
        self.traits = Traits()
        self.literal = False  # kv.policy: always, on one slot
        self.erasing = False  # kv.isolate: strict, on a llama-server; others cannot be emptied
        self.several = False  # the engine has several slots, and chooses one by itself
        self.context = 0  # tokens that a slot can hold (0: not known)
        self.room = math.inf  # tokens that all slots can hold together
        self.said: set[str] = set()

    def meet(self, facts: EngineFacts) -> None:
        """An engine is there, whose `fingerprint` is known: what follows from it for the rules."""
        self.traits = self.fingerprint.traits
        self.literal = self.config.policy == "always" and facts.slots == 1
        self.several = facts.slots > 1
        self.context = facts.context
        self.room = (facts.context or math.inf) if self.fingerprint.arguments.unified else math.inf

    @property
    def able(self) -> bool:
        """Whether slot actions are possible: there is an engine, its folder is in reach, and nothing is in doubt."""
        return self.facts is not None and not (self.fault or self.elsewhere or self.doubt)

    @property
    def restoring(self) -> bool:
        return self.findings.restores and self.able

    def say(self) -> None:
        """Log each note once, however often the engine comes back; a pause speaks for itself."""
        for note in (*self.findings.notes, self.fault, self.elsewhere, *self.reasons()):
            if note and note not in self.said:
                self.said.add(note)
                log.warning("%s%s", f"{self.model}: " if self.model else "", note)

    def nothing_to_do(self, want: Want, place: Resident, position: int) -> bool:
        """Whether `plan` is surely None: the request goes on from all of `place`, and no snapshot has more of it.

        That is so for nearly each request. At least one cut must be resident.
        """
        if self.literal or self.erasing or not self.findings.diverging:
            return False
        if place.end != want.cuts[position - 1].digest:
            return False
        if not self.findings.restores:
            return True
        if self.several and self.tenant.shelf.index.named:
            return False
        group = want.group or (self.everyone() if want.prefix else "")  # only a warm-up has none of its own with keys
        return not self.tenant.shelf.index.has_more(want.cuts, position, self.tenant.scope.fingerprint, group)

    def plan(
        self,
        want: Want,
        place: Resident,
        position: int,
        *,
        restoring: bool,
        saving: bool,
        endangered: Sequence[Resident] = (),
        slots: Sequence[Resident] = (),
    ) -> Plan | None:
        """What has to be done for `want`, of which `position` cuts are in `place`; None (nearly always) for nothing.

        `endangered`: other slots that the server will clear for it. `slots`: all that the server chooses from, if not
        only `place`: what stands in any of them may be used for it. If a request must not leave a snapshot early
        (`--swa-full`), it must not leave a restored slot early either, nor may the server keep a copy of that slot.
        """
        shared = want.cuts[position - 1].digest if position else b""
        fragile = restoring and not self.findings.diverging and not (place.live or place.empty)
        erase = self.erasing and any(one.foreign(want.group) for one in slots or (place,))
        erase = erase or (fragile and (not shared or place.end != shared))
        match = self.best(want, 0 if erase else position) if restoring else None
        erase = erase or (fragile and match is not None)
        others = tuple(
            other
            for other in (endangered if saving else ())  # they would be lost with the engine
            if other.savable and self.worth_saving(other, self.unsaved(other), displaced=not want.side)
        )
        fork = self.fork(want, match.digest if match is not None else shared) if restoring else None
        if not erase and match is None and not others and fork is None and place.end == shared:
            return None
        plan = Plan(place, shared, erase=erase, match=match, others=others, fork=fork)
        if self.findings.saves and place.whole and place.store:
            lost = place.tokens if erase or match is not None else place.tokens - place.tokens_at(shared)
            lost = min(self.unsaved(place), lost)
            plan.save = saving and place.savable and self.worth_saving(place, lost, displaced=not want.side)
            plan.displaces = plan.save or (place.end != shared and self.worth_saving(place, lost))
        return plan if plan.saves or plan.displaces or erase or match is not None or fork is not None else None

    def fork(self, want: Want, held: bytes) -> Match | None:
        """The context that a request goes on from, if nothing has more of it than that, up to the cut `held`."""
        index = self.tenant.shelf.index
        if not (self.several and held in index.named):
            return None
        found = [index.snapshots[identity] for identity in sorted(index.named[held])]
        fit = (one for one in found if usable(one, self.tenant.scope) and owner(one)[1] in (None, want.group))
        match = next((Match(one, held, exact=True) for one in fit), None)
        return match if match is not None and self.trust(match, match.question(want.end)) else None

    # what restores are worth on this model (rule 6)

    def answer(self, question: Question) -> Answer:
        """What was seen of such restores, failures in the last day only."""
        knowledge = self.tenant.knowledge
        if question not in knowledge.trials:
            return "unknown"
        return knowledge.answer(question, self.tenant.shelf.wall() - RETRY, cuttable=self.traits.full)

    def works(self) -> dict[Question, Answer]:
        """What is known of each kind of restore; with `--swa-full` only templates are brought back."""
        able = get_args(Question) if self.findings.diverging else ("templates",)
        return {one: self.answer(one) if one in able else "worthless" for one in get_args(Question)}

    def tells(self, question: Question, expected: int, *, good: bool) -> bool:
        """Whether the outcome of such a restore says something about file and model.

        A recurrent model can go on from any snapshot. If nothing of a conversation's came back, the client sent the
        answer back in other words, and so left the snapshot early, which such a model cannot do.
        """
        return expected > 2 * policy.SLACK and (good or question != "extends" or not self.traits.recurrent)

    def useless(self, *, template: bool) -> str:
        """Why no snapshot of this kind is used or written; empty if they are."""
        if self.answer("templates") == "worthless":
            return HOPELESS
        if template:
            return ""
        if not self.findings.diverging:
            return ENDS_EXACTLY
        return NO_CONVERSATIONS if self.answer("extends") == "worthless" else ""

    def reasons(self) -> tuple[str, ...]:
        found = self.useless(template=True) or self.useless(template=False)
        return (found,) if found not in ("", ENDS_EXACTLY) and self.findings.restores else ()

    # restoring

    def best(self, want: Want, position: int) -> Match | None:
        """The snapshot that spares most, if its restore pays (rules 15 and 19); `position` cuts are resident.

        For a request `kv.min_seconds` is the least that it must spare: for less it is not worth touching the slot in a
        user's way. A warm-up changes the slot in any case and no user waits for it, so whatever is read faster than
        evaluated is read: the shorter it keeps the engine, the sooner a user gets it.
        """
        if self.literal:
            return self.best_literal(want)
        held = want.cuts[position - 1].offset if position else 0
        best, gain = None, 0.0
        least = 0.0 if want.background else self.config.min_seconds
        group = want.group or self.everyone()  # a warm-up has none of its own
        found = self.candidates(want.cuts, group=group, above=position)
        whole = {match.digest for match in found if match.exact}
        for match in found:
            if match.digest in whole and not match.exact:
                continue  # one that ends there is sure to hold that much
            trust = self.trust(match, match.question(want.end)) if self.found_again(match, want) else 0.0
            gained = trust and trust * self.gain(match, held, least=least)
            if gained > gain:
                best, gain = match, gained
        return best

    def soon(self, want: Want, position: int) -> bool:
        """Whether what was saved a moment ago, and is not quite a snapshot yet, is what this request wants.

        So it is if a side request took the slot, and the conversation goes on at once.
        """
        missing = {cut.digest for cut in want.cuts[position:]}
        fingerprint, speeds = self.tenant.scope.fingerprint, self.tenant.knowledge.speeds
        return any(
            one.group == want.group
            and one.fingerprint == fingerprint
            and any(cut.digest in missing for cut in one.cuts)
            and policy.worth_restoring(one.tokens, one.size, speeds=speeds, min_seconds=self.config.min_seconds)
            for one in self.tenant.shelf.committing.values()
        )

    def candidates(self, cuts: Sequence[Cut], *, group: str | None, above: int = 0) -> list[Match]:
        """The snapshots to weigh for a prompt: what shares most of it, and what ends within it.

        Both, for there may be many that only share its beginning, which not every model can use.
        """
        look = functools.partial(
            self.tenant.shelf.index.matches, cuts, scope=self.tenant.scope, group=group, above=above
        )
        sharing = look() if self.findings.diverging and self.answer("diverges") != "worthless" else ()
        return [*islice(look(exact=True), CANDIDATES), *islice(sharing, CANDIDATES)]

    def best_literal(self, want: Want) -> Match | None:
        """Policy `always`: the file of the request's template, whatever is resident."""
        if not want.prefix:
            return None
        found = self.tenant.shelf.index.matches(want.cuts, scope=self.tenant.scope, group=want.group)
        fit = (match for match in found if self.findings.diverging or match.question(want.end) == "templates")
        return next((match for match in fit if match.snapshot.prefix == want.prefix), None)

    def trust(self, match: Match, question: Question) -> float:
        """How much this engine can be expected to use of such a match: all (1), nothing (0), or UNTRIED if never seen.

        With `--swa-full` a request that leaves the file before its end gets wrong logits (facts, 0.8), and a
        conversation's file ends in generated text, which the request may well leave.
        """
        if self.context and match.snapshot.tokens > self.context:
            return 0.0  # a restore would be refused, and nothing is wrong with the file
        if self.useless(template=match.snapshot.bounded) or not (self.findings.diverging or match.exact):
            return 0.0
        answer = self.answer(question)
        if answer == "worthless":
            return 0.0
        return 1.0 if answer == "good" or question in ("templates", "extends") or self.traits.full else UNTRIED

    def found_again(self, match: Match, want: Want) -> bool:
        """Whether the server will send the request to the restored slot: it wants a tenth of the prompt in common."""
        offset = next((cut.offset for cut in want.cuts if cut.digest == match.digest), 0)
        return not self.several or offset > SIMILAR * want.size

    def gain(self, match: Match, held: int, *, least: float) -> float:
        """Seconds that restoring `match` spares; 0 if that does not pay or is below `least`.

        `held`: bytes of the prompt that are resident. How many tokens that is is an estimate: of the snapshot's, as
        many as its share of the bytes; what another prompt has per byte says little about this one.
        """
        speeds = self.tenant.knowledge.speeds
        snapshot = match.snapshot
        tokens = match.tokens - min(match.tokens, snapshot.prompt * held // max(1, snapshot.cuts[-1].offset))
        size = match.snapshot.size
        if not policy.worth_restoring(tokens, size, speeds=speeds, min_seconds=least):
            return 0.0
        return policy.restore_gain(tokens, size, speeds)

    def likely(self) -> Iterator[Match]:
        """Without a request: what may be wanted next and pays, the last used first (rule 21).

        A conversation only if the next request must be of its group; else it would lie in a slot that another uses.
        """
        group, scope = self.everyone(), self.tenant.scope
        good = [one for one in self.tenant.shelf.index.snapshots.values() if usable(one, scope) and not one.reference]
        good = [one for one in good if not one.lora]  # in a slot of other scales it would be taken for what it is not
        for one in sorted(good, key=lambda one: -one.used):
            match = Match(one, one.end, exact=True)
            fit = (one.template or one.group == group) and self.trust(match, match.question(b""))
            if fit and self.gain(match, 0, least=self.config.min_seconds) > 0:
                yield match

    # saving

    def unsaved(self, place: Resident) -> int:
        """Tokens in a slot that may be asked for again and no snapshot has; -1 if its content is not known."""
        if place.state is State.EMPTY or (place.saved and self.tenant.shelf.has(place.saved)):
            return 0
        if place.state is not State.WHOLE and place.state is not State.PARKED:
            return -1
        if self.tenant.shelf.index.has_more(place.cuts, 0, self.tenant.scope.fingerprint, place.group):
            covered = self.covered(place)
        else:
            covered = self.from_source(place) if place.source[0] else 0
        return policy.findable(place.tokens, covered, lasting=self.lasting(place) if place.lasts else place.tokens)

    def lasting(self, place: Resident) -> int:
        """About how many tokens of a conversation whose head changes at each turn could be restored at the next one."""
        if not self.findings.diverging or self.answer("diverges") == "worthless":
            return 0
        return place.prompt * place.lasts // place.cuts[-1].offset

    def covered(self, place: Resident) -> int:
        """Tokens of a slot's content that its conversation could restore from disk."""
        found = self.candidates(place.cuts, group=place.group)
        useful = [match for match in found if self.trust(match, match.question(b""))]  # by what goes on
        return max([self.from_source(place), *(held_by(match, place) for match in useful)])

    def from_source(self, place: Resident) -> int:
        """Those that the snapshot holds from which it was restored, or to which it was saved; exact, unlike cuts."""
        identity, held = place.source
        snapshot = self.tenant.shelf.index.snapshots.get(identity) or self.tenant.shelf.committing.get(identity)
        if snapshot is None or not (usable(snapshot, self.tenant.scope) and owner(snapshot)[1] in (None, place.group)):
            return 0
        match = Match(snapshot, snapshot.end, exact=held >= snapshot.tokens - policy.SLACK)
        return held if self.trust(match, match.question(b"")) else 0

    def worth_saving(self, place: Resident, unsaved: int, *, displaced: bool = False) -> bool:
        """Whether a slot's content shall be saved, given how much of it is new (rule 17)."""
        knowledge = self.tenant.knowledge
        token_bytes = self.token_bytes() if displaced else knowledge.speeds.token_bytes
        if self.useless(template=place.bounded) or (displaced and not token_bytes) or self.tenant.unsavable(place.cuts):
            return False  # worthless, or it may take any time, or the engine does not save such a content
        size = round(place.tokens * token_bytes)
        if unsaved * knowledge.speeds.prefill < self.tenant.shelf.least * size and not place.bounded:
            return False  # what may still be written today is for what is worth more
        return policy.worth_saving(
            unsaved,
            place.tokens,
            size,
            speeds=knowledge.speeds,
            min_seconds=self.config.min_seconds,
            displaced=displaced,
        )

    def seconds_to_save(self, place: Resident) -> float:
        """About how long a save of this slot takes; 0 if nothing was measured yet."""
        return self.bytes_of(place) / self.tenant.knowledge.speeds.save

    def bytes_of(self, place: Resident) -> float:
        """About how many bytes a slot's content takes; 0 if nothing was measured yet."""
        return place.tokens * self.token_bytes()

    def token_bytes(self) -> float:
        """Bytes of a token, as measured or as guessed."""
        return self.tenant.knowledge.speeds.token_bytes or self.tenant.knowledge.guess

    def worth_keeping(self, want: Want, tokens: int, seconds: float) -> bool:
        """Whether a template's prompt prefix, or a head, shall be on disk: it pays, and this build can use it."""
        scope, speeds = self.tenant.scope, self.tenant.knowledge.speeds
        if self.useless(template=True) or seconds < self.config.min_seconds:
            return False
        earlier = self.tenant.shelf.index.bounded(want.cuts, scope.fingerprint, want.owner)
        lately = self.tenant.shelf.wall() - RETRY
        bad = [one for one in earlier if one.quarantined and not one.damaged]
        if any(one.build == scope.build and one.created > lately for one in bad) or self.tenant.unsavable(want.cuts):
            return False
        return seconds > tokens * speeds.token_bytes / speeds.restore


def held_by(match: Match, place: Resident) -> int:
    """About how many tokens of a slot's content a snapshot holds: with the answer only if both end there."""
    if match.exact and match.digest == place.end:
        return min(place.tokens, match.snapshot.tokens)
    return place.tokens_at(match.digest)
