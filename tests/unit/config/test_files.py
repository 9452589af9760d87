"""Which file counts, and what is said of one that cannot be read."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bioproxy.cli.main import understand
from bioproxy.config.files import NAMES, config_folder, resolve, state_folder
from bioproxy.config.load import load
from bioproxy.errors import ConfigError
from support.config_files import loaded, sentences, write


def default_folder(home: Path) -> Path:
    """~/.config/bioproxy, made."""
    folder = home / ".config" / "bioproxy"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_each_default_name_is_found(name: str, tmp_path: Path) -> None:
    """JSON is YAML, so one text does for all."""
    path = write(default_folder(tmp_path), '{"proxy_port": 1}', name=name)
    found = loaded(tmp_path)
    assert (found.config.proxy_port, found.path, found.warnings) == (1, path, ())


def test_the_first_name_counts_and_the_others_are_named(tmp_path: Path) -> None:
    """conf.json, config.json, config.yaml, config.yml."""
    folder = default_folder(tmp_path)
    for number, name in enumerate(NAMES):
        write(folder, f'{{"proxy_port": {number}}}', name=name)
    found = loaded(tmp_path)
    assert found.config.proxy_port == 0
    assert [warning.where for warning in found.warnings] == [str(folder / name) for name in NAMES[1:]]
    assert all("conf.json comes first; delete one of them" in warning.message for warning in found.warnings)


def test_xdg_config_home_replaces_the_default_place(tmp_path: Path) -> None:
    """The file under ~/.config is not looked at then."""
    write(default_folder(tmp_path), "proxy_port: 1", name="config.yaml")
    (tmp_path / "xdg" / "bioproxy").mkdir(parents=True)
    write(tmp_path / "xdg" / "bioproxy", "proxy_port: 2", name="config.yml")
    assert loaded(tmp_path, environment={"XDG_CONFIG_HOME": f"{tmp_path}/xdg"}).config.proxy_port == 2


def test_a_relative_xdg_folder_is_passed_over() -> None:
    """As its specification says."""
    environment = {"HOME": "/h", "XDG_CONFIG_HOME": "relative", "XDG_STATE_HOME": "/s"}
    assert config_folder(environment) == "/h/.config/bioproxy"
    assert state_folder(environment) == "/s/bioproxy"


def test_a_named_file_counts_instead_of_the_default_one(tmp_path: Path) -> None:
    """The default one is not even read."""
    write(default_folder(tmp_path), "broken: [", name="config.yaml")
    assert loaded(tmp_path, "proxy_port: 3").config.proxy_port == 3


def test_a_variable_may_name_the_file_and_the_flag_wins(tmp_path: Path) -> None:
    """For containers and units."""
    one, two = write(tmp_path, "proxy_port: 1", name="one.yaml"), write(tmp_path, "proxy_port: 2", name="two.yaml")
    environment = {"HOME": str(tmp_path), "BIOPROXY_CONFIG": one}
    assert load(environment=environment).config.proxy_port == 1
    assert load(path=two, environment=environment).config.proxy_port == 2


def test_the_named_path_may_begin_with_home(tmp_path: Path) -> None:
    """A shell does not expand -config=~/x."""
    write(tmp_path, "proxy_port: 4")
    assert load(path="~/conf.yaml", environment={"HOME": str(tmp_path)}).config.proxy_port == 4


def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    """It names the path."""
    with pytest.raises(ConfigError) as raised:
        load(path=str(tmp_path / "none.json"), environment={"HOME": str(tmp_path)})
    assert str(raised.value) == f"{tmp_path / 'none.json'}: the config file does not exist"


def test_a_missing_file_with_a_relative_name_tells_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit's working folder is seldom what one thinks."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as raised:
        load(path="none.json", environment={"HOME": "/h"})
    assert str(raised.value) == f"none.json: the config file does not exist (looked for in {tmp_path})"


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("", "flag -config: names no file; leave it out, or give it the path of one"),
        ("/", "/: the config file is a folder; name the file in it"),
        ("/dev/null/x", "/dev/null/x: the config file cannot be read: Not a directory"),
    ],
)
def test_a_name_that_is_no_file_is_an_error(path: str, sentence: str) -> None:
    """An empty one, as an unset shell variable leaves it, or a folder."""
    with pytest.raises(ConfigError) as raised:
        load(path=path, environment={"HOME": "/h"})
    assert str(raised.value) == sentence


@pytest.mark.parametrize("text", ["", " \n\n", "\ufeff"])
@pytest.mark.parametrize("name", ["conf.json", "conf.yaml"])
def test_an_empty_file_is_an_error(text: str, name: str, tmp_path: Path) -> None:
    """A disk that was full once leaves such files; starting with defaults would be a surprise."""
    (found,) = sentences(tmp_path, text, name=name)
    assert found == f"{name}: the config file is empty; write at least {{}} into it, or name no file"


def test_a_file_of_comments_is_an_error(tmp_path: Path) -> None:
    """It is empty in another way."""
    (found,) = sentences(tmp_path, "# proxy_port: 1\n")
    assert "holds nothing but comments" in found


@pytest.mark.parametrize("text", ["{}", "{ }\n"])
@pytest.mark.parametrize("name", ["conf.json", "conf.yaml"])
def test_a_file_without_keys_means_the_defaults(text: str, name: str, tmp_path: Path) -> None:
    """Whoever writes {} means it."""
    assert loaded(tmp_path, text, name=name).config.proxy_port == 8088


def test_bytes_that_are_no_utf8_are_an_error_with_their_line(tmp_path: Path) -> None:
    """An editor of old may have written Latin-1."""
    path = tmp_path / "conf.yaml"
    path.write_bytes(b"proxy_port: 1\n# caf\xe9\n")
    with pytest.raises(ConfigError, match="is not UTF-8 text: byte 0xe9 in line 2"):
        load(path=str(path), environment={"HOME": "/h"})


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    """Windows editors write it."""
    assert loaded(tmp_path, '\ufeff{"proxy_port": 1}', name="conf.json").config.proxy_port == 1


def test_a_file_that_cannot_be_one_is_not_read_to_its_end(tmp_path: Path) -> None:
    """Who names the model by mistake gets a sentence."""
    path = tmp_path / "model.gguf"
    with path.open("wb") as file:
        file.truncate(5 << 20)
    with pytest.raises(ConfigError, match="is larger than 4 MiB; this cannot be a config file"):
        load(path=str(path), environment={"HOME": "/h"})


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_an_error(tmp_path: Path) -> None:
    """It says that it is about permission."""
    path = tmp_path / "conf.yaml"
    path.write_text("proxy_port: 1")
    path.chmod(0)
    with pytest.raises(ConfigError, match="cannot be read: permission denied"):
        load(path=str(path), environment={"HOME": "/h"})


@pytest.mark.parametrize(("name", "text"), [("conf", '{\n\t"proxy_port": 1}'), ("conf.txt", "proxy_port: 1 # here")])
def test_a_name_that_tells_nothing_is_judged_by_the_text(name: str, text: str, tmp_path: Path) -> None:
    """A brace begins JSON (where tabs may indent), anything else is YAML."""
    assert loaded(tmp_path, text, name=name).config.proxy_port == 1


def test_only_the_files_own_problems_are_told_when_it_cannot_be_read(tmp_path: Path) -> None:
    """The admin key may stand in the part that was not understood."""
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, "admin_key: [", environment={"BIOPROXY_ADMIN_HOST": "0.0.0.0"})
    assert len(raised.value.problems) == 1


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", ""),
        ("a.txt", "/etc/a.txt"),
        ("../a.txt", "/a.txt"),
        ("/a//b/./c", "/a/b/c"),
        ("~", "/h"),
        ("~/a", "/h/a"),
        ("~nobody-of-this-name/a", "/etc/~nobody-of-this-name/a"),
        ("a~", "/etc/a~"),
    ],
)
def test_paths_become_absolute(path: str, expected: str) -> None:
    """From the folder of what names them, with $HOME for the tilde."""
    assert resolve(path, folder="/etc", environment={"HOME": "/h"}) == expected


@pytest.mark.skipif(sys.platform in {"darwin", "win32"}, reason="there a name has no bytes that are none of UTF-8")
@pytest.mark.parametrize("place", ["file", "folder", "home"])
def test_a_name_that_is_no_text_is_an_error(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither JSON nor a log could show it, so the sentence has the bytes in another form."""
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    path = write(odd if place == "file" else tmp_path, "proxy_port: 1")
    monkeypatch.chdir(odd if place == "folder" else tmp_path)
    with pytest.raises(ConfigError) as raised:
        load(path=path, environment={"HOME": str(odd if place == "home" else tmp_path)})
    assert "caf\\udce9" in str(raised.value)
    assert "has bytes in its name that are no UTF-8; rename it" in str(raised.value)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps a folder that a program is in")
def test_a_working_folder_that_was_removed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a reload, too: paths of the command line start there."""
    path = write(tmp_path, "proxy_port: 1")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigError, match=r"^the working folder cannot be used: .*; start bioproxy in another one$"):
        load(path=path, environment={"HOME": str(tmp_path)})
    with pytest.raises(ConfigError, match="the working folder cannot be used"):
        understand(["status"])
