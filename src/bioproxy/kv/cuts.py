"""Snapshots that are cut where a client marked the end of a beginning: found, judged, written, kept for their time.

A cut is like a head without a prefix (warmup/plain.py): it ends exactly there, nothing in it was generated, it is its
group's alone, and no longer conversation replaces it. So it is worth the same on every model, also on one whose cache
can't be left in the middle. It is made while the prompt is evaluated anyway, before the rest of the prompt: afterwards
the engine could only get back there by throwing away what follows.

What it costs is a save in a user's way, so it is made only if what it adds to the disk is worth `kv.min_seconds`, and
if it takes a tenth of that or less (rule 17), unless the client insists: on a long time, or on its own breakpoints
alone. What is not cut is in the conversation's own snapshot, which is made when the engine is idle.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Collection, Iterable
from operator import attrgetter

from msgspec.structs import replace

from bioproxy.gate.gate import Grant
from bioproxy.kv import keeping, policy
from bioproxy.kv.keeper import Keeper
from bioproxy.kv.resident import Want
from bioproxy.kv.snapshot import Pin, Snapshot

OFFSET = attrgetter("offset")
FRESH = 0.5  # share of its time that must be over before what is kept is written down anew


def beginning(want: Want, offset: int) -> Want | None:
    """The prompt up to byte `offset`, where it must have a cut."""
    place = bisect_left(want.cuts, offset, key=OFFSET)
    if place == len(want.cuts) or want.cuts[place].offset != offset:
        return None
    digest = want.cuts[place].digest
    name = hashlib.sha256(digest + want.group.encode()).hexdigest()[:8]
    return replace(
        want, cuts=want.cuts[: place + 1], size=offset, prefix="", version="", store=True, again=None, readings={},
        head=name, lasts=0,
    )  # fmt: skip


def reach(keeper: Keeper, want: Want) -> int:
    """How many bytes of a prompt need not be evaluated: a slot holds them, or a snapshot that would be used."""
    want = keeper.template.read(want)
    decisions = keeper.decisions
    _, position = keeper.residents.choose(want.cuts, want.size)
    known = want.cuts[position - 1].offset if position else 0
    if not decisions.restoring or decisions.literal:
        return known
    offsets = {cut.digest: cut.offset for cut in want.cuts}
    found = decisions.candidates(want.cuts, group=want.group, above=position)
    good = (offsets[match.digest] for match in found if decisions.trust(match, match.question(want.end)))
    return max((known, *good))


def pays(keeper: Keeper, tokens: int, new: int, *, insisted: bool) -> bool:
    """Whether a cut after `tokens`, of which `new` are on no disk, is worth what its client waits for it."""
    if not keeper.actions.saving or keeper.decisions.literal or keeper.decisions.useless(template=True):
        return False
    size = round(tokens * keeper.decisions.token_bytes())
    return policy.worth_saving(
        new, tokens, size, speeds=keeper.speeds, min_seconds=keeper.config.min_seconds, displaced=not insisted
    )


async def write(keeper: Keeper, want: Want, tokens: int, grant: Grant, *, pin: Pin | None) -> bool:
    """Save the slot that holds exactly `want`, `tokens` long, which was evaluated a moment ago; whether it is written.

    Under its request's grant, which is exclusive meanwhile; if other requests run, nothing is done.
    """
    read = keeper.template.read(want)
    places = [slot for slot in keeper.residents.where.get(read.end, ()) if slot.end == read.end and slot.savable]
    place = next((slot for slot in places if slot.tokens == tokens), None)
    if place is None or not keeper.actions.saving:
        return False
    async with grant.alone() as alone:
        if not alone:
            return False
        place.head = want.head
        saved = await keeper.actions.save(place, pins=(pin,) if pin is not None else ())
        await keeper.actions.fork(place)
        return saved


async def prolong(keeper: Keeper, snapshot: Snapshot, *, group: str, seconds: float) -> None:
    """Keep a snapshot for so many seconds from now, if half of them would be missing. Raises what `keeping` raises."""
    now = keeper.tenant.shelf.wall()
    mine = [pin.until for pin in snapshot.pins if pin.group == group and pin.live(now)]
    if 0.0 in mine or max(mine, default=now) - now >= FRESH * seconds:
        return
    keeping.check_time(keeper.tenant.shelf, seconds)
    await keeping.keep(keeper.tenant.shelf, snapshot, group=group, until=now + seconds)


def superseded(keeper: Keeper, want: Want, *, after: int, marked: Collection[bytes]) -> list[Snapshot]:
    """Cuts in a conversation, `after` its head, that their client marks no more, and that a longer snapshot holds too.

    Only if the cache can be cut anywhere: another model may need each of them.
    """
    if not keeper.decisions.traits.full:
        return []
    read, scope = keeper.template.read(want), keeper.tenant.scope
    offsets = {cut.digest: cut.offset for cut in read.cuts}
    found = [one.snapshot for one in keeper.tenant.shelf.index.matches(
        read.cuts, scope=scope, group=read.group, exact=True
    )]  # fmt: skip
    return [
        one
        for one in found[1:]
        if one.head and offsets[one.end] > after and one.end not in marked and own(one.pins, read.group)
    ]


def own(pins: Iterable[Pin], group: str) -> bool:
    """Whether nobody else has it kept, nor anybody by a name."""
    return all(pin.group == group and not pin.name for pin in pins)
