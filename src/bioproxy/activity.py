"""One record per request: what metrics, `/requests`, `/events` and the log all read.

The exchange (front/exchange.py) fills a `Record` in while the request lives; when it ends, the record is published
once as `events.RequestEnded`; only `activity`, `finding` and `why` are filled in afterwards. Nothing here knows HTTP,
the gate or the cache: seconds and token counts come in as plain numbers.

A `Capture` (bodies as they went over the wire) is no part of the record: a thousand records are kept and anyone on the
bus may hold on to one, while a capture is large and private. It travels beside the record, once, to the subscriber that
keeps it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

Outcome = Literal["ok", "client_error", "engine_error", "client_left", "rejected", "timeout", "error"]
Work = Literal["user", "side", "background"]
Stage = Literal["", "model", "queue", "aside", "prompt", "answer", "elsewhere"]

# Why a prompt was evaluated anew, from some token on; docs/doctor.md explains each with its mend.
Cause = Literal[
    "first_time",  # no earlier prompt of this conversation is known
    "grown",  # it goes on from the earlier prompt, or repeats it: the normal case
    "field_changed",  # only fields changed that do not shape the prompt: it costs nothing
    "system_changed",
    "tools_changed",
    "arguments_changed",  # template arguments, or another field that the chat template looks at, or its date
    "message_changed",
    "template_edited",
    "model_changed",  # another model, other launch arguments, or other LoRA scales
    "group_changed",  # the same conversation, with a key of another group
    "evicted",  # something else took its place in the engine
    "not_saved",  # the engine was started again, and the conversation was not on disk
    "not_reused",  # the engine had it, and did not use it
    "not_comparable",
]


class Place(msgspec.Struct, frozen=True):
    """Where two prompts first differ, in the client's own text.

    `label` names the message or tool, `path` the text in it; `at` counts characters in that text. `same` is the end of
    what is equal, `before` and `now` are what follows it in the earlier prompt and in this one: forty characters.
    """

    label: str
    path: str = ""
    at: int = 0
    same: str = ""
    before: str = ""
    now: str = ""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What the doctor found about one request.

    `tokens` were evaluated again although they had been before, `seconds` is what that took. `shared`: tokens that the
    prompt has in common with the earlier one, None if that is not known; `exact` if the engine's tokenizer said so.
    `fields` changed and do not shape the prompt. `by`: whose request took the place of an evicted prompt. `note`: what
    else there is to say.
    """

    cause: Cause
    tokens: int = 0
    seconds: float = 0.0
    shared: int | None = None
    exact: bool = False
    place: Place | None = None
    fields: tuple[str, ...] = ()
    by: str = ""
    note: str = ""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine said that one request cost (engines/answers.py), as the activity table counts it.

    All zero: it said nothing. If it said something, -1 is what it left out. Speeds are tokens per second; `seconds`
    is the engine's own time for prompt and answer together.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_tokens: int = 0
    draft_tokens: int = 0
    draft_acc_tokens: int = 0
    prompt_per_second: float = 0.0
    tokens_per_second: float = 0.0
    seconds: float | None = None


class Capture(msgspec.Struct, frozen=True, kw_only=True):
    """One request and its answer in full: headers in order, bodies as they were sent (perhaps compressed).

    `secret` is the client's key, if it is one of ours.
    """

    request_headers: tuple[tuple[bytes, bytes], ...] = ()
    request_body: bytes = b""
    response_headers: tuple[tuple[bytes, bytes], ...] = ()
    response_body: bytes = b""
    original_body: bytes = b""  # what the client sent, if a rule of `clients` changed it
    secret: bytes = b""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request stands that is under way (front/standing.py), and how long still.

    `stage`: it waits for its `model`, in the engine's `queue`, or steps `aside` for others; the engine is at its
    `prompt`, or the `answer` comes; `elsewhere` is another server's. `part` is what it waits for its model for
    (models/waits.py); `place` is its place among those that wait, 1 is next, 0: it does not; `reason` is a sentence.
    `left`: about so many seconds until its answer begins, None if that is not known; `read`: tokens of its prompt that
    the engine has read so far, None if it does not tell.
    """

    stage: Stage = ""
    part: str = ""
    place: int = 0
    reason: str = ""
    left: float | None = None
    read: int | None = None


class InflightRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request that is under way, as the API shows it; keys and cookies in its headers are not shown."""

    id: str
    timestamp: datetime
    model: str
    req_path: str
    method: str
    req_headers: dict[str, str]
    remote_ip: str
    resp_headers: dict[str, str]
    resp_bytes: int
    elapsed_ms: int
    metadata: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    client: str = ""  # the key's name, or the address
    session: str = ""  # what the client says which of its conversations this is
    standing: Standing = Standing()


class Record(msgspec.Struct, kw_only=True):
    """What one request was, and where its time went. Times are seconds, sizes bytes, None is "not known".

    `queue`, `restore`, `prefill` and `decode` are parts of `total`; `first_byte` counts from the request's arrival to
    the first byte of the answer that the engine sent. `tokens_cached` + `tokens_evaluated` is the prompt.
    """

    id: str
    started: float  # unix time
    method: str
    path: str  # decoded, without the query (a query may carry a key)
    endpoint: str  # the known route, or "other": the metrics label
    client: str = ""  # the key's name, or the address; never the key
    work: Work = "user"
    prefix: str = ""
    stream: bool = False
    gated: bool = False  # it asked for the engine: its times belong into the histograms
    status: int = 0
    outcome: Outcome = "ok"
    queue: float = 0.0
    restore: float = 0.0
    save: float = 0.0
    first_byte: float | None = None
    prefill: float | None = None
    decode: float | None = None
    total: float = 0.0
    tokens_cached: int | None = None
    tokens_evaluated: int | None = None
    tokens_generated: int | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    cache: Literal["", "hit", "restored", "miss"] = ""
    why: str = ""  # one sentence: why it took as long as it did
    finding: Finding | None = None  # why its prompt was evaluated anew; filled in a moment after it has ended
    error: str = ""
    model: str = ""  # the real ID or the peer's name; what was asked for if there is no such model
    metered: bool = False  # a POST on a route of models: it becomes a row of the activity table
    content_type: str = ""  # of the answer
    req_path: str = ""  # as the activity table shows it, if that is not `path`
    usage: Usage | None = None
    swap: float = 0.0  # waited for a model to be loaded; a part of `total`
    waits: dict[str, float] | None = None  # the same by what it was for (models/waits.py); they add up to `swap`
    session: str = ""  # what the client says which of its conversations this is
    app: str = ""  # the program that sent it (clients/rules.yaml); "" if it is none that we know
    side: str = ""  # the rule by which it is one beside a conversation
    kept: int = 0  # tokens of other conversations that were saved because it would have displaced them
    mended: tuple[str, ...] = ()  # the rules that changed its prompt
    activity: int = 0  # the number of its row in the activity table, given when it has ended; 0: none
    trace_id: str = ""  # the trace that it belongs to (W3C Trace Context), if its client or we have one
    metadata: dict[str, str] = msgspec.field(default_factory=dict)  # for the activity table: selector, priority

    @property
    def for_model(self) -> bool:
        """Whether it asked for a model: lists, looks, and the web page's own questions do not."""
        return self.gated or self.metered or self.model != ""
