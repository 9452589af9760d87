"""llama-server's command line, for the engine that has none: flag names, what they take, and where the value goes.

The `xllamacpp` wheel carries llama.cpp's server but not its argument parser. So that the embedded engine can stand
wherever a `llama-server` command is expected, this module reads the flags that matter under the same names, short and
long, `--flag value` and `--flag=value`. An unknown flag is an error that names it and the nearest known one: an ignored
flag would be a server that does something else than its operator wrote down.

Pure: text in, a dict of values out, keyed by the dotted name of a field of llama.cpp's `common_params`. Names that
begin with `@` are no fields; `program.py` knows what to do with them. docs/engine.md lists what stands here.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence

import msgspec

from bioproxy.errors import ConfigError, Problem

Value = str | int | float | bool | tuple[str, ...]
Values = dict[str, Value]

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
LOUDEST = 2**31 - 1


def text(given: str) -> str:
    """Anything but nothing."""
    if not given:
        raise ValueError("must not be empty")
    return given


def integer(given: str) -> int:
    try:
        return int(given)
    except ValueError as error:
        raise ValueError(f"must be a whole number, not {given!r}") from error


def number(given: str) -> float:
    try:
        return float(given)
    except ValueError as error:
        raise ValueError(f"must be a number, not {given!r}") from error


def positive(given: str) -> float:
    value = number(given)
    if value <= 0:
        raise ValueError(f"must be above 0, not {given}")
    return value


def port(given: str) -> int:
    """A TCP port; 0 takes a free one."""
    value = integer(given)
    if not 0 <= value <= 65535:
        raise ValueError(f"must be between 0 and 65535, not {given}")
    return value


def words(given: str) -> tuple[str, ...]:
    """Names between commas."""
    return tuple(word.strip() for word in given.split(",") if word.strip())


def layers(given: str) -> int:
    """A count of layers, `auto` (-1) or `all` (-2), llama.cpp's own numbers for them."""
    return {"auto": -1, "all": -2}[given] if given in {"auto", "all"} else integer(given)


def slots(given: str) -> int:
    """A count of slots; -1 and `auto` are one slot here (docs/engine.md says why)."""
    value = -1 if given == "auto" else integer(given)
    if value == 0 or value < -1:
        raise ValueError(f"must be 1 or more, or -1 for automatic, not {given}")
    return 1 if value == -1 else value


def one_of(*choices: str) -> Callable[[str], str]:

    def read(given: str) -> str:
        if given not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}, not {given!r}")
        return given

    return read


class Flag(msgspec.Struct, frozen=True):
    """One flag: its spellings, the field it sets, how its value is read (None: a switch that sets `constant`)."""

    names: tuple[str, ...]
    field: str
    read: Callable[[str], Value] | None
    meaning: str
    constant: Value = True
    metavar: str = ""
    repeats: bool = False  # values are collected in a tuple


def takes(names: str, field: str, read: Callable[[str], Value], meaning: str, *, repeats: bool = False) -> Flag:
    """A flag with a value; `names` are separated by blanks, `meaning` may begin with `METAVAR: `."""
    metavar, _, rest = meaning.partition(": ")
    return Flag(tuple(names.split()), field, read, rest, metavar=metavar, repeats=repeats)


def switch(names: str, field: str, constant: Value, meaning: str) -> Flag:
    """A flag without a value, that sets `field` to `constant`."""
    return Flag(tuple(names.split()), field, None, meaning, constant=constant)


