"""The keys of one model (`models.<id>`), with their defaults.

`kv` and `prefixes` are bioproxy's own; everything else is llama-swap's. A model that a user copies from a llama-swap
config means here what it means there.

A reload takes every key over at once, but for those marked `process`: they make another process of the model, and count
from its next start.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import field

from bioproxy.config.schema import Prefix, about

Json: TypeAlias = Any
Scalar: TypeAlias = str | int | float | bool

MODALITIES = "Some of `text`, `audio`, `image`, `video`."
DEFAULT_PROXY = "http://localhost:${PORT}"


class Filters(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is changed in a request's JSON body before it is passed on."""

    strip_params: Annotated[str, about("Parameters that are removed, separated by commas.")] = ""
    legacy_strip_params: Annotated[str, about("Older spelling of `stripParams`.")] = field(
        default="", name="strip_params"
    )
    set_params: Annotated[dict[str, Json], about("Parameters that are set, whatever the request says.")] = {}
    set_params_by_id: Annotated[
        dict[str, dict[str, Json]],
        about("Requested name to parameters; each name but the model's own becomes an alias."),
    ] = field(default_factory=dict, name="setParamsByID")


class Timeouts(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Times in whole seconds for connections to the server behind; 0: no limit."""

    connect: Annotated[int, about("Until a connection stands.")] = 30
    keepalive: Annotated[int, about("Between two TCP keep-alive probes.")] = 30
    response_header: Annotated[int, about("From the request to the head of the answer.")] = 0
    tls_handshake: Annotated[int, about("For the TLS handshake.")] = 10
    expect_continue: Annotated[int, about("For the answer to `Expect: 100-continue`.")] = 1
    idle_conn: Annotated[int, about("An unused connection is kept for this time.")] = 90


class PeerTimeouts(Timeouts, frozen=True, kw_only=True):
    """The same for a peer, whose answers may be waited for in vain."""

    response_header: Annotated[int, about("From the request to the head of the answer.")] = 60


class Compat(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Peculiarities."""

    ignore_websockets: Annotated[bool, about("Websockets neither start the model nor keep it from being stopped.")] = (
        False
    )


class Capabilities(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a model can do, as lists of models tell it."""

    inputs: Annotated[tuple[str, ...], about(MODALITIES)] = field(default=(), name="in")
    outputs: Annotated[tuple[str, ...], about(MODALITIES)] = field(default=(), name="out")
    tools: Annotated[bool, about("It can call tools.")] = False
    reranker: Annotated[bool, about("It ranks documents.")] = False
    context: Annotated[int, about("Tokens of its context; at least 0.")] = 0


class Model(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One model and how it is started."""

    cmd: Annotated[
        str, about("The command that starts it, split into words as a shell does, but run without one.", process=True)
    ] = ""
    cmd_stop: Annotated[str, about("A command that is run instead of SIGTERM; may contain `${PID}`.", process=True)] = (
        ""
    )
    proxy: Annotated[str, about("The base URL at which it listens.", process=True)] = DEFAULT_PROXY
    aliases: Annotated[tuple[str, ...], about("Further names.")] = ()
    env: Annotated[tuple[str, ...], about("`NAME=value`, added to the environment.", process=True)] = ()
    check_endpoint: Annotated[
        str, about("The path that answers 200 when it is ready; `none`: no check.", process=True)
    ] = "/health"
    ttl: Annotated[int, about("Seconds without a request until it is unloaded; -1: `globalTTL`, 0: never.")] = -1
    unload_timeout: Annotated[int, about("Seconds it gets to stop when it is unloaded; 0: the global one.")] = 0
    unlisted: Annotated[bool, about("Not in `/v1/models`, but callable.")] = False
    use_model_name: Annotated[str, about("The name that its requests carry when they are passed on.")] = ""
    name: Annotated[str, about("For lists of models.")] = ""
    description: Annotated[str, about("For lists of models.")] = ""
    concurrency_limit: Annotated[
        int, about("Requests at once, one more is answered 429; 0: none is, they wait (llama-swap: 10).")
    ] = 0
    filters: Filters = Filters()
    macros: Annotated[dict[str, Scalar], about("Macros of this model; they win over global ones.", own=True)] = {}
    metadata: Annotated[dict[str, Json], about("Any tree, shown in `/v1/models` under `meta.llamaswap`.")] = {}
    send_loading_state: Annotated[
        bool | None, about("Streams tell that the model is being loaded; not given: the global one.")
    ] = None
    timeouts: Timeouts = Timeouts()
    compat: Compat = Compat()
    capabilities: Annotated[Capabilities | None, about("What it can do.")] = None
    health_check_timeout: Annotated[int, about("Has no effect here: the global one counts.")] = 0
    kv: Annotated[
        dict[str, Json],
        about(
            "bioproxy's own: keys of `kv` that are otherwise for this model; `off` alone is its policy.",
            own=True,
            process=True,
        ),
    ] = {}
    prefixes: Annotated[
        dict[str, Prefix],
        about("bioproxy's own: prefixes for this model, as the top-level `prefixes`.", own=True, process=True),
    ] = {}
