"""Ollama's requests as requests of the road: a chat, a completion, an infill, embeddings.

| Ollama's                                   | the road's                                          |
|--------------------------------------------|-----------------------------------------------------|
| `/api/chat`, `/api/generate`               | `/v1/chat/completions`                              |
| `/api/generate` with `raw`                 | `/v1/completions`: the prompt as it stands          |
| `/api/generate` with `suffix`              | `/infill`                                           |
| `/api/embed`, `/api/embeddings`            | `/v1/embeddings`                                    |
| no messages, no prompt, no input           | none: the model is loaded, or unloaded              |

A prompt that is the same must stay the same to the byte, or the engine's cache is worth nothing. So values are carried
over as they came if the forms agree, and what Ollama's form lacks (the ids of tool calls) is made from places in the
conversation, never drawn. What cannot be carried over is refused with a sentence; what only sizes the engine
(`num_ctx`, `num_gpu`) has no effect, because bioproxy's configuration decides about that. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from string import ascii_lowercase
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Raw

from bioproxy.errors import NOT_JSON, RequestError
from bioproxy.templates.bodies import BOM, countable, few

Json: TypeAlias = Any
Shape = Literal["chat", "generate", "embed", "embeddings"]
T = TypeVar("T")

CHAT, COMPLETION, INFILL, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/infill", "/v1/embeddings"
OPTIONS = {  # by Ollama's name; all others size the engine, or are gone from Ollama, too
    **{name: name for name in (
        "temperature", "top_k", "top_p", "min_p", "typical_p", "seed", "stop", "repeat_penalty", "repeat_last_n",
        "presence_penalty", "frequency_penalty", "mirostat", "mirostat_tau", "mirostat_eta",
    )},
    "num_keep": "n_keep",
}  # fmt: skip
PICTURES = {"iVBOR": "png", "R0lGOD": "gif", "UklGR": "webp", "Qk": "bmp"}  # how base64 of each kind begins; else JPEG
EFFORTS = ("low", "medium", "high", "max")
NULL = (b"", b"null")


class Function(msgspec.Struct):
    """A function that the model called."""

    name: str = ""
    arguments: Raw = Raw(b"{}")


class ToolCall(msgspec.Struct):
    """One call; clients of newer versions send its id back."""

    function: Function = msgspec.field(default_factory=Function)
    id: str | None = None


class Message(msgspec.Struct):
    """One message of a chat."""

    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None
    name: str | None = None


class Asked(msgspec.Struct, kw_only=True):
    """What every request may say."""

    model: str = ""
    stream: bool | None = None
    keep_alive: Raw = Raw()
    options: dict[str, Raw] | None = None


class Computing(Asked, kw_only=True):
    """What a chat and a completion have in common."""

    format: Raw = Raw()
    think: bool | str | None = None
    logprobs: bool | None = None


class Chat(Computing, kw_only=True):
    """`POST /api/chat`."""

    messages: list[Message] | None = None
    tools: Raw = Raw()


class Generate(Computing, kw_only=True):
    """`POST /api/generate`."""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: Raw = Raw()
    images: list[str] | None = None
    raw: bool | None = None


class Embed(Asked, kw_only=True):
    """`POST /api/embed` (`input`) and `/api/embeddings` (`prompt`)."""

    input: Raw = Raw()
    prompt: str | None = None
    dimensions: int | None = None


class Named(msgspec.Struct):
    """What names a model; older clients say `name`."""

    model: str | None = None
    name: str | None = None
    stream: bool | None = None


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One request of the road. `shape`: whose answer the client reads."""

    path: str
    body: dict[str, Json]
    shape: Shape


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing to compute: the model shall be there, or (`unloads`) shall not."""

    shape: Shape
    unloads: bool = False


def opened(raw: bytes, kind: type[T]) -> T:
    """The body as `kind`; RequestError says what in it is not as Ollama has it."""
    try:
        return msgspec.json.decode(countable(raw.removeprefix(BOM), b":"), type=kind)
    except NOT_JSON as error:
        raise RequestError(f"the body is not what Ollama's API takes here: {error}") from error


def translate(path: str, raw: bytes) -> tuple[str, Call | Load]:
    """The model that a request to `path` names, and what it is on the road; RequestError."""
    if path == "/api/chat":
        chat = opened(raw, Chat)
        return chat.model, of_chat(chat)
    if path == "/api/generate":
        asked = opened(raw, Generate)
        return asked.model, of_generate(asked)
    embed = opened(raw, Embed)
    return embed.model, of_embed(embed) if path == "/api/embed" else of_embeddings(embed)


def named(raw: bytes) -> tuple[str, bool]:
    """The model that a body names, and whether its client reads a stream."""
    found = opened(raw, Named)
    return found.model or found.name or "", found.stream is not False


def of_chat(asked: Chat) -> Call | Load:
    """`POST /api/chat`."""
    if not asked.messages:
        return load(asked, "chat")
    body = computing(asked, {"messages": list(messages_of(asked.messages))})
    if bytes(asked.tools) not in {*NULL, b"[]"}:
        body["tools"] = asked.tools
    return Call(path=CHAT, body=body, shape="chat")


def of_generate(asked: Generate) -> Call | Load:
    """`POST /api/generate`: a chat of one message, unless it is raw or fills a gap."""
    if bytes(asked.context) not in {*NULL, b"[]"}:
        raise RequestError("`context` is not kept here: send the conversation to /api/chat as messages")
    if asked.template:
        raise RequestError("`template` cannot be changed for one request: the engine has the model's; leave it away")
    if not asked.prompt and not asked.suffix and not asked.images:
        return load(asked, "generate")
    prompt = asked.prompt or ""
    if not asked.suffix and not asked.raw:
        messages: list[Json] = [{"role": "system", "content": asked.system}] if asked.system else []
        messages.append({"role": "user", "content": content_of(prompt, asked.images)})
        return Call(path=CHAT, body=computing(asked, {"messages": messages}), shape="generate")
    if asked.images:
        raise RequestError("pictures need the model's chat template: leave `raw` and `suffix` away")
    path = INFILL if asked.suffix else COMPLETION
    gap = {"input_prefix": prompt, "input_suffix": asked.suffix, "prompt": ""}
    body = plain(asked, gap if asked.suffix else {"prompt": prompt}, path=path)
    return Call(path=path, body=body, shape="generate")


def of_embed(asked: Embed) -> Call | Load:
    """`POST /api/embed`."""
    given = bytes(asked.input)
    if given in {*NULL, b'""', b"[]"}:
        return load(asked, "embed")
    if given[:1] not in {b'"', b"["}:
        raise RequestError("`input` must be a text or a list of texts")
    body: dict[str, Json] = {"model": asked.model, "input": asked.input, "encoding_format": "float"}
    if asked.dimensions:
        body["dimensions"] = asked.dimensions
    return Call(path=EMBEDDINGS, body=body, shape="embed")


def of_embeddings(asked: Embed) -> Call | Load:
    """`POST /api/embeddings`, the older form: one text, one vector."""
    if not asked.prompt:
        return load(asked, "embeddings")
    body = {"model": asked.model, "input": asked.prompt, "encoding_format": "float"}
    return Call(path=EMBEDDINGS, body=body, shape="embeddings")


def load(asked: Asked, shape: Shape) -> Load:
    """Nothing to compute; a `keep_alive` of nought, as a number or a duration (`0`, `"0s"`, `"0.0m"`), unloads."""
    digits = bytes(asked.keep_alive).strip(b'"').lstrip(b"+-").rstrip(ascii_lowercase.encode())
    return Load(shape=shape, unloads=b"0" in digits and not digits.strip(b"0."))


# what is computed


def computing(asked: Computing, what: dict[str, Json]) -> dict[str, Json]:
    """A chat's body around its messages."""
    body: dict[str, Json] = {"model": asked.model, **what, **streaming(asked), **sampling(asked.options, "max_tokens")}
    wanted = format_of(asked.format)
    if wanted == "json":
        body["response_format"] = {"type": "json_object"}
    elif wanted is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted}}
    if asked.think is not None:
        body["chat_template_kwargs"] = thinking(asked.think)
    return body


