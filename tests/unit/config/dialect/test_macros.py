"""Macros, ports, IDs: their order, their types, their scope, and what is left over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.config.dialect.go import Scalar, write_scalar
from bioproxy.config.dialect.macros import USE, Macro, Macros, clean, fill_value
from bioproxy.config.dialect.read import read
from bioproxy.config.notes import Notes
from bioproxy.models.command import split
from support.swap_models import messages, problems, sources, swap

NAMES = st.sampled_from(["a", "b", "c", "d"])
TEXTS = st.lists(st.one_of(st.sampled_from(["x", " ", "$", "{", "}"]), NAMES.map(lambda n: f"${{{n}}}"))).map("".join)


def command(text: str) -> str:
    """The command of model m."""
    return swap(text).models["m"].cmd


def test_a_macro_sees_those_before_it() -> None:
    """The list is applied from its end."""
    assert command("macros: {a: 1, b: 'x${a}', c: '${b}${b}'}\nmodels: {m: {cmd: '${c} ${PORT}'}}") == "x1x1 5800"


def test_a_macro_does_not_see_those_behind_it() -> None:
    """A forward reference is left over and unknown."""
    text = "macros: {a: '${b}', b: 1}\nmodels: {m: {cmd: '${a} ${PORT}'}}"
    assert messages(text) == ["unknown macro '${b}' found in m.cmd"]


def test_a_models_macro_takes_the_global_ones_place() -> None:
    """So a global macro behind it sees the model's value."""
    text = """
        macros: {tag: common, message: "value-${tag}"}
        models:
          m: {cmd: "${message} ${PORT}", macros: {tag: special}}
          n: {cmd: "${message} ${PORT}"}
    """
    config = swap(text)
    assert (config.models["m"].cmd, config.models["n"].cmd) == ("value-special 5800", "value-common 5801")


def test_macros_that_only_a_model_has_come_last() -> None:
    """They may use global ones; global ones cannot use them."""
    assert command("macros: {a: 1}\nmodels: {m: {cmd: '${b} ${PORT}', macros: {b: '<${a}>'}}}") == "<1> 5800"
    text = "macros: {a: '${b}'}\nmodels: {m: {cmd: '${a} ${PORT}', macros: {b: 1}}}"
    assert messages(text) == ["unknown macro '${b}' found in m.cmd"]


def test_a_macro_alone_keeps_its_type() -> None:
    """A number stays a number; inside a text it is written as Go writes it."""
    text = """
        macros: {n: 4096, f: 0.7, t: true, big: 1000000.0, word: yes, s: "5"}
        models:
          m:
            cmd: "${n} ${f} ${t} ${big} ${word} ${PORT}"
            ttl: ${n}
            metadata: {n: "${n}", f: "${f}", t: "${t}", word: "${word}", s: "${s}", port: "${PORT}", mixed: "p${PORT}"}
    """
    model = swap(text).models["m"]
    assert model.cmd == "4096 0.7 true 1e+06 yes 5800"
    assert model.ttl == 4096
    assert model.metadata == {
        "n": 4096, "f": 0.7, "t": True, "word": "yes", "s": "5", "port": 5800, "mixed": "p5800",
    }  # fmt: skip


def test_keys_are_not_expanded() -> None:
    """Only values are, and the keys of filters.setParamsByID."""
    text = """
        macros: {k: key}
        models:
          m:
            cmd: x ${PORT}
            metadata: {"${k}": 1}
            filters: {setParamsByID: {"${k}-${MODEL_ID}": {a: 1}}}
    """
    model = swap(text).models["m"]
    assert model.metadata == {"${k}": 1}
    assert list(model.filters.set_params_by_id) == ["key-m"]


def test_global_macros_reach_every_top_level_value() -> None:
    """Keys, peers, hooks, numbers, and bioproxy's own keys in the same file."""
    text = """
        macros: {level: debug, key: sk-1, port: 9000, m: m, url: "http://p"}
        logLevel: ${level}
        startPort: ${port}
        apiKeys: ["${key}"]
        models: {m: {cmd: "x ${PORT}"}}
        hooks: {on_startup: {preload: ["${m}"]}}
        peers: {p: {proxy: "${url}", models: ["q-${m}"]}}
        backend_key: ${key}
    """
    found = read(sources(text))
    config = found.config
    assert (config.log_level, config.api_keys, config.models["m"].cmd) == ("debug", ("sk-1",), "x 9000")
    assert config.hooks.on_startup.preload == ("m",)
    assert (config.peers["p"].proxy, config.peers["p"].models) == ("http://p", ("q-m",))
    assert found.own["backend_key"].value == "sk-1"


