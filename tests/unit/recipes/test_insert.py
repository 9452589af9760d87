"""Writing an entry into a config: everything else stays byte for byte, or nothing is written."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.config.dialect.read import read_dialect
from bioproxy.config.files import Source, parse
from bioproxy.errors import ConfigError
from bioproxy.recipes import yaml_text
from bioproxy.recipes.insert import insert, plain, read, write
from support.config_files import yaml_text as dumped

ENTRY = {"macros": {"size": 5}, "cmd": "server --port ${PORT}\n--size ${size}\n", "env": ["A=b"], "ttl": 60}
SHOWN = """\
  new:
    macros:
      size: 5
    cmd: |
      server --port ${PORT}
      --size ${size}
    env:
      - "A=b"
    ttl: 60
"""
OLD = 'a: {cmd: x, proxy: "http://h"}'


def put(text: str, path: str = "config.yaml") -> str:
    return insert(text, path=path, model="new", entry=ENTRY)


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        put(text)
    return caught.value.message


def says(text: str, path: str = "config.yaml") -> Any:
    root = parse(text, path).root
    return None if root is None else plain(root)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"models:\n{SHOWN}"),
        ("# mine\n", f"# mine\nmodels:\n{SHOWN}"),
        ("# mine", f"# mine\nmodels:\n{SHOWN}"),
        ("startPort: 5800  # c\n# end\n", f"startPort: 5800  # c\n# end\nmodels:\n{SHOWN}"),
        ("models:\n", f"models:\n{SHOWN}"),
        ("models:   # none yet\nttl: 1\n", f"models:   # none yet\n{SHOWN}ttl: 1\n"),
        ("models: ~ # none\n", f"models: # none\n{SHOWN}"),
        ("models: null", f"models:\n{SHOWN}"),
        (f"models:\n  {OLD}", f"models:\n  {OLD}\n{SHOWN}"),
        (f"models:\n  {OLD}\n\n# more\nx: 1\n", f"models:\n  {OLD}\n{SHOWN}\n# more\nx: 1\n"),
        (f"models:\n  {OLD}\n  # b: {{}}\n\nx: 1\n", f"models:\n  {OLD}\n  # b: {{}}\n{SHOWN}\nx: 1\n"),
        (f"models:\n  {OLD}\n\n  b{OLD[1:]}\n\n\n", f"models:\n  {OLD}\n\n  b{OLD[1:]}\n\n{SHOWN}\n\n"),
        (f'"models":\n  {OLD}\n', f'"models":\n  {OLD}\n{SHOWN}'),
        (f"---\nmodels:\n  {OLD}\n", f"---\nmodels:\n  {OLD}\n{SHOWN}"),
        (f"models: !!map\n  {OLD}\n", f"models: !!map\n  {OLD}\n{SHOWN}"),
    ],
)
def test_it_stands_behind_the_last_model(before: str, after: str) -> None:
    """Comments, blank lines and keys stay where they are; a comment further left belongs to what follows."""
    assert put(before) == after


def test_a_comment_within_a_command_is_part_of_it() -> None:
    """Lines of a block that look like comments do not end it."""
    before = "models:\n  a:\n    proxy: http://h\n    cmd: |\n      x\n      # --y\nz: 1\n"
    assert put(before) == before.replace("z: 1", f"{SHOWN}z: 1")


@pytest.mark.parametrize("block", ["cmd: |\n      foo", "cmd: |+\n      foo\n\n", "cmd: >\n      foo"])
def test_where_the_end_is_no_place_it_stands_before_the_first_model(block: str) -> None:
    """A line end more would change what such a block says."""
    assert put(f"models:\n  a:\n    {block}") == f"models:\n{SHOWN}  a:\n    {block}"


def test_where_the_files_end_is_no_place_it_stands_at_its_top() -> None:
    """The same for the last key of a file without models, and behind the end of a document."""
    assert put("x: |\n  foo") == f"models:\n{SHOWN}x: |\n  foo"
    assert put("x: 1\n...\n") == f"models:\n{SHOWN}x: 1\n...\n"


@pytest.mark.parametrize(
    ("text", "beginning"),
    [
        (f"models: {{{OLD}}}\nx: 1\n", 'models: {new: {"macros"'),
        ("models: {}\nx: 1\n", 'models: {"new": {"macros"'),
        (f"{{models: {{{OLD}}}, x: 1}}", '{models: {"new": {"macros"'),
        (f"{{models: {{ # c\n  {OLD},\n}} }}", '{models: {"new": {"macros"'),
        ("{x: 1}", '{"models": {"new"'),
        ("{}", '{"models": {"new"'),
        ("{models: , x: 1}", '{"models": {"new"'),
        ("{models: ~}", '{"models": {"new"'),
        ("{models}", '{"models": {"new"'),
    ],
)
def test_mappings_in_braces_get_it_in_braces(text: str, beginning: str) -> None:
    """As JSON, which is YAML; a comment behind the brace stays."""
    after = put(text)
    assert after.startswith(beginning.replace("{new:", '{"new":'))
    assert says(after)["models"]["new"] == ENTRY
    assert ("# c" in after) == ("# c" in text)


def test_a_json_file_stays_json() -> None:
    """The ending decides how it is read, tabs and all."""
    after = put('{\n\t"models": {\n\t\t"a": {"cmd": "x"}\n\t}\n}\n', "conf.json")
    assert says(after, "conf.json")["models"] == {"a": {"cmd": "x"}, "new": ENTRY}


def test_windows_line_ends_stay() -> None:
    """All lines of the file end alike afterwards."""
    after = put(f"x: 1\r\nmodels:\r\n  {OLD}\r\n# end\r\n")
    assert after == f"x: 1\r\nmodels:\r\n  {OLD}\r\n{SHOWN}# end\r\n".replace("\r\n", "\n").replace("\n", "\r\n")


def test_indentation_is_that_of_the_other_models() -> None:
    """One blank or six; a file whose first column is not 0 as well."""
    assert put("models:\n a:\n  cmd: x\n").splitlines()[3] == " new:"
    assert put("  models:\n      a:\n        cmd: x\n  z: 1\n").splitlines()[3] == "      new:"
    assert put("  x: 1\n").splitlines()[1:3] == ["  models:", "    new:"]


def test_a_byte_order_mark_stays_the_first() -> None:
    """Editors on Windows write it."""
    assert put(f"\ufeffmodels:\n  {OLD}\n") == f"\ufeffmodels:\n  {OLD}\n{SHOWN}"
    assert put("\ufeff") == f"\ufeffmodels:\n{SHOWN}"


def test_anchors_and_merge_keys_stay() -> None:
    """They are the reason why nothing is written back by a parser."""
    before = "x-base: &base\n  proxy: http://h\nmodels: &all\n  a:\n    <<: *base\n    cmd: x\n"
    after = put(before)
    assert after == before + SHOWN
    assert read_dialect([Source("c.yaml", after)], environment={}).models["a"].proxy == "http://h"


@pytest.mark.parametrize("models", ["&m\n  a:\n    cmd: x", "&m {a: {cmd: x}}"])
def test_a_mapping_that_stands_for_two_is_left_alone(models: str) -> None:
    """The entry would stand in both places."""
    assert "by hand" in refused(f"x-m: {models}\nmodels: *m\n")


def test_tabs_between_words_do_not_matter() -> None:
    """YAML allows them there."""
    assert put("models:\n  a:\t# tab\n    cmd:\tx\n") == f"models:\n  a:\t# tab\n    cmd:\tx\n{SHOWN}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models:\n\ta:\n", "a tab stands in this line"),
        ("models: [", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "another document"),
        ("a: 1\na: 2\n", "stands twice"),
        ("- a\n", "no mapping"),
        ("models: hello\n", "no mapping"),
        ("models: [a]\n", "no mapping"),
        ("just text\n", "no mapping"),
        ("models:\n  new:\n    cmd: x\n", "models.new is there already"),
        ('{"models": {"new": {}}}', "models.new is there already"),
    ],
)
def test_what_cannot_be_extended_is_refused(text: str, said: str) -> None:
    """With a sentence, and without a file that is half right."""
    assert said in refused(text)


def test_an_id_that_needs_quotes_has_them() -> None:
    """Also one that YAML would take for something else."""
    for model in ("a/b:c", "on", "010", "#x", "ü", "- a"):
        after = insert("models:\n", path="c.yaml", model=model, entry=ENTRY)
        assert list(says(after)["models"]) == [model]


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t"), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(TEXTS.filter(lambda key: key != "models"), VALUES, max_size=4), st.none() | VALUES)
def test_whatever_a_file_says_it_says_afterwards(others: dict[str, Any], models: Any) -> None:
    """Or it is refused: it never says something else."""
    before = dumped(others if models is None else {**others, "models": models})
    try:
        after = put(before)
    except ConfigError:
        return
    known = says(before) or {}
    assert says(after) == {**known, "models": {**(known.get("models") or {}), "new": ENTRY}}


@given(st.dictionaries(TEXTS, VALUES, max_size=5))
def test_entries_are_written_as_they_are_read(entry: dict[str, Any]) -> None:
    """Whatever stands in them: blocks, quotes, line ends, words such as off."""
    text = "\n".join(yaml_text.lines(entry)) or "{}"
    assert says(text + "\n") == entry


# the file


def test_a_file_is_replaced_with_its_rights(tmp_path: Path) -> None:
    """A config with keys in it stays private, and no temporary file is left."""
    path = tmp_path / "config.yaml"
    path.write_text("a: 1\n")
    path.chmod(0o600)
    write(path, "b: 2\r\n")
    assert path.read_bytes() == b"b: 2\r\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_behind_a_link_the_file_is_replaced(tmp_path: Path) -> None:
    """Configs often are links into a repository."""
    real, link = tmp_path / "real.yaml", tmp_path / "config.yaml"
    real.write_text("")
    link.symlink_to(real)
    write(link, "x")
    assert link.is_symlink()
    assert real.read_text() == "x"


def test_a_new_file_can_be_read_by_all(tmp_path: Path) -> None:
    """As an editor would make it."""
    write(tmp_path / "new.yaml", "x")
    assert stat.S_IMODE((tmp_path / "new.yaml").stat().st_mode) == 0o644
    assert read(tmp_path / "absent.yaml") == ""


def test_what_cannot_be_read_or_written_is_said(tmp_path: Path) -> None:
    """A folder, a text in another encoding, a place that does not exist."""
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read(tmp_path / "latin.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path)
    with pytest.raises(ConfigError, match="cannot be written, nothing was changed"):
        write(tmp_path / "no" / "where.yaml", "x")
