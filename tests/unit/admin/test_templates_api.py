"""A template's text in pieces, by the files that it is from."""

from __future__ import annotations

from pathlib import Path

import pytest

from bioproxy.admin.templates_api import stretches
from support.templates import site


def test_the_text_is_cut_at_files_and_messages(tmp_path: Path) -> None:
    """Put together it is the filled text; letters of several bytes and empty files move nothing."""
    made = site(tmp_path, {"t.md": "é<{a}><{message}>ü<{none}><{a}><{message}>", "a": "äö", "none": ""})
    found, left = stretches(made.catalogue.reading("@code"))
    assert [(one.file, "*" if one.message else one.text) for one in found] == [
        ("t.md", "é"), ("a", "äö"), ("", "*"), ("t.md", "ü"), ("a", "äö"), ("", "*"),
    ]  # fmt: skip
    assert "".join("M" if one.message else one.text for one in found) == made.text(message="M")
    assert left == 0


def test_a_very_long_text_is_sent_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left off is counted."""
    monkeypatch.setattr("bioproxy.admin.templates_api.MOST_TEXT", 4)
    made = site(tmp_path, {"t.md": "abc<{a}><{message}>def", "a": "xyz"})
    found, left = stretches(made.catalogue.reading("@code"))
    assert [one.text for one in found] == ["abc", "x", ""]
    assert left == 5
