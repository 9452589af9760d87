"""The dashboard and the alert rules ask for metrics and labels that exist, and Prometheus' own tools accept them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bioproxy.events import Bus
from bioproxy.metrics import Counter, Metrics, Times

ROOT = Path(__file__).parents[2]
RULES = ROOT / "packaging" / "prometheus" / "bioproxy.rules.yml"
DASHBOARD = ROOT / "packaging" / "grafana" / "bioproxy.json"
PROMTOOL = shutil.which("promtool") or ""
NEEDS_PROMTOOL = pytest.mark.skipif(not PROMTOOL, reason="promtool is not installed")
OF_SCRAPE = {"job", "instance"}  # labels that Prometheus adds
NAMES = re.compile(r"\b(?:bioproxy|llamaswap|process)_\w+|\bup\b")
ROW = re.compile(r"^\| (`(?:bioproxy|llamaswap|process)_.*`) \| (\w*) ?\|([^|]*)\|", re.MULTILINE)


def known() -> dict[str, set[str]]:
    """The labels of each series on the page: docs/metrics.md has all of them (test_metrics.py)."""
    found: dict[str, set[str]] = {"up": set()}
    for names, kind, labels in ROW.findall((ROOT / "docs" / "metrics.md").read_text("utf-8")):
        of = set(re.findall(r"`(\w+)`", labels))
        for name in re.findall(r"\w+", names):
            found |= {name: of}
            if kind == "histogram":
                found |= {f"{name}_bucket": {*of, "le"}, f"{name}_sum": of, f"{name}_count": of}
    return found


KNOWN = known()


def rules() -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"]:
        yield from group["rules"]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return found


def queries() -> list[tuple[str, str]]:
    """(what shows it, its query): of each panel and rule."""
    board = json.loads(DASHBOARD.read_text("utf-8"))
    shown = [(panel["title"], target["expr"]) for panel in panels() for target in panel.get("targets", ())]
    marks = [(one["name"], one["expr"]) for one in board["annotations"]["list"]]
    asked = [(one["name"], one["query"]["query"]) for one in board["templating"]["list"] if one["type"] == "query"]
    return [*shown, *marks, *asked, *((rule["alert"], rule["expr"]) for rule in rules())]


def labels_of(query: str) -> set[str]:
    """The labels that a query's metrics have."""
    names = NAMES.findall(re.sub(r'"[^"]*"', '""', query))
    return OF_SCRAPE.union(*(KNOWN[name] for name in names))


@pytest.mark.parametrize(("where", "query"), queries())
def test_a_query_asks_for_what_there_is(where: str, query: str) -> None:
    """Each metric is on the page, and has the labels that are picked and grouped by."""
    bare = re.sub(r'"[^"]*"', '""', query)
    names = NAMES.findall(bare)
    assert [name for name in names if name not in KNOWN] == [], where
    for name, picked in re.findall(r"(\w+)\{([^}]*)\}", bare):
        assert set(re.findall(r"(\w+)\s*[=!]", picked)) <= KNOWN[name] | OF_SCRAPE, where
    for grouped in re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", bare):
        assert set(re.findall(r"\w+", grouped)) <= labels_of(query), where


def test_what_panels_and_alerts_say_names_labels_that_there_are() -> None:
    """A legend or summary with a label that is not there shows an empty word."""
    for panel in panels():
        for target in panel.get("targets", ()):
            told = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert told <= labels_of(target["expr"]), panel["title"]
    for rule in rules():
        told = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        assert told <= labels_of(rule["expr"]), rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}


def test_the_documented_labels_are_those_that_are_counted() -> None:
    """Of every counter and histogram that events feed."""
    metrics = Metrics(Bus())
    for group in (metrics.requests, metrics.events, metrics.of_models):
        for one in vars(group).values():
            if isinstance(one, Counter | Times):
                assert KNOWN[one.name] == set(one.labels), one.name


def test_panels_have_their_own_place() -> None:
    """Grafana moves panels that lie on each other, and mixes up those that share a number."""
    found = panels()
    assert len({panel["id"] for panel in found}) == len(found)
    taken = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in found]
    assert len(set(taken)) == len(taken)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in found)


def test_every_alert_is_described() -> None:
    """docs/operating.md has a row for each, and no other."""
    page = (ROOT / "docs" / "operating.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(Bioproxy\w+)` \|", page, re.MULTILINE)) == {rule["alert"] for rule in rules()}


def promtool(*words: str | Path) -> str:
    """What promtool says; fails if it finds a fault."""
    done = subprocess.run([PROMTOOL, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@NEEDS_PROMTOOL
def test_promtool_accepts_the_rules() -> None:
    """Each one parses, and none is there twice."""
    assert f"{len(list(rules()))} rules found" in promtool("check", "rules", RULES)


@NEEDS_PROMTOOL
def test_each_alert_fires_when_it_should_and_not_otherwise() -> None:
    """Prometheus itself plays the series of the rules' own test file; each alert is in it."""
    tests = RULES.with_name("bioproxy.rules.test.yml")
    assert "SUCCESS" in promtool("test", "rules", tests)
    text = tests.read_text("utf-8")
    fired = {*re.findall(r'alertname="(\w+)", alertstate="firing", job', text), "BioproxyDown"}
    assert fired == {rule["alert"] for rule in rules()}


@NEEDS_PROMTOOL
def test_promtool_accepts_the_dashboards_queries(tmp_path: Path) -> None:
    """As rules that record something, with Grafana's variables filled in."""
    shown = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    filled = [
        query.replace("$__rate_interval", "5m").replace("$job", ".*").replace("$instance", ".*") for query in shown
    ]
    recorded = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(filled)]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}), "utf-8")
    assert f"{len(shown)} rules found" in promtool("check", "rules", file)
