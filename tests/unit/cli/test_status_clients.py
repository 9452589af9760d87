"""What `bioproxy status` says of clients' rules, and of keys."""

from __future__ import annotations

from bioproxy.cli.remote import clients_text, keys_text


def test_what_rules_about_clients_did() -> None:
    """A line for each rule that was for a request."""
    title = {"matched": 12, "refused": 2, "rerouted": 0, "waited": 9.5, "kept": 41_000, "spared": 10}
    date = {"matched": 9, "changed": 3, "mended": 0, "spared": 400}
    turn = {"matched": 9, "changed": 8, "mended": 9, "spared": 5000}
    lines = list(clients_text({"side": {"titles": title}, "stabilize": {"date": date, "turn": turn}}))
    assert lines == [
        ("side", "titles: 12 requests, 2 refused, 41,000 tokens of conversations kept"),
        ("prompts", "date: 9 requests, 3 changed, about 400 tokens would be spared"),
        ("prompts", "turn: 9 requests, 8 changed, about 5,000 tokens spared"),
    ]


def test_what_keys_have_left() -> None:
    """A line for each that may not use any number of tokens."""
    ann = {"key": "ann", "left": 1200, "tokens_per_day": 5000, "today": {"refused": 0}}
    bob = {"key": "bob", "left": 0, "tokens_per_day": 5000, "today": {"refused": 3}}
    eve = {"key": "eve", "left": None, "tokens_per_day": 0, "today": {"refused": 0}}
    assert list(keys_text([ann, bob, eve])) == [
        ("key", "ann: 1,200 of 5,000 tokens left today"),
        ("key", "bob: 0 of 5,000 tokens left today, 3 requests refused"),
    ]
