"""Which program sent a request, which rules are for it, and whether it is one beside a conversation.

Two steps, because nearly every request has nothing to do with any rule. `User-Agent` and path decide first, once for
each pair of them: what is left may still fit, and for most pairs nothing is left. Then the rules that are left look at
further headers and at the *shape* of the body: roles, tools, stream, limit. A rule that must look at a text compares it
with one that the client itself wrote and ships; what people say in conversations decides nothing. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache

import msgspec

from bioproxy.clients.view import View
from bioproxy.config.schema import App, Clients, Config, Shape, SideRule, StabilizeRule
from bioproxy.config.shipped import effective
from bioproxy.config.wildcards import fits, longest_piece

MOST_SEEN = 512  # pairs of agent and path that are remembered
TEXTS: Mapping[str, Callable[[View], Iterable[str]]] = {
    "system": lambda view: view.system.values(),
    "first": lambda view: view.first,
    "last": lambda view: view.last,
}


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What `User-Agent` and path leave: the client if they tell it, else how to tell, and the rules that may fit."""

    app: str = ""
    apps: tuple[App, ...] = ()
    side: tuple[SideRule, ...] = ()
    mend: tuple[StabilizeRule, ...] = ()
    settled: bool = True  # the body need not be looked at


class Found(msgspec.Struct, frozen=True):
    """Which rules are for one request."""

    app: str
    side: SideRule | None
    mend: tuple[StabilizeRule, ...]


class Rules:
    """All rules of one configuration: its own first, then what is shipped."""

    def __init__(self, clients: Clients) -> None:
        every = effective(clients)
        self.apps = every.apps
        self.side = tuple(rule for rule in every.side if rule.side != "off")
        modes = (with_mode(rule, clients.stabilize_mode) for rule in every.stabilize)
        self.mend = tuple(rule for rule in modes if rule.mode != "off")
        self.seen: dict[tuple[bytes | None, str], Seen] = {}

    def look(self, agent: bytes | None, path: str) -> Seen:
        """What is left for this agent and path."""
        if len(self.seen) >= MOST_SEEN:
            self.seen.clear()
        text = (agent or b"").decode("latin-1")
        apps = tuple(app for app in self.apps if may_fit(app, text, path))
        names = {"", *(app.name for app in apps)}
        side = tuple(rule for rule in self.side if rule.app in names and may_fit(rule, text, path))
        mend = tuple(rule for rule in self.mend if rule.app in names and may_fit(rule, text, path))
        sure = apps[0].name if apps and not asks(apps[0]) else ""
        left = () if sure else apps
        found = Seen(app=sure, apps=left, side=side, mend=mend, settled=not (left or side or mend))
        self.seen[agent, path] = found
        return found


def rules_of(config: Config) -> Rules:
    """The rules of a configuration, to be made once for each (Settings.made)."""
    return Rules(config.clients)


def with_mode(rule: StabilizeRule, mode: str) -> StabilizeRule:
    """A rule with the mode that is meant."""
    return msgspec.structs.replace(rule, mode=mode) if rule.mode == "default" else rule


def may_fit(rule: Shape, agent: str, path: str) -> bool:
    """Whether a rule may be for a request of this agent and path."""
    return any_fits(rule.agents, (agent,)) and any_fits(rule.paths, (path,))


def asks(rule: Shape) -> bool:
    """Whether a rule asks for more than agent and path."""
    return bool(
        rule.app or rule.headers or rule.stream != "any" or rule.tools != "any" or rule.max_tokens
        or rule.roles or rule.system or rule.first or rule.last
    )  # fmt: skip


def any_fits(patterns: Sequence[str], texts: Iterable[str]) -> bool:
    """Whether there are no patterns, or one of them fits one of the texts."""
    return not patterns or any(fits(pattern, text) for text in texts for pattern in patterns)


def find(seen: Seen, headers: Mapping[bytes, bytes], view: View) -> Found:
    """Which of the rules that are left are for a request."""
    app = seen.app or next((one.name for one in seen.apps if is_for(one, "", headers, view)), "")
    side = next((rule for rule in seen.side if is_for(rule, app, headers, view)), None)
    return Found(app, side, tuple(rule for rule in seen.mend if is_for(rule, app, headers, view)))


def is_for(rule: Shape, app: str, headers: Mapping[bytes, bytes], view: View) -> bool:
    """Whether a rule is for this request; what costs least is asked first."""
    if rule.app not in ("", app) or (rule.headers and not has_header(rule.headers, headers)):
        return False
    if rule.stream != "any" and view.body.stream != (rule.stream == "true"):
        return False
    if rule.tools != "any" and view.tools != (rule.tools == "some"):
        return False
    if rule.max_tokens and not 0 < (view.most or 0) <= rule.max_tokens:  # 0 fills a cache
        return False
    if rule.roles and not fits(rule.roles, view.roles):
        return False
    return all(any_text_fits(patterns, view, key) for key in TEXTS if (patterns := getattr(rule, key)))


def any_text_fits(patterns: Sequence[str], view: View, key: str) -> bool:
    """Whether one of the patterns fits one of these texts, which are opened only if the body may have it."""
    likely = [pattern for pattern in patterns if view.may_have(longest_piece(pattern), system=key == "system")]
    return bool(likely) and any_fits(likely, TEXTS[key](view))


def has_header(wanted: tuple[str, ...], headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request has one of these headers."""
    return any(
        name in headers and fits(pattern, headers[name].decode("latin-1")) for name, pattern in header_tests(wanted)
    )


@lru_cache(maxsize=256)
def header_tests(wanted: tuple[str, ...]) -> tuple[tuple[bytes, str], ...]:
    """Names in lower case, and the patterns of their values."""
    pairs = (text.partition(":") for text in wanted)
    return tuple((name.strip().lower().encode("latin-1", "replace"), pattern.strip()) for name, _, pattern in pairs)
