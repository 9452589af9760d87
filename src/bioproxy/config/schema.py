"""The one Config: every option, its default, its unit and what it does.

Frozen Structs, so that a running part can never change what another reads; a reload makes a new Config and `app.py`
compares. Durations are seconds (float) and sizes bytes (int) here; "30s" and "20GiB" are read in `units.py`. `load.py`
makes a Config of files, environment and flags.

A key is declared once, here: its type, bounds, default and the sentence that says what it does. The table of keys
(`keys.py`: environment and flag names), the error messages, the JSON Schema and docs/configuration.md are made from it.
What `extra` may say of a key: `unit` ("seconds", "bytes"); `path`: a file or folder of ours, so `~` and paths relative
to the config file are resolved at load; `secret`: masked wherever a Config is shown; `live`: a reload changes it in the
running program, so it is read at the moment of its use (`settings.py`). A key that is not live says "after a restart".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta


def about(description: str, **extra: bool) -> Meta:
    """What a key does, in one sentence for people, and what `extra` says of it for the code."""
    return Meta(description=description, extra=dict(extra))


DECADE = 3650 * 86400.0  # the longest time that timers and calendars are asked to take
Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(ge=0, le=DECADE, extra={"unit": "seconds"})]
Positive = Annotated[float, Meta(gt=0, le=DECADE, extra={"unit": "seconds"})]  # a time that must not be nought
Bytes = Annotated[int, Meta(ge=0, le=1 << 60, extra={"unit": "bytes"})]
HeadBytes = Annotated[int, Meta(ge=1 << 10, le=1 << 30, extra={"unit": "bytes"})]  # less holds no browser's head
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


class Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One API key. Exactly one of `key`, `key_file`, `sha256` is given; after loading, `key` or `sha256`."""

    key: Annotated[str, about("The key itself.", secret=True)] = ""
    key_file: Annotated[str, about("A file that holds only the key.", path=True)] = ""
    sha256: Annotated[str, about("Its SHA-256 in hex, so that the config has no secret.", secret=True)] = ""
    name: Annotated[str, about("The name in logs and metrics; keys are never shown.")] = ""
    group: Annotated[str, about("Keys of a group share cached conversations; empty: its own.")] = ""
    priority: Annotated[int, Meta(ge=-1000, le=1000), about("The higher goes first, before fairness.")] = 0
    models: Annotated[tuple[str, ...], about("Models that it may use; empty: all.")] = ()
    max_running: Annotated[
        int,
        Meta(ge=0, le=1_000_000),
        about("Requests that may run at once, of all models together; more wait. 0: any number."),
    ] = 0
    tokens_per_day: Annotated[
        int,
        Meta(ge=0, le=1 << 50),
        about("Tokens, prompts and answers, until local midnight; then 429. 0: any."),
    ] = 0
    captures: Annotated[bool, about("`off`: its requests are never captured.")] = True
    forwards_users: Annotated[bool, about("`X-OpenWebUI-User-Id` tells its users apart: fairness, pins, cache.")] = (
        False
    )


class Prefix(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One prefix, written as an object instead of a plain path."""

    template: Annotated[str, about("The template's file.", path=True)]
    as_model: Annotated[
        bool,
        about("List each of `models` once more as `<model>+code`, which applies the template."),
    ] = False


def as_prefix(value: str | Prefix) -> Prefix:
    """A prefix, whichever way it is written."""
    return Prefix(template=value) if isinstance(value, str) else value


def template_files(prefixes: Mapping[str, str | Prefix]) -> dict[str, str]:
    """The template's file of each prefix."""
    return {name: as_prefix(prefix).template for name, prefix in prefixes.items()}


class Log(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The log on standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], about("The least important lines written.", live=True)
    ] = "info"
    format: Annotated[Literal["plain", "json"], about("Lines for people, or one JSON object per line.", live=True)] = (
        "plain"
    )