def test_anchored_blocks_expand_per_model() -> None:
    """A merge key brings the text, the model its meaning."""
    text = """
        x-base: &base {cmd: "run ${MODEL_ID} ${PORT}", ttl: 5}
        models:
          a: {<<: *base}
          b: {<<: *base, ttl: 6}
    """
    config = swap(text)
    assert [model.cmd for model in config.models.values()] == ["run a 5800", "run b 5801"]
    assert [model.ttl for model in config.models.values()] == [5, 6]


def test_comment_lines_of_commands_go_first() -> None:
    """What looks like a macro in them is none."""
    text = """
        models:
          m:
            cmd: |
              # ${nothing}
              run ${PORT}

                # ${MODEL_ID} ${HOME}
              --last # stays
            cmdStop: |
              # ${nothing}
              stop ${PID}
    """
    model = swap(text).models["m"]
    assert model.cmd == "run 5800\n\n--last # stays\n"
    assert model.cmd_stop == "stop ${PID}\n"


def test_ports_go_by_sorted_ids_and_only_to_who_asks() -> None:
    """The order in the file does not matter."""
    text = """
        models:
          c: {cmd: "c ${PORT}"}
          b: {cmd: b, proxy: "http://localhost:1"}
          a: {cmd: "a ${PORT}", proxy: "http://h:${PORT}/x", cmdStop: "s ${PORT}", env: ["P=${PORT}"]}
          B: {cmd: "B ${PORT}"}
    """
    models = swap(text).models
    assert {name: model.cmd for name, model in models.items()} == {
        "c": "c 5802",
        "b": "b",
        "a": "a 5801",
        "B": "B 5800",
    }
    assert (models["a"].proxy, models["a"].cmd_stop, models["a"].env) == ("http://h:5801/x", "s 5801", ("P=5801",))


def test_ports_end_somewhere() -> None:
    """Beyond 65535 there is none."""
    text = "startPort: 65535\nmodels: {a: {cmd: 'x ${PORT}'}, b: {cmd: 'x ${PORT}'}}"
    assert [(each.key, each.message[:31]) for each in problems(text)] == [
        ("models.b.cmd", "there is no port left for it: s")
    ]


