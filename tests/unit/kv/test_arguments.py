"""Launch arguments: what makes two caches incompatible, and what they make impossible."""

from __future__ import annotations

import math

import pytest

from bioproxy.kv.arguments import parse

SERVER = ("/usr/bin/llama-server", "-m", "/models/a.gguf", "--port", "8081", "-np", "1", "-c", "8192")


def test_spellings_and_order_do_not_matter() -> None:
    """-ctk and --cache-type-k are one argument, wherever it stands."""
    one = parse((*SERVER, "-ctk", "q8_0", "-fa", "on"))
    other = parse(("llama-server", "--flash-attn", "on", "--cache-type-k", "q8_0", "-m", "/elsewhere/a.gguf"))
    assert one.shaping == other.shaping == (("--cache-type-k", ("q8_0",)), ("--flash-attn", ("on",)))


@pytest.mark.parametrize(
    "harmless", [("--port", "9000"), ("-t", "8"), ("-c", "4096"), ("-ngl", "99"), ("--api-key", "x"), ("-b", "2048")]
)
def test_what_does_not_shape_the_cache_is_left_out(harmless: tuple[str, ...]) -> None:
    """Another port, thread count, context size or GPU split loses no snapshot."""
    assert parse((*SERVER, *harmless)).shaping == parse(SERVER).shaping


@pytest.mark.parametrize("shaping", ["--rope-scale 2", "--swa-full", "--flag-of-tomorrow 3", "--override-kv a=int:1"])
def test_what_is_not_known_to_be_harmless_counts(shaping: str) -> None:
    """A flag that nobody has heard of costs a cold start, never a wrong answer."""
    assert parse((*SERVER, *shaping.split())).shaping != parse(SERVER).shaping


def test_separate_buffers_per_slot_are_another_file_format() -> None:
    """facts, 1: a file of -np 1 is refused by -np 4 --no-kv-unified."""
    assert parse((*SERVER[:-4], "-np", "4", "--no-kv-unified")).shaping != parse(SERVER).shaping


def test_what_the_operator_writes_counts_like_the_command_line() -> None:
    """`kv.fingerprint` stands for what cannot be read, with or without an equals sign."""
    seen = parse((*SERVER, "--swa-full", "--cache-type-k", "q8_0"))
    told = parse((), "--swa-full --cache-type-k=q8_0")
    assert seen.shaping == told.shaping
    assert parse((), "it's mine").shaping == ()


def test_the_environment_counts_too_and_the_command_line_wins() -> None:
    """LLAMA_ARG_… sets the same flags."""
    environment = ("LLAMA_ARG_CACHE_TYPE_K=q8_0", "LLAMA_ARG_N_PARALLEL=4", "HOME=/root")
    found = parse((*SERVER[:-4], "-np", "1"), environment=environment)
    assert found.shaping == (("--cache-type-k", ("q8_0",)),)
    assert found.last("--parallel") == "1"


def test_python_running_the_embedded_engine_is_no_argument() -> None:
    """`python -m bioproxy.embedded -m FILE`: two -m, one of them a model."""
    found = parse(("python", "-m", "bioproxy.embedded", "-m", "/models/a.gguf", "--swa-full"))
    assert found.last("--model") == "/models/a.gguf"
    assert found.shaping == (("--swa-full", ()),)


def test_what_adds_to_the_model_is_named() -> None:
    """Projector, LoRA and control vectors, with their scales."""
    found = parse((*SERVER, "--lora", "/l/a.gguf", "--lora-scaled", "/l/b.gguf:0.5", "-mm", "/p.gguf"))
    assert found.files == (
        ("--mmproj", "/p.gguf", ""),
        ("--lora", "/l/a.gguf", ""),
        ("--lora-scaled", "/l/b.gguf", "0.5"),
    )


@pytest.mark.parametrize(
    ("flags", "draft"),
    [("", False), ("-md /d.gguf", True), ("--spec-type none", False), ("--spec-type ngram", True), ("-hfd a/b", True)],
)
def test_a_draft_model_is_noticed(flags: str, *, draft: bool) -> None:
    """Rule 7."""
    assert parse((*SERVER, *flags.split())).draft is draft


@pytest.mark.parametrize(
    ("flags", "clears"),
    [
        ("", False),
        ("-np -1", True),
        ("-np -1 --no-kv-unified", True),
        ("-np 4", False),
        ("-np 4 -kvu", True),
        ("-np 4 -kvu --no-cache-idle-slots", False),
        ("-np 4 -kvu --no-kv-unified", False),
        ("-np -1 -cram 0", False),
    ],
)
def test_cleared_idle_slots_are_noticed(flags: str, *, clears: bool) -> None:
    """facts, 0.10: several slots on one buffer, as llama-server makes them if it is not told how many."""
    assert parse((*SERVER, *flags.split())).clears_idle_slots is clears


@pytest.mark.parametrize(("value", "clears"), [("0", False), ("off", False), ("1", True)])
def test_idle_slots_may_be_kept_by_a_variable(value: str, *, clears: bool) -> None:
    """As llama-server reads it; the embedded engine reads no variables."""
    told = (f"LLAMA_ARG_CACHE_IDLE_SLOTS={value}",)
    assert parse((*SERVER, "-np", "4", "-kvu"), environment=told).clears_idle_slots is clears
    assert parse((*PYTHON, "-np", "4", "-kvu"), environment=told).clears_idle_slots


PYTHON = ("/venv/bin/python", "-m", "bioproxy.embedded", "-m", "/models/a.gguf")
VERB = ("/venv/bin/python", "/venv/bin/bioproxy", "engine", "-m", "/models/a.gguf")
MODULE = ("python", "-m", "bioproxy", "engine", "-m", "/models/a.gguf")


@pytest.mark.parametrize("program", [PYTHON, VERB, MODULE])
def test_the_embedded_engine_has_a_buffer_per_slot(program: tuple[str, ...]) -> None:
    """facts, 4: with `-np 4` alone nothing is cleared there, and its files have the other format."""
    found = parse((*program, "-np", "4"))
    assert (found.clears_idle_slots, found.last("--model")) == (False, "/models/a.gguf")
    assert found.shaping == (("--parallel", ("4",)),)


@pytest.mark.parametrize("program", [PYTHON, VERB, MODULE])
@pytest.mark.parametrize("flag", ["-kvu", "--kv-unified"])
def test_the_embedded_engine_may_share_one_buffer(program: tuple[str, ...], flag: str) -> None:
    """Where the flag is given it is like llama-server."""
    found = parse((*program, "-np", "4", flag))
    assert (found.clears_idle_slots, found.shaping) == (True, ())


def test_one_slot_of_the_embedded_engine_shapes_nothing() -> None:
    """Nor does a model in a folder called engine make another program of it."""
    assert parse((*VERB, "-np", "1")).shaping == parse(VERB).shaping == ()
    assert not parse(("llama-server", "-m", "engine")).embedded


def test_an_engine_that_sleeps_says_when() -> None:
    """--sleep-idle-seconds drops model and cache; -1 and nothing mean never."""
    assert parse((*SERVER, "--sleep-idle-seconds", "300")).sleeps_after == 300
    assert parse((*SERVER, "--sleep-idle-seconds", "-1")).sleeps_after == math.inf
    assert parse(SERVER).sleeps_after == math.inf
    assert parse(SERVER).ram_cache
    assert not parse((*SERVER, "--cache-ram", "0")).ram_cache