FLAGS: tuple[Flag, ...] = (
    takes("-m --model", "model.path", text, "FILE: the model, a GGUF file (the first part of a split one)"),
    takes("--host", "@host", text, "ADDRESS: where to listen (127.0.0.1)"),
    takes("--port", "port", port, "N: port to listen on (8080); 0 takes a free one"),
    takes(
        "-c --ctx-size", "n_ctx", integer, "N: context in tokens, over all slots (0: what the model was trained for)"
    ),
    takes("-np --parallel", "n_parallel", slots, "N: slots (1; -1 is 1 too, llama-server makes 4 of it)"),
    takes("-b --batch-size", "n_batch", integer, "N: logical batch in tokens (2048)"),
    takes("-ub --ubatch-size", "n_ubatch", integer, "N: physical batch in tokens (512)"),
    takes("-t --threads", "cpuparams.n_threads", integer, "N: threads that generate (-1: physical cores less one)"),
    takes("-tb --threads-batch", "cpuparams_batch.n_threads", integer, "N: threads that read prompts (as --threads)"),
    takes("--threads-http", "n_threads_http", integer, "N: threads that answer HTTP (-1: automatic)"),
    takes("--poll", "cpuparams.poll", integer, "0-100: how much waiting threads spin (50)"),
    takes(
        "-n --predict --n-predict",
        "n_predict",
        integer,
        "N: tokens to generate if a request does not say (-1: no end)",
    ),
    takes("--keep", "n_keep", integer, "N: tokens of the prompt that a context shift keeps (0)"),
    takes("-ngl --gpu-layers --n-gpu-layers", "n_gpu_layers", layers, "N: layers on the GPU (auto; all)"),
    takes(
        "-sm --split-mode",
        "split_mode",
        one_of("none", "layer", "row", "tensor"),
        "MODE: how several GPUs share (layer)",
    ),
    takes("-mg --main-gpu", "main_gpu", integer, "N: the GPU that is used if only one is (0)"),
    takes(
        "-fa --flash-attn", "flash_attn_type", one_of("on", "off", "auto"), "MODE: flash attention on, off, auto (auto)"
    ),
    takes("-ctk --cache-type-k", "cache_type_k", one_of(*CACHE_TYPES), "TYPE: KV cache type of keys (f16)"),
    takes("-ctv --cache-type-v", "cache_type_v", one_of(*CACHE_TYPES), "TYPE: KV cache type of values (f16)"),
    switch("-nkvo --no-kv-offload", "no_kv_offload", True, "keep the KV cache off the GPU"),
    switch("--swa-full", "swa_full", True, "keep the whole cache of sliding-window layers"),
    switch("-kvu --kv-unified", "kv_unified", True, "one KV buffer for all slots"),
    switch("-no-kvu --no-kv-unified", "kv_unified", False, "a KV buffer for each slot (default)"),
    takes(
        "-cram --cache-ram",
        "cache_ram_mib",
        integer,
        "MIB: cache of displaced slots in memory (8192; 0: off, -1: no limit)",
    ),
    switch("--cache-idle-slots", "cache_idle_slots", True, "move idle slots into that cache (default)"),
    switch("--no-cache-idle-slots", "cache_idle_slots", False, "leave idle slots where they are"),
    takes(
        "-ctxcp --ctx-checkpoints --swa-checkpoints",
        "n_ctx_checkpoints",
        integer,
        "N: context checkpoints per slot (32)",
    ),
    takes("--checkpoint-min-step", "checkpoint_min_step", integer, "N: tokens between checkpoints at least (8192)"),
    takes(
        "-sps --slot-prompt-similarity",
        "slot_prompt_similarity",
        number,
        "X: likeness that makes a request take a slot (0.1)",
    ),
    takes("--cache-reuse", "n_cache_reuse", integer, "N: smallest piece to reuse by shifting (0: off)"),
    switch("--cache-prompt", "cache_prompt", True, "reuse the KV cache of a common beginning (default)"),
    switch("--no-cache-prompt", "cache_prompt", False, "compute every prompt anew"),
    switch("--context-shift", "ctx_shift", True, "shift the context when it is full"),
    switch("--no-context-shift", "ctx_shift", False, "end generation when the context is full (default)"),
    takes("--slot-save-path", "slot_save_path", text, "FOLDER: where slot files are saved and restored"),
    switch("--metrics", "endpoint_metrics", True, "answer GET /metrics"),
    switch("--slots", "endpoint_slots", True, "answer GET /slots (default)"),
    switch("--no-slots", "endpoint_slots", False, "do not answer GET /slots"),
    switch("--props", "endpoint_props", True, "answer POST /props"),
    switch("--ui --webui", "ui", True, "serve llama.cpp's own page, where the build has it"),
    switch("--no-ui --no-webui", "ui", False, "serve no page (default)"),
    takes("--api-key", "@api_keys", words, "KEYS: keys that clients must send, between commas"),
    takes("--api-key-file", "@api_key_file", text, "FILE: the same, one per line"),
    takes("--api-prefix", "api_prefix", text, "PATH: what every route begins with"),
    takes("--ssl-key-file", "ssl_file_key", text, "FILE: TLS private key (PEM)"),
    takes("--ssl-cert-file", "ssl_file_cert", text, "FILE: TLS certificate (PEM)"),
    takes("-to --timeout", "@timeout", integer, "SECONDS: read and write time-out of a connection (3600)"),
    takes("-a --alias", "@alias", words, "NAMES: what the API calls the model, between commas"),
    switch("--jinja", "use_jinja", True, "render chat templates with jinja (default)"),
    switch("--no-jinja", "use_jinja", False, "render built-in chat templates only"),
    takes("--chat-template", "chat_template", text, "TEMPLATE: a chat template instead of the model's"),
    takes("--chat-template-file", "@chat_template_file", text, "FILE: the same, from a file"),
    takes(
        "--reasoning-format",
        "reasoning_format",
        one_of("none", "auto", "deepseek", "deepseek-legacy"),
        "NAME: where thoughts go (deepseek)",
    ),
    takes("--lora", "@lora", text, "FILE: a LoRA adapter; may be repeated", repeats=True),
    takes("--lora-scaled", "@lora_scaled", text, "FILE:SCALE: the same with a scale; may be repeated", repeats=True),
    switch("--lora-init-without-apply", "lora_init_without_apply", True, "load adapters with scale 0"),
    takes("-mm --mmproj", "mmproj.path", text, "FILE: multimodal projector"),
    switch("--no-mmproj-offload", "mmproj_use_gpu", False, "keep the projector off the GPU"),
    switch("--embedding --embeddings", "embedding", True, "embeddings only"),
    takes(
        "--pooling",
        "pooling_type",
        one_of("none", "mean", "cls", "last", "rank"),
        "TYPE: how embeddings are pooled (the model's)",
    ),
    takes(
        "--rope-scaling",
        "rope_scaling_type",
        one_of("none", "linear", "yarn"),
        "TYPE: how RoPE is stretched (the model's)",
    ),
    takes("--rope-scale", "@rope_scale", positive, "X: stretch the context by this factor"),
    takes("--rope-freq-base", "rope_freq_base", number, "X: RoPE base frequency (the model's)"),
    takes("--rope-freq-scale", "rope_freq_scale", number, "X: RoPE frequency factor, 1/stretch"),
    takes("--yarn-orig-ctx", "yarn_orig_ctx", integer, "N: YaRN: context that the model was trained for"),
    takes("--yarn-ext-factor", "yarn_ext_factor", number, "X: YaRN: extrapolation mix (-1)"),
    takes("--yarn-attn-factor", "yarn_attn_factor", number, "X: YaRN: attention scale (-1)"),
    takes("--yarn-beta-slow", "yarn_beta_slow", number, "X: YaRN: high correction dimension (-1)"),
    takes("--yarn-beta-fast", "yarn_beta_fast", number, "X: YaRN: low correction dimension (-1)"),
    switch("--mlock", "load_mode", "mlock", "lock the model in memory"),
    switch("--mmap", "load_mode", "mmap", "map the model file (default)"),
    switch("--no-mmap", "load_mode", "none", "read the model file into memory"),
    takes("-s --seed", "sampling.seed", integer, "N: seed of sampling if a request has none (-1: random)"),
    takes("--temp --temperature", "sampling.temp", number, "X: temperature if a request has none (0.8)"),
    takes("--top-k", "sampling.top_k", integer, "N: top-k if a request has none (40)"),
    takes("--top-p", "sampling.top_p", number, "X: top-p if a request has none (0.95)"),
    takes("--min-p", "sampling.min_p", number, "X: min-p if a request has none (0.05)"),
    switch("--warmup", "warmup", True, "run the model once at start (default)"),
    switch("--no-warmup", "warmup", False, "do not"),
    takes(
        "--sleep-idle-seconds",
        "sleep_idle_seconds",
        integer,
        "N: free the memory after this time without work (-1: never)",
    ),
    takes("-lv --verbosity --log-verbosity", "verbosity", integer, "N: log level, 0 (least) to 5 (3)"),
    switch("-v --verbose --log-verbose", "verbosity", LOUDEST, "log everything"),
    switch("--log-disable", "@log_disable", True, "log nothing but the reason for a failed start"),
    switch("--version", "@version", True, "show the versions and exit"),
    switch("-h --help --usage", "@help", True, "show this and exit"),
)
BY_NAME = {name: flag for flag in FLAGS for name in flag.names}


