"""From files to a filled text, and every way in which that fails."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import bioproxy.files
from bioproxy.templates import files, reading
from bioproxy.templates.files import Look
from bioproxy.templates.reading import Reading, Source, read_template
from support.templates import site, write


def read(folder: Path, contents: dict[str, str | bytes], *, look: Look | None = None) -> Reading:
    write(folder, contents)
    (folder / "working").mkdir(exist_ok=True)
    return read_template("@code", folder / "t" / "t.md", folder=folder / "working", look=look or Look())


def text(folder: Path, contents: dict[str, str | bytes]) -> str:
    found = read(folder, contents)
    assert found.problems == ()
    assert found.filled is not None
    return found.filled.fill("MESSAGE")


def problems(folder: Path, contents: dict[str, str | bytes]) -> list[str]:
    return [str(problem).replace(str(folder), "") for problem in read(folder, contents).problems]


def test_an_include_is_put_in_as_it_is(tmp_path: Path) -> None:
    """Its last newline, carriage returns and a byte-order mark too."""
    contents: dict[str, str | bytes] = {"t/t.md": "[<{a.txt}>]<{message}>", "t/a.txt": "\ufeffone\r\ntwo\n\n"}
    assert text(tmp_path, contents) == "[\ufeffone\r\ntwo\n\n]MESSAGE"


def test_what_is_filled_in_is_never_scanned(tmp_path: Path) -> None:
    """An included file may show how templates are written."""
    contents: dict[str, str | bytes] = {"t/t.md": "<{a.txt}> <{message}>", "t/a.txt": "<{message}> <{b.txt}>"}
    assert text(tmp_path, contents) == "<{message}> <{b.txt}> MESSAGE"


def test_the_templates_folder_comes_before_the_working_folder(tmp_path: Path) -> None:
    """What is in the first one only or in the second one only is found too."""
    contents: dict[str, str | bytes] = {
        "t/t.md": "<{both}><{first}><{second}><{message}>",
        "t/both": "1",
        "working/both": "2",
        "t/first": "3",
        "working/second": "4",
    }
    assert text(tmp_path, contents) == "134MESSAGE"


def test_an_absolute_path_and_a_home_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` is the home of who runs bioproxy."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    contents: dict[str, str | bytes] = {
        "t/t.md": f"<{{{tmp_path}/x/a}}><{{~/b}}><{{message}}>",
        "x/a": "1",
        "home/b": "2",
    }
    assert text(tmp_path, contents) == "12MESSAGE"


def test_a_pattern_puts_each_file_under_its_name(tmp_path: Path) -> None:
    """A file without a last newline gets one, or the next name would stand in its last line."""
    contents: dict[str, str | bytes] = {
        "t/t.md": "<{src/*.py}>---<{message}>",
        "t/src/b.py": "two",
        "t/src/a.py": "one\n",
        "t/src/empty.py": "",
    }
    expected = "==> src/a.py <==\none\n==> src/b.py <==\ntwo\n==> src/empty.py <==\n---MESSAGE"
    assert text(tmp_path, contents) == expected


def test_a_literal_path_wins_over_a_pattern(tmp_path: Path) -> None:
    """A file may have a star in its name."""
    contents: dict[str, str | bytes] = {"t/t.md": "<{a*}><{message}>", "t/a*": "literal", "t/ab": "pattern"}
    assert text(tmp_path, contents) == "literalMESSAGE"


def test_binary_files_are_left_out_of_a_pattern(tmp_path: Path) -> None:
    """By git's rule: a NUL in the beginning."""
    contents: dict[str, str | bytes] = {"t/t.md": "<{x/*}><{message}>", "t/x/a": "text", "t/x/b": b"\x89PNG\x00\xff"}
    assert text(tmp_path, contents) == "==> x/a <==\ntext\nMESSAGE"


def test_a_binary_file_is_left_out_of_a_pattern_whatever_its_size(tmp_path: Path) -> None:
    """Its first bytes are looked at before its size is judged; a text that large is an error still."""
    (tmp_path / "t" / "x").mkdir(parents=True)
    for name, start in (("model.gguf", b"GGUF\0"), ("log.txt", b"text " * files.BINARY)):
        with (tmp_path / "t" / "x" / name).open("wb") as file:
            file.write(start)
            file.truncate(files.LARGEST + 1)
    contents: dict[str, str | bytes] = {"t/t.md": "<{x/*}><{message}>", "t/x/a": "text"}
    (found,) = problems(tmp_path, contents)
    assert "x/log.txt: is larger than 64 MiB" in found
    (tmp_path / "t" / "x" / "log.txt").unlink()
    assert text(tmp_path, contents) == "==> x/a <==\ntext\nMESSAGE"


