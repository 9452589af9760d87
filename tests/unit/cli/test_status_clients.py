"""What `bioproxy status` says of clients' rules."""

from __future__ import annotations

from bioproxy.cli.remote import clients_text


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
