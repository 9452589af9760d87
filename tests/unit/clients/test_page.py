"""docs/clients.md: its examples load, and each shipped rule is told of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bioproxy.config.shipped import effective, shipped
from support.config_files import loaded, sentences

PAGE = (Path(__file__).parents[3] / "docs" / "clients.md").read_text("utf-8")
EXAMPLES: list[str] = re.findall(r"\n\n```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_examples_load(text: str, tmp_path: Path) -> None:
    """Without a warning; and what they say of a shipped rule is said of that one."""
    found = loaded(tmp_path, text, name="conf.yaml")
    assert found.warnings == ()
    rules = effective(found.config.clients)
    assert all(rule.why or rule.agents for rule in (*rules.side, *rules.stabilize))


def test_each_shipped_rule_is_on_the_page() -> None:
    """In its client's section."""
    names = {rule.name for rule in (*shipped().side, *shipped().stabilize)}
    assert {name for name in names if f"`{name}`" not in PAGE} == set()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clients: {side: [{agents: [a]}]}", "the key name is missing"),
        ("clients: {side: [{name: ' '}]}", "a rule needs a name"),
        ("clients: {side: [{name: a, first: ['*********']}]}", "8 `*` at most"),
        ("clients: {side: [{name: a, headers: [x-title]}]}", "name: pattern"),
        ("clients: {side: [{name: a, side: never}]}", "expected one of"),
        ("clients: {stabilize: [{name: a}]}", 'the rule "a" says no `line`'),
        ("clients: {stabilize: [{name: a, line: '*a'}]}", "at least 3 letters"),
        ("clients: {stabilize: [{name: a, line: 'x', patern: y}]}", "unknown key"),
        ("clients: {side_wait: -1}", "side_wait"),
    ],
)
def test_a_rule_that_cannot_work_is_refused(text: str, said: str, tmp_path: Path) -> None:
    """With a sentence that says what is wrong and where."""
    assert said in " ".join(sentences(tmp_path, text, name="conf.yaml"))


@pytest.mark.parametrize("text", ["{name: a}", "{name: a, agents: ['*'], roles: '*'}"])
def test_a_rule_for_everything_is_told(text: str, tmp_path: Path) -> None:
    """It works, and is probably not meant."""
    found = loaded(tmp_path, f"clients: {{side: [{text}]}}", name="conf.yaml")
    assert ["is for every request" in str(warning) for warning in found.warnings] == [True]
    shipped_one = loaded(tmp_path, "clients: {side: [{name: zed-title, side: refuse}]}", name="conf.yaml")
    assert shipped_one.warnings == ()
