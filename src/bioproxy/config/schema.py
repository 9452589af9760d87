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
    key_file: Annotated[str, about("A file that contains the key and nothing else.", path=True)] = ""
    sha256: Annotated[str, about("The key's SHA-256 in hex; the config then contains no secret.", secret=True)] = ""
    name: Annotated[str, about("The name in logs, fairness and metrics; the key itself is never shown.")] = ""
    group: Annotated[str, about("Keys of one group may share cached conversations; empty: this key has its own.")] = ""
    priority: Annotated[
        int, Meta(ge=-1000, le=1000), about("The higher goes first; within a class it comes before fairness.")
    ] = 0
    models: Annotated[tuple[str, ...], about("The models that it may use; empty: all.")] = ()
    max_running: Annotated[
        int, Meta(ge=0, le=1_000_000), about("How many of its requests may run at once; 0: any number.")
    ] = 0
    forwards_users: Annotated[
        bool, about("Tell the key's users apart by `X-OpenWebUI-User-Id`, for fairness, pins and cache group.")
    ] = False


class Prefix(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One prefix, written as an object instead of a plain path."""

    template: Annotated[str, about("The template's file.", path=True)]
    as_model: Annotated[
        bool,
        about("With `models`: each is listed once more, as `<model>+code`, with the template before what is asked."),
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
        Literal["debug", "info", "warning", "error"], about("The least important lines that are written.", live=True)
    ] = "info"
    format: Annotated[Literal["plain", "json"], about("Lines for people, or one JSON object per line.", live=True)] = (
        "plain"
    )


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much one client may send, and how long it may take."""

    body: Annotated[Bytes, about("The longest request body; a longer one is answered 413.")] = 128 * MIB
    head: Annotated[HeadBytes, about("The longest request head; a longer one is answered 431.")] = 64 * KIB
    head_timeout: Annotated[
        Positive, about("The longest time from the first byte of a request to the end of its head.")
    ] = 30.0
    body_timeout: Annotated[Positive, about("The longest time without a byte while a request body arrives.")] = 60.0
    idle_timeout: Annotated[Positive, about("The longest time between two requests on a kept connection.")] = 75.0
    write_timeout: Annotated[Positive, about("The longest time that a client may read nothing of its answer.")] = 300.0
    connections: Annotated[
        Count,
        about("The most connections at once, as far as open files allow; one more closes the longest idle one."),
    ] = 20_000


class Kv(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The KV cache on disk; docs/kv-cache.md explains how it works."""

    policy: Annotated[
        Literal["auto", "always", "off"],
        about("Restore and save when it pays (`auto`), around each templated request (`always`), or never (`off`)."),
    ] = "auto"
    directory: Annotated[
        str,
        about("The engine's slot folder as bioproxy sees it; empty: found from the engine's command line.", path=True),
    ] = ""
    engine_directory: Annotated[
        str, about("The same folder as the engine sees it, if that differs (in a container).")
    ] = ""
    fingerprint: Annotated[
        str,
        about(
            "Any text; change it when something changes that cannot be seen of an attached engine (LoRA, cache type)."
        ),
    ] = ""
    disk_budget: Annotated[
        Bytes,
        about("The size of all snapshots together; 0: 20 GiB or a tenth of the free space, whichever is smaller."),
    ] = 0
    min_free: Annotated[Bytes, about("The space on the disk that is always left free.")] = 5 * GIB
    write_budget: Annotated[Bytes, about("The most bytes that may be written per day, to spare the disk.")] = 100 * GIB
    min_seconds: Annotated[Seconds, about("The least prefill time that a save or a restore must spare.")] = 0.5
    save_after: Annotated[Seconds, about("A conversation that grew is saved after this time without a request.")] = 10.0
    save_every: Annotated[
        Seconds, about("A conversation that goes on is saved after this time, as soon as the engine is free.")
    ] = 300.0
    save_timeout: Annotated[Seconds, about("The longest a save may take before an engine is stopped.")] = 10.0
    max_age: Annotated[Seconds, about("Snapshots, pins and heads that are older are deleted.")] = 30 * 86400.0
    isolate: Annotated[
        Literal["off", "strict"], about("`strict` erases the slot between requests of different groups.")
    ] = "off"


class Warmup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Warm-up of templates."""

    enabled: Annotated[bool, about("Whether templates are warmed at all.", live=True)] = True
    settle: Annotated[
        Seconds, about("How long a changed template must stay unchanged before it is used.", live=True)
    ] = 5.0
    chunk_seconds: Annotated[
        Positive, about("About the longest that a user waits because of a warm-up in progress.", live=True)
    ] = 0.25
    heads: Annotated[
        int, Meta(ge=0, le=16), about("How many of the heads that clients used are warmed for each prefix.", live=True)
    ] = 2


class Swap(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When one model makes way for another; has an effect only with `models`."""

    max_wait: Annotated[
        Seconds, about("The longest that new requests for a busy model may go before a swap that waits.", live=True)
    ] = 30.0
    linger: Annotated[
        Seconds, about("A model stays loaded for this time after an answer that ended in tool calls.", live=True)
    ] = 5.0
    min_resident: Annotated[
        Literal["auto"] | Seconds,
        about(
            "A model stays loaded for at least this time; `auto`: for as long as its load took, once"
            " two models take turns.",
            live=True,
        ),
    ] = "auto"


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything."""

    proxy_host: Annotated[str, about("The address that clients connect to.")] = "localhost"
    proxy_port: Annotated[Port, about("The port that clients connect to; 0: any that is free.")] = 8088
    admin_host: Annotated[
        str, about("The address that operators connect to; one that other machines reach needs `admin_key`.")
    ] = "localhost"
    admin_port: Annotated[Port, about("The port that operators connect to; 0: any that is free.")] = 8089
    backend_url: Annotated[str, about("The engine: a llama-server that already runs. Set either this or `model`.")] = (
        "http://localhost:8081"
    )
    warmup_check_interval: Annotated[
        Positive, about("The time between two checks of the template files.", live=True)
    ] = 30.0
    prefixes: Annotated[
        dict[str, str | Prefix],
        about(
            'Prefix to template file: `{"@code": "code.txt"}` or `{"@code": {"template": "code.txt"}}`.',
            path=True,
            live=True,
        ),
    ] = {}
    model: Annotated[
        str, about("A GGUF file that bioproxy serves with an engine of its own, instead of `backend_url`.", path=True)
    ] = ""
    engine_arguments: Annotated[tuple[str, ...], about("Further arguments for the engine that serves `model`.")] = ()
    backend_key: Annotated[str, about("The API key that the engine itself wants.", secret=True)] = ""
    queue_limit: Annotated[Count, about("How many requests may wait; one more is answered 429.", live=True)] = 1000
    queue_timeout: Annotated[
        Seconds, about("The longest a request may wait; after that it is answered 503.", live=True)
    ] = 600.0
    stream_keepalive: Annotated[
        Seconds, about("A waiting stream gets a comment line after this time without a byte; 0: never.", live=True)
    ] = 15.0
    stall_timeout: Annotated[
        Seconds, about("An engine counts as stuck after this time without a sign of life; 0: never.")
    ] = 120.0
    shutdown_timeout: Annotated[Seconds, about("The time that running answers have to finish after SIGTERM.")] = 30.0
    api_keys: Annotated[
        tuple[str | Key, ...],
        about(
            "Who may use the proxy port: texts, or objects with the keys listed below; none: everybody.",
            secret=True,
            live=True,
        ),
    ] = ()
    admin_key: Annotated[
        str, about("The key for the admin port, and for slot actions on the proxy port.", secret=True, live=True)
    ] = ""
    metrics_key: Annotated[str, about("The key for `/metrics`; empty: none is needed.", secret=True, live=True)] = ""
    admin_hosts: Annotated[
        tuple[str, ...],
        about("Further host names by which clients reach this machine (`gpu-box.lan`), on both ports.", live=True),
    ] = ()
    trusted_proxies: Annotated[
        tuple[str, ...], about("Networks whose `X-Forwarded-*` headers are believed (`10.0.0.0/8`).", live=True)
    ] = ()
    cors_origins: Annotated[
        tuple[str, ...],
        about(
            "Pages that may call the proxy from a browser (`https://chat.lan`, `app://*` for a scheme, `*` for any); "
            "none: any page if there are `api_keys`, else pages from this machine and apps.",
            live=True,
        ),
    ] = ()
    state_directory: Annotated[
        str, about("The folder of pins, heads and the lock; empty: `$XDG_STATE_HOME/bioproxy`.", path=True)
    ] = ""
    tls_cert_file: Annotated[
        str,
        about(
            "The proxy port speaks TLS with this certificate (PEM, followed by its intermediates).",
            path=True,
            live=True,
        ),
    ] = ""
    tls_key_file: Annotated[
        str, about("The private key of `tls_cert_file` (PEM, no pass phrase).", path=True, live=True)
    ] = ""
    log: Log = Log()
    limits: Limits = Limits()
    kv: Kv = Kv()
    warmup: Warmup = Warmup()
    swap: Swap = Swap()
