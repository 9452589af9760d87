"""Every key of llama-swap's config file, with its default.

The Structs here are what a file may say (`File`) and what comes out in the end (`DialectConfig`: the same keys,
settled, and what follows from them). A key is declared once: its name in the file is the attribute in camel case, or
the `name` that is given. A model that a user copies from a llama-swap config means here what it means there; `kv` and
`prefixes` are bioproxy's own. Defaults are those of llama-swap's program, not of its documentation, if the two differ
(captureBuffer). Whole numbers of seconds stay whole numbers: llama-swap's keys have no units, so none are taken here.

A reload takes every key of a model over at once, except those marked `process`: they make another process of the model
and count from its next start.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, TypeAlias

import msgspec
from msgspec import field

from bioproxy.config.schema import Prefix, about
from bioproxy.errors import Problem

Json: TypeAlias = Any
Scalar: TypeAlias = str | int | float | bool

MODALITIES = "Some of `text`, `audio`, `image`, `video`."
DEFAULT_PROXY = "http://localhost:${PORT}"
SESSION_HEADERS = ("X-Session-ID", "X-Litellm-Session-Id")
IGNORED_PATHS = (r".*\.(js|json|css|png|gif|jpg|jpeg|ico|txt)$",)


class Filters(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Changes to a request's JSON body before it is passed on."""

    strip_params: Annotated[str, about("Parameters to remove, between commas.")] = ""
    legacy_strip_params: Annotated[str, about("Older spelling of `stripParams`.")] = field(
        default="", name="strip_params"
    )
    set_params: Annotated[dict[str, Json], about("Parameters to set.")] = {}
    set_params_by_id: Annotated[
        dict[str, dict[str, Json]],
        about("Requested name to parameters; each name becomes an alias."),
    ] = field(default_factory=dict, name="setParamsByID")


