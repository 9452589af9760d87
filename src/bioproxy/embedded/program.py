"""llama.cpp from the `xllamacpp` wheel, as a program: `python -m bioproxy.embedded -m FILE --port N`.

It runs in a child process of its own, because llama.cpp may abort (a truncated slot file kills it), may hang, and ends
only with its process; a proxy that shared its process would share its fate. Its command line is llama-server's
(flags.py), so supervision, docs and users treat both alike.

How it ends. There is no Python signal handler: the interpreter would run one only between byte codes, and the main
thread may sit in llama.cpp for minutes while a model loads. SIGTERM and SIGINT keep the kernel's own action, and the
process is gone at once, whatever it is doing and whichever client is connected (llama-server itself waits for its
clients there). Nothing is lost by that: snapshots are written by request, under a temporary name, and counted only when
whole. A parent that ignores SIGTERM would hand that down, therefore the actions are set here and not assumed.

Exit codes: 0 after --help and --version, 1 if it cannot start; the last line says why in a sentence.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bioproxy import files
from bioproxy.embedded import flags
from bioproxy.errors import BioproxyError, ConfigError, Problem

DEFAULTS: flags.Values = {"@host": "127.0.0.1", "port": 8080, "n_parallel": 1, "ui": False}
ENUMERATIONS = {  # field: (enumeration of xllamacpp, how a choice becomes a member's name)
    "cache_type_k": ("ggml_type", "GGML_TYPE_{}"),
    "cache_type_v": ("ggml_type", "GGML_TYPE_{}"),
    "split_mode": ("llama_split_mode", "LLAMA_SPLIT_MODE_{}"),
    "flash_attn_type": ("llama_flash_attn_type", "LLAMA_FLASH_ATTN_TYPE_{}"),
    "reasoning_format": ("common_reasoning_format", "COMMON_REASONING_FORMAT_{}"),
    "pooling_type": ("llama_pooling_type", "LLAMA_POOLING_TYPE_{}"),
    "rope_scaling_type": ("llama_rope_scaling_type", "LLAMA_ROPE_SCALING_TYPE_{}"),
    "load_mode": ("llama_load_mode", "LLAMA_LOAD_MODE_{}"),
}
SPELLED_OTHERWISE = {"on": "ENABLED", "off": "DISABLED"}
LARGEST = 16 << 20  # bytes of a file that a flag names
GGUF_MAGIC = b"GGUF"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the engine until a signal ends the process; returns the exit code if it does not get that far."""
    let_signals_end_us()
    try:
        values = DEFAULTS | flags.parse(sys.argv[1:] if arguments is None else arguments)
        if "@help" in values:
            say(flags.usage(), sys.stdout)
        elif "@version" in values:
            say(version(), sys.stdout)
        else:
            serve(values)
    except BioproxyError as error:
        say(f"bioproxy engine: {error.message}", sys.stderr)
        return 1
    return 0


def let_signals_end_us() -> None:
    """Give SIGTERM and SIGINT the kernel's own action, and open the mask that a parent may have left closed."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})


def say(line: str, stream: Any) -> None:
    """Print a line, even if nothing reads it: a closed stream is no reason to fail."""
    with suppress(OSError, ValueError, AttributeError):
        stream.write(line + "\n")
        stream.flush()


def version() -> str:
    """The wheel's version and llama.cpp's build, as far as the wheel knows it."""
    llama = library()
    build = llama.BUILD_INFO
    return f"bioproxy engine: xllamacpp {llama.__version__}, llama.cpp b{build['build_number']}-{build['commit']}"


def library() -> Any:
    """The `xllamacpp` module; a BioproxyError that says what to install if it is missing.

    When llama.cpp aborts it has gdb or lldb, if there is one, print where, unless told not to (ggml.c). That takes
    seconds in which the dead engine keeps its port and memory, or for ever if the debugger hangs.
    """
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    try:
        import xllamacpp  # an extra, and 100 MB
    except ImportError as error:
        raise BioproxyError(
            f"the embedded engine needs llama.cpp from a wheel: pip install 'bioproxy[llama]' ({error})"
        ) from error
    return xllamacpp


def serve(values: flags.Values) -> None:
    """Check what llama.cpp would only complain about in its log, start it, and wait for the end of the process."""
    check(values)
    llama = library()
    parameters = llama.CommonParams()
    apply(parameters, values, llama)
    try:
        server = llama.Server(parameters)
    except RuntimeError as error:
        raise BioproxyError(
            f"llama.cpp did not start with {values['model.path']}; its own lines above say why ({error})"
        ) from error
    say(f"bioproxy engine: ready on {server.listening_address}", sys.stderr)
    threading.Event().wait()


def check(values: flags.Values) -> None:
    """Raise ConfigError for what cannot work: no model, no GGUF, no folder, a port that is taken."""
    problems = [*check_model(values), *check_folder(values), *check_port(values)]
    if problems:
        raise ConfigError([Problem(problem) for problem in problems])


def check_model(values: flags.Values) -> list[str]:
    """What is wrong with the model file."""
    path = str(values.get("model.path", ""))
    if not path:
        return ["no model: give one with -m FILE"]
    try:
        magic = files.read(path, most=len(GGUF_MAGIC))[: len(GGUF_MAGIC)]
    except OSError as error:
        return [f"cannot read the model {path}: {error.strerror}"]
    return [] if magic == GGUF_MAGIC else [f"the model {path} is no GGUF file: it begins with {magic!r}"]


def check_folder(values: flags.Values) -> list[str]:
    """What is wrong with the folder for slot files."""
    path = str(values.get("slot_save_path", ""))
    return [f"--slot-save-path {path} is not a folder"] if path and not Path(path).is_dir() else []


def check_port(values: flags.Values) -> list[str]:
    """What keeps us from listening there."""
    host, port = str(values["@host"]), int(str(values["port"]))
    if host.endswith(".sock"):
        return []
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            if sys.platform != "win32":  # as llama.cpp does it: a port in TIME_WAIT is free
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return [f"cannot listen on {host} port {port}: {error.strerror}"]
    return []


def apply(parameters: Any, values: flags.Values, llama: Any) -> None:
    for field, value in {**values, **derived(values, llama)}.items():
        if field.startswith("@"):
            continue
        owner = parameters
        *path, name = field.split(".")
        for step in path:
            owner = getattr(owner, step)
        try:
            setattr(owner, name, member(field, value, llama))
        except (OverflowError, ValueError) as error:
            spelled = next((flag.names[-1] for flag in flags.FLAGS if flag.field == field), field)
            raise BioproxyError(f"{spelled} {value} is out of range: {error}") from error


def member(field: str, value: Any, llama: Any) -> Any:
    """The enumeration's member for a field that has one, else the value itself."""
    if field not in ENUMERATIONS:
        return value
    enumeration, pattern = ENUMERATIONS[field]
    word = SPELLED_OTHERWISE.get(value, value) if field == "flash_attn_type" else value
    return getattr(getattr(llama, enumeration), pattern.format(word.upper().replace("-", "_")))


