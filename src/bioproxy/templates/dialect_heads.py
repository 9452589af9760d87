"""What stands before the first user message, in the chat dialect whatever the client speaks.

A template is warmed after the heads that clients really send (architecture decision 8), and the warm-up renders them
with `/apply-template`, which knows the chat dialect only. So heads of the other dialects are translated as llama-server
itself translates them before it renders (its server-chat.cpp):

* Anthropic: `system` (a string, or text blocks joined without anything between) becomes one system message;
  `input_schema` becomes `parameters`; the five changing letters of Claude Code's `cch=` are pinned to `fffff`.
* Responses: `instructions` becomes the first system message; flat function tools get their `function` envelope.

What does not shape the prompt stays out, or two equal prompts would look different: `cache_control` marks, and the
fields in `ASIDE`, of which no chat template hears. All others are noted; which of them shape a prompt is asked of the
engine (kv/chat_template.py). Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import msgspec
from msgspec import Raw

from bioproxy.prompt import Head, Piece
from bioproxy.templates.bodies import FIELDS, MOST_PLACES, TEXT, Dialect, Fields, Json, countable, few, string
from bioproxy.templates.messages import END, ITEMS, MESSAGES, Turn, part_text

# What stands elsewhere in the head, and what is about transport, sampling, limits and accounts in all four dialects.
NAMES = """
messages input prompt system instructions tools lora chat_template_kwargs model stream stream_options id_slot
cache_prompt n_cache_reuse temperature top_p top_k min_p typical_p top_a top_n_sigma xtc_probability xtc_threshold
dynatemp_range dynatemp_exponent mirostat mirostat_tau mirostat_eta repeat_penalty repeat_last_n presence_penalty
frequency_penalty dry_multiplier dry_base dry_allowed_length dry_penalty_last_n dry_sequence_breakers penalize_nl
samplers seed n n_predict n_probs n_keep n_discard n_indent min_keep ignore_eos logit_bias logprobs top_logprobs
post_sampling_probs best_of echo suffix max_tokens max_completion_tokens max_output_tokens max_tool_calls stop
stop_sequences t_max_predict_ms t_max_prompt_ms return_tokens return_progress timings_per_token sse_ping_interval
response_fields user user_id safety_identifier prompt_cache_key prompt_cache_retention session_id store metadata
service_tier background previous_response_id include truncation prediction modalities audio speed
"""
ASIDE = frozenset(NAMES.split())
PLAIN = ASIDE - {"system", "instructions", "tools", "lora", "chat_template_kwargs"}  # none of which is in a head
BARE = Head()
MOST_FIELDS = 32  # further fields that are told apart; the others count as one,
REST = "further fields, too many to tell each by its name"  # never asked about
MOST_SEAMS = 512  # system messages, or tools, whose ends are told apart
BILLING = re.compile(r"\A(x-anthropic-billing-header:[^\n]{0,500}?cch=)[^;\n]{5};")
CHOICES = {"auto": "auto", "any": "required", "tool": "required", "none": "none"}


def head_of(dialect: Dialect, fields: Fields, leading: Sequence[Turn]) -> Head:
    """The head of a conversation; `leading` are the turns before the first user message."""
    if PLAIN.issuperset(fields):  # as in most requests
        return Head(msgspec.json.encode([turn.json() for turn in leading])) if leading else BARE
    system, tools, choice = TRANSLATIONS[dialect](fields)
    messages: list[Json] = [*system, *(turn.json() for turn in leading)]
    extra = further(fields)
    if choice is not None:
        extra["tool_choice"] = choice
    if dialect == "responses":
        extra = with_effort(extra)
    return Head(
        messages=msgspec.json.encode(messages),
        tools=unmarked(tools),
        kwargs=value(fields, "chat_template_kwargs"),
        lora=value(fields, "lora"),
        extra=msgspec.json.encode(extra) if extra else b"",
    )


def head_piece(head: Head) -> Piece:
    """The head as the first piece of a prompt: the adapters, which shape everything, the messages, then the tools.

    The further fields are no part of it: whether they shape the prompt is for the engine to say.
    """
    data = END.join((head.lora, b"", b"", head.messages, head.tools, b""))
    return Piece("head", data, seams=seams)


def seams(head: bytes) -> Iterator[int]:
    """Where the system messages and the tools end in a head's piece, one by one."""
    place = 0
    for part in head.split(END):
        try:
            items = few(ITEMS.decode(countable(part)))
        except msgspec.DecodeError:  # an object, or nothing
            items = []
        end = place
        for item in map(bytes, items[:MOST_SEAMS]):
            end = head.index(item, end) + len(item)
            yield end
        place += len(part) + 1


