"""llama-server's command line as the embedded engine reads it, down to llama.cpp's own parameters."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.embedded import flags, program
from bioproxy.errors import BioproxyError, ConfigError

EXAMPLES: dict[Callable[[str], flags.Value], list[str]] = {
    flags.text: ["/some/file"],
    flags.integer: ["3"],
    flags.number: ["0.5"],
    flags.positive: ["2"],
    flags.port: ["0", "65535"],
    flags.words: ["a,b"],
    flags.layers: ["99", "auto", "all"],
    flags.slots: ["2", "-1", "auto"],
}
CHOICES = {
    "split_mode": ["none", "layer", "row", "tensor"],
    "flash_attn_type": ["on", "off", "auto"],
    "cache_type_k": list(flags.CACHE_TYPES),
    "cache_type_v": list(flags.CACHE_TYPES),
    "reasoning_format": ["none", "auto", "deepseek", "deepseek-legacy"],
    "pooling_type": ["none", "mean", "cls", "last", "rank"],
    "rope_scaling_type": ["none", "linear", "yarn"],
}


def examples(flag: flags.Flag) -> list[list[str]]:
    """Every way to give the flag that its reader tells apart."""
    if flag.read is None:
        return [[name] for name in flag.names]
    if flag.field == "@lora_scaled":
        return [[flag.names[0], "style.gguf:0.5"]]
    values = CHOICES.get(flag.field) or EXAMPLES[flag.read]
    return [[name, value] for name in flag.names for value in values]


def problems(*arguments: str) -> list[str]:
    """What is said about a command line."""
    with pytest.raises(ConfigError) as caught:
        flags.parse(arguments)
    return [problem.message for problem in caught.value.problems]


def applied(*arguments: str) -> Any:
    """llama.cpp's parameters after `arguments`."""
    llama = program.library()
    parameters = llama.CommonParams()
    program.apply(parameters, program.DEFAULTS | flags.parse(arguments), llama)
    return parameters


def test_an_unknown_flag_is_an_error_that_names_it_and_the_nearest() -> None:
    """What would be ignored would be a server that does something else."""
    assert problems("--prot", "9000") == ["unknown flag --prot; did you mean --port?"]


def test_a_flag_like_no_other_is_an_error_too() -> None:
    """With the way to the list."""
    assert problems("--zzzzzz") == ["unknown flag --zzzzzz; --help lists those that there are"]


def test_all_problems_are_told_at_once() -> None:
    """Nobody wants to start a server five times."""
    assert problems("--port", "x", "model.gguf", "-np", "0", "--metrics=1", "-fa", "maybe", "-c") == [
        "--port must be a whole number, not 'x'",
        "unexpected argument 'model.gguf': the model is given with -m FILE",
        "-np must be 1 or more, or -1 for automatic, not 0",
        "--metrics takes no value",
        "-fa must be one of on, off, auto, not 'maybe'",
        "-c needs a value (N)",
    ]


@pytest.mark.parametrize(
    "arguments", [["-c", "4096"], ["--ctx-size", "4096"], ["--ctx-size=4096"], ["--ctx_size", "4096"], ["-c=4096"]]
)
def test_every_way_to_write_a_value(arguments: list[str]) -> None:
    """Short, long, with `=`, and with the underscores that llama.cpp takes too."""
    assert flags.parse(arguments) == {"n_ctx": 4096}


def test_negative_values_are_values() -> None:
    """Not flags."""
    assert flags.parse(["-ngl", "-1", "-n", "-1"]) == {"n_gpu_layers": -1, "n_predict": -1}


def test_the_last_one_counts() -> None:
    """As in llama-server; only adapters add up."""
    assert flags.parse(["-c", "1", "-c", "2", "--lora", "a", "--lora", "b"]) == {"n_ctx": 2, "@lora": ("a", "b")}


@given(st.lists(st.text(max_size=12), max_size=6))
def test_no_command_line_is_a_crash(arguments: list[str]) -> None:
    """Values or a ConfigError."""
    with suppress(ConfigError):
        flags.parse(arguments)


def test_no_spelling_is_used_twice() -> None:
    """Each name leads to one flag."""
    names = [name for flag in flags.FLAGS for name in flag.names]
    assert len(names) == len(set(names))


def test_the_help_names_every_spelling() -> None:
    """And what each takes."""
    usage = flags.usage()
    for flag in flags.FLAGS:
        assert ", ".join(flag.names) + (f" {flag.metavar}" if flag.metavar else "") in usage


@pytest.mark.real_engine
@pytest.mark.parametrize(
    "flag", [flag for flag in flags.FLAGS if not flag.field.endswith("_file")], ids=lambda f: f.names[0]
)
def test_every_flag_reaches_llama_cpp(flag: flags.Flag) -> None:
    """Each value that a flag can have is taken by the field that it is meant for."""
    for arguments in examples(flag):
        applied(*arguments)