def plain(asked: Computing, what: dict[str, Json], *, path: str) -> dict[str, Json]:
    """The body of what has no chat template: nothing to think with, and the engine's own word for a schema."""
    limit = "n_predict" if path == INFILL else "max_tokens"
    body: dict[str, Json] = {"model": asked.model, **what, **streaming(asked), **sampling(asked.options, limit)}
    wanted = format_of(asked.format)
    if wanted is not None:
        body["json_schema"] = {"type": "object"} if wanted == "json" else wanted
    return body


def streaming(asked: Computing) -> dict[str, Json]:
    """A stream unless the client says otherwise, with its costs at the end."""
    if asked.logprobs:
        raise RequestError("`logprobs` are not served in Ollama's form: ask /v1/chat/completions for them")
    return {"stream": False} if asked.stream is False else {"stream": True, "stream_options": {"include_usage": True}}


def sampling(options: Mapping[str, Raw] | None, limit: str) -> dict[str, Json]:
    """The options that change what is sampled; `limit` is what the road calls `num_predict`."""
    given = {name: value for name, value in (options or {}).items() if bytes(value) != b"null"}
    found: dict[str, Json] = {OPTIONS[name]: value for name, value in given.items() if name in OPTIONS}
    if (most := given.get("num_predict")) is not None and not bytes(most).startswith(b"-"):  # -1, -2: without an end
        found[limit] = most
    return found


