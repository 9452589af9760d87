"""A `docker` without containers: `run`, `ps`, `stop` and `rm`, as far as models need them.

A container is a file in the folder FAKE_DOCKER, so that it outlives the client that asked for it, as real ones do:
`run` waits until it is stopped, and where it is killed its container stays. A file holds id, name, label and the
client's pid. `{"name": …}` is printed once the container stands, so that a test can wait for it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["FAKE_DOCKER"])


def containers() -> list[tuple[Path, dict[str, Any]]]:
    """Every container and its file."""
    return [(path, json.loads(path.read_text())) for path in sorted(FOLDER.glob("*.json"))]


def value(words: list[str], flag: str) -> str:
    """What a flag is given; nothing where it is absent."""
    return words[words.index(flag) + 1] if flag in words else ""


def fail(message: str, code: int = 1) -> int:
    """Say what is wrong, as the real one does."""
    sys.stderr.write(f"Error response from daemon: {message}\n")
    return code


def run(words: list[str]) -> int:
    """Start one and wait for its end."""
    name = value(words, "--name")
    if any(one["name"] == name for _, one in containers()):
        return fail(f'Conflict. The container name "/{name}" is already in use', 125)
    identity = f"{len(list(FOLDER.iterdir())):012d}"
    path = FOLDER / f"{identity}.json"
    about = {"id": identity, "name": name, "label": value(words, "--label"), "pid": os.getpid(), "words": words}
    signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))
    path.write_text(json.dumps(about))
    sys.stdout.write(json.dumps({"name": name}) + "\n")
    sys.stdout.flush()
    while True:
        signal.pause()


def ps(words: list[str]) -> int:
    """List those with a label, by the one format that is understood."""
    if value(words, "--filter") != "label=bioproxy" or '{{.Label "bioproxy"}}' not in value(words, "--format"):
        return fail("this fake lists by the label bioproxy only")
    for _, one in containers():
        label, _, text = one["label"].partition("=")
        if label == "bioproxy":
            sys.stdout.write(f"{one['id']}\t{one['name']}\t{text}\n")
    return 0


def remove(words: list[str]) -> int:
    """`stop NAME` and `rm --force ID`: the container goes, and its client ends."""
    wanted = words[-1]
    for path, one in containers():
        if wanted in {one["name"], one["id"]}:
            path.unlink()
            with contextlib.suppress(ProcessLookupError):
                os.kill(one["pid"], signal.SIGUSR1)
            return 0
    return fail(f"No such container: {wanted}")


def main() -> int:
    """One command; each is written down."""
    verb, *words = sys.argv[1:]
    with (FOLDER / "calls").open("a") as calls:
        calls.write(" ".join(sys.argv[1:]) + "\n")
    if (FOLDER / "broken").exists():
        return fail("the daemon is not there")
    return {"run": run, "ps": ps, "stop": remove, "rm": remove}[verb](words)


if __name__ == "__main__":
    sys.exit(main())