def test_a_template_is_not_part_of_its_own_pattern(tmp_path: Path) -> None:
    """It would only show the model its own placeholders."""
    assert text(tmp_path, {"t/t.md": "<{*.md}><{message}>", "t/b.md": "b"}) == "==> b.md <==\nb\nMESSAGE"


def test_a_pattern_is_looked_for_in_both_folders(tmp_path: Path) -> None:
    """The working folder counts where the template's own has nothing."""
    assert text(tmp_path, {"t/t.md": "<{*.py}><{message}>", "working/a.py": "1"}) == "==> a.py <==\n1\nMESSAGE"


def test_a_byte_order_mark_before_the_template_is_dropped(tmp_path: Path) -> None:
    """An editor put it there, not the author."""
    assert text(tmp_path, {"t/t.md": "\ufeffA <{message}>"}) == "A MESSAGE"


def test_a_missing_include_is_told_with_its_place(tmp_path: Path) -> None:
    """Where it was looked for stands in the sentence."""
    assert problems(tmp_path, {"t/t.md": "\n<{no.txt}><{message}>"}) == [
        "/t/t.md:2: prefixes.@code: there is no file no.txt in /t or in /working"
    ]


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    """One start shows all of it."""
    found = problems(tmp_path, {"t/t.md": "<{a}>\n<{b*}>\n<{}>\n<{/no/where}>"})
    assert [line.split(": ")[-1] for line in found] == [
        "<{}> names nothing; write <{message}> or <{path/of/a/file}>",
        "<{message}> is missing; put it where the user's message shall stand",
        "there is no file a in /t or in /working",
        "b* fits no text file in /t or in /working that .gitignore does not name",
        "there is no file /no/where on this machine",
    ]


def test_a_missing_template_is_told(tmp_path: Path) -> None:
    """With the system's own reason."""
    assert problems(tmp_path, {}) == ["/t/t.md: prefixes.@code: t.md: cannot be read: no such file or directory"]


def test_what_is_not_utf8_is_told_with_byte_and_line(tmp_path: Path) -> None:
    """So that an editor can go there."""
    found = problems(tmp_path, {"t/t.md": "<{a}><{message}>", "t/a": "Straße\nMaß".encode() + b"\n\xdcber"})
    assert found == ["/t/t.md:1: prefixes.@code: a:3: not UTF-8: byte 0xdc at offset 13; convert it to UTF-8"]


def test_a_template_that_is_not_utf8_is_told_with_its_name(tmp_path: Path) -> None:
    """As it is for a file that it includes."""
    assert problems(tmp_path, {"t/t.md": b"a\nb\n\xdc <{message}>"}) == [
        "/t/t.md: prefixes.@code: t.md:3: not UTF-8: byte 0xdc at offset 4; convert it to UTF-8"
    ]


def test_a_folder_is_no_include(tmp_path: Path) -> None:
    """The sentence says how to have the files in it."""
    found = problems(tmp_path, {"t/t.md": "<{src/}><{message}>", "t/src/a": ""})
    assert found == ["/t/t.md:1: prefixes.@code: src/ is a folder; write <{src/**}> for the files in it"]


def test_a_pipe_is_no_include(tmp_path: Path) -> None:
    """Reading it would wait for ever."""
    (tmp_path / "t").mkdir()
    os.mkfifo(tmp_path / "t" / "pipe")
    found = problems(tmp_path, {"t/t.md": "<{pipe}><{message}>"})
    assert found == ["/t/t.md:1: prefixes.@code: pipe: is no regular file; a template can include texts only"]


def test_a_name_too_long_for_the_system_is_told(tmp_path: Path) -> None:
    """An error of the system is an error of the template, not of the program."""
    (found,) = problems(tmp_path, {"t/t.md": f"<{{{'x' * 5000}}}><{{message}}>"})
    assert found.endswith("cannot be read: file name too long")


