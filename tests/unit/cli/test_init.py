"""`bioproxy init`: what it finds in a home of the test's own, what it asks, and the file that it writes."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bioproxy.cli import init, machine, running
from bioproxy.cli.main import main
from bioproxy.config.dialect.read import read_dialect
from bioproxy.config.files import Source
from bioproxy.engines import library
from support.command import Ended, program
from support.gguf_files import QWEN, header, layers, ollama, write

Json = Any
GIB, MIB = 1 << 30, 1 << 20
CUDA = "Available devices:\n  CUDA0: NVIDIA GeForce RTX 3090 (24124 MiB, 23871 MiB free)\n"
NAMED = ("HF_", "XDG_", "OLLAMA", "LLAMA", "LOCALAPPDATA", "BIOPROXY")
TEMPLATE = {**QWEN, "tokenizer.chat_template": "{{ messages }}"}
SWAP = """\
# my models, and why
models:
  a:  # small
    cmd: sh -c 'sleep 1' --port ${PORT}
"""


class Terminal(io.StringIO):
    """Somebody who types these lines."""

    def isatty(self) -> bool:
        return True


class Home:
    """A home, a machine and the command in it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.capsys = capsys
        self.monkeypatch = monkeypatch
        self.config = folder / ".config" / "bioproxy" / "config.yaml"

    def engine(self, devices: str = CUDA) -> None:
        """A llama-server on PATH that has these devices."""
        program(self.folder / "bin" / "llama-server", prints=devices)

    def model(self, name: str = "models/Qwen3-8B-Q4_K_M.gguf", keys: Json = TEMPLATE, size: int = 110 * MIB) -> Path:
        """A model of about 36 times this size."""
        return write(self.folder / name, keys, {"token_embd.weight": 333 * MIB, **layers(36, ffn_up=size)})

    def run(self, *words: object, typed: str | None = None) -> Ended:
        """The verb, with somebody at a terminal who types that."""
        self.monkeypatch.setattr(sys, "stdin", io.StringIO() if typed is None else Terminal(typed))
        code = main(["init", *map(str, words)])
        printed = self.capsys.readouterr()
        return Ended(code, printed.out, printed.err)

    def written(self) -> Json:
        """The file's content as llama-swap's dialect reads it."""
        return read_dialect([Source(str(self.config), self.config.read_text())], environment={})


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Home:
    """A machine with an engine and a card of 24 GiB, on which nothing runs."""
    for name in [one for one in os.environ if one.startswith(NAMED)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", os.pathsep.join((f"{tmp_path}/bin", "/usr/bin", "/bin")))
    monkeypatch.setattr(machine, "memory_of_machine", lambda: 64 * GIB)
    monkeypatch.setattr(running, "processes", list)
    monkeypatch.setattr(running, "USUAL", ())
    monkeypatch.setattr(library, "EVERYBODYS", ())
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    found = Home(tmp_path, capsys, monkeypatch)
    found.engine()
    return found


def test_the_file_explains_each_number(home: Home) -> None:
    """Schema line, what the model takes, why its flags are what they are."""
    home.model()
    assert home.run("--yes").code == 0
    text = home.config.read_text()
    assert text.startswith("# yaml-language-server: $schema=llama-swap.schema.json\n")
    assert text.endswith(f"""\
models:
  # Qwen3 8B: qwen3, Q4_K_M, 36 layers
  # 10.0 of 23.6 GiB on the card: weights 4.2, KV cache 5.6, compute 0.1; 0.4 GiB in memory
  # -c 40960: what it was trained for
  # -np 1: 3 slots with as long a context would fit (bioproxy init --slots 3)
  # -ngl 999: all layers on the card
  "Qwen3-8B-Q4_K_M":
    cmd: |
      ${{engine}}
      --model {home.folder / "models/Qwen3-8B-Q4_K_M.gguf"}
      -c 40960 -np 1 -ngl 999
""")
    assert json.loads((home.config.parent / "llama-swap.schema.json").read_text())["$defs"]


def test_it_ends_with_check_and_says_how_to_start(home: Home) -> None:
    """And the file is one that `check` finds good: swaps are warm."""
    home.model()
    ended = home.run("--yes")
    assert f"{home.config}: good" in ended.out
    assert "Qwen3-8B-Q4_K_M  warm" in ended.out
    assert ended.out.endswith("start it: bioproxy\nclients connect to http://localhost:8088\n")


def test_the_command_is_the_engines(home: Home) -> None:
    """A port of ours, a batch that ends soon, and one slot."""
    home.model()
    home.run("--yes")
    cmd = home.written().models["Qwen3-8B-Q4_K_M"].cmd
    assert cmd.split()[:8] == [
        f"{home.folder}/bin/llama-server",
        "--host",
        "127.0.0.1",
        "--port",
        "5800",
        "-b",
        "512",
        "--metrics",
    ]


def test_slots_that_were_asked_for_are_explained(home: Home) -> None:
    """Each has a context as long as a single one would have had, for there is room."""
    home.model()
    home.run("--yes", "--slots", "2")
    text = home.config.read_text()
    assert "-c 81920: 40,960 tokens a slot; what it was trained for\n" in text
    assert "-np 2: 3 slots with as long a context would fit" in text
    assert home.written().models["Qwen3-8B-Q4_K_M"].cmd.split()[-6:] == ["-c", "81920", "-np", "2", "-ngl", "999"]


def test_somebody_at_a_terminal_chooses(home: Home) -> None:
    """By numbers; a wrong answer is asked again."""
    for name in "abc":
        home.model(f"models/{name}.gguf", {**TEMPLATE, "general.name": name})
    ended = home.run(typed="4\n1, 3\ny\n")
    assert ended.code == 0
    assert "Numbers from 1 to 3, please" in ended.out
    assert list(home.written().models) == ["a", "c"]


@pytest.mark.parametrize("typed", ["\nn\n", "\n", ""])
def test_a_no_writes_nothing(home: Home, typed: str) -> None:
    """Neither does the end of the input."""
    home.model()
    ended = home.run(typed=typed)
    assert (ended.code, home.config.exists()) == (1, False)
    assert "nothing was written" in ended.err


def test_without_a_terminal_it_needs_yes(home: Home) -> None:
    """A script does not hang at a question."""
    home.model()
    assert "--yes" in home.run().err
    assert not home.config.exists()


def test_what_was_there_stays_beside(home: Home) -> None:
    """Each time under a name of its own, whichever of the default files it was."""
    home.model()
    home.config.parent.mkdir(parents=True)
    old = home.config.parent / "conf.json"
    old.write_text('{"proxy_port": 9000}')
    ended = home.run(typed="\n\n")
    assert "What is there stays as conf.json.old." in ended.out
    assert home.run("--yes").code == 0
    assert {path.name for path in home.config.parent.iterdir()} == {
        "config.yaml", "config.yaml.old", "conf.json.old", "llama-swap.schema.json",
    }  # fmt: skip
    assert (home.config.parent / "conf.json.old").read_text() == '{"proxy_port": 9000}'


def test_another_file_may_be_named(home: Home) -> None:
    """Then the command that starts it names it, too; the default places stay as they are."""
    home.model()
    home.config.parent.mkdir(parents=True)
    home.config.write_text("{}")
    target = home.folder / "team" / "proxy.yaml"
    ended = home.run("--yes", "-config", target)
    assert f"start it: bioproxy -config {target}" in ended.out
    assert (target.exists(), home.config.read_text()) == (True, "{}")
    assert "YAML" in home.run("--yes", "-config", home.folder / "proxy.json").err


@pytest.mark.parametrize("by", ["flag", "variable"])
def test_the_folder_of_a_configuration_may_be_named(home: Home, by: str) -> None:
    """The file is written there, and checked with the others of that folder; the default place stays as it is."""
    home.model()
    folder = home.folder / "team.d"
    folder.mkdir()
    (folder / "other.yaml").write_text("models: {other: {cmd: 'sh --port ${PORT}'}}\n")
    if by == "variable":
        home.monkeypatch.setenv("BIOPROXY_CONFIG_DIR", str(folder))
    ended = home.run("--yes", *(["-config-dir", folder] if by == "flag" else []))
    assert (ended.code, home.config.exists()) == (0, False)
    assert f"wrote {folder / 'config.yaml'}" in ended.out
    assert re.search(r"^ *other ", ended.out, re.MULTILINE)
    assert f"start it: bioproxy -config-dir {folder}\n" in ended.out


def test_a_file_beside_a_folder_is_checked_with_it(home: Home) -> None:
    """As the two are used."""
    home.model()
    (home.folder / "team.d").mkdir()
    target, folder = home.folder / "own.yaml", home.folder / "team.d"
    ended = home.run("--yes", "-config", target, "-config-dir", folder)
    assert (ended.code, [*folder.iterdir()]) == (0, [])
    assert f"start it: bioproxy -config {target} -config-dir {folder}\n" in ended.out


def test_a_folder_may_be_named(home: Home) -> None:
    """Beside the usual ones."""
    home.model("elsewhere/x.gguf")
    assert home.run("--yes", home.folder / "elsewhere").code == 0
    assert list(home.written().models) == ["x"]


def test_a_folder_that_is_not_there_is_a_mistake(home: Home) -> None:
    """Somebody named it."""
    home.model()
    assert f"{home.folder / 'nowhere'} is no folder" in home.run("--yes", home.folder / "nowhere").err


def test_nothing_found_says_where_it_looked_and_what_to_do(home: Home) -> None:
    """And writes nothing."""
    ended = home.run("--yes")
    assert (ended.code, home.config.exists()) == (1, False)
    assert f"  {home.folder / '.cache/huggingface/hub'}\n" in ended.err.replace("bioproxy:", "")
    assert "bioproxy init FOLDER" in ended.err


def test_a_machine_without_a_card_computes_in_memory(home: Home) -> None:
    """No -ngl, and a context that a processor can read."""
    home.engine("Available devices:\n")
    home.model(keys={**TEMPLATE, "qwen3.context_length": 131072})
    home.run("--yes")
    text = home.config.read_text()
    assert "of 64.0 GiB in memory: weights 4.2" in text
    assert "# -c 32768: trained for 131,072; without all of it on a card more takes minutes to read" in text
    assert "-ngl" not in text


def test_several_cards_are_counted_together(home: Home) -> None:
    """A model that one could not hold."""
    home.engine(CUDA + CUDA.partition("\n")[2].replace("CUDA0", "CUDA1"))
    home.model(size=800 * MIB)
    ended = home.run("--yes")
    assert "on 2 cards" in ended.out
    assert "of 47.1 GiB on 2 cards: weights 28.5" in home.config.read_text()


def test_a_model_that_fits_nowhere_is_shown_and_left_out(home: Home) -> None:
    """Unless somebody names it; then the file says so."""
    home.model("models/huge.gguf", {**TEMPLATE, "general.name": "huge"}, size=4 * GIB)
    home.model()
    ended = home.run("--yes")
    assert "does not fit: " in ended.out
    assert home.config.read_text().count("    cmd: |") == 1
    assert list(home.written().models) == ["Qwen3-8B-Q4_K_M"]
    home.run(typed="1-2\n\n")
    assert "# it does not fit this machine:\n" in home.config.read_text()


def test_if_nothing_fits_nothing_is_written(home: Home) -> None:
    """A file without a model would help nobody."""
    home.model(size=4 * GIB)
    ended = home.run("--yes")
    assert (ended.code, home.config.exists()) == (1, False)
    assert "none fits this machine" in ended.err


def test_a_projector_is_loaded_with_its_model(home: Home) -> None:
    """From Ollama's store, whose names are kept."""
    projector = header({"general.architecture": "clip", "clip.vision.projection_dim": 4096}, {})
    ollama(home.folder / ".ollama" / "models", "library/qwen3/8b", header(TEMPLATE) + b"\0" * 64, projector=projector)
    assert home.run("--yes").code == 0
    cmd = home.written().models["qwen3:8b"].cmd
    assert "--mmproj" in cmd
    assert "from Ollama, with a projector" in home.config.read_text()


def test_a_large_model_gets_time_to_load(home: Home) -> None:
    """Small ones are ready within the usual two minutes, or never."""
    home.model(size=600 * MIB)
    home.run("--yes")
    assert home.written().health_check_timeout == 600


def test_a_model_that_embeds_is_told_to(home: Home) -> None:
    """It serves no chat."""
    keys = {name.replace("qwen3", "bert"): value for name, value in QWEN.items()}
    home.model(keys={**keys, "general.architecture": "bert", "bert.pooling_type": 1})
    home.run("--yes")
    assert "--embeddings" in home.config.read_text()


def test_strange_names_and_paths_stay_words(home: Home) -> None:
    """Quotes and blanks in a path; a header's text ends no comment."""
    home.model('models/it\'s a "model".gguf', {**TEMPLATE, "general.name": "evil\nmodels: {}"})
    home.model("models/${env.HOME}.gguf", {**TEMPLATE, "general.name": "macro"})
    home.model("models/\x1b[2J.gguf", {**TEMPLATE, "general.name": "clears the screen"})
    ended = home.run("--yes")
    assert ended.code == 0
    assert "\x1b" not in ended.out + ended.err
    assert ended.err.count("passed over: ") == 2
    [(name, model)] = home.written().models.items()
    assert name == 'it\'s a "model"'
    assert "/it'\"'\"'s a \"model\".gguf'" in model.cmd


def test_an_engine_that_is_missing_is_named(home: Home) -> None:
    """The file is written all the same; check says what it lacks."""
    home.model()
    (home.folder / "bin" / "llama-server").unlink()
    home.monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    ended = home.run("--yes")
    assert ended.code == 1
    assert "there is no engine to serve it" in ended.err
    assert "there is no program 'llama-server' on PATH" in ended.err


def test_a_llama_swap_configuration_is_taken_over_as_it_stands(home: Home) -> None:
    """Comments and all."""
    home.model()
    place = home.folder / ".config" / "llama-swap" / "config.yaml"
    place.parent.mkdir(parents=True)
    place.write_text(SWAP)
    place.chmod(0o600)
    ended = home.run("--yes")
    assert home.config.stat().st_mode & 0o777 == 0o600
    assert (ended.code, "1 model\n" in ended.out) == (0, True)
    assert home.config.read_text().endswith(f"from {place}, as it stood.\n{SWAP}")
    home.run(typed="n\n\n\n")
    assert list(home.written().models) == ["Qwen3-8B-Q4_K_M"]


def test_the_llama_swap_that_runs_says_which_file_counts(home: Home) -> None:
    """Its process's own flag."""
    (home.folder / "mine.yaml").write_text(SWAP)
    home.monkeypatch.setattr(
        running, "processes", lambda: [("/usr/bin/llama-swap", "--config", str(home.folder / "mine.yaml"))]
    )
    assert home.run("--yes").code == 0
    assert "mine.yaml, as it stood" in home.config.read_text()


@pytest.mark.parametrize("flags", [[], ["--config", "mine.yaml"], ["-config=mine.yaml"]])
@pytest.mark.skipif(sys.platform == "win32", reason="a link to a program needs rights there")
def test_a_llama_swaps_file_lies_in_its_own_working_folder(tmp_path: Path, flags: list[str]) -> None:
    """Not in the one in which `init` runs; without the flag it is config.yaml, as llama-swap has it."""
    place = tmp_path / ("mine.yaml" if flags else "config.yaml")
    place.write_text(SWAP)
    (program := tmp_path / "llama-swap").symlink_to(sys.executable)
    words = [str(program), "-c", "input()", *flags]
    with subprocess.Popen(words, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        commands = [one for one in running.processes() if one[:1] == (str(program),)]
        process.communicate(b"\n")
    found, notes = running.swap(commands, {"HOME": str(tmp_path / "home")}, folder=str(tmp_path / "elsewhere"))
    assert found is not None
    assert (found.path, notes) == (str(place), [])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("models:\n  a:\n    cmd: sleep 1\n", ":2: models.a"),
        ("apiKeys: ['${env.UNSET_HERE}']\nmodels: {}\n", "UNSET_HERE"),
    ],
)
def test_a_llama_swap_configuration_that_cannot_be_taken_over_is_named(home: Home, text: str, why: str) -> None:
    """With the reason, instead of the word that there is none."""
    place = home.folder / ".config" / "llama-swap" / "config.yaml"
    place.parent.mkdir(parents=True)
    place.write_text(text)
    ended = home.run("--yes")
    assert ended.code == 1
    [said] = [line for line in ended.err.splitlines() if line.startswith(f"passed over: {place}")]
    assert why in said
    assert "no llama-swap configuration to take over" in ended.err