class WebPage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The web page; docs/ui.md shows it."""

    edit_config: Annotated[
        bool,
        about("The page may change the configuration's files: on the admin port, or with `admin_key`.", live=True),
    ] = False
    captures: Annotated[
        Bytes,
        about("With one engine: memory for requests and answers in full; 0: none. Models: `captureBuffer`.", live=True),
    ] = 0


class Captures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Requests and answers in full, on disk; docs/operating.md says what is in them."""

    disk: Annotated[Bytes, about("Disk space for them, besides what memory keeps; 0: none.", live=True)] = 0
    max_age: Annotated[Seconds, about("Older ones are deleted; 0: none for its age.", live=True)] = 7 * 86400.0
    max_count: Annotated[
        int, Meta(ge=0, le=1_000_000), about("More than so many are not kept, the oldest go; 0: any number.", live=True)
    ] = 10_000


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much one client may send, and how long it may take."""

    body: Annotated[Bytes, about("The longest request body; else 413.")] = 128 * MIB
    head: Annotated[HeadBytes, about("The longest request head; else 431.")] = 64 * KIB
    head_timeout: Annotated[Positive, about("The longest time that a head may take to arrive.")] = 30.0
    body_timeout: Annotated[Positive, about("The longest silence while a body arrives.")] = 60.0
    idle_timeout: Annotated[Positive, about("The longest pause between two requests on a connection.")] = 75.0
    write_timeout: Annotated[Positive, about("The longest time that a client reads nothing of its answer.")] = 300.0
    connections: Annotated[
        Count,
        about("Connections at once, as far as open files allow; one more closes the longest idle."),
    ] = 20_000


class Kv(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The KV cache on disk; docs/kv-cache.md explains how it works."""

    policy: Annotated[
        Literal["auto", "always", "off"],
        about("`auto`: restore and save if it pays; `always`: around each templated request."),
    ] = "auto"
    directory: Annotated[
        str,
        about("The engine's slot folder as bioproxy sees it; empty: from the engine's command line.", path=True),
    ] = ""
    engine_directory: Annotated[str, about("The same folder as a container's engine sees it.")] = ""
    fingerprint: Annotated[
        str,
        about("Any text; change it with what bioproxy cannot see of an engine (LoRA, cache type)."),
    ] = ""
    disk_budget: Annotated[
        Bytes,
        about("All snapshots together; 0: a tenth of the free space, 20 GiB at most."),
    ] = 0
    model_budgets: Annotated[
        dict[str, Bytes],
        about('Of it, by model ID: `{"main": "15GiB"}`; the model gets no more, and others do not take it.'),
    ] = {}
    key_budgets: Annotated[
        dict[str, Bytes],
        about("Of it, by a key's name or group, at most; `*`: each other key."),
    ] = {}
    kept_budget: Annotated[Bytes, about("Of it, what keys keep by name or for a time, all together; 0: half.")] = 0
    min_free: Annotated[Bytes, about("Space that is left free on the disk.")] = 5 * GIB
    write_budget: Annotated[
        Bytes, about("Bytes written per day at most; of the second half only what is worth its bytes.")
    ] = 100 * GIB
    verify_budget: Annotated[
        Bytes, about("Old snapshots that are read and compared on a day, while the engine is idle; 0: none.")
    ] = 10 * GIB
    min_seconds: Annotated[Seconds, about("Prefill that a save or restore must spare.")] = 0.5
    save_after: Annotated[Seconds, about("A conversation is saved after this time without a request.")] = 10.0
    save_every: Annotated[
        Seconds, about("A conversation that goes on is saved this often, when the engine is free.")
    ] = 300.0
    save_timeout: Annotated[Seconds, about("The longest save before an engine is stopped.")] = 10.0
    max_age: Annotated[Seconds, about("Older snapshots, pins and heads are deleted.")] = 30 * 86400.0
    isolate: Annotated[
        Literal["off", "strict"], about("`strict` erases the slot between requests of different groups.")
    ] = "off"


class Warmup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Warm-up of templates."""

    enabled: Annotated[bool, about("Whether templates are warmed at all.", live=True)] = True
    on_battery: Annotated[bool, about("Whether they are while the machine runs on its battery.", live=True)] = True
    settle: Annotated[Seconds, about("A changed template is used after this time without a change.", live=True)] = 5.0
    chunk_seconds: Annotated[Positive, about("About the longest that a user waits for a warm-up.", live=True)] = 0.25
    heads: Annotated[int, Meta(ge=0, le=16), about("Heads of clients that are warmed for each prefix.", live=True)] = 2
    plain_heads: Annotated[
        int,
        Meta(ge=0, le=16),
        about("Long heads without a prefix (an agent's) that are warmed for each group; 0: none.", live=True),
    ] = 4


class Swap(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When one model makes way for another; has an effect only with `models`."""

    max_wait: Annotated[
        Seconds, about("The longest that a busy model's new requests go before a waiting swap.", live=True)
    ] = 30.0
    linger: Annotated[
        Seconds, about("A model stays this long after an answer that ended in tool calls.", live=True)
    ] = 5.0
    min_resident: Annotated[
        Literal["auto"] | Seconds,
        about(
            "A model stays at least this long; `auto`: as long as its load took, once two models take turns.",
            live=True,
        ),
    ] = "auto"


