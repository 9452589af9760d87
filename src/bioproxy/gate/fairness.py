"""Fair shares: engine seconds per client, forgotten by half every ten minutes.

The client that used the engine least goes first. What it used is charged when the grant comes back, for only then is
it known how long the answer was. A sum that fades would have to be recomputed for every client at every decision;
instead each account keeps its *level*,

    level = log2(seconds used) + now / half-life        measured when it was last charged

and because all accounts fade at the same pace, comparing levels compares what is left of the sums, at any later time,
without a clock. An account that never used anything has level minus infinity.

A newcomer starts at the lowest level in use: else a client with a made-up name would overtake all others.
"""

from __future__ import annotations

import math

HALF_LIFE = 600.0  # seconds
MOST_ACCOUNTS = 1024  # clients without a key are known by address: there may be any number of them


class Account:
    """One client: its level, and how many of its tickets run and wait now."""

    __slots__ = ("client", "level", "running", "waiting")

    def __init__(self, client: str, level: float) -> None:
        self.client = client
        self.level = level
        self.running = 0
        self.waiting = 0

    def used(self, now: float) -> float:
        """Engine seconds that still count at `now`."""
        return float(2.0 ** (self.level - now / HALF_LIFE))

    def charge(self, seconds: float, now: float) -> None:
        """Add `seconds` of engine time that ended at `now`."""
        total = 2.0 ** (self.level - now / HALF_LIFE) + seconds
        if total > 0.0:
            self.level = math.log2(total) + now / HALF_LIFE


class Shares:
    """Every client's account, made at its first ticket; idle ones that used least are forgotten first."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}

    def account(self, client: str) -> Account:
        """The account of `client`, a new one at the lowest level in use."""
        known = self.accounts.get(client)
        if known is not None:
            return known
        if len(self.accounts) >= MOST_ACCOUNTS:
            self.forget()
        account = self.accounts[client] = Account(client, self.lowest())
        return account

    def lowest(self) -> float:
        """The lowest level among clients that run or wait; minus infinity if there are none."""
        active = (account.level for account in self.accounts.values() if account.running or account.waiting)
        return min(active, default=-math.inf)

    def forget(self) -> None:
        """Drop the idle half that used least; clients that run or wait stay."""
        idle = [account for account in self.accounts.values() if not account.running and not account.waiting]
        idle.sort(key=lambda account: account.level)
        for account in idle[: MOST_ACCOUNTS // 2]:
            del self.accounts[account.client]