LONG = "n" * 64


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        (f"{{{LONG}: 1}}", f"macro name '{LONG}' exceeds maximum length of 63 characters"),
        ("{a.b: 1}", "macro name 'a.b' contains invalid characters, must match pattern ^[a-zA-Z0-9_-]+$"),
        ("{PID: 1}", "macro name 'PID' is reserved"),
        ("{PORT: 1}", "macro name 'PORT' is reserved"),
        ("{MODEL_ID: 1}", "macro name 'MODEL_ID' is reserved"),
        ("{a: 'x${a}'}", "macro 'a' contains self-reference"),
        (
            "{a: [1]}",
            "macro 'a' has invalid type []interface {}, must be a scalar type (string, int, float, or bool)",
        ),
        (
            "{a: {b: 1}}",
            "macro 'a' has invalid type map[string]interface {}, must be a scalar type (string, int, float, or bool)",
        ),
        ("{a: ~}", "macro 'a' has invalid type <nil>, must be a scalar type (string, int, float, or bool)"),
        ("[a]", "macros must be a mapping"),
    ],
)
def test_broken_declarations(declaration: str, message: str) -> None:
    """The same at the top and in a model, where the message begins with the model."""
    assert messages(f"macros: {declaration}") == [message]
    model = f"models: {{m: {{cmd: 'x ${{PORT}}', macros: {declaration}}}}}"
    assert messages(model) == [f"model m: {message}"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("cmd: 'x ${PORT} ${HOME}'", "unknown macro '${HOME}' found in m.cmd"),
        ("cmd: 'x ${PORT} ${PID}'", "unknown macro '${PID}' found in m.cmd"),
        ("cmd: 'x ${PORT}', cmdStop: '${x}'", "unknown macro '${x}' found in m.cmdStop"),
        ("cmd: 'x', proxy: 'http://${x}'", "unknown macro '${x}' found in m.proxy"),
        ("cmd: 'x ${PORT}', checkEndpoint: '/${x}'", "unknown macro '${x}' found in m.checkEndpoint"),
        ("cmd: 'x ${PORT}', filters: {stripParams: '${x}'}", "unknown macro '${x}' found in m.filters.stripParams"),
        ("cmd: 'x ${PORT}', name: '${x}'", "unknown macro '${x}' found in m.name"),
        ("cmd: 'x ${PORT}', description: '${x}'", "unknown macro '${x}' found in m.description"),
        ("cmd: x, proxy: 'http://h', name: '${PORT}'", "macro '${PORT}' should have been substituted in m.name"),
        ("cmd: 'x ${PORT}', metadata: {a: [{b: '${x}'}]}", "model m metadata: unknown macro '${x}'"),
        ("cmd: 'x ${PORT}', capabilities: {context: '${x}'}", "model m capabilities: unknown macro '${x}'"),
        ("cmd: 'x ${PORT}', env: ['A=${x}']", "model m env[0]: unknown macro '${x}'"),
        ("cmd: 'x ${PORT}', ttl: '${x}'", "model m ttl: unknown macro '${x}'"),
        (
            "cmd: 'x ${PORT}', filters: {setParamsByID: {'${x}': {}}}",
            "unknown macro '${x}' found in model m filters.setParamsByID key",
        ),
        (
            "cmd: 'x ${PORT}', filters: {setParamsByID: {'${MODEL_ID}': {}, m: {}}}",
            'model m filters.setParamsByID: keys "${MODEL_ID}" and "m" resolve to the same value',
        ),
        (
            "cmd: x",
            "model m: proxy uses ${PORT} but cmd does not - ${PORT} is only available when used in cmd",
        ),
        (
            "cmd: x, proxy: 'http://h:${PORT}'",
            "model m: proxy uses ${PORT} but cmd does not - ${PORT} is only available when used in cmd",
        ),
    ],
)  # fmt: skip
def test_what_is_left_over_in_a_model(model: str, message: str) -> None:
    """Each kind of field has its own wording, and nothing else is said about it."""
    assert messages(f"models: {{m: {{{model}}}}}") == [message]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("apiKeys: ['${x}']", "apiKeys[0]: unknown macro '${x}'"),
        ("peers: {P: {proxy: 'http://p', models: [m], apiKey: '${x}'}}", "peers.P.apiKey: unknown macro '${x}'"),
        ("logLevel: '${MODEL_ID}'", "logLevel: unknown macro '${MODEL_ID}'"),
        ("globalTTL: '${x}'", "globalTTL: unknown macro '${x}'"),
    ],
)
def test_what_is_left_over_at_the_top(text: str, message: str) -> None:
    """The path of the value begins the message."""
    assert messages(text) == [message]


def test_what_nobody_reads_may_hold_anything() -> None:
    """Blocks of anchors, and unknown keys of a model."""
    assert swap("x-a: '${x}'\nhelper: '${x}'\nmodels: {m: {cmd: 'x ${PORT}', other: '${x}'}}").models


def test_all_leftovers_come_at_once_with_their_lines() -> None:
    """llama-swap stops at the first; its wording stays."""
    found = problems("models:\n  b:\n    cmd: x ${PORT} ${one}\n    name: ${two}\n  a:\n    cmd: y\n")
    assert [(problem.where, problem.key) for problem in found] == [
        ("a.yaml:5", "models.a.proxy"),
        ("a.yaml:3", "models.b.cmd"),
        ("a.yaml:4", "models.b.name"),
    ]


def test_macros_that_double_each_other_end() -> None:
    """Sixty of them would be longer than any memory."""
    text = "macros:\n  m0: xxxxxxxx\n" + "".join(f"  m{n + 1}: '${{m{n}}}${{m{n}}}'\n" for n in range(60))
    found = messages(text + "models: {m: {cmd: '${m60} ${PORT}'}}")
    assert found[0].startswith("macros and variables make the configuration longer by more than 8,388,608 characters")


