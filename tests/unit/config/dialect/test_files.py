"""Which files make up a config."""

from __future__ import annotations

from pathlib import Path

import pytest

from bioproxy.config.dialect.read import read_dialect
from bioproxy.config.files import find_files, read_sources
from bioproxy.errors import ConfigError


def names(paths: tuple[str, ...]) -> list[str]:
    """The names of files."""
    return [Path(path).name for path in paths]


def test_the_named_file_comes_first(tmp_path: Path) -> None:
    """Then those of the folder by name; other files and folders in it do not count."""
    folder = tmp_path / "d"
    (folder / "sub.yaml").mkdir(parents=True)
    for name in ("b.yml", "a.yaml", "c.json", "d.yaml.bak"):
        (folder / name).write_text("")
    main = tmp_path / "z.yaml"
    main.write_text("globalTTL: 4")
    assert names(find_files(str(main), str(folder))) == ["z.yaml", "a.yaml", "b.yml"]
    assert read_dialect(read_sources(str(main), str(folder), texts={}), environment={}).global_ttl == 4


def test_one_file_twice_is_refused(tmp_path: Path) -> None:
    """Through a link, too."""
    (tmp_path / "a.yaml").write_text("")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match=r"is also present in -config-dir .*; remove it from one"):
        find_files(str(link), str(tmp_path))


def test_no_files_are_no_config(tmp_path: Path) -> None:
    """An empty folder, and no sources at all."""
    with pytest.raises(ConfigError, match="no configuration sources found"):
        find_files("", str(tmp_path))
    with pytest.raises(ConfigError, match="no configuration sources found"):
        read_dialect([], environment={})


def test_every_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """One that is not there, one that is no text."""
    (tmp_path / "a.yaml").write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(ConfigError) as caught:
        read_sources(str(tmp_path / "none.yaml"), str(tmp_path), texts={})
    first, second = caught.value.problems
    assert first.message == "the config file cannot be read: No such file or directory"
    assert second.message == "the config file is not UTF-8 text: byte 0xff in line 2"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """With the system's reason."""
    with pytest.raises(ConfigError, match="the folder cannot be read: No such file or directory"):
        find_files("", str(tmp_path / "none"))


def test_a_byte_order_mark_does_not_matter(tmp_path: Path) -> None:
    """Editors on Windows write it."""
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfglobalTTL: 7\n")
    assert read_dialect(read_sources("", str(tmp_path), texts={}), environment={}).global_ttl == 7
