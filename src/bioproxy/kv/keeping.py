"""What a key has kept: a snapshot that the budget must leave alone, until a time or for good.

A pin belongs to the key's group and stands in the snapshot's own description, so it is on the disk before anybody is
told of it, survives restarts and a lost index, and goes with its snapshot. A snapshot may have pins of several groups;
it may go when the last one has. A newer snapshot of the same conversation does not replace it: others go on from
exactly what it holds.

What is kept is taken from all others, so it is counted (`budget.room`) and asked for beforehand: `demand` says whether
so many tokens more fit, with the numbers if they do not. `keep` looks again, in one go with what it changes.
"""

from __future__ import annotations

import msgspec

from bioproxy.errors import RequestError
from bioproxy.kv import budget, by_hand
from bioproxy.kv.budget import Room
from bioproxy.kv.policy import mib
from bioproxy.kv.shelf import Shelf
from bioproxy.kv.shelves import Tenant
from bioproxy.kv.snapshot import Pin, Snapshot

DAY = 86400.0


async def room(shelf: Shelf, group: str) -> Room:
    """What a group keeps in this folder, and how much more it may. Raises FolderError."""
    if not shelf.budget:  # it depends on what is free, and nobody has looked yet
        await shelf.measure()
    return room_now(shelf, group)


def room_now(shelf: Shelf, group: str) -> Room:
    """The same by the last look at the disk; what is being written counts."""
    known = (shelf.index.snapshots | shelf.committing).values()
    return budget.room(known, group, budgets=shelf.budgets(), folder=shelf.budget, now=shelf.wall())


async def demand(tenant: Tenant, group: str, *, tokens: int, seconds: float) -> None:
    """See that a group may have `tokens` more kept for so many seconds (0: for good), as far as can be told beforehand.

    RequestError (400) with the numbers; FolderError. As long as no file of this engine was measured, a token's size is
    not known: then it is only seen that there is any room.
    """
    check_time(tenant.shelf, seconds)
    speeds = tenant.knowledge.speeds
    each = speeds.token_bytes or tenant.knowledge.guess
    size = max(1, round(tokens * each))
    found = await room(tenant.shelf, group)
    if size > found.left:
        asked = f"{tokens:,} tokens" + (f", about {mib(size)}," if each else "")
        more = f", about {int(found.left / each):,} tokens" if each else ""
        raise too_much(tenant.shelf, group, found, asked=asked, more=more)


def check_time(shelf: Shelf, seconds: float) -> None:
    """RequestError for a time longer than anything is kept unused."""
    if seconds > (most := shelf.config.max_age):
        asked = f"{seconds / DAY:.1f} days" if seconds >= DAY else f"{seconds:.0f} s"
        raise RequestError(f"nothing is kept for {asked}: kv.max_age allows {most / DAY:.1f} days")


def too_much(shelf: Shelf, group: str, found: Room, *, asked: str, more: str = "") -> RequestError:
    """The error for what does not fit."""
    budgets = shelf.budgets()
    own = budgets.of_group(group)
    key = "kv.key_budgets" if own and own == found.most else "kv.kept_budget"
    whose = budgets.names.get(budgets.payer(group), "")
    who = f"key {whose}" if whose else "it"
    said = f"{asked} cannot be kept: {who} keeps {mib(found.held)} of {mib(found.most)} ({key})"
    return RequestError(f"{said}; {mib(found.left)} more are free to be kept{more}")


async def keep(shelf: Shelf, snapshot: Snapshot, *, group: str, until: float = 0.0, name: str = "") -> Snapshot:
    """Have a group keep a snapshot until the unix time `until` (0: for good), as the context `name` if one is given.

    What the group keeps already is kept for the longer of the two times. On the disk when this returns. RequestError
    (400) if that is more than it may keep, what `by_hand.change` raises, else.
    """
    await room(shelf, group)

    def altered(known: Snapshot) -> Snapshot:
        by_hand.check_good(known)
        found = room_now(shelf, group)
        if group not in known.kept_by(shelf.wall()) and known.size > found.left:
            raise too_much(shelf, group, found, asked=mib(known.size))
        return msgspec.structs.replace(known, pins=pinned(known.pins, Pin(group, until, name), shelf.wall()))

    return await by_hand.change(shelf, snapshot, altered)


async def release(shelf: Shelf, snapshot: Snapshot, *, group: str, name: str = "") -> Snapshot:
    """Have a group keep a snapshot no longer (under this `name`); what others keep of it stays."""

    def altered(known: Snapshot) -> Snapshot:
        left = tuple(one for one in known.pins if (one.group, one.name) != (group, name))
        return msgspec.structs.replace(known, pins=left)

    return await by_hand.change(shelf, snapshot, altered)


def pinned(pins: tuple[Pin, ...], new: Pin, now: float) -> tuple[Pin, ...]:
    """The live ones, and one more; of two of the same group and name the one that lasts longer."""
    same = [one for one in (*pins, new) if (one.group, one.name) == (new.group, new.name) and one.live(now)]
    last = max(same or [new], key=lambda one: one.until or float("inf"))
    return (*(one for one in pins if one.live(now) and one not in same), last)
