"""The command line, as a process: what it prints, and with which exit code it ends."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bioproxy import __version__
from bioproxy.config.files import own_folder
from support.command import run
from support.http import free_port


def write(folder: Path, **config: object) -> str:
    path = folder / "conf.json"
    path.write_text(json.dumps(config))
    return str(path)


async def test_version(tmp_path: Path) -> None:
    """`bioproxy version` prints the version, also as JSON."""
    assert (await run(tmp_path, "version")).out == f"bioproxy {__version__}\n"
    assert (await run(tmp_path, "version", "--json")).json()["version"] == __version__


@pytest.mark.parametrize("word", ["-version", "--version"])
async def test_the_version_flag_prints_llama_swaps_line(word: str, tmp_path: Path) -> None:
    """Also where the configuration is broken: nothing is read."""
    ended = await run(tmp_path, "-config", "nothing.yaml", word)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"version: {__version__} (")
    assert "), built at " in ended.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-listen", "8080"], "expected an address such as localhost:8080"),
        (["-watch-config=maybe"], "expected true or false"),
        (["xyzzy"], "invalid choice: 'xyzzy'"),
        (["modles"], "there is no 'modles'; did you mean models?"),
        (["snapshots", "lst"], "there is no 'lst'; did you mean list?"),
        (["-port", "abc"], "flag -port: proxy_port: expected a whole number from 0 to 65535"),
        (["check", "--kv-policy", "maybe"], "flag --kv-policy: kv.policy: expected one of"),
        (["-prot", "8090"], "unknown flag"),
        (["serve", "-port"], "flag -port: needs a value"),
        (["warm"], "the following arguments are required: prefix"),
        (["snapshots", "burn"], "invalid choice: 'burn'"),
        (["status", "--", "-c", "4096"], "`status` takes no arguments for an engine"),
    ],
)
async def test_a_wrong_command_line_is_2(words: list[str], sentence: str, tmp_path: Path) -> None:
    """Wrong usage ends with 2, and says on stderr what is wrong with it."""
    ended = await run(tmp_path, *words)
    assert (ended.code, ended.out) == (2, "")
    assert sentence in ended.err


@pytest.mark.parametrize("word", ["-h", "-help", "--help"])
async def test_help_lists_verbs_and_flags(word: str, tmp_path: Path) -> None:
    """Every verb and the flag of every key stand in the help."""
    ended = await run(tmp_path, word)
    assert ended.code == 0
    for text in ("snapshots", "-warmup-chunk-seconds", "-config FILE", "Exit codes"):
        assert text in ended.out


@pytest.mark.parametrize(
    ("words", "every"),
    [
        (["help"], True),
        (["serve", "-help"], True),
        (["check", "-h"], True),
        (["help", "load"], False),
        (["load", "--help"], False),
        (["recipes", "-h"], False),
    ],
)
async def test_help_fits_and_names_the_flags_of_keys(words: list[str], every: bool, tmp_path: Path) -> None:
    """No line is wider than a hundred columns; of a verb that asks a program: how it finds it."""
    ended = await run(tmp_path, *words)
    assert (ended.code, ended.err) == (0, "")
    assert ("-warmup-chunk-seconds" in ended.out) == every
    assert ("`bioproxy help` lists them all" in ended.out) != every
    assert "-admin-port" in ended.out
    assert "-config FILE" in ended.out
    assert max(map(len, ended.out.splitlines())) <= 100


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["check", "-config", "gone.json"], 1),
        (["models", "-admin-port", "1"], 1),
        (["nonsense"], 2),
        (["-prot", "1"], 2),
    ],
)
async def test_a_failure_is_json_for_who_asked_for_json(words: list[str], code: int, tmp_path: Path) -> None:
    """A script that parses what it gets finds the sentence there, too."""
    ended = await run(tmp_path, *words, "--json")
    assert ended.code == code
    found = ended.json()
    assert found["error"]["code"] == code if "error" in found else not found["ok"]
    assert ended.err or "ok" in found


async def test_check_of_a_good_configuration(tmp_path: Path) -> None:
    """It is read with its templates, which are listed, and the exit code is 0."""
    (tmp_path / "note.txt").write_text("some text that is included")
    (tmp_path / "code.txt").write_text("You know <{note.txt}>. <{message}>")
    ended = await run(tmp_path, "check", "-config", write(tmp_path, prefixes={"@code": "code.txt"}))
    assert ended.code == 0, ended.err
    assert "@code" in ended.out
    assert "conf.json: good" in ended.out


async def test_check_tells_every_problem(tmp_path: Path) -> None:
    """All that is wrong with a file comes at once, with its place, and the exit code is 1."""
    ended = await run(tmp_path, "check", "-config", write(tmp_path, proxy_prot=1, admin_port="x"))
    assert (ended.code, ended.out) == (1, "")
    assert "did you mean proxy_port?" in ended.err
    assert "admin_port" in ended.err
    assert "2 problems" in ended.err


async def test_check_reads_templates_too(tmp_path: Path) -> None:
    """A missing include would stop the start, and so it is a problem here."""
    (tmp_path / "code.txt").write_text("<{missing.txt}> <{message}>")
    ended = await run(tmp_path, "check", "--json", "-config", write(tmp_path, prefixes={"@code": "code.txt"}))
    assert ended.code == 1
    assert ended.json()["ok"] is False
    assert "missing.txt" in ended.json()["problems"][0]["message"]


async def test_a_file_that_is_named_must_exist(tmp_path: Path) -> None:
    """Every verb that needs the configuration ends with 1 and the path where it is not there."""
    ended = await run(tmp_path, "config", "-config", "nothing.json")
    assert ended.code == 1
    assert "nothing.json" in ended.err


async def test_flags_win_over_environment_and_file(tmp_path: Path) -> None:
    """The code says 8088, the file says 8083, the variable 8084, and `-port 8090` wins; each origin is shown."""
    path = write(tmp_path, proxy_port=8083, admin_key="secret")
    ended = await run(tmp_path, "config", "--json", "-config", path, "-port", "8090", BIOPROXY_ADMIN_PORT="8085")
    values = {each["key"]: (each["value"], each["origin"]) for each in ended.json()["values"]}
    assert values["proxy_port"] == (8090, "flag -port")
    assert values["admin_port"][0] == 8085
    assert "BIOPROXY_ADMIN_PORT" in values["admin_port"][1]
    assert values["proxy_host"] == ("localhost", "default")
    assert "secret" not in ended.out


async def test_config_as_a_table(tmp_path: Path) -> None:
    """Key, value and origin stand in columns; without a terminal there is no colour."""
    ended = await run(tmp_path, "config")
    assert ended.out.splitlines()[0].split() == ["key", "value", "from"]
    assert "\x1b" not in ended.out
    assert "\x1b" in (await run(tmp_path, "config", "--colour", "always")).out


@pytest.mark.parametrize(
    ("words", "title"),
    [
        (["--schema"], "bioproxy"),
        (["-schema=bioproxy"], "bioproxy"),
        (["--schema", "llama-swap"], "bioproxy, in llama-swap's dialect"),
    ],
)
async def test_the_schema_for_editors(words: list[str], title: str, tmp_path: Path) -> None:
    """`config --schema` prints a JSON Schema, of either dialect."""
    assert (await run(tmp_path, "config", *words)).json()["title"] == title


SWAP = """\
models:
  qwen:
    cmd: llama-server --port ${PORT} --api-key s3cret
    env: [HF_TOKEN=s3cret]
    concurencyLimit: 3
    prefixes: {"@tests": tests.txt}