def format_of(given: Raw) -> Raw | Literal["json"] | None:
    """A schema, `json`, or None for a free text."""
    value = bytes(given)
    if value in {*NULL, b'""'}:
        return None
    if value == b'"json"':
        return "json"
    if value[:1] != b"{":
        raise RequestError('`format` must be "json" or a JSON schema')
    return given


def thinking(think: bool | str) -> dict[str, Json]:
    """What chat templates ask for: whether the model thinks, and how much."""
    if isinstance(think, bool):
        return {"enable_thinking": think}
    if think not in EFFORTS:
        raise RequestError(f"`think` must be true, false, or one of {', '.join(EFFORTS)}")
    return {"enable_thinking": True, "reasoning_effort": think}


# messages


def messages_of(messages: list[Message]) -> Iterator[dict[str, Json]]:
    """The messages of a chat; results find the calls that they answer by name, or else by their order."""
    try:
        few(messages)
    except msgspec.ValidationError as error:
        raise RequestError(f"the chat cannot be read: {error}") from error
    open_calls: list[tuple[str, str]] = []  # id and name of those that have no result yet
    for place, message in enumerate(messages):
        told: dict[str, Json] = {"role": message.role, "content": content_of(message.content or "", message.images)}
        if message.thinking:
            told["reasoning_content"] = message.thinking
        if message.tool_calls:
            calls = [call_of(call, f"call_{place}_{number}") for number, call in enumerate(message.tool_calls)]
            open_calls = [(call["id"], call["function"]["name"]) for call in calls]
            told["tool_calls"] = calls
        if message.role == "tool":
            told["tool_call_id"] = answered(message, open_calls)
        yield told


def call_of(call: ToolCall, identity: str) -> dict[str, Json]:
    """A call of a tool, whose arguments are a text that holds JSON."""
    given = bytes(call.function.arguments)
    arguments = msgspec.json.decode(given) if given[:1] == b'"' else "{}" if given in NULL else given.decode()
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id or identity, "type": "function", "function": function}


def answered(message: Message, open_calls: list[tuple[str, str]]) -> str:
    """The id of the call that a result answers; that is open no more."""
    name = message.tool_name or message.name
    wanted = message.tool_call_id
    fitting = (one for one in open_calls if one[0] == wanted or (not wanted and name in {None, "", one[1]}))
    found = next(fitting, None) or (open_calls[0] if open_calls and not wanted else None)
    if found is not None:
        open_calls.remove(found)
    return wanted or (found[0] if found is not None else "call_0")


def content_of(text: str, images: list[str] | None) -> str | list[dict[str, Json]]:
    """A message's text, after its pictures if it has some."""
    if not images:
        return text
    parts: list[dict[str, Json]] = [{"type": "image_url", "image_url": {"url": url_of(one)}} for one in images]
    return [*parts, {"type": "text", "text": text}] if text else parts


def url_of(image: str) -> str:
    """A picture in base64 as a URL that holds it."""
    if image.startswith("data:"):
        return image
    kind = next((kind for start, kind in PICTURES.items() if image.startswith(start)), "jpeg")
    return f"data:image/{kind};base64,{image}"