class Proxy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reverse proxy before both ports; docs/configuration.md shows one."""

    base_path: Annotated[
        str, about("The path below which it shows them, if it passes that on (`/llm`); empty: none.")
    ] = ""


class Ollama(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ollama's API; docs/api.md lists its routes, which the proxy port has as well."""

    listen: Annotated[
        str, about("One more address for clients, where Ollama's look (`127.0.0.1:11434`); plain HTTP. Empty: none.")
    ] = ""


class Shape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which requests a rule of `clients` is for: all that is given must hold. In a pattern `*` stands for any text."""

    name: Annotated[str, about("Its name in status and metrics; that of a shipped one changes that one.")]
    why: Annotated[str, about("Why it is safe, for who reads it.")] = ""
    app: Annotated[str, about("The client that sends it (`open-webui`), as `clients.apps` names them.")] = ""
    agents: Annotated[tuple[str, ...], about("Patterns of `User-Agent`, of which one must fit.")] = ()
    paths: Annotated[tuple[str, ...], about("Patterns of the path, of which one must fit.")] = ()
    headers: Annotated[tuple[str, ...], about("`name: pattern`, of which one must fit.")] = ()
    stream: Annotated[Literal["any", "true", "false"], about("Whether it asks for a stream.")] = "any"
    tools: Annotated[Literal["any", "some", "none"], about("Whether it offers tools.")] = "any"
    max_tokens: Annotated[int, Meta(ge=0, le=1_000_000), about("It asks for no more tokens than that; 0: any.")] = 0
    roles: Annotated[str, about("A pattern of its messages' roles, in order: `system user*`.")] = ""
    system: Annotated[tuple[str, ...], about("Patterns of a system text of the client's own.")] = ()
    first: Annotated[tuple[str, ...], about("Patterns of the first user message, if the client wrote it.")] = ()
    last: Annotated[tuple[str, ...], about("Patterns of the last user message, if the client wrote it.")] = ()


class App(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a client is recognised; `name` is its name."""