apiKeys: [s3cret]
"""


@pytest.mark.parametrize("words", [["-config", "d/c.yaml"], ["-config-dir", "d"]])
async def test_check_of_a_llama_swap_file(words: list[str], tmp_path: Path) -> None:
    """It is good; keys that nobody knows are named, and templates of a model are read."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "c.yaml").write_text(SWAP)
    ended = await run(tmp_path, "check", *words)
    assert (ended.code, ended.out) == (1, "")
    assert "tests.txt" in ended.err
    (tmp_path / "d" / "tests.txt").write_text("Test this: <{message}>")
    ended = await run(tmp_path, "check", *words)
    assert ended.code == 1
    assert "models.qwen.cmd: there is no program 'llama-server' on PATH" in ended.err
    program = tmp_path / "bin" / "llama-server"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    ended = await run(tmp_path, "check", *words, PATH=f"{program.parent}:{os.environ['PATH']}")
    assert ended.code == 0, ended.err
    assert "qwen @tests" in ended.out
    assert "qwen   warm   snapshots in " in ended.out
    assert "did you mean models.qwen.concurrencyLimit?" in ended.err


async def test_config_shows_what_counts_for_models(tmp_path: Path) -> None:
    """Ports filled in, secrets masked, each with its line."""
    (tmp_path / "c.yaml").write_text(SWAP)
    ended = await run(tmp_path, "config", "-config", "c.yaml", "--json")
    values = {each["key"]: (each["value"], each["origin"]) for each in ended.json()["values"]}
    state = own_folder(str(tmp_path / ".local" / "state" / "bioproxy"), paths=[str(tmp_path / "c.yaml")], otherwise="")
    folder = Path(state, "slots")
    command = f"llama-server --slot-save-path {folder} --port 5800 --api-key ********"
    assert values["models.qwen.cmd"] == (command, "c.yaml:3")
    assert not folder.exists()
    assert "s3cret" not in ended.out + (await run(tmp_path, "config", "-config", "c.yaml")).out


