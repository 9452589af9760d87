"""What a config changes in the JSON bodies of a model's requests: llama-swap's `useModelName` and `filters`.

    the model's name ─► stripParams ─► setParams ─► setParamsByID[the name that was asked for]

Each step works on what the one before left; keys within a step go in sorted order; `model` is out of reach of all but
the first. Keys are paths (sjson.py). The name that was asked for is the one after profile and selector
(`Target.name`): an alias of `setParamsByID` is how one engine is offered as several models.

A config is compiled once. A model without filters has no `Compiled` at all, so that its requests cost one `if`, and a
body in which nothing changes is forwarded as the same object.

A path that is none does not keep a config from loading, for llama-swap loads it; but what it should have changed must
not reach the engine unchanged either, so the requests that it is meant for are refused (500), and `faults` says so at
start. A body that cannot be read is refused as well: 400. Forms have no filters; model.py renames them. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import msgspec
from msgspec import Raw

from bioproxy.config.dialect.schema import Filters
from bioproxy.errors import BioproxyError, RequestError
from bioproxy.front.body import sjson
from bioproxy.templates.bodies import Body, Dialect, Fields
from bioproxy.templates.messages import rewritten, turns_of

Json: TypeAlias = Any

MODEL = "model"
UNREADABLE = (
    "its body is no JSON object, or holds what cannot be carried over (NaN, lone surrogates, deep nesting, a great "
    "number of keys)"
)


class Change(msgspec.Struct, frozen=True):
    """One parameter: its name in the config, where it stands, and its value; None: it is taken out."""

    name: str
    path: sjson.Path
    value: Raw | None = None


class Changes(msgspec.Struct, frozen=True):
    """The changes of one step in their order; `fault` is what makes them impossible."""

    each: tuple[Change, ...] = ()
    fault: str = ""


class Compiled(msgspec.Struct, frozen=True, kw_only=True):
    """One model's filters. `name` replaces the model's name in every request, if it is not empty."""

    name: str = ""
    always: Changes = Changes()
    by_id: Mapping[str, Changes] = {}

    @property
    def faults(self) -> tuple[str, ...]:
        """What in the config cannot be done, in sentences."""
        return tuple(changes.fault for changes in (self.always, *self.by_id.values()) if changes.fault)


NONE = Changes()
WITHOUT = Compiled()


def compile_filters(filters: Filters, *, use_model_name: str = "") -> Compiled | None:
    """The filters of a model (or of a peer, without `use_model_name`), ready for use; None if there are none."""
    stripped = (filters.strip_params or filters.legacy_strip_params).split(",")
    taken = {name.strip(): None for name in stripped if name.strip()}
    compiled = Compiled(
        name=use_model_name,
        always=compile_changes(taken, filters.set_params),
        by_id={name: compile_changes({}, params) for name, params in filters.set_params_by_id.items()},
    )
    if not compiled.name and compiled.always == NONE and all(changes == NONE for changes in compiled.by_id.values()):
        return None
    return compiled


def compile_changes(taken: Mapping[str, None], given: Mapping[str, Json]) -> Changes:
    """What is taken out, then what is set, each in sorted order."""
    each: list[Change] = []
    what = "stripping"
    try:
        for name in sorted(taken):
            each.extend(change_of(name))
        what = "setting"
        for name in sorted(given, key=str):
            each.extend(change_of(str(name), sjson.encoded(given[name])))
    except (ValueError, TypeError) as error:
        return Changes(fault=f"error {what} parameter {name} in request: {error}")
    return Changes(tuple(each))


def change_of(name: str, value: Raw | None = None) -> Iterator[Change]:
    """The change that a parameter's name stands for; none for `model`. ValueError if the name is no path."""
    path = sjson.parse(name)
    if path[0].key != MODEL or len(path) > 1:
        yield Change(name, path, value)


def apply(body: Body, compiled: Compiled | None, *, requested: str, model_name: str = "") -> None:
    """Change the body to what the engine gets.

    `requested` is the name after profile and selector. `model_name` is what to write as the model's name because one
    of them, or a peer's qualified name, changed it; the config's `useModelName` wins. RequestError (400) if the body
    cannot be changed, BioproxyError (500) if the config asks for what cannot be done.
    """
    compiled = compiled or WITHOUT
    extra = compiled.by_id.get(requested, NONE)
    if fault := compiled.always.fault or extra.fault:
        raise BioproxyError(fault)
    changes = compiled.always.each + extra.each
    if name := compiled.name or model_name:
        changes = (Change(MODEL, (sjson.Step(MODEL),), sjson.encoded(name)), *changes)
    if body.fields is not None:
        for each in changes:  # each sees what the ones before it did
            body.changed |= make(body.fields, each)
        return
    for each in changes:
        if each.value is not None:
            raise RequestError(f"error setting parameter {each.name} in request: {UNREADABLE}")
    body.refuse(each.path[0].key for each in changes)


def make(fields: Fields, each: Change) -> bool:
    """Make one change; whether there was anything to do."""
    try:
        if each.value is None:
            return sjson.remove(fields, each.path)
        return sjson.put(fields, each.path, each.value)
    except (ValueError, RecursionError) as error:
        what = "stripping" if each.value is None else "setting"
        raise RequestError(f"error {what} parameter {each.name} in request: {error}") from error


def add_prefix(body: Body, prefix: str, dialect: Dialect) -> None:
    """Put `prefix` and a blank before the first user message: `qwen+code` is `qwen` with `@code` typed there.

    Many clients have a list of models and no place to type a prefix into every conversation. Everything after this
    (expansion, pins, warm-up, cache) is as if the user had typed it. A message that begins with the prefix stays as it
    is, and so does a body that cannot be read well enough.
    """
    fields = body.fields
    if fields is None:
        return
    try:
        changes = with_prompt(fields, prefix) if dialect == "completion" else with_message(fields, prefix, dialect)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return
    for key, value in changes.items():
        fields[key] = sjson.encoded(value)
        body.changed = True


def with_prompt(fields: Fields, prefix: str) -> dict[str, Json]:
    """The prompt of a completion, changed; nothing if it has the prefix already."""
    text = msgspec.json.decode(fields.get("prompt", Raw(b"null")), type=str)
    return {} if begins(text, prefix) else {"prompt": f"{prefix} {text}"}


def with_message(fields: Fields, prefix: str, dialect: Dialect) -> dict[str, Json]:
    """A conversation whose first user message is changed; nothing if that has the prefix already, or no text."""
    for place, turn in enumerate(turns_of(dialect, fields) or ()):
        if turn.role == "user":
            texts = dict(turn.texts())
            if not texts or any(begins(text, prefix) for text in texts.values()):
                return {}
            at = max(texts)  # agents put reminders before what was typed
            return rewritten(dialect, fields, {place: (at, f"{prefix} {texts[at]}")})
    return {}


def begins(text: str, prefix: str) -> bool:
    """Whether a message is one with this prefix already."""
    return text == prefix or (text.startswith(prefix) and text[len(prefix) : len(prefix) + 1].isspace())