@pytest.mark.skipif(sys.platform == "darwin", reason="its file system takes UTF-8 names only")
def test_odd_file_names_stand_on_one_line(tmp_path: Path) -> None:
    """A name may hold a newline, or bytes that are no UTF-8."""
    (tmp_path / "t" / "x").mkdir(parents=True)
    (tmp_path / "t" / "x" / "a\nb").write_text("1")
    (tmp_path / "t" / "x" / os.fsdecode(b"c\xff")).write_text("2")
    expected = "==> x/a\ufffdb <==\n1\n==> x/c\ufffd <==\n2\nMESSAGE"
    assert text(tmp_path, {"t/t.md": "<{x/*}><{message}>"}) == expected


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the system's reason; a folder that may not be entered too."""

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(bioproxy.files, "found", refuse)
    found = problems(tmp_path, {"t/t.md": "<{a}><{message}>", "t/a": ""})
    assert found == ["/t/t.md:1: prefixes.@code: a: cannot be read: permission denied"]


def test_huge_files_and_huge_templates_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No model reads that much."""
    monkeypatch.setattr(files, "LARGEST", 30)
    monkeypatch.setattr(reading, "MOST", 10)
    found = problems(tmp_path, {"t/t.md": "<{a}><{b}><{message}>", "t/a": "x" * 31, "t/b": "y" * 11})
    assert [line.split(": ", 2)[2] for line in found] == [
        "a: is larger than 0 MiB; no model reads that much",
        "with b the template is larger than 0 MiB",
    ]


def test_sources_say_where_each_file_stands(tmp_path: Path) -> None:
    """In bytes of the filled text, the message counting nothing."""
    found = read(tmp_path, {"t/t.md": "ä<{a}><{message}>z", "t/a": "xyz"})
    assert found.sources == (Source("t.md", 0, 2), Source("a", 2, 3), Source("t.md", 5, 1))


def test_an_unchanged_template_is_the_same_object(tmp_path: Path) -> None:
    """Nothing is put together or hashed again."""
    contents: dict[str, str | bytes] = {"t/t.md": "<{a}><{message}>", "t/a": "1"}
    first = read(tmp_path, contents)
    path, working = tmp_path / "t" / "t.md", tmp_path / "working"
    assert read_template("@code", path, folder=working, look=Look(), before=first) is first
    write(tmp_path, {"t/a": "2"})
    assert read_template("@code", path, folder=working, look=Look(), before=first) is not first


def age(path: Path, seconds: int) -> None:
    """Make a file look as if it was written `seconds` ago."""
    status = path.stat()
    at = status.st_mtime_ns - seconds * 1_000_000_000
    os.utime(path, ns=(at, at))


def test_a_file_whose_stat_is_as_before_is_not_read_again(tmp_path: Path) -> None:
    """Times, size and inode are what is looked at."""
    path = tmp_path / "a"
    path.write_text("old")
    age(path, 60)
    first = Look()
    entry = first.entry(path, shown="a")
    assert Look(first.cache).entry(path, shown="a") is entry
    age(path, 60)
    assert Look(first.cache).entry(path, shown="a") is not entry


@pytest.mark.skipif(sys.platform == "win32", reason="its file systems tell no such time")
def test_a_file_that_was_written_with_its_old_time_is_read_again(tmp_path: Path) -> None:
    """Builds that can be repeated give each version of a file the same time, and versions have one size."""
    path = tmp_path / "version"
    path.write_text("1.0.1")
    age(path, 60)
    before, first = path.stat(), Look()
    assert first.text(path, shown="version") == "1.0.1"
    path.write_text("1.0.2")
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # a tick of the file system's clock
        os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
    os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
    assert Look(first.cache).text(path, shown="version") == "1.0.2"


def test_a_file_that_just_changed_is_read_once_more(tmp_path: Path) -> None:
    """It may change again within one tick of the file system's clock, with the same size."""
    path = tmp_path / "a"
    path.write_text("old")
    status = path.stat()
    first = Look()
    assert first.text(path, shown="a") == "old"
    path.write_text("new")
    os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert Look(first.cache).text(path, shown="a") == "new"


def test_a_file_that_is_asked_for_by_name_may_hold_nul(tmp_path: Path) -> None:
    """Only patterns leave it out."""
    made = site(tmp_path, {"t.md": "<{a}><{message}>", "a": "x\0y"})
    assert made.text() == "x\0yMESSAGE"
