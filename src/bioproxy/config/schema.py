"""The one Config: every option, its default and its unit.

Frozen Structs, so that a running part can never change what another reads; a reload makes a new Config and `app.py`
compares. Durations are seconds (float) and sizes bytes (int) here; "30s" and "20GiB" are read in `units.py`. How files,
environment and flags become a Config lives in `load.py`; nothing else may read a file or the environment.

The docstring of each Struct says what its keys do: docs/configuration.md is checked against this file by a test.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(ge=0, extra={"unit": "seconds"})]
Bytes = Annotated[int, Meta(ge=0, extra={"unit": "bytes"})]
Count = Annotated[int, Meta(ge=1)]

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


class Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One API key. Exactly one of `key`, `key_file`, `sha256` (hex of the key) is given.

    `name` stands in logs, fairness and metrics; `group` may share cached conversations (default: each key its own);
    `priority` counts before fairness within a class; `models` restricts what it may ask for; `max_running` bounds its
    requests on the engine; `forwards_users` splits it by `X-OpenWebUI-User-Id`.
    """

    key: str = ""
    key_file: str = ""
    sha256: str = ""
    name: str = ""
    group: str = ""
    priority: int = 0
    models: tuple[str, ...] = ()
    max_running: int = 0
    forwards_users: bool = False


class Prefix(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One prefix: the file of its template."""

    template: str


class Log(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`level` and `format` of the log on stderr; plain lines or JSON objects."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["plain", "json"] = "plain"


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one client connection may cost. `body` and `head` are bytes of one message; time-outs are seconds.

    `head_timeout`: from a request's first byte to its head's end; `body_timeout`: without a byte of a body;
    `idle_timeout`: between requests; `write_timeout`: a client that reads nothing at all.
    """

    body: Bytes = 128 * MIB
    head: Bytes = 64 * KIB
    head_timeout: Seconds = 30.0
    body_timeout: Seconds = 60.0
    idle_timeout: Seconds = 75.0
    write_timeout: Seconds = 300.0
    connections: Count = 20_000


class Kv(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The KV cache on disk; docs/kv-cache.md explains each key with the rule it belongs to.

    `policy`: `auto` (restore and save when it pays), `always` (around each templated request), `off`. `directory`: the
    engine's slot folder as we see it (found from its command line where empty); `engine_directory`: the same folder as
    the engine sees it, when that differs (containers). `fingerprint`: text for what we cannot see of the engine.
    `disk_budget` (0: the smaller of 20 GiB and a tenth of what is free), `min_free`, `write_budget` (a day) are bytes.
    `min_seconds`: prefill that a save or restore must spare at least. `save_after`: idle seconds before a conversation
    is saved; `save_every`: at the latest. `save_timeout`: at shutdown. `max_age`: snapshots, pins and heads older go.
    `isolate`: `strict` erases the slot between groups.
    """

    policy: Literal["auto", "always", "off"] = "auto"
    directory: str = ""
    engine_directory: str = ""
    fingerprint: str = ""
    disk_budget: Bytes = 0
    min_free: Bytes = 5 * GIB
    write_budget: Bytes = 100 * GIB
    min_seconds: Seconds = 0.5
    save_after: Seconds = 10.0
    save_every: Seconds = 300.0
    save_timeout: Seconds = 10.0
    max_age: Seconds = 30 * 86400.0
    isolate: Literal["off", "strict"] = "off"


class Warmup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Warm-up of templates. `settle`: seconds without a change before a template counts as changed.

    `chunk_seconds`: the longest a user may wait for a warm-up's chunk; `heads`: how many heads per prefix are warmed.
    """

    enabled: bool = True
    settle: Seconds = 5.0
    chunk_seconds: Seconds = 0.25
    heads: Annotated[int, Meta(ge=0, le=16)] = 2


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything. The first seven keys are the seed's.

    `proxy_host`, `proxy_port`: where clients connect; `admin_host`, `admin_port`: where operators do. `backend_url`: the
    engine. `warmup_check_interval`: seconds between looks at template files. `prefixes`: trigger to template file, a
    string or `{template: file}`. `model`: a GGUF that bioproxy serves itself instead of `backend_url`, with
    `engine_arguments` for llama-server. `backend_key`: the engine's own API key. `queue_limit` requests may wait,
    `queue_timeout` seconds each; `stream_keepalive`: seconds without a byte before a comment line (0: off);
    `stall_timeout`: seconds without any sign of life before an engine counts as stuck; `shutdown_timeout`: seconds that
    streams get at SIGTERM. `api_keys`, `admin_key`, `metrics_key`, `admin_hosts` (further names the admin port answers
    to), `trusted_proxies` (networks whose X-Forwarded-* is believed), `cors_origins` (`*` for any; none: any page where
    there are `api_keys`, else pages from this machine).
    `state_directory`: where pins, heads and the lock live (default: `$XDG_STATE_HOME/bioproxy`).
    """

    proxy_host: str = "localhost"
    proxy_port: Port = 8088
    admin_host: str = "localhost"
    admin_port: Port = 8089
    backend_url: str = "http://localhost:8081"
    warmup_check_interval: Seconds = 30.0
    prefixes: dict[str, str | Prefix] = {}
    model: str = ""
    engine_arguments: tuple[str, ...] = ()
    backend_key: str = ""
    queue_limit: Count = 1000
    queue_timeout: Seconds = 600.0
    stream_keepalive: Seconds = 15.0
    stall_timeout: Seconds = 120.0
    shutdown_timeout: Seconds = 30.0
    api_keys: tuple[str | Key, ...] = ()
    admin_key: str = ""
    metrics_key: str = ""
    admin_hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    state_directory: str = ""
    log: Log = Log()
    limits: Limits = Limits()
    kv: Kv = Kv()
    warmup: Warmup = Warmup()
