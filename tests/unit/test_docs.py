"""The README and the pages in docs/ say what the code does: routes, statuses, messages, links, and a config that loads.

Pages that are made from a table of the code have their own tests beside it: configuration (config/test_document.py),
command line (cli/test_docs.py), engine flags (embedded/test_program.py), metrics (test_metrics.py), admin routes
(integration/test_admin_routes.py). Here is what lies between them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bioproxy import errors
from bioproxy.cli import main, verbs
from bioproxy.config.keys import KEYS
from bioproxy.front import cors, routes, ways
from bioproxy.front.dialects import dialect_of, error_json, keepalive
from bioproxy.kv.statistics import KvStatistics

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text("utf-8")
PAGES = {path.name: path.read_text("utf-8") for path in sorted(DOCS.glob("*.md"))}
API = PAGES["api.md"]
EVERYTHING = "\n".join([README, *PAGES.values()])

GATES = {"grant": "waits", "free": "at once", "slot_action": "alone", "shared": "shared"}
ON_THE_WAY = (
    errors.ConfigError,
    errors.NotFound,
    errors.TemplateError,
    errors.EngineRefused,
)  # never on the proxy port


def fences(text: str, language: str) -> list[str]:
    """The fenced stretches of a page in one language."""
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return found


def subclasses(kind: type[errors.BioproxyError]) -> Iterator[type[errors.BioproxyError]]:
    """Every error class of the program's tree."""
    for one in kind.__subclasses__():
        yield one
        yield from subclasses(one)


# the README


@pytest.fixture
def config_of_the_readme(tmp_path: Path) -> Path:
    """The README's config and template, each in a file of the name that the README gives it; no engine is needed."""
    home = tmp_path / "home"
    (home / "src" / "app").mkdir(parents=True)
    (home / "src" / "app" / "main.py").write_text("print(1)\n", "utf-8")
    [template] = [text for text in fences(README, "text") if "<{message}>" in text]
    (tmp_path / "code.txt").write_text(template, "utf-8")
    [config] = fences(README, "yaml")
    path = tmp_path / "config.yaml"
    path.write_text(config, "utf-8")
    return path


def test_the_readmes_config_is_good(
    config_of_the_readme: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`bioproxy check` finds nothing wrong with it, and fills its template in."""
    monkeypatch.setenv("HOME", str(config_of_the_readme.parent / "home"))
    for name in [option.environment for option in KEYS.values()]:
        monkeypatch.delenv(name, raising=False)
    code = main.main(["check", "-config", str(config_of_the_readme)])
    printed = capsys.readouterr()
    assert (code, printed.err) == (0, "")
    assert "@code" in printed.out


def test_the_operators_example_of_keys_is_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It can be copied as it stands, once the files of its keys are there and the digest is whole."""
    [config] = [text for text in fences(PAGES["operating.md"], "yaml") if "metrics_key" in text]
    (tmp_path / "keys").mkdir()
    for name in re.findall(r"key_file: keys/([\w-]+)", config):
        (tmp_path / "keys" / name).write_text(name, "utf-8")
        (tmp_path / "keys" / name).chmod(0o600)
    (tmp_path / "config.yaml").write_text(config.replace("9f86d081…", "9f86d081" * 8), "utf-8")
    code = main.main(["check", "-config", str(tmp_path / "config.yaml")])
    printed = capsys.readouterr()
    assert (code, printed.err) == (0, "")


def test_the_readmes_config_is_ten_lines(config_of_the_readme: Path) -> None:
    """Its heading says so."""
    assert len(config_of_the_readme.read_text("utf-8").splitlines()) == 10


def test_the_readmes_first_screen_shows_picture_and_figures() -> None:
    """A picture that fits into a terminal of 80 columns, and the tables of the demo, before anything else to read."""
    first, _, starts = README.partition("\n## Start\n")
    picture, *tables = fences(first, "text")
    assert max(map(len, picture.splitlines())) <= 80
    named = [re.sub(r"\s+", " ", table).partition(" first token")[0].strip() for table in tables]
    assert named == ["an agent", "", "two models"]
    assert all(len(lines.splitlines()) <= 5 for lines in fences(starts, "sh")[:4])


def test_the_readme_names_real_verbs_and_targets() -> None:
    """Commands work as they are written; the rest of them is run by other tests and by CI."""
    commands = "\n".join(fences(README, "sh"))
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert {"demo", "test"} == set(re.findall(r"^make (\w+)", commands, re.MULTILINE))
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in ("demo", "test"))
    named = set(re.findall(r"^bioproxy +([a-z]+)\b", commands, re.MULTILINE))
    assert named
    assert named <= set(verbs.BY_NAME)