def derived(values: flags.Values, llama: Any) -> dict[str, Any]:
    """The fields that are made from flags rather than copied: what llama-server's parser does after reading.

    One core is left to the programs that talk to the engine. llama.cpp's threads wait for each other at every layer, so
    one that loses its core for a moment holds up all: with both of two cores taken and another program busy, single
    chunks of a warm-up took five times as long as the others, and a user who came then waited for more than a second.
    """
    given: dict[str, Any] = dict(values)
    threads = given.get("cpuparams.n_threads", -1)
    threads = threads if threads > 0 else max(1, physical_cores() - 1)
    batch = given.get("cpuparams_batch.n_threads", -1)
    keys = given.get("@api_keys", flags.words(os.environ.get("LLAMA_API_KEY", "")))
    fields: dict[str, Any] = {
        "hostnames": [given["@host"]],
        "cpuparams.n_threads": threads,
        "cpuparams_batch.n_threads": batch if batch > 0 else threads,
        "lora_adapters": adapters(given, llama),
        "api_keys": [*keys, *lines_of(given.get("@api_key_file"), "--api-key-file")],
    }
    if "@alias" in given:
        fields["model_alias"] = set(given["@alias"])
    if "slot_save_path" in given:
        fields["slot_save_path"] = given["slot_save_path"].rstrip("/") + "/"  # llama.cpp only appends the name
    if "@chat_template_file" in given:
        fields["chat_template"] = "\n".join(lines_of(given["@chat_template_file"], "--chat-template-file"))
    if "@rope_scale" in given:
        fields["rope_freq_scale"] = 1.0 / given["@rope_scale"]
    if "@timeout" in given:
        fields["timeout_read"] = fields["timeout_write"] = given["@timeout"]
    if "sampling.seed" in given:
        fields["sampling.seed"] = given["sampling.seed"] % 2**32  # -1 is llama.cpp's word for random
    if "@log_disable" in given:
        fields["verbosity"] = 1
    return fields


def adapters(given: dict[str, Any], llama: Any) -> list[Any]:
    found = [llama.CommonAdapterLoraInfo(path, 1.0) for path in given.get("@lora", ())]
    for text in given.get("@lora_scaled", ()):
        path, _, scale = text.rpartition(":")
        try:
            found.append(llama.CommonAdapterLoraInfo(path, flags.number(scale)))
        except ValueError as error:
            raise BioproxyError(f"--lora-scaled {text}: expected FILE:SCALE, such as style.gguf:0.5") from error
    return found


def lines_of(path: str | None, flag: str) -> list[str]:
    """The lines of a file that a flag names; none without a file."""
    if not path:
        return []
    try:
        return files.read(path, most=LARGEST, pipes=True).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BioproxyError(f"{flag} {path}: {error}") from error


def physical_cores() -> int:
    """Cores that this process may use, hyper-threads of one counted once: more threads get in each other's way."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    siblings = set()
    for number in usable:
        try:
            siblings.add(Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings").read_text("ascii"))
        except OSError:
            return len(usable)
    return len(siblings)
