"""llama.cpp's router presets as configs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.config.dialect.read import read_dialect
from bioproxy.config.dialect.schema import DialectConfig
from bioproxy.config.files import Source
from bioproxy.errors import ConfigError
from bioproxy.models.command import split
from bioproxy.recipes.options import OPTIONS, option_of, words_of
from bioproxy.recipes.preset import ONE_AT_A_TIME, translate

START = ["llama-server", "--host", "127.0.0.1", "--port", "5800"]


def config_of(text: str) -> DialectConfig:
    found = read_dialect([Source("c.yaml", translate(text, path="p.ini").text)], environment={})
    assert (found.unknown, found.warnings) == ((), ())
    return found


def arguments(section: str) -> list[str]:
    """The words of a model `m`, behind those that every model has; `section` are its lines."""
    words = split(config_of(f"[m]\nmodel = x.gguf\n{section}").models["m"].cmd)
    assert words[:5] == START
    assert words[5:7] == ["--model", "x.gguf"]
    return words[7:]


def notes(text: str) -> tuple[str, ...]:
    return translate(text, path="p.ini").notes


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ctx-size = 4096", ["--ctx-size", "4096"]),
        ("c=4096", ["-c", "4096"]),
        ("-c = 4096", ["-c", "4096"]),
        ("--ctx-size = 4096 ; tokens", ["--ctx-size", "4096"]),
        ("LLAMA_ARG_CTX_SIZE = 4096", ["--ctx-size", "4096"]),
        ("LLAMA_ARG_N_PARALLEL = 2", ["--parallel", "2"]),
        ("LLAMA_ARG_N_GPU_LAYERS = all", ["--n-gpu-layers", "all"]),
        ("flash-attn = on", ["--flash-attn", "on"]),
        ("jinja = true", ["--jinja"]),
        ("jinja = off", ["--no-jinja"]),
        ("no-mmap = 1", ["--no-mmap"]),
        ("no-mmap = false", ["--mmap"]),
        ("LLAMA_ARG_MMAP = disabled", ["--no-mmap"]),
        ("metrics = 1", ["--metrics"]),
        ("metrics = 0", []),
        ("no-host = true", ["--no-host"]),
        ("mmproj = p.gguf", ["--mmproj", "p.gguf"]),
        ("no-mmproj = true", ["--no-mmproj"]),
        ('chat-template-kwargs = {"a": "it\'s"}', ["--chat-template-kwargs", '{"a": "it\'s"}']),
        ("grammar-file = a b.gbnf", ["--grammar-file", "a b.gbnf"]),
        ("sleep-idle-seconds = 60", ["--sleep-idle-seconds", "60"]),
    ],
)
def test_an_option_becomes_an_argument(line: str, words: list[str]) -> None:
    """Under any of its names; a switch without its value, or as its opposite."""
    assert arguments(line) == words


def test_a_models_key_wins_over_the_common_one() -> None:
    """Whatever the two are called; what only one has is kept."""
    text = "[*]\nc = 1\nmmap = true\ntemp = 0.5\n[m]\nmodel = x\nctx-size = 2\nno-mmap = true\n"
    assert split(config_of(text).models["m"].cmd)[5:] == [
        "--ctx-size",
        "2",
        "--no-mmap",
        "--temp",
        "0.5",
        "--model",
        "x",
    ]


def test_the_common_section_may_stand_last() -> None:
    """Its place in the file says nothing."""
    assert "--jinja" in split(config_of("[m]\nmodel = x\n[*]\njinja = on\n").models["m"].cmd)


def test_the_routers_own_options_become_keys() -> None:
    """Aliases, tags, the time to stop, and what is loaded at the start."""
    config = config_of(
        "[m]\nmodel = x\nalias = a, b,m\ntags = fast,small\nstop-timeout = 30\nload-on-startup = true\n"
        "hf-token = secret\n[n]\nmodel = y\nload-on-startup = false\n"
    )
    model = config.models["m"]
    assert model.aliases == ("a", "b")
    assert model.metadata == {"tags": ["fast", "small"]}
    assert model.unload_timeout == 30
    assert model.env == ("HF_TOKEN=secret",)
    assert config.hooks.on_startup.preload == ("m",)
    assert split(model.cmd) == [*START, "--model", "x"]


def test_a_section_may_be_named_after_a_repository() -> None:
    """Then nothing else need say what is loaded."""
    words = split(config_of("[ggml-org/gemma:Q4_K_M]\nc = 1\n").models["ggml-org/gemma:Q4_K_M"].cmd)
    assert words[5:7] == ["--hf-repo", "ggml-org/gemma:Q4_K_M"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[m]\nmodel = x\nport = 1\n", "port: bioproxy decides"),
        ("[m]\nmodel = x\napi-key = k\n", "api-key: write apiKeys"),
        ("[*]\nmodels-max = 2\n[m]\nmodel = x\n", "models-max: write groups or a matrix"),
        ("[m]\nmodel = x\nfoo-bar = 1\n", "foo-bar: not known here; passed on"),
        ("[m]\nmodel = x\nstop-timeout = soon\n", "[m] stop-timeout = soon: not understood"),
        ("[m]\nmodel = x\npath = ${y}\n", "[m] path: a value with ${"),
        ("[m]\nmodel = x\n[n]\nc = 1\n", "[n] names no model file"),
        ("c = 1\n[m]\nmodel = x\n", "line 1: c belongs to no model"),
        ("[m]\nmodel = x\nsamplers = top_k;temp\n", "line 3: the value of samplers ends at ;"),
        ("[m]\nmodel = x\n[n]\nmodel = y\n", ONE_AT_A_TIME),
    ],
)
def test_what_has_no_counterpart_is_named(text: str, said: str) -> None:
    """Beside the config and in it, and what is left of it loads."""
    translated = translate(text, path="p.ini")
    [note] = [note for note in translated.notes if note.startswith(said)]
    assert f"# - {note}\n" in translated.text
    assert config_of(text).models


def test_a_whole_translation_has_no_notes() -> None:
    """`version` is for the reader of presets."""
    assert notes("version = 1\n; mine\n\n[m]\nmodel = x\nc = 1\n") == ()


def test_an_unknown_option_is_passed_on_with_its_value() -> None:
    """A newer llama-server may know it."""
    assert arguments("foo-bar = a b") == ["--foo-bar", "a b"]


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
def test_line_ends_of_all_systems_are_read(end: str) -> None:
    """As llama.cpp does; a byte order mark too."""
    text = end.join(["\ufeff# c", "[ m ]  ; c", "", "model = x", "c = 7"])
    assert split(config_of(text).models["m"].cmd)[5:] == ["--model", "x", "-c", "7"]


def test_of_equal_sections_and_keys_the_last_counts() -> None:
    """As llama.cpp reads it."""
    assert arguments("c = 1\nctx-size = 2\n") == ["--ctx-size", "2"]
    config = config_of("[m]\nmodel = x\nc = 1\n[m]\nmodel = y\n")
    assert split(config.models["m"].cmd)[5:] == ["--model", "y"]


def test_broken_lines_are_all_told() -> None:
    """With their numbers."""
    with pytest.raises(ConfigError) as caught:
        translate("[m]\nwhat is this\nmodel = x\n= 3\n", path="p.ini")
    assert [problem.where for problem in caught.value.problems] == ["p.ini:2", "p.ini:4"]


@pytest.mark.parametrize("text", ["", "; nothing", "[*]\nc = 1\n", "[m]\nc = 1\n"])
def test_a_preset_without_a_model_is_refused(text: str) -> None:
    """An empty config would look like success."""
    with pytest.raises(ConfigError, match="no model in this preset"):
        translate(text, path="p.ini")


def test_no_name_means_two_options() -> None:
    """Each name stands once in the tables, and each switch's opposite is its own."""
    assert len({option.flag for option in OPTIONS.values()}) == len(OPTIONS)
    for option in OPTIONS.values():
        if option.off:
            assert option_of(option.off).name == option.name
            assert words_of(option, "false") == [option.off]


LINES = st.lists(st.tuples(st.sampled_from(sorted(OPTIONS)), st.text(st.characters(codec="ascii"), max_size=12)))


@given(LINES)
def test_whatever_stands_in_a_preset_loads_or_is_refused(pairs: list[tuple[str, str]]) -> None:
    """Values with quotes, signs and control characters as well."""
    text = "[m]\nmodel = x\n" + "".join(f"{key} = {value}\n" for key, value in pairs)
    try:
        translated = translate(text, path="p\n.ini")
    except ConfigError:
        return
    read_dialect([Source("c.yaml", translated.text)], environment={})