# links


def anchors(text: str) -> set[str]:
    """The names that headings get on a page: lower case, blanks as dashes, other signs left out."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ["README.md", "SECURITY.md", *(f"docs/{name}" for name in PAGES)])
def test_every_link_leads_somewhere(page: str) -> None:
    """Files exist, and so do the headings that are linked to."""
    text = (ROOT / page).read_text("utf-8")
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
        path = ((ROOT / page).parent / target) if target else ROOT / page
        assert path.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(path.read_text("utf-8")), f"{page}: {target}#{anchor}"


def test_each_picture_is_shown_and_small() -> None:
    """In the page about the web page; a clone need not be large for them."""
    pictures = sorted((DOCS / "pictures").iterdir())
    assert [one.name for one in pictures if f"](pictures/{one.name})" not in PAGES["ui.md"]] == []
    assert [one.name for one in pictures if one.stat().st_size > 60_000] == []


def test_the_index_names_every_page() -> None:
    """Whoever looks for a page looks there."""
    linked = set(re.findall(r"\]\(([a-z-]+\.md)", PAGES["README.md"]))
    assert linked == set(PAGES) - {"README.md"}


# security


def test_every_boundary_names_tests_that_there_are() -> None:
    """docs/security.md says of each boundary which tests hold it: a function that is in that file."""
    rows = PAGES["security.md"].partition("## Boundaries and their tests\n")[2].partition("\n## ")[0].splitlines()
    cells = [row.split(" | ")[-1] for row in rows if row.startswith("| ") and not row.startswith("| boundary")]
    assert len(cells) > 10
    assert [cell for cell in cells if "::" not in cell] == []
    for file, name in re.findall(r"`([\w/]+\.py)::(\w+)`", "".join(cells)):
        tree = ast.parse((ROOT / "tests" / file).read_text("utf-8"))
        assert name in {one.name for one in tree.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}, file
    assert all(cell.count("`") == 2 * cell.count("::") for cell in cells)


# the proxy port


def routes_in_the_code() -> set[tuple[str, str, str, str]]:
    """(method, path, how it is treated, dialect) of every route."""
    tables = [*routes.ONE.exact.items(), *(("", methods) for _, methods in routes.ONE.patterns)]
    return {
        (method, route.endpoint, GATES[route.gate] + (", without a key" if route.public else ""), route.dialect or "")
        for _, methods in tables
        for method, route in methods.items()
    }


def test_every_proxy_route_is_described() -> None:
    """The table of docs/api.md is the table in the code: treatment, templates, key."""
    rows = [
        (method, path, treated, dialect)
        for routes, treated, dialect in re.findall(r"^\| (`.*`) \| ([^|]*?) \|(?: `(\w+)`)? \|$", API, re.MULTILINE)
        for method, path in re.findall(r"`(\S+) (/\S*)`", routes)
    ]
    assert len(rows) == len(set(rows))
    assert set(rows) == routes_in_the_code()


def test_what_is_taken_out_and_added_is_described() -> None:
    """Headers of requests and answers."""
    named = API.lower()
    dropped = {name.decode() for name in ways.DROPPED_KEYS}
    added = {"server-timing", "retry-after", "www-authenticate", "vary", *cors.EXPOSED.decode().split(", ")}
    assert [name for name in sorted(dropped | added) if f"`{name}" not in named] == []
    assert f"```text\n{keepalive('openai').decode().strip()}\n```" in API
    assert f"`{keepalive('anthropic').decode().splitlines()[0]}`" in API


def test_every_status_and_code_is_described() -> None:
    """Of each error that a client of the proxy port can get, and of each status that is raised by number."""
    rows = {(int(status), code) for status, code in re.findall(r"^\| (\d{3}) \| `(\w+)` \|", API, re.MULTILINE)}
    kinds = [kind for kind in subclasses(errors.BioproxyError) if kind.__module__ == errors.__name__]
    wanted = {(kind.default_status, kind.code) for kind in kinds if kind not in ON_THE_WAY}
    assert wanted - rows == set()
    sources = [path.read_text("utf-8") for part in ("front", "wire") for path in package(part)]
    raised = {int(status) for text in sources for status in re.findall(r"Error\(.*status=(\d{3})", text)}
    assert raised - {status for status, _ in rows} == set()


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions", "/completion"])
def test_the_shape_of_errors_is_described(path: str) -> None:
    """The fields of each dialect stand in the table."""
    body = error_json(errors.RequestError("no"), dialect_of(path), request_id="1").decode()
    fields = set(re.findall(r'"(\w+)":', body))
    rows = [line for line in API.splitlines() if '"error": {' in line]
    assert any(set(re.findall(r'"(\w+)"', row)) == fields for row in rows)


# troubleshooting


def package(part: str = "") -> list[Path]:
    """The modules of the program, or of one package of it."""
    return sorted((ROOT / "src" / "bioproxy" / part).rglob("*.py"))


def texts(tree: ast.Module) -> Iterator[str]:
    """Every text in a module, with `…` where a value is filled in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [one.value if isinstance(one, ast.Constant) else "…" for one in node.values]
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.fixture(scope="module")
def said() -> str:
    """All that the program can say."""
    return "\n".join(text for path in package() for text in texts(ast.parse(path.read_text("utf-8"))))