def filled(text: str, macros: list[Macro]) -> Scalar:
    """A text with macros applied."""
    return fill_value(text, Macros(macros), (), Notes([]))


def one_by_one(text: str, macros: list[Macro]) -> Scalar:
    """The rule as llama-swap has it: every macro once, from the last to the first."""
    for macro in reversed(macros):
        if text == macro.use and not isinstance(macro.value, str):
            return macro.value
        text = text.replace(macro.use, write_scalar(macro.value))
    return text


@given(st.lists(st.tuples(NAMES, TEXTS | st.integers()), max_size=4, unique_by=lambda pair: pair[0]), TEXTS)
def test_only_macros_that_occur_are_applied_to_the_same_end(declared: list[tuple[str, str | int]], text: str) -> None:
    """Also where one is put together of two others."""
    macros = [Macro(name, value) for name, value in declared]
    assert filled(text, macros) == one_by_one(text, macros)


def test_two_thousand_macros_cost_a_model_no_more_than_the_two_that_it_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    """So two thousand macros and five thousand models are ten thousand steps, not ten million."""
    asked: list[str] = []
    find = Macros.find

    def counted(self: Macros, name: str) -> tuple[int, Macro] | None:
        asked.append(name)
        return find(self, name)

    monkeypatch.setattr(Macros, "find", counted)
    macros = "".join(f"  m{n}: {n}\n" for n in range(2000))
    swap(f"macros:\n{macros}models: {{m: {{cmd: 'x ${{PORT}} ${{m7}} ${{m1999}}'}}}}")
    assert len(asked) < 30


@given(st.lists(st.tuples(NAMES, TEXTS), max_size=4, unique_by=lambda pair: pair[0]), TEXTS)
def test_an_expansion_ends_and_is_final(declarations: list[tuple[str, str]], text: str) -> None:
    """Without forward references nothing is left that a second pass would change."""
    seen: set[str] = set()
    macros = []
    for name, value in declarations:
        if set(USE.findall(value)) <= seen and "$" not in USE.sub("", value):
            macros.append(Macro(name, value))
            seen.add(name)
    once = filled(text.replace("$", "") if "$" in USE.sub("", text) else text, macros)
    assert isinstance(once, str)
    assert filled(once, macros) == once
    assert not seen & set(USE.findall(once))


@given(st.lists(NAMES, unique=True), st.lists(NAMES, unique=True))
def test_the_list_of_a_model_keeps_the_global_order(common: list[str], special: list[str]) -> None:
    """The ID first, global names in their order with the model's values, then the model's own."""
    shared = Macros(Macro(name, "global") for name in common)
    macros = Macros((Macro(name, "model") for name in special), common=shared, model="m")
    order = ["MODEL_ID", *common, *(name for name in special if name not in common)]
    found = [macros.find(name) for name in order]
    places = [one[0] for one in found if one is not None]
    assert places == sorted(set(places))
    assert len(places) == len(order)
    assert all(one[1].value == ("model" if one[1].name in special else "global") for one in found[1:] if one)


COMMANDS = """
    macros:
      options: |
        # fast
        --threads 8 \\
          # and large
        -c 4096 \\
      name: "#one"
    models:
      m:
        cmd: "run ${PORT} ${options}\\n# no ${nothing}\\n--end ${name} \\\\  "
        cmdStop: |
          ${options}
          stop
"""


def test_what_a_macro_brings_into_a_command_is_cleaned_up() -> None:
    """Comment lines go, wherever the macro stands; a backslash at a line's end goes with the blanks behind it."""
    model = swap(COMMANDS.replace("8 \\", "8 \\ ")).models["m"]
    assert split(model.cmd) == ["run", "5800", "--threads", "8", "-c", "4096", "--end", "#one"]
    assert split(model.cmd_stop) == ["--threads", "8", "-c", "4096", "stop"]


@pytest.mark.parametrize(
    ("line", "words"), [("a \\ ", ["a"]), ("a \\\\", ["a", "\\"]), ("'a #b'", ["a #b"]), ("a # b", ["a", "#", "b"])]
)
def test_what_else_ends_a_line_stays(line: str, words: list[str]) -> None:
    """Two backslashes are one that was meant, and # begins a comment at a line's beginning only."""
    assert split(clean(f"{line}\nx")) == [*words, "x"]