def parse(arguments: Sequence[str]) -> Values:
    """Values by field name. Raises ConfigError with every problem: unknown flags, missing and wrong values."""
    values: Values = {}
    problems: list[Problem] = []
    rest = iter(arguments)
    stray = False  # the flag before was unknown: a bare word after it is its value, not a second problem
    for argument in rest:
        if stray and not argument.startswith("-"):
            stray = False
            continue
        stray = argument.startswith("-") and spelling(argument)[0] not in BY_NAME
        try:
            take(argument, rest, values)
        except ValueError as error:
            problems.append(Problem(str(error)))
    if problems:
        raise ConfigError(problems)
    return values


def spelling(argument: str) -> tuple[str, bool, str]:
    """The flag's name, whether a value was written after `=`, and that value; `--ctx_size` is `--ctx-size`."""
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") if name.startswith("--") else name, bool(equals), value


def take(argument: str, rest: Iterable[str], values: Values) -> None:
    """Read one flag, and its value from `rest` if it has one, into `values`; ValueError says what is wrong."""
    name, equals, value = spelling(argument)
    flag = BY_NAME.get(name)
    if flag is None:
        raise ValueError(unknown(name))
    if flag.read is None:
        if equals:
            raise ValueError(f"{name} takes no value")
        values[flag.field] = flag.constant
        return
    if not equals:
        found = next(iter(rest), None)
        if found is None:
            raise ValueError(f"{name} needs a value ({flag.metavar})")
        value = found
    try:
        read = flag.read(value)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from error
    earlier = values.get(flag.field, ())
    values[flag.field] = (*earlier, str(read)) if flag.repeats and isinstance(earlier, tuple) else read


def unknown(name: str) -> str:
    """The sentence for a flag that we do not know, with the nearest that we do."""
    if not name.startswith("-"):
        return f"unexpected argument {name!r}: the model is given with -m FILE"
    near = difflib.get_close_matches(name, BY_NAME, n=1, cutoff=0.7)
    return f"unknown flag {name}" + (f"; did you mean {near[0]}?" if near else "; --help lists those that there are")


def usage() -> str:
    """What `--help` prints: a line for each flag."""
    lines = ["usage: bioproxy engine -m FILE [--port N] [flags of llama-server]", ""]
    for flag in FLAGS:
        spelled = ", ".join(flag.names) + (f" {flag.metavar}" if flag.metavar else "")
        lines.append(f"  {spelled:<44} {flag.meaning}" if len(spelled) < 44 else f"  {spelled}\n{'':<47}{flag.meaning}")
    return "\n".join(lines)