class SideRule(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is done about a request that a client makes beside its conversation."""

    side: Annotated[
        Literal["wait", "refuse", "off"],
        about("`wait` for a quiet moment; `refuse`: an empty answer; `off`: as any request."),
    ] = "wait"
    model: Annotated[str, about("Another model that answers it.")] = ""


class StabilizeRule(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is mended in a prompt that changes where nothing of meaning does."""

    do: Annotated[
        Literal["move", "pin", "drop", "sort_tools", "canonical_tools"],
        about(
            "`move` the line to the end of the system text, `pin` it to the conversation's first, `drop` it; "
            "`sort_tools` by name; `canonical_tools`: their JSON with sorted keys."
        ),
    ] = "pin"
    line: Annotated[str, about("A pattern of a whole line of a system text, for the first three.")] = ""
    mode: Annotated[Literal["default", "observe", "on", "off"], about("As `clients.stabilize_mode`, for this one.")] = (
        "default"
    )


class Clients(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The programs that send requests, and what is done about theirs; docs/clients.md leads through it."""

    apps: Annotated[tuple[App, ...], about("More clients to recognise.", live=True)] = ()
    side: Annotated[
        tuple[SideRule, ...], about("More rules for side requests, and changes of shipped ones.", live=True)
    ] = ()
    side_wait: Annotated[
        Seconds, about("A side request waits until nobody else has used the engine for this time.", live=True)
    ] = 5.0
    stabilize: Annotated[
        tuple[StabilizeRule, ...], about("More rules for prompts, and changes of shipped ones.", live=True)
    ] = ()
    stabilize_mode: Annotated[
        Literal["observe", "on", "off"], about("`observe` only counts what the rules would spare.", live=True)
    ] = "observe"


class Doctor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why prompts were read again; docs/doctor.md explains each cause."""

    memory: Annotated[
        Bytes, about("Memory for the last prompts, which new ones are compared with; 0: none are.", live=True)
    ] = 64 * MIB


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything."""

    proxy_host: Annotated[str, about("The address that clients connect to, or a socket: `unix:/path`.")] = "localhost"
    proxy_port: Annotated[Port, about("The port that clients connect to; 0: a free one.")] = 8088
    admin_host: Annotated[
        str, about("The same for operators; if other machines reach it, `admin_key` must be set.")
    ] = "localhost"
    admin_port: Annotated[Port, about("The port that operators connect to; 0: a free one.")] = 8089
    socket_mode: Annotated[str, about("The mode of unix sockets; `0660` lets the group in.")] = "0600"
    backend_url: Annotated[
        str, about("A llama-server that already runs, or its socket: `unix:/path`; set this or `model`.")
    ] = "http://localhost:8081"
    warmup_check_interval: Annotated[Positive, about("The time between two looks at template files.", live=True)] = 30.0
    prefixes: Annotated[
        dict[str, str | Prefix],
        about(
            'Prefix to template file: `{"@code": "code.txt"}` or `{"@code": {"template": "code.txt"}}`.',
            path=True,
            live=True,
        ),
    ] = {}
    model: Annotated[str, about("A GGUF file to serve with an engine of our own.", path=True)] = ""
    engine_arguments: Annotated[tuple[str, ...], about("Further arguments for that engine.")] = ()
    backend_key: Annotated[str, about("The API key that the engine wants.", secret=True)] = ""
    default_model: Annotated[
        str, about("The model of `models` that a request gets that names none; empty: it is answered 404.", live=True)
    ] = ""
    return_to_default: Annotated[
        Seconds, about("The idleness after which `default_model` is loaded again; 0: never.", live=True)
    ] = 0.0
    queue_limit: Annotated[Count, about("Requests that may wait; one more is answered 429.", live=True)] = 1000
    queue_timeout: Annotated[Seconds, about("The longest a request waits; after that 503.", live=True)] = 600.0
    stream_keepalive: Annotated[
        Seconds, about("A silent stream gets a comment after this time; 0: never.", live=True)
    ] = 15.0
    stall_timeout: Annotated[Seconds, about("An engine is stuck after this time without a sign of life; 0: never.")] = (
        120.0
    )
    shutdown_timeout: Annotated[Seconds, about("What running answers get after SIGTERM.")] = 30.0
    api_keys: Annotated[
        tuple[str | Key, ...],
        about(
            "Who may use the proxy port: texts or objects; none: everybody.",
            secret=True,
            live=True,
        ),
    ] = ()
    admin_key: Annotated[str, about("The key for the admin port, and for slot actions.", secret=True, live=True)] = ""
    metrics_key: Annotated[str, about("The key for `/metrics`.", secret=True, live=True)] = ""
    admin_hosts: Annotated[
        tuple[str, ...],
        about("Further host names of this machine (`gpu-box.lan`), for both ports.", live=True),
    ] = ()
    trusted_proxies: Annotated[
        tuple[str, ...],
        about("Reverse proxies whose `X-Forwarded-For` is believed: networks (`10.0.0.0/8`), or `unix`.", live=True),
    ] = ()
    cors_origins: Annotated[
        tuple[str, ...],
        about(
            "Pages that may call from a browser (`https://chat.lan`, `app://*`, `*`); none: any if there "
            "are `api_keys`, else this machine's and apps.",
            live=True,
        ),
    ] = ()
    state_directory: Annotated[
        str, about("The folder of pins, heads and lock; empty: `$XDG_STATE_HOME/bioproxy`.", path=True)
    ] = ""
    tls_cert_file: Annotated[
        str,
        about(
            "Certificate for TLS on the proxy port (PEM, intermediates after it); a renewed one is used at once.",
            path=True,
            live=True,
        ),
    ] = ""
    tls_key_file: Annotated[str, about("Its private key (PEM, no pass phrase).", path=True, live=True)] = ""
    admin_tls: Annotated[bool, about("The admin port speaks TLS, too, with the same pair.", live=True)] = False
    tracing: Annotated[
        bool, about("OpenTelemetry spans of requests (extra `[otel]`), sent where the `OTEL_…` variables say.")
    ] = False
    log: Log = Log()
    ui: WebPage = WebPage()
    proxy: Proxy = Proxy()
    captures: Captures = Captures()
    ollama: Ollama = Ollama()
    clients: Clients = Clients()
    limits: Limits = Limits()
    kv: Kv = Kv()
    warmup: Warmup = Warmup()
    swap: Swap = Swap()
    doctor: Doctor = Doctor()