@pytest.mark.real_engine
def test_values_arrive_where_llama_cpp_looks_for_them() -> None:
    """One of each kind: number, enumeration, nested field, list, and those that are made from others."""
    parameters = applied(
        *("-m", "m.gguf", "-c", "4096", "-ctk", "q8_0", "-fa", "on", "-t", "3", "-a", "one,two", "--api-key", "k1,k2"),
        *("--lora-scaled", "style.gguf:0.5", "--slot-save-path", "/slots", "--seed", "-1", "--rope-scale", "4"),
    )
    llama = program.library()
    assert (parameters.model.path, parameters.n_ctx) == ("m.gguf", 4096)
    assert parameters.cache_type_k == llama.ggml_type.GGML_TYPE_Q8_0
    assert parameters.flash_attn_type == llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
    assert (parameters.cpuparams.n_threads, parameters.cpuparams_batch.n_threads) == (3, 3)
    assert parameters.model_alias == {"one", "two"}
    assert parameters.api_keys == ["k1", "k2"]
    assert [(adapter.path, adapter.scale) for adapter in parameters.lora_adapters] == [("style.gguf", 0.5)]
    assert parameters.slot_save_path == "/slots/"
    assert parameters.sampling.seed == 2**32 - 1
    assert parameters.rope_freq_scale == 0.25


@pytest.mark.real_engine
def test_defaults_are_one_slot_on_loopback_port_8080() -> None:
    """Where llama-server would take four slots with one buffer, which loses restored prefixes."""
    parameters = applied("-m", "m.gguf", "-np", "-1")
    assert (parameters.n_parallel, parameters.kv_unified) == (1, False)
    assert (parameters.hostnames, parameters.port) == (["127.0.0.1"], 8080)
    assert parameters.cpuparams.n_threads >= 1


@pytest.mark.real_engine
def test_keys_come_from_file_and_environment_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key on a command line can be read by everybody on the machine."""
    (tmp_path / "keys").write_text("one\ntwo\n")
    assert applied("--api-key-file", str(tmp_path / "keys")).api_keys == ["one", "two"]
    monkeypatch.setenv("LLAMA_API_KEY", "three")
    assert applied().api_keys == ["three"]
    assert applied("--api-key", "four").api_keys == ["four"]


@pytest.mark.real_engine
def test_a_chat_template_comes_from_a_file(tmp_path: Path) -> None:
    """Lines and all."""
    (tmp_path / "chat.jinja").write_text("{{ one }}\n{{ two }}\n")
    assert applied("--chat-template-file", str(tmp_path / "chat.jinja")).chat_template == "{{ one }}\n{{ two }}"


@pytest.mark.real_engine
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--api-key-file", "/no/such"], "--api-key-file /no/such: "),
        (["--lora-scaled", "style.gguf"], "--lora-scaled style.gguf: expected FILE:SCALE"),
        (["--poll", "-1"], "--poll -1 is out of range: "),
        (["-c", "99999999999"], "--ctx-size 99999999999 is out of range: "),
    ],
)
def test_a_value_that_cannot_be_used_is_a_sentence(arguments: list[str], sentence: str) -> None:
    """With the flag in front: a file that is not there, a number that llama.cpp has no room for."""
    with pytest.raises(BioproxyError) as caught:
        applied(*arguments)
    assert caught.value.message.startswith(sentence)


def checked(**values: flags.Value) -> str:
    """What `check` says about these values."""
    with pytest.raises(ConfigError) as caught:
        program.check(program.DEFAULTS | {"port": 0} | values)
    return caught.value.message


def test_a_missing_model_a_missing_folder_and_no_gguf_are_told_before_the_start(tmp_path: Path) -> None:
    """llama.cpp would only log it, among a hundred lines."""
    (tmp_path / "m.gguf").write_bytes(b"text")
    assert checked() == "no model: give one with -m FILE"
    assert checked(**{"model.path": "/no/such"}) == "cannot read the model /no/such: No such file or directory"
    assert "is no GGUF file: it begins with b'text'" in checked(**{"model.path": str(tmp_path / "m.gguf")})
    assert "--slot-save-path /no/such is not a folder" in checked(slot_save_path="/no/such")


def test_a_taken_port_is_told_before_the_model_is_loaded() -> None:
    """Loading may take minutes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in checked(port=port)


@pytest.mark.parametrize("flag", flags.FLAGS, ids=lambda f: f.names[0])
def test_every_flag_stands_in_the_docs(flag: flags.Flag) -> None:
    """With all its names and what it means."""
    text = (Path(__file__).parents[3] / "docs" / "engine.md").read_text(encoding="utf-8").partition("## Flags of")[2]
    row = next((line for line in text.splitlines() if line.startswith(f"- `{flag.names[0]}`")), "")
    assert all(f"`{name}`" in row for name in flag.names)
    assert flag.meaning in row
