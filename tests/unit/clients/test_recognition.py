"""Which program sent a request, and which of the shipped rules are for it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bioproxy.clients.recognition import MOST_SEEN, Found, Rules, find
from bioproxy.clients.view import View
from bioproxy.config.check import rule_faults
from bioproxy.config.schema import App, Clients, Shape, SideRule, StabilizeRule
from bioproxy.config.shipped import shipped
from bioproxy.templates.bodies import Body
from support.requests_of_clients import MAIN, SIDE, Sent, chat, user

NONE = Clients()
ALL: tuple[Shape, ...] = (*shipped().apps, *shipped().side, *shipped().stabilize)


def found(sent: Sent, clients: Clients = NONE) -> Found:
    """What the rules say of a request."""
    rules = Rules(clients)
    seen = rules.look(sent.agent.encode(), sent.path)
    return find(seen, sent.fields, View(sent.dialect, Body(sent.raw)))


@pytest.mark.parametrize("sent", SIDE, ids=lambda sent: f"{sent.side} {sent.path}")
def test_each_shipped_side_rule_is_for_the_request_of_its_client(sent: Sent) -> None:
    """And the client is recognised by it."""
    judged = found(sent)
    assert (judged.app, judged.side and judged.side.name) == (sent.app, sent.side)


@pytest.mark.parametrize("sent", MAIN, ids=lambda sent: f"{sent.app or 'unknown'} {sent.agent[:12]}")
def test_a_conversation_is_no_side_request(sent: Sent) -> None:
    """Whatever people write in it."""
    judged = found(sent)
    assert (judged.app, judged.side) == (sent.app, None)


def test_every_shipped_side_rule_has_a_request_here() -> None:
    """So none is shipped untried."""
    assert {rule.name for rule in shipped().side} == {sent.side for sent in SIDE}


def test_the_shipped_rules_have_no_fault_and_say_why_they_are_safe() -> None:
    """Those that change or delay something."""
    assert [fault for rule in ALL for fault in rule_faults(rule)] == []
    assert all(rule.why for rule in (*shipped().side, *shipped().stabilize))
    assert all(rule.why for rule in shipped().apps if rule.system or rule.first or rule.last)


def test_a_shipped_rule_goes_by_the_agent_first() -> None:
    """Else each request of any client would have to be looked at."""
    assert all(rule.agents for rule in ALL)


@pytest.mark.parametrize(
    ("agent", "settled"), [(b"test", True), (b"curl/8", True), (None, True), (b"claude-cli/2", False)]
)
def test_a_request_that_no_rule_can_be_for_is_settled_at_once(agent: bytes | None, settled: bool) -> None:
    """By agent and path, so that its body is not looked at."""
    assert Rules(Clients()).look(agent, "/v1/chat/completions").settled is settled


def test_what_is_remembered_of_agents_is_bounded() -> None:
    """A client may say anything."""
    rules = Rules(Clients())
    for number in range(3 * MOST_SEEN):
        rules.look(b"agent %d" % number, "/")
    assert len(rules.seen) <= MOST_SEEN


def test_a_shipped_rule_is_changed_by_its_name() -> None:
    """An own rule of that name says only what is different."""
    own = Clients(side=(SideRule(name="open-webui-tasks", side="refuse", model="small"),))
    judged = found(SIDE[0], own).side
    assert judged is not None
    assert (judged.side, judged.model, judged.app) == ("refuse", "small", "open-webui")
    assert found(SIDE[0], Clients(side=(SideRule(name="open-webui-tasks", side="off"),))).side is None


def test_own_rules_come_first() -> None:
    """The first that fits counts."""
    judged = found(SIDE[0], Clients(side=(SideRule(name="mine", stream="false"),)))
    assert judged.side is not None
    assert judged.side.name == "mine"


def test_an_own_client_is_recognised() -> None:
    """By a header of its own."""
    own = Clients(apps=(App(name="my-agent", headers=("X-Agent: mine*",)),))
    sent = Sent(agent="python-httpx/0.28", headers={"x-agent": "mine 1"}, body=chat(*user("hi")))
    assert found(sent, own).app == "my-agent"
    assert found(msgspec.structs.replace(sent, headers={}), own).app == ""


SENT = Sent(agent="mine/1", body=chat({"role": "system", "content": "S"}, *user("a", "b"), max_tokens=9, tools=[{}]))


@pytest.mark.parametrize(
    ("conditions", "fits"),
    [
        ({}, True),
        ({"agents": ("mine/*",)}, True),
        ({"agents": ("other/*", "mine/2")}, False),
        ({"paths": ("/v1/*",)}, True),
        ({"paths": ("/v1/messages",)}, False),
        ({"stream": "true"}, True),
        ({"stream": "false"}, False),
        ({"tools": "some"}, True),
        ({"tools": "none"}, False),
        ({"max_tokens": 9}, True),
        ({"max_tokens": 8}, False),
        ({"roles": "system user user"}, True),
        ({"roles": "system user"}, False),
        ({"roles": "*user"}, True),
        ({"system": ("S",)}, True),
        ({"system": ("T", "U")}, False),
        ({"first": ("a",)}, True),
        ({"first": ("b",)}, False),
        ({"last": ("b",)}, True),
        ({"last": ("a",)}, False),
        ({"headers": ("user-agent: mine*",)}, True),
        ({"headers": ("x-none: *",)}, False),
        ({"app": "other"}, False),
    ],
)
def test_all_conditions_of_a_rule_must_hold(conditions: dict[str, Any], fits: bool) -> None:
    """Each of them alone."""
    judged = found(SENT, Clients(side=(SideRule(name="mine", **conditions),)))
    assert (judged.side is not None) is fits


@pytest.mark.parametrize(
    "raw",
    [
        b'{"messages": 5}',
        b'{"messages": [5, null, []]}',
        b'{"messages": [{"role": 5, "content": {}}], "max_tokens": "9", "tools": {}}',
        b'{"messages": [{"role": "system", "content": [{"type": "text", "text": "\\ud800"}]}]}',
        b'{"messages": "hi", "system": 7}',
        b"{}",
    ],
)
def test_a_body_that_is_no_conversation_fits_no_text(raw: bytes) -> None:
    """And breaks nothing."""
    rule = SideRule(name="mine", roles="user", system=("*",), first=("*",), last=("*",))
    seen = Rules(Clients(side=(rule,))).look(b"x", "/")
    for dialect in ("chat", "anthropic", "responses", "completion"):
        assert find(seen, {}, View(dialect, Body(raw))).side is None


def test_a_mode_of_all_is_the_rules_unless_it_has_its_own() -> None:
    """`clients.stabilize_mode`; rules that are off are not there."""
    own = (
        StabilizeRule(name="a", line="abc"),
        StabilizeRule(name="b", line="abc", mode="observe"),
        StabilizeRule(name="c", mode="off"),
    )
    modes = {rule.name: rule.mode for rule in Rules(Clients(stabilize=own, stabilize_mode="on")).mend}
    assert (modes["a"], modes["b"], "c" in modes, modes["tools-by-name"]) == ("on", "observe", False, "on")