def messages(page: str) -> list[str]:
    """What bioproxy says: the bold beginnings of the items of lists."""
    found = re.findall(r"^- \*\*(.+?)\*\* ", page, re.MULTILINE | re.DOTALL)
    return [" ".join(message.split()) for message in found]


MESSAGES = messages(PAGES["troubleshooting.md"])


@pytest.mark.parametrize("message", MESSAGES)
def test_every_quoted_message_is_one_of_ours(message: str, said: str) -> None:
    """A reader searches for what is on the screen: each stretch between the `…` stands in the code."""
    for stretch in re.split(r"…|SIG[A-Z]+|[:;] ", message):
        assert stretch.strip() in said, stretch


def test_messages_are_quoted() -> None:
    """Otherwise the test above would test nothing."""
    assert len(MESSAGES) > 100


# names


def test_every_name_of_ours_in_the_docs_exists() -> None:
    """Environment variables; dotted keys in backticks are keys of the configuration, or fields of `/status`."""
    variables = set(re.findall(r"\bBIOPROXY_[A-Z_]+[A-Z]\b", EVERYTHING))
    known = {option.environment for option in KEYS.values()} | {"BIOPROXY_CONFIG", "BIOPROXY_CONFIG_DIR"}
    assert variables - known == {"BIOPROXY_PORT"}  # Kubernetes makes that one
    sections = {path.partition(".")[0] for path in KEYS if "." in path}
    dotted = set(re.findall(rf"`((?:{'|'.join(sections)})\.[a-z_]+)`", EVERYTHING))
    of_status = {f"kv.{name}" for name in KvStatistics.__struct_fields__}
    assert dotted - set(KEYS) - of_status == set()
