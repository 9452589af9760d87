"""Which files a pattern means, and what `.gitignore` leaves out."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from bioproxy.errors import TemplateError
from bioproxy.templates import patterns
from bioproxy.templates.gitignore import descend, enter, ignored, line_of, rules_of
from bioproxy.templates.patterns import expression, is_pattern, matches
from support.templates import write


def names(folder: Path, pattern: str) -> list[str]:
    return [name for name, _ in matches(pattern, folder)]


def tree(folder: Path, *paths: str, ignore: str = "") -> Path:
    return write(folder, dict.fromkeys(paths, "x") | ({".gitignore": ignore} if ignore else {}))


def test_a_star_takes_the_files_of_one_folder_in_path_order(tmp_path: Path) -> None:
    """Folders below are not entered, other endings not taken."""
    tree(tmp_path, "b.py", "a.py", "c.md", "sub/d.py")
    assert names(tmp_path, "*.py") == ["a.py", "b.py"]


def test_two_stars_take_any_number_of_folders(tmp_path: Path) -> None:
    """None at all counts too; the order is that of the paths as text."""
    tree(tmp_path, "src/z.py", "src/a/b.py", "src/a/c/d.py", "src/a.py", "other/e.py")
    assert names(tmp_path, "src/**/*.py") == ["src/a.py", "src/a/b.py", "src/a/c/d.py", "src/z.py"]


@pytest.mark.parametrize("pattern", ["docs/**", "docs/**/*", "docs/**/**", "./docs/**"])
def test_two_stars_at_the_end_take_every_file_below(tmp_path: Path, pattern: str) -> None:
    """However often they are written."""
    tree(tmp_path, "docs/a.md", "docs/b/c.txt")
    assert names(tmp_path, pattern) == ["docs/a.md", "docs/b/c.txt"]


def test_a_question_mark_is_one_letter_and_brackets_are_letters(tmp_path: Path) -> None:
    """`[id].tsx` is a name that web frameworks use."""
    tree(tmp_path, "a1.py", "a22.py", "[id].tsx", "i.tsx")
    assert names(tmp_path, "a?.py") == ["a1.py"]
    assert names(tmp_path, "[id].ts?") == ["[id].tsx"]


def test_a_pattern_may_go_up_or_be_absolute(tmp_path: Path) -> None:
    """Names are shown as the pattern writes them."""
    tree(tmp_path, "lib/a.md")
    (tmp_path / "templates").mkdir()
    assert names(tmp_path / "templates", "../lib/*.md") == ["../lib/a.md"]
    assert names(tmp_path / "templates", f"{tmp_path}/lib/*.md") == [f"{tmp_path}/lib/a.md"]


def test_hidden_files_need_a_written_dot(tmp_path: Path) -> None:
    """`.env` in a prompt would be a bad surprise."""
    tree(tmp_path, ".env", "a.md", ".hidden/b.md")
    assert names(tmp_path, "**") == ["a.md"]
    assert names(tmp_path, ".e*") == [".env"]


def test_the_git_folder_is_never_entered(tmp_path: Path) -> None:
    """Not even where the pattern writes its dot."""
    tree(tmp_path, ".git/config", ".github/ci.yml")
    assert names(tmp_path, ".g*/*") == [".github/ci.yml"]


def test_ignored_files_and_folders_are_left_out(tmp_path: Path) -> None:
    """Names at any depth, folders with all that is in them."""
    tree(tmp_path, "a.py", "a.log", "sub/b.log", "build/c.py", "sub/build/d.py", ignore="*.log\nbuild/\n")
    assert names(tmp_path, "**") == ["a.py"]


def test_the_last_rule_that_fits_decides(tmp_path: Path) -> None:
    """`!` takes back, and comments say nothing."""
    tree(tmp_path, "a.log", "keep.log", ignore="# logs\n*.log\n!keep.log\n")
    assert names(tmp_path, "*") == ["keep.log"]


def test_what_lies_in_an_ignored_folder_cannot_be_taken_back(tmp_path: Path) -> None:
    """As git has it."""
    tree(tmp_path, "out/keep.py", ignore="out/\n!out/keep.py\n")
    assert names(tmp_path, "**/*.py") == []


def test_a_slash_binds_a_rule_to_its_folder(tmp_path: Path) -> None:
    """At the start or inside."""
    tree(tmp_path, "a.py", "sub/a.py", "x/y.py", "sub/x/y.py", ignore="/a.py\nx/y.py\n")
    assert names(tmp_path, "**") == ["sub/a.py", "sub/x/y.py"]


def test_a_deeper_file_of_rules_wins(tmp_path: Path) -> None:
    """Its rules are about its own folder."""
    tree(tmp_path, "a.txt", "sub/a.txt", ignore="*.txt\n")
    write(tmp_path, {"sub/.gitignore": "!a.txt\n"})
    assert names(tmp_path, "**") == ["sub/a.txt"]


def test_rules_above_the_pattern_count_up_to_the_project(tmp_path: Path) -> None:
    """The project is where `.git` is; what stands above it is somebody else's."""
    tree(tmp_path, "project/src/a.py", "project/src/gen.py", ignore="*\n")
    write(tmp_path, {"project/.git/HEAD": "", "project/.gitignore": "gen.py\n"})
    assert names(tmp_path / "project" / "src", "*.py") == ["a.py"]