@pytest.mark.parametrize(
    "model",
    [
        {"cmd": "llama-server  --port 1 # a", "kv": "off"},
        {"cmd": "llama-server  --port 1 --slot-save-path '/a b'"},
        {"cmd": "vllm  serve --port 1"},
        {"cmd": "docker run  llama-server --port 1"},
    ],
)
async def test_config_shows_a_command_that_stays_as_it_is(model: dict[str, str], tmp_path: Path) -> None:
    """To the blank: nothing is added where the cache is off, a folder was named, or it runs something else."""
    path = write(tmp_path, models={"m": {**model, "proxy": "http://localhost:1"}})
    values = {
        each["key"]: each["value"]
        for each in (await run(tmp_path, "config", "--json", "-config", path)).json()["values"]
    }
    assert values["models.m.cmd"] == model["cmd"]


async def test_check_finds_a_broken_matrix(tmp_path: Path) -> None:
    """A start would be refused for it."""
    models = {name: {"cmd": "x ${PORT}"} for name in ("a", "b")}
    path = write(tmp_path, models=models, matrix={"sets": {"one": "a & ("}})
    ended = await run(tmp_path, "check", "-config", path)
    assert (ended.code, ended.out) == (1, "")
    assert "matrix" in ended.err


async def test_listen_wins_over_the_file(tmp_path: Path) -> None:
    """Host and port in one word."""
    words = ["-config", write(tmp_path, proxy_host="box.lan", proxy_port=1), "-listen", "127.0.0.1:8080"]
    values = {each["key"]: each for each in (await run(tmp_path, "config", "--json", *words)).json()["values"]}
    assert (values["proxy_host"]["value"], values["proxy_port"]["value"]) == ("127.0.0.1", 8080)
    assert values["proxy_port"]["origin"] == "flag -listen"


async def test_one_file_of_tls_is_1(tmp_path: Path) -> None:
    """In llama-swap's words."""
    ended = await run(tmp_path, "-tls-cert-file", "cert.pem")
    assert ended.code == 1
    assert "both -tls-cert-file and -tls-key-file must be provided for TLS" in ended.err


async def test_check_reads_the_certificate(tmp_path: Path) -> None:
    """A missing one would stop the start."""
    ended = await run(tmp_path, "check", "-tls-cert-file", "cert.pem", "-tls-key-file", "key.pem")
    assert ended.code == 1
    assert "cert.pem cannot be read" in ended.err


@pytest.mark.parametrize("words", [["status"], ["warm", "@code"]])
async def test_nothing_answers(words: list[str], tmp_path: Path) -> None:
    """Verbs that ask the program end with 1 and a sentence when none runs."""
    port = free_port()
    ended = await run(tmp_path, *words, "-admin-port", str(port))
    assert ended.code == 1
    assert f"no bioproxy answers on http://localhost:{port}" in ended.err


async def test_snapshots_without_a_folder(tmp_path: Path) -> None:
    """Where no folder is known the sentence says how to name one."""
    ended = await run(tmp_path, "snapshots", "list", "-admin-port", str(free_port()))
    assert ended.code == 1
    assert "-kv-directory" in ended.err


async def test_snapshots_of_an_empty_folder(tmp_path: Path) -> None:
    """Nothing there is no fault."""
    (tmp_path / "slots").mkdir()
    words = ["-admin-port", str(free_port()), "-kv-directory", "slots"]
    assert (await run(tmp_path, "snapshots", "list", *words)).out == "no snapshots\n"
    assert (await run(tmp_path, "snapshots", "verify", *words)).code == 0


async def test_the_engine_verb_has_flags_of_its_own(tmp_path: Path) -> None:
    """`bioproxy engine` takes llama-server's flags; an unknown one is an error that names it."""
    ended = await run(tmp_path, "engine", "--no-such-flag", "1")
    assert ended.code == 1
    assert "--no-such-flag" in ended.err
    assert "--slot-save-path" in (await run(tmp_path, "engine", "--help")).out