def test_json_is_for_scripts(home: Home) -> None:
    """One document with the proposals, what was passed over and what check found; nothing is asked."""
    home.model()
    (empty := home.folder / "models" / "empty.gguf").touch()
    found = home.run("--json").json()
    assert found["passed_over"] == [f"{empty}: broken GGUF header: the file ends at 0"]
    assert (found["path"], found["check"]["ok"], found["kept"]) == (str(home.config), True, [])
    [model] = found["models"]
    assert (model["name"], model["fits"], model["settings"]["context"]) == ("Qwen3-8B-Q4_K_M", True, 40960)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("1,3-4", [1, 3, 4]), ("2 2", [2]), ("0", None), ("1-9", None), ("x", None), ("3-1", None), (",", None)],
)
def test_numbers_as_people_write_them(answer: str, expected: list[int] | None) -> None:
    """With commas, blanks and dashes."""
    assert init.numbers_in(answer, most=4) == expected


def test_the_file_is_plain_yaml(home: Home) -> None:
    """Other readers of YAML understand it, too."""
    home.model()
    home.run("--yes")
    read: Callable[[str], Json] = yaml.safe_load
    assert read(home.config.read_text())["models"]["Qwen3-8B-Q4_K_M"]["cmd"].startswith("${engine}\n--model")