def test_a_pattern_inside_an_ignored_folder_finds_nothing(tmp_path: Path) -> None:
    """The folder is ignored with all that is in it."""
    write(tmp_path, {".git/HEAD": "", ".gitignore": "build/\n", "build/sub/a.py": ""})
    assert names(tmp_path / "build" / "sub", "*.py") == []


@pytest.mark.parametrize(
    ("rule", "path", "expected"),
    [
        ("foo/**", "foo/a", True),
        ("foo/**/bar", "foo/bar", True),
        ("foo/**/bar", "foo/x/y/bar", True),
        ("**/foo", "a/b/foo", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[a-c].py", "b.py", True),
        ("[!a-c].py", "b.py", False),
        ("[]x].py", "].py", True),
        (r"\#a", "#a", True),
        (r"\!a", "!a", True),
        (r"a\ ", "a ", True),
        ("a  ", "a", True),
        ("[z-a]", "a", False),
        ("a**b", "axxb", True),
        ("a**b", "ax/xb", False),
        ("/", "a", False),
    ],
)
def test_rules_read_as_git_reads_them(tmp_path: Path, rule: str, path: str, *, expected: bool) -> None:
    """The corners of gitignore's manual page."""
    write(tmp_path, {".gitignore": rule + "\n"})
    entered = enter(tmp_path)
    assert entered is not None
    assert ignored(entered[0], path, folder=False) is expected


WORDS = (
    "a", "b", "x", "/", "*", "**", "**/", "/**", "***", "?", "!", "[ab]", "[!a]", "[^b]", "[a-b]", "[]a]",
    "[[:alpha:]]", "[a", "[b-]", r"[\]]", "]", "-", r"\a", r"\*", "\\", "\t", " ", r"\ ", "é", ".", "#",
)  # fmt: skip
PATHS = (
    "a", "b", "ab", "ba", "aab", "a/b", "b/a", "a/b/a", "a/b/b", "b/x/a", "x", "x/a", "a b", "a ", "a*", "*", "é", "aé",
    "a/é", "-", "!", "!a", "]", "a]", "[a", "\\", "a\\", ".a", ".a/b", "a.b", "a\t", "#a", "ab/ba/ab",
)  # fmt: skip


@pytest.mark.skipif(shutil.which("git") is None, reason="it is git that they are compared with")
def test_random_rules_name_what_git_says_they_name(tmp_path: Path) -> None:
    """Whatever stands in a line, and whichever lines come together."""
    chosen = random.Random(7)
    folders = [f"f{number}" for number in range(250)]
    for folder in folders:
        lines = ["".join(chosen.choices(WORDS, k=chosen.randint(1, 7))) for _ in range(chosen.choice((1, 1, 1, 2, 3)))]
        write(tmp_path, {f"{folder}/.gitignore": chosen.choice(("\n", "\r\n")).join(lines) + "\n"})
    asked = [f"{folder}/{path}" for folder in folders for path in PATHS]
    git = ["git", "-C", str(tmp_path), "-c", "core.ignoreCase=false"]
    subprocess.run([*git, "init", "-q"], check=True)
    check = [*git, "check-ignore", "--no-index", "-z", "--stdin"]
    said = subprocess.run(check, input="\0".join(asked).encode(), capture_output=True, check=False).stdout
    assert [path for path in asked if named(tmp_path, path)] == said.decode().split("\0")[:-1]


def named(project: Path, path: str) -> bool:
    """Whether the rules name a file, or a folder that it lies in."""
    levels, folder = descend((), project, ""), ""
    for name in path.split("/")[:-1]:
        folder = f"{folder}/{name}" if folder else name
        if ignored(levels, folder, folder=True):
            return True
        levels = descend(levels, project / folder, folder)
    return ignored(levels, path, folder=False)


def test_a_rule_is_no_longer_than_what_it_says() -> None:
    """Any number of folders is any number of folders; more letters than a path has fit nothing."""
    assert line_of(b"**/" * 1000 + b"a") == line_of(b"**/a")
    assert line_of(b"a*" * 4096) is not None
    assert line_of(b"a*" * 4097) is None
    assert expression("a*" * 255 + "*" * 99)(b"a" * 300)
    assert not expression("a*" * 256)(b"a" * 300)


def test_lines_of_a_kind_are_one_comparison(tmp_path: Path) -> None:
    """A thousand of them are as quick as one; a file that goes back and forth too often is refused."""
    assert len(rules_of(b"*.o\n" * 600 + b"!a.o\n*.x\n*.y\n")) == 3
    write(tmp_path, {".gitignore": "a\n!b\n" * 501})
    with pytest.raises(TemplateError, match=r"/\.gitignore: it changes more than 1000 times between files and folders"):
        enter(tmp_path)


@pytest.mark.parametrize("pattern", ["/".join(["**"] * 12) + "/*.py", "/".join(["**/*"] * 12), "**/" * 6 + "a/**/*.py"])
def test_a_folder_is_listed_once_however_many_stars_lead_to_it(
    tmp_path: Path, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a dozen `**` there are thousands of ways into each."""
    deep = "/".join(["a"] * 14)
    tree(tmp_path, f"{deep}/x.py")
    listed: list[str] = []
    scan = os.scandir

    def counting(folder: Path) -> object:
        listed.append(str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", counting)
    assert names(tmp_path, pattern) == [f"{deep}/x.py"]
    assert len(listed) == len(set(listed)) == 15


def test_a_name_that_is_no_utf_8_is_a_name(tmp_path: Path) -> None:
    """A star stands for its bytes, too, in a pattern and in a rule."""
    os.close(os.open(os.fsencode(tmp_path) + b"/\xff.py", os.O_CREAT))
    assert names(tmp_path, "*.py") == ["\udcff.py"]
    write(tmp_path, {".gitignore": "?.py\n"})
    assert names(tmp_path, "*.py") == []


def test_links_to_folders_are_not_followed_in_circles(tmp_path: Path) -> None:
    """`**` goes past them; a link that is named is followed."""
    tree(tmp_path, "a/b.py")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert names(tmp_path, "**/*.py") == ["a/b.py"]
    assert names(tmp_path, "a/up/*/b.py") == ["a/up/a/b.py"]


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    """The caller says what is missing."""
    assert names(tmp_path, "nowhere/*.py") == []


def test_a_pattern_over_the_whole_disk_ends_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the pattern and says what to do."""
    monkeypatch.setattr(patterns, "MOST", 3)
    tree(tmp_path, "a", "b", "c", "d")
    with pytest.raises(TemplateError, match=r"<\{\*\*/x\}> means looking at more than 3 files; name a folder"):
        matches("**/x", tmp_path)


def test_only_stars_and_question_marks_make_a_pattern() -> None:
    """Brackets do not."""
    assert [is_pattern(name) for name in ("a*", "a?", "**/a", "a[1]")] == [True, True, True, False]
