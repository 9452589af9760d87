"""`bioproxy recipes` and `bioproxy import`, as functions with an output of their own."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from bioproxy.cli import import_preset
from bioproxy.cli import recipes as verb
from bioproxy.cli.output import Output
from bioproxy.config.dialect.read import read_dialect
from bioproxy.config.files import Source
from bioproxy.errors import ConfigError, NotFound
from bioproxy.recipes.recipe import recipe_named
from support.command import told

FILE = ["file=/models/Qwen3-8B.gguf"]


class Shown(Output):
    """An output whose two streams are kept."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.out, self.err = io.StringIO(), io.StringIO()
        super().__init__(json=as_json, colour=False, stream=self.out, notes=self.err)

    @property
    def text(self) -> str:
        return self.out.getvalue()

    @property
    def document_shown(self) -> Any:
        return json.loads(self.text)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def add(path: Path, *, given: list[str] = FILE, model: str = "", output: Output | None = None) -> int:
    return verb.add(output or Shown(), "llama-server", path=str(path), model=model, given=given)


def test_list_names_every_recipe() -> None:
    """A line each, or JSON."""
    table, document = Shown(), Shown(as_json=True)
    assert (verb.show_all(table), verb.show_all(document)) == (0, 0)
    assert [one["name"] for one in document.document_shown] == [line.split()[0] for line in table.text.splitlines()[1:]]


def test_show_tells_what_it_needs_and_makes() -> None:
    """Needs, settings with their defaults, and an entry that loads."""
    output = Shown()
    assert verb.show(output, "vllm-venv") == 0
    entry = output.text.partition("\nmodels:")[2]
    assert "needs: a virtual environment" in output.text
    assert "must be given" in output.text
    assert read_dialect([Source("c.yaml", f"models:{entry}")], environment={"PATH": "/bin"}).models["vllm-venv"]
    document = Shown(as_json=True)
    verb.show(document, "vllm-venv")
    assert set(document.document_shown) == {"name", "description", "needs", "settings", "model"}


def test_add_writes_an_entry_that_loads(path: Path) -> None:
    """Named after the model's file, into a config that need not exist yet."""
    output = Shown()
    assert add(path, output=output) == 0
    assert "wrote models.Qwen3-8B to" in output.text
    assert "it needs llama-server on PATH" in output.err.getvalue()
    config = read_dialect([Source(str(path), path.read_text())], environment={})
    assert "/models/Qwen3-8B.gguf" in config.models["Qwen3-8B"].cmd


def test_add_keeps_everything_else(path: Path) -> None:
    """Byte for byte."""
    path.write_bytes(b"# mine\r\nmodels:\r\n  a:   # first\r\n    cmd: 'x ${PORT}'\r\n\r\ngroups: {}\r\n")
    before = path.read_bytes()
    add(path, model="b")
    after = path.read_bytes()
    cut = after.index(b"  b:\r\n")
    assert after[:cut] + after[after.index(b"\r\ngroups") :] == before


def test_add_twice_needs_another_name(path: Path) -> None:
    """What stands there is never replaced."""
    add(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="is there already; give another name with --as"):
        add(path)
    assert path.read_bytes() == before
    assert add(path, model="other") == 0


def test_a_config_that_would_not_load_is_not_written(path: Path) -> None:
    """A macro that nobody declares, here; the file stays as it was."""
    path.write_text("startPort: 5800\n")
    with pytest.raises(ConfigError, match=r"unknown macro(.|\n)*nothing was changed"):
        add(path, given=["file=${unknown}"], model="b")
    assert path.read_text() == "startPort: 5800\n"


def test_what_was_wrong_before_does_not_matter(path: Path) -> None:
    """The entry makes it no worse, and the user may mend the rest afterwards."""
    path.write_text("startPort: 0\n")
    assert add(path) == 0


@pytest.mark.parametrize("given", [[], ["file"], ["file=x", "nonsense=1"]])
def test_settings_that_are_wrong_change_nothing(path: Path, given: list[str]) -> None:
    """Missing, without a value, or unknown."""
    with pytest.raises(ConfigError):
        add(path, given=given)
    assert not path.exists()


def test_an_unknown_recipe_changes_nothing(path: Path) -> None:
    """Its name is looked at first."""
    with pytest.raises(NotFound):
        verb.add(Shown(), "nope", path=str(path), model="", given=[])


def test_add_as_json_tells_the_entry(path: Path) -> None:
    """For scripts."""
    output = Shown(as_json=True)
    add(path, output=output)
    assert output.document_shown["model"] == "Qwen3-8B"
    assert output.document_shown["entry"]["macros"]["file"] == "/models/Qwen3-8B.gguf"


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"model": "Qwen/Qwen3-8B"}, "Qwen3-8B"),
        ({"file": "C:\\models\\x.gguf"}, "x"),
        ({"model": "/models/folder/"}, "folder"),
        ({}, "llama-server"),
    ],
)
def test_a_model_is_named_after_its_file(values: dict[str, str], name: str) -> None:
    """Or its repository, or the recipe."""
    assert verb.model_name(recipe_named("llama-server"), values) == name


# import


def translated(output: Output, source: Path, *, target: str = "") -> int:
    return import_preset.run(told(output, file=str(source), target=target))


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    path = tmp_path / "models.ini"
    path.write_text("[*]\nc = 4096\nport = 1\n[m]\nmodel = x.gguf\n")
    return path


def test_import_prints_a_config_that_loads(preset: Path) -> None:
    """Nothing else on stdout; what could not be translated on stderr."""
    output = Shown()
    assert translated(output, preset) == 0
    assert "-c 4096" in read_dialect([Source("c.yaml", output.text)], environment={}).models["m"].cmd
    assert "note: port: bioproxy decides" in output.err.getvalue()


def test_import_writes_a_new_file_only(preset: Path, tmp_path: Path) -> None:
    """It starts something; it never overwrites."""
    target = tmp_path / "new.yaml"
    output = Shown()
    assert translated(output, preset, target=str(target)) == 0
    assert output.text == f"wrote 1 model to {target}\n"
    assert target.read_text().startswith("# Translated from models.ini")
    with pytest.raises(ConfigError, match="such a file already"):
        translated(Shown(), preset, target=str(target))


def test_import_as_json_tells_notes_and_config(preset: Path) -> None:
    """For scripts."""
    output = Shown(as_json=True)
    translated(output, preset)
    assert output.document_shown["models"] == ["m"]
    assert output.document_shown["notes"]
    assert output.document_shown["config"].endswith("\n")


def test_import_says_what_it_cannot_read_or_write(tmp_path: Path, preset: Path) -> None:
    """No such file, a folder, another encoding, no such place."""
    (tmp_path / "latin.ini").write_bytes(b"[m]\nmodel=\xe9\n")
    for source in (tmp_path / "absent.ini", tmp_path, tmp_path / "latin.ini"):
        with pytest.raises(ConfigError):
            translated(Shown(), source)
    with pytest.raises(ConfigError, match="cannot be written"):
        translated(Shown(), preset, target=str(tmp_path / "no" / "c.yaml"))


def test_import_of_models_that_cannot_live_together_is_refused(tmp_path: Path) -> None:
    """Two of one alias: the config would not load."""
    path = tmp_path / "twice.ini"
    path.write_text("[m]\nmodel = x\nalias = a\n[n]\nmodel = y\nalias = a\n")
    with pytest.raises(ConfigError, match="duplicate alias"):
        translated(Shown(), path)