def cut_off(head: Head, at: int, word: str) -> Head | None:
    """The head up to byte `at` of its piece, then `word`: two words that begin differently part there; None: no place.

    Inside a system message `word` ends its text, and messages after it go; between tools it is the name of a last one.
    """
    start = len(head.lora) + 3  # three ends of parts
    left = at - start - len(head.messages) - 1
    if left >= 0:
        tools = [tool for tool, end in placed(head.tools) if end <= left]
        last = {"type": "function", "function": {"name": word, "description": word, "parameters": {"type": "object"}}}
        return msgspec.structs.replace(head, tools=msgspec.json.encode([*tools, last])) if head.tools else None
    kept: list[Json] = []
    for message, end in placed(head.messages):
        if end < at - start:
            kept.append(message)
            continue
        fields = FIELDS.decode(message)
        content = bytes(fields.get("content", Raw()))
        begin = end - len(message) + bytes(message).find(content)
        try:
            text = TEXT.decode(content[: max(0, at - start - begin)].removesuffix(b'"') + b'"')
        except msgspec.DecodeError:  # in the middle of a letter, or of something else
            return None
        kept.append(fields | {"content": text + word})
        return msgspec.structs.replace(head, messages=msgspec.json.encode(kept))
    return None


def placed(items: bytes) -> Iterator[tuple[Raw, int]]:
    """The items of a JSON array, and where each ends in it."""
    end = 0
    for item in few(ITEMS.decode(countable(items))) if items else ():
        end = items.index(item, end) + len(item)
        yield item, end


def further(fields: Fields) -> dict[str, Json]:
    """The fields that may shape the prompt, in the order of their names; null is as good as nothing."""
    names = sorted(name for name in fields.keys() - ASIDE if bytes(fields[name]) != b"null")
    extra: dict[str, Json] = {name: fields[name] for name in names[:MOST_FIELDS]}
    if left := names[MOST_FIELDS:]:
        extra[REST] = {name: fields[name] for name in left}
    return extra


def with_effort(extra: dict[str, Json]) -> dict[str, Json]:
    """The fields with the effort that a Responses request asks for under the name that chat templates know."""
    reasoning = extra.get("reasoning")
    try:
        effort = FIELDS.decode(reasoning).get("effort") if reasoning is not None else None
    except msgspec.DecodeError:
        return extra
    if effort is None or bytes(effort) == b"null":
        return extra
    return {name: raw for name, raw in extra.items() if name != "reasoning"} | {"reasoning_effort": effort}


def value(fields: Fields, name: str) -> bytes:
    """A field's JSON; empty if it is missing or null."""
    raw = bytes(fields.get(name, Raw()))
    return b"" if raw == b"null" else raw


def unmarked(data: bytes) -> bytes:
    """JSON without `cache_control` at any depth; the same bytes if there is none, or too much to be worked through."""
    if b"cache_control" not in data or data.count(b",") > MOST_PLACES:
        return data
    return msgspec.json.encode(without_marks(msgspec.json.decode(data)))


def without_marks(data: Json) -> Json:
    if isinstance(data, dict):
        return {key: without_marks(inner) for key, inner in data.items() if key != "cache_control"}
    if isinstance(data, list):
        return [without_marks(inner) for inner in data]
    return data


Translated = tuple[list[Json], bytes, str | None]  # system messages, tools, tool_choice if it is another


def chat(fields: Fields) -> Translated:
    """The chat dialect needs no translation."""
    return [], value(fields, "tools"), None


def anthropic(fields: Fields) -> Translated:
    """Anthropic's `system`, `tools` and `tool_choice`."""
    system = system_text(fields["system"]) if "system" in fields else ""
    messages = [{"role": "system", "content": system}] if value(fields, "system") else []
    choice = None
    if "tool_choice" in fields:
        asked = msgspec.json.decode(fields["tool_choice"])
        choice = CHOICES.get(str(asked.get("type"))) if isinstance(asked, dict) else None
    return messages, translated(fields, anthropic_tool), choice


def responses(fields: Fields) -> Translated:
    """The Responses API's `instructions` and flat tools."""
    raw = value(fields, "instructions")
    messages = [{"role": "system", "content": Raw(raw)}] if raw else []
    return messages, translated(fields, responses_tool), None


TRANSLATIONS: dict[Dialect, Callable[[Fields], Translated]] = {
    "chat": chat,
    "anthropic": anthropic,
    "responses": responses,
}


def system_text(raw: Raw) -> str:
    """Anthropic's system prompt as the one text that llama-server makes of it."""
    try:
        texts = [part_text(block) or "" for block in few(MESSAGES.decode(countable(raw)))]
    except msgspec.ValidationError:
        texts = [string(raw)]
    return "".join(BILLING.sub(r"\g<1>fffff;", text) for text in texts)


def translated(fields: Fields, one: Callable[[Fields], Json]) -> bytes:
    """The tools in the chat dialect; as they came if they are no list of objects."""
    raw = value(fields, "tools")
    if not raw:
        return b""
    try:
        return msgspec.json.encode([one(tool) for tool in few(MESSAGES.decode(countable(raw)))])
    except msgspec.ValidationError:
        return raw


def anthropic_tool(tool: Fields) -> Json:
    """One tool of Anthropic's as llama-server hands it to a chat template."""
    function: dict[str, Json] = {"name": tool.get("name", ""), "description": tool.get("description", "")}
    return {"type": "function", "function": function | {"parameters": tool.get("input_schema", {})}}


def responses_tool(tool: Fields) -> Json:
    """One function tool of the Responses API; other kinds as they came."""
    if bytes(tool.get("type", Raw())) != b'"function"':
        return tool
    function: dict[str, Json] = {name: raw for name, raw in tool.items() if name != "type"}
    return {"type": "function", "function": function if "strict" in function else function | {"strict": True}}