class Timeouts(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Times in whole seconds for connections to the server; 0: no limit."""

    connect: Annotated[int, about("To connect.")] = 30
    keepalive: Annotated[int, about("Without effect.")] = 30
    response_header: Annotated[int, about("From request to answer head.")] = 0
    tls_handshake: Annotated[int, about("Without effect.")] = 10
    expect_continue: Annotated[int, about("Without effect.")] = 1
    idle_conn: Annotated[int, about("How long an unused connection is kept; 4 s at most.")] = 90


class PeerTimeouts(Timeouts, frozen=True, kw_only=True):
    """The same for a peer, whose answers may never come."""

    response_header: Annotated[int, about("From request to answer head.")] = 60


class Compat(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Exceptions for clients of one kind."""

    ignore_websockets: Annotated[bool, about("Websockets neither start it nor keep it loaded.")] = False


class Capabilities(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a model can do, as lists of models tell it."""

    inputs: Annotated[tuple[str, ...], about(MODALITIES)] = field(default=(), name="in")
    outputs: Annotated[tuple[str, ...], about(MODALITIES)] = field(default=(), name="out")
    tools: Annotated[bool, about("It can call tools.")] = False
    reranker: Annotated[bool, about("It ranks documents.")] = False
    context: Annotated[int, about("Tokens of its context.")] = 0


class Model(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One model and how it is started."""

    cmd: Annotated[str, about("The command that starts it; no shell.", process=True)] = ""
    cmd_stop: Annotated[str, about("Run instead of SIGTERM; may contain `${PID}`.", process=True)] = ""
    proxy: Annotated[str, about("Its base URL, or `unix:/path`.", process=True)] = DEFAULT_PROXY
    aliases: Annotated[tuple[str, ...], about("Further names.")] = ()
    env: Annotated[tuple[str, ...], about("`NAME=value`, for its environment.", process=True)] = ()
    check_endpoint: Annotated[str, about("Answers 200 when it is ready; `none`: no check.", process=True)] = "/health"
    ttl: Annotated[int, about("Idle seconds until it is unloaded; -1: `globalTTL`, 0: never.")] = -1
    unload_timeout: Annotated[int, about("Seconds to stop; 0: the global ones.")] = 0
    unlisted: Annotated[bool, about("Not in `/v1/models`, but callable.")] = False
    use_model_name: Annotated[str, about("The model name that it gets.")] = ""
    name: Annotated[str, about("For lists of models.")] = ""
    description: Annotated[str, about("For lists of models.")] = ""
    concurrency_limit: Annotated[
        int,
        about("Requests at once; one more is answered 429; 0: they wait (llama-swap: 10)."),
    ] = 0
    filters: Filters = Filters()
    macros: Annotated[dict[str, Scalar], about("Macros of this model; win over global ones.", own=True)] = {}
    metadata: Annotated[dict[str, Json], about("Shown in `/v1/models` under `meta.llamaswap`.")] = {}
    send_loading_state: Annotated[bool | None, about("As the global one, if given.")] = None
    timeouts: Timeouts = Timeouts()
    compat: Compat = Compat()
    capabilities: Annotated[Capabilities | None, about("What it can do.")] = None
    health_check_timeout: Annotated[int, about("Without effect; the global one counts.")] = 0
    fallback: Annotated[
        tuple[str, ...], about("bioproxy's: models that answer, in this order, if this one can't.")
    ] = ()
    fallback_status: Annotated[
        tuple[int, ...], about("bioproxy's: statuses that count as a failure, for `fallback`.")
    ] = (500, 502, 503, 504)
    fallback_after: Annotated[
        int, about("bioproxy's: seconds without a first byte that count as one; 0: any number.")
    ] = 0
    pin: Annotated[bool, about("bioproxy's: a swap that has a choice stops another model.")] = False
    sleep: Annotated[
        int,
        about("bioproxy's: 1 or 2: a swap or `ttl` has vLLM sleep at this level, not stop; 0: it stops.", process=True),
    ] = 0
    kv: Annotated[
        dict[str, Json],
        about(
            "bioproxy's: keys of `kv` that differ; `off` is its policy.",
            own=True,
            process=True,
        ),
    ] = {}
    prefixes: Annotated[
        dict[str, Prefix],
        about("bioproxy's: prefixes of this model.", own=True, process=True),
    ] = {}


class Store(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The file in which activity is kept."""

    path: Annotated[
        str | None,
        about("A SQLite file for activity; else memory. A change begins another table."),
    ] = None


class Activity(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The activity page."""

    session_id: Annotated[
        tuple[str, ...], about("Headers that name a session; the first present counts; `[]`: none.")
    ] = field(default=SESSION_HEADERS, name="session_id")


class Ui(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The web page."""

    activity: Activity = Activity()


class Performance(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Hardware figures."""

    disabled: Annotated[bool, about("No hardware figures are collected.")] = False
    every: Annotated[float, about("The time between two figures, as `1m30s`; at least 5s.")] = 5.0


class Upstream(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The route `/upstream/<model>`, by which a model is reached without a model name."""

    ignore_paths: Annotated[
        tuple[str, ...],
        about(
            "Regular expressions (RE2, 2,000 steps at most, repetitions written out): paths after the model's name "
            "that start no model; nor does one of more than 4,096 characters."
        ),
    ] = IGNORED_PATHS


class Group(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Models that are stopped for one another, or not."""

    swap: Annotated[bool, about("One member runs at a time.")] = True
    exclusive: Annotated[bool, about("When a member starts, models of other groups stop.")] = True
    persistent: Annotated[bool, about("Members are not stopped for other groups.")] = False
    members: Annotated[tuple[str, ...], about("IDs of models.")] = ()


class Matrix(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Which models may run together, as expressions; `models/matrix.py` reads those.

    `sets` stand in the order in which ties are broken: sorted, with digits by their number, as llama-swap has them.
    """

    vars: Annotated[dict[str, str], about("Short name to model ID.")] = {}
    evict_costs: Annotated[dict[str, int], about("Short name or ID to cost; else 1.")] = field(
        default_factory=dict, name="evict_costs"
    )
    sets: Annotated[dict[str, str], about("Name to expression: `(a | b) & c`.")] = {}


class RouterSettings(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Settings of both routers; `use` selects one."""

    groups: Annotated[dict[str, Group], about("As the top-level `groups`.")] = {}
    matrix: Annotated[Matrix | None, about("As the top-level `matrix`.")] = None


class Router(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What decides which models must stop."""

    use: Annotated[str, about("`group` or `matrix`; not given: `group`.")] = ""
    settings: RouterSettings = RouterSettings()


class Fifo(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The one scheduler there is."""

    priority: Annotated[dict[str, int], about("Model ID to priority; the higher goes first.")] = {}


class SchedulerSettings(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Settings of the scheduler."""

    fifo: Fifo = Fifo()


class Scheduler(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What decides whose turn it is."""

    use: Annotated[str, about("`fifo`.")] = "fifo"
    settings: SchedulerSettings = SchedulerSettings()


class Routing(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Routing and scheduling."""

    router: Router = Router()
    scheduler: Scheduler = Scheduler()


class OnStartup(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What happens at start."""

    profile: Annotated[str, about("The profile that is active after a start or reload.")] = ""
    preload: Annotated[
        tuple[str, ...],
        about("Models loaded at the start, or when a reload adds them."),
    ] = ()


class Hooks(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What happens by itself."""

    on_startup: OnStartup = field(default=OnStartup(), name="on_startup")


class Profile(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Names that mean another model while the profile is active."""

    must_be_mapping: ClassVar[str] = (
        "profile must be a mapping with description and pins; the legacy list syntax is no longer supported"
    )

    description: Annotated[str, about("For people.")] = ""
    pins: Annotated[dict[str, str], about("Requested name to target; empty: disabled.")] = {}


class SelectorSettings(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Settings of a selector."""

    spillover: Annotated[int, about("Requests of a target before the next one is used.")] = 1


class Selector(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A name that stands for one of several models."""

    strategy: Annotated[str, about("`warm`, `pin` or `spillover`; must be given.")] = ""
    targets: Annotated[tuple[str, ...], about("Models, aliases or models of peers; at least one.")] = ()
    settings: SelectorSettings = SelectorSettings()
    name: Annotated[str, about("For lists of models.")] = ""
    description: Annotated[str, about("For lists of models.")] = ""
    unlisted: Annotated[bool, about("Not in `/v1/models`, but callable.")] = False
    metadata: Annotated[dict[str, Json], about("Shown in `/v1/models`.")] = {}


class Peer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Another server whose models are passed on."""

    proxy: Annotated[str, about("Its base URL; must be given.")] = ""
    models: Annotated[tuple[str, ...], about("The models it has; at least one.")] = ()
    api_key: Annotated[str, about("The key it wants.", secret=True)] = ""
    tailcat_key: Annotated[str, about("Without effect.", secret=True)] = ""
    filters: Annotated[Filters, about("As a model's.")] = Filters()
    timeouts: Annotated[PeerTimeouts, about("As a model's, but `responseHeader` is 60.")] = PeerTimeouts()


class File(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What one config, merged from all its files, says."""

    health_check_timeout: Annotated[int, about("Seconds to become healthy; at least 15.")] = 120
    log_level: Annotated[str, about("`debug`, `info`, `warn` or `error`; anything else counts as `info`.")] = "info"
    log_time_format: Annotated[str, about("Time format, as `rfc3339`.")] = ""
    log_to_stdout: Annotated[str, about("`proxy`, `upstream`, `both` or `none`.")] = "proxy"
    log_requests: Annotated[bool, about("Without effect, as there.")] = False
    start_port: Annotated[int, about("The first number for `${PORT}`.")] = 5800
    global_ttl: Annotated[int, about("`ttl` of models that have none; 0: never.")] = field(default=0, name="globalTTL")
    unload_timeout: Annotated[int, about("Seconds that a model has to stop; 0: 10.")] = 10
    send_loading_state: Annotated[bool, about("Streams say that the model is loading.")] = False
    include_aliases_in_list: Annotated[bool, about("Aliases are listed in `/v1/models`.")] = False
    metrics_max_in_memory: Annotated[int, about("Activity entries in memory; below 1: 1000.")] = 1000
    capture_buffer: Annotated[int, about("MB of requests and answers kept; 0: none.")] = 5
    store: Store = Store()
    ui: Ui = Ui()
    performance: Performance = Performance()
    macros: Annotated[dict[str, Scalar], about("Texts and numbers for `${NAME}`.", own=True)] = {}
    api_keys: Annotated[tuple[str, ...], about("Who may use the API.", secret=True)] = ()
    upstream: Upstream = Upstream()
    models: Annotated[dict[str, Model], about("Model ID to model.")] = {}
    groups: Annotated[dict[str, Group], about("Older place of `routing.router.settings.groups`.")] = {}
    matrix: Annotated[Matrix | None, about("Older place of `routing.router.settings.matrix`.")] = None
    routing: Routing = Routing()
    hooks: Hooks = Hooks()
    profiles: Annotated[dict[str, Profile], about("Profile name to profile.")] = {}
    selectors: Annotated[dict[str, Selector], about("Selector name to selector.")] = {}
    peers: Annotated[dict[str, Peer], about("Peer name to peer.")] = {}
    tailcat: Annotated[Json, about("Without effect.")] = None


class DialectConfig(File, frozen=True, kw_only=True):
    """A `File` that was checked and settled, and what follows from it.

    Settled: clamps are applied; `groups` and `matrix` moved into `routing.router`, whose `use` is `group` or `matrix`;
    each model has its effective ttl, time-outs and sendLoadingState; preload names IDs. `aliases` maps every other name
    of a local model to its ID.
    `unknown` are keys that have no effect; `warnings` are values that do not mean what they seem to. `ports` are
    the numbers that were given out for `${PORT}`, by model.
    """

    aliases: dict[str, str] = {}
    ports: dict[str, int] = {}
    unknown: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
