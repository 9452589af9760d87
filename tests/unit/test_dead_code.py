"""Nothing in src is there for nobody: vulture finds no function, attribute or variable that only tests use."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from bioproxy.cli.verbs import VERBS

vulture = pytest.importorskip("vulture")

SRC = Path(__file__).parents[2] / "src"
CALLED_BY = {  # names that a library or a test must know
    "asyncio.Protocol": "connection_made data_received eof_received connection_lost pause_writing resume_writing",
    "asyncio.SubprocessProtocol": "pipe_data_received process_exited",
    "httptools": "on_message_begin on_url on_status on_header on_headers_complete on_body on_message_complete",
    "re2.Options": "dot_nl log_errors never_capture",
    "concurrent.futures.Executor.shutdown": "cancel_futures",
    "zlib's decompressors": "max_length",
    "__exit__": "trace",
    "tests that kill a save after each of its steps": "STEPS",
}


def fields() -> set[str]:
    """The fields of every Struct: an answer shows them, or a file keeps them."""
    classes = (
        node
        for path in SRC.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    assigned = (statement for one in classes for statement in one.body if isinstance(statement, ast.AnnAssign))
    return {one.target.id for one in assigned if isinstance(one.target, ast.Name)}


@pytest.mark.timeout(300)  # it reads all of src and of the tests
def test_nothing_is_dead() -> None:
    """What only a test calls goes with its test; what a library calls stands in the table above."""
    finder = vulture.Vulture()
    finder.scavenge([str(SRC)])
    known = fields() | {verb.function.partition(":")[2] for verb in VERBS}
    known |= {name for names in CALLED_BY.values() for name in names.split()}
    dead = [one for one in finder.get_unused_code(min_confidence=60) if one.name not in known]
    assert [f"{one.filename.relative_to(SRC)}:{one.first_lineno}: {one.typ} {one.name}" for one in dead] == []
