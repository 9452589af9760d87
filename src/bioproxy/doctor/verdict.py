"""From what changed and what the engine counted: why tokens were evaluated again, and how many.

Two losses are told apart. What stands after the first difference is evaluated again because the prompt *changed*; what
stands before it and did not come from the cache was *gone*. The larger one gives the cause. Text that was not in the
earlier prompt is new, and no loss.

Exact are the engine's counts of this request and the last (`cache_n`, `prompt_n`), and `shared` if its tokenizer was
asked. Everything else is a share of bytes: tokens before a place as its share of the prompt, repeated tokens as their
share of what was evaluated. Pure.
"""

from __future__ import annotations

import msgspec

from bioproxy.activity import Cause, Finding
from bioproxy.doctor.compare import Difference, Prompt
from bioproxy.doctor.nearest import goes_on

LEAST = 64  # tokens: fewer are seams of a chat template, and no miss
UNSURE = 0.1  # share of a prompt by which an estimate of a place may be wrong
WHOLLY: frozenset[Cause] = frozenset({"model_changed", "group_changed", "arguments_changed"})  # no place decides
SURE: frozenset[Cause] = frozenset({"grown", "field_changed"})  # nothing that shapes the prompt changed


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a request's way through cache and engine.

    `cached` and `evaluated` by the engine's count; `token`: seconds that evaluating one takes. `held`: tokens that the
    slot had of it, as far as the keeper knew, after a restore (`restored`), or `failed` to get one. `restarted`: the
    engine's process began after the earlier prompt. `by`: whose request came in between; `why` is the keeper's word for
    what it did not do, `family` for what this model's cache cannot do.
    """

    cached: int
    evaluated: int
    token: float = 0.0
    held: int = 0
    failed: bool = False
    restarted: bool = False
    by: str = ""
    why: str = ""
    family: str = ""


def usual(earlier: Prompt, later: Prompt, *, cached: int | None) -> Finding | None:
    """What `judge` would say of a prompt that goes on from the earlier one and lost nothing; None: look closer."""
    known, shared = cached is not None and earlier.tokens > 0, min(later.tokens, earlier.tokens)
    usual = (
        known
        and shared - (cached or 0) < LEAST
        and (earlier.model, earlier.engine, earlier.day) == (later.model, later.engine, later.day)
        and earlier.arguments == later.arguments
        and earlier.aside == later.aside
        and goes_on(earlier, later)
    )
    return Finding(cause="grown", shared=shared) if usual else None


def judge(
    difference: Difference | None, earlier: Prompt | None, evidence: Evidence, *, shared: int | None = None
) -> Finding:
    """The finding; `shared`: tokens that both prompts begin with, if the engine's tokenizer was asked."""
    if difference is None:
        return Finding(cause="first_time")
    if earlier is None:  # another conversation was like it
        note = "; ".join(filter(None, ("compared with another conversation", difference.note)))
        return Finding(cause="first_time", place=difference.place, note=note if difference.changed else "")
    if difference.cause == "not_comparable":
        return Finding(cause="not_comparable", note=difference.note)
    known = Finding(
        cause=difference.cause,
        shared=shared_tokens(difference, earlier, evidence) if shared is None else shared,
        exact=shared is not None,
        place=difference.place,
        fields=difference.fields,
        note=difference.note,
    )
    gone, changed = lost(known, difference, evidence)
    if known.cause == "arguments_changed" and gone + changed < LEAST:
        known = harmless(known, difference)
        gone, changed = lost(known, difference, evidence)
    cause, by, note = (known.cause, "", known.note) if gone <= changed else absent(evidence)
    tokens = min(evidence.evaluated, gone + changed)
    return msgspec.structs.replace(
        known, cause=cause, by=by, note=note, tokens=tokens, seconds=round(tokens * evidence.token, 3)
    )


def shared_tokens(difference: Difference, earlier: Prompt, evidence: Evidence) -> int:
    """About how many tokens both prompts begin with.

    By the engine's count if one goes on from the other, or if what it had in its cache is about as much as the place's
    share of the bytes: then that is where they part.
    """
    prompt = evidence.cached + evidence.evaluated
    if difference.place is None and difference.shared >= earlier.size and earlier.tokens:
        return min(prompt, earlier.tokens)
    share = prompt * difference.shared // max(1, difference.size)
    return evidence.cached if abs(share - evidence.cached) < LEAST + UNSURE * prompt else share


def lost(known: Finding, difference: Difference, evidence: Evidence) -> tuple[int, int]:
    """Tokens that were evaluated again: because they were gone, and because of what changed."""
    prompt, shared = evidence.cached + evidence.evaluated, known.shared or 0
    if known.cause in WHOLLY:
        part = (difference.shared + difference.repeated) / max(1, difference.size)
        same = shared if known.exact and known.cause == "arguments_changed" else 0  # up to where an argument is printed
        return max(0, same - evidence.cached), max(0, round(prompt * part) - max(same, evidence.cached))
    slack = LEAST if known.exact or known.cause in SURE else LEAST + round(UNSURE * prompt)
    gone = shared - evidence.cached if shared - evidence.cached >= slack else 0
    after = prompt - max(shared, evidence.cached)
    changed = round(after * difference.repeated / max(1, difference.size - difference.shared))
    return gone, max(0, changed)


def harmless(known: Finding, difference: Difference) -> Finding:
    """Arguments changed and cost nothing: the chat template does not look at them, or prints them at the end."""
    rest = [cause for cause in difference.changed if cause not in WHOLLY]
    cause: Cause = rest[0] if rest else "field_changed"
    return msgspec.structs.replace(known, cause=cause, fields=(*known.fields, *difference.arguments), note="")


def absent(evidence: Evidence) -> tuple[Cause, str, str]:
    """Why what did not change was not there: the cause, whose request drove it out, and what else is known."""
    if evidence.failed:
        return "not_reused", "", f"its snapshot could not be restored: {evidence.why}"
    if evidence.held - evidence.cached >= LEAST:
        return "not_reused", "", evidence.family
    if evidence.restarted:
        return "not_saved", "", evidence.why
    return "evicted", evidence.by, evidence.why
