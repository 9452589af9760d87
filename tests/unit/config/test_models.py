"""A config with `models`: which dialect a file is read in, and how its own keys become the Config."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from bioproxy.config.load import Loaded, admin_port_asked, load
from bioproxy.config.schema import Key, Prefix
from bioproxy.errors import ConfigError
from support.config_files import loaded, problems, sentences, write

MODELS = "models: {m: {cmd: 'x --port ${PORT}'}}\n"


def from_folder(
    folder: Path, *, path: str | None = None, environment: Mapping[str, str] | None = None, name: str = "d"
) -> Loaded:
    """What -config-dir says, with -config or without."""
    return load(path=path, directory=str(folder / name), environment={"HOME": str(folder), **(environment or {})})


def in_folder(folder: Path, **texts: str) -> None:
    """Files of a folder `d`."""
    (folder / "d").mkdir()
    for name, text in texts.items():
        write(folder / "d", text, name=f"{name}.yaml")


# which dialect


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (MODELS, "conf.yaml"),
        ("peers: {p: {proxy: http://p.lan, models: [m]}}", "conf.yaml"),
        ('{"models": {}}', "conf.json"),
        ("{models: {}}", "conf.yaml"),
        ("proxy_port: 1\nmodels:\n", "conf"),
    ],
)
def test_models_or_peers_at_the_top_make_the_other_dialect(text: str, name: str, tmp_path: Path) -> None:
    """In YAML and JSON, whatever stands beside them; nothing else decides where requests go then."""
    found = loaded(tmp_path, text, name=name)
    assert found.dialect is not None
    assert (found.config.backend_url, found.config.model) == ("", "")
    assert found.path == str(tmp_path / name)
    assert found.paths == (str(tmp_path / name),)


@pytest.mark.parametrize("text", ["proxy_port: 1", 'prefixes: {"models": m.txt}', "log:\n  level: info\n"])
def test_everything_else_is_our_own(text: str, tmp_path: Path) -> None:
    """With the engine that it names, or the default one."""
    found = loaded(tmp_path, text)
    assert found.dialect is None
    assert found.config.backend_url == "http://localhost:8081"


def test_an_unknown_key_is_a_warning_there_and_an_error_here(tmp_path: Path) -> None:
    """Each with its line and the key that was probably meant."""
    found = loaded(tmp_path, MODELS + "globalTLL: 5\nproxy_prot: 1\n")
    assert [str(warning).replace(os.path.join(tmp_path, ""), "") for warning in found.warnings] == [
        "conf.yaml:2: globalTLL: is not known and has no effect; did you mean globalTTL?",
        "conf.yaml:3: proxy_prot: is not known and has no effect; did you mean proxy_port?",
    ]
    assert sentences(tmp_path, "proxy_prot: 1") == ["conf.yaml:1: proxy_prot: unknown key; did you mean proxy_port?"]


# own keys


def test_own_keys_stand_beside_models(tmp_path: Path) -> None:
    """With units, macros, variables and their places; later sources win over them."""
    text = MODELS + "macros: {port: 8090}\nproxy_port: ${port}\nkv:\n  min_free: 1GiB\nadmin_key: ${env.KEY}\n"
    found = loaded(tmp_path, text, environment={"KEY": "k"}, arguments={"queue_limit": "7"})
    config = found.config
    assert (config.proxy_port, config.kv.min_free, config.admin_key, config.queue_limit) == (8090, 1 << 30, "k", 7)
    assert str(found.origins["kv.min_free"]) == f"{tmp_path / 'conf.yaml'}:5"
    assert str(found.origins["proxy_port"]) == f"{tmp_path / 'conf.yaml'}:3"
    assert loaded(tmp_path, text, environment={"KEY": "k"}, arguments={"proxy_port": "1"}).config.proxy_port == 1


def test_problems_of_both_dialects_are_told_together(tmp_path: Path) -> None:
    """By line, as one mends them."""
    text = "proxy_port: x\nmodels:\n  m: {cmd: '${nothing} ${PORT}'}\nqueue_limit: 0\nstartPort: 0\n"
    assert [line.partition(": ")[0] for line in sentences(tmp_path, text)] == [
        "conf.yaml:1", "conf.yaml:3", "conf.yaml:4", "conf.yaml:5",
    ]  # fmt: skip


def test_both_lists_of_keys_are_one(tmp_path: Path) -> None:
    """A key that stands in both is the one that may have a name."""
    text = MODELS + "apiKeys: [one, two, two]\napi_keys: [{key: one, name: first}, three]\n"
    found = loaded(tmp_path, text)
    assert found.config.api_keys == (Key(key="one", name="first"), Key(key="three"), Key(key="two"))
    assert str(found.origins["api_keys[2]"]) == f"{tmp_path / 'conf.yaml'}:2"
    assert loaded(tmp_path, MODELS + "apiKeys: [one]").config.api_keys == (Key(key="one"),)


def test_a_bad_key_is_told_where_it_stands(tmp_path: Path) -> None:
    """The judgement is ours, the place is the other list's."""
    (said,) = sentences(tmp_path, MODELS + 'apiKeys:\n  - good\n  - "bäd"\n')
    assert said.startswith("conf.yaml:4: api_keys[1]: a key must be made of ASCII letters")


@pytest.mark.parametrize(
    ("text", "level"),
    [("logLevel: warn", "warning"), ("logLevel: DEBUG", "debug"), ("", "info"),
     ("logLevel: debug\nlog: {level: error}", "error")],
)  # fmt: skip
def test_the_other_log_level_counts_where_ours_is_not_given(text: str, level: str, tmp_path: Path) -> None:
    """Ours wins in one file; environment and flags win over both."""
    assert loaded(tmp_path, MODELS + text).config.log.level == level
    assert loaded(tmp_path, MODELS + text, arguments={"log.level": "info"}).config.log.level == "info"


# who decides where requests go


@pytest.mark.parametrize("given", ["file", "environment", "flag"])
@pytest.mark.parametrize(("key", "value"), [("backend_url", "http://localhost:1"), ("model", "/m.gguf")])
def test_models_stand_alone(key: str, value: str, given: str, tmp_path: Path) -> None:
    """Beside them neither `backend_url` nor `model` is set, wherever it comes from."""
    text = MODELS + (f"{key}: {value}\n" if given == "file" else "")
    arguments = {key: value} if given == "flag" else {}
    environment = {f"BIOPROXY_{key.upper()}": value} if given == "environment" else {}
    (problem,) = problems(tmp_path, text, arguments=arguments, environment=environment)
    assert problem.key == key
    assert "only one of the two decides where requests go" in problem.message
    assert f"{tmp_path / 'conf.yaml'}:1" in problem.message


def test_without_a_model_another_engine_may_be_named(tmp_path: Path) -> None:
    """`models:` with nothing in it is legal, and says nothing."""
    found = loaded(tmp_path, "models:\nbackend_url: http://localhost:1\n")
    assert (found.dialect, found.config.backend_url) == (None, "http://localhost:1")


def test_arguments_for_no_engine_are_a_warning(tmp_path: Path) -> None:
    """It says where those of a model stand."""
    (warning,) = loaded(tmp_path, MODELS + "engine_arguments: ['-c']").warnings
    assert warning.message == "have no effect without model; the arguments of one of the models stand in its cmd"


@pytest.mark.parametrize(
    ("text", "asked"), [("", False), ("admin_port: 8089", True), ("admin_host: 127.0.0.1", True), ("kv: {}", False)]
)
def test_who_asked_for_the_admin_port(text: str, asked: bool, tmp_path: Path) -> None:
    """Its default is a wish that may fail."""
    assert admin_port_asked(loaded(tmp_path, MODELS + text)) is asked


def test_an_admin_port_that_nobody_asked_for_gives_way(tmp_path: Path) -> None:
    """`-listen :8089` is the proxy's then; where both were asked for it is an error, as it is without models."""
    taken = {"proxy_port": "8089"}
    assert loaded(tmp_path, MODELS, arguments=taken).config.proxy_port == 8089
    for text in (MODELS + "admin_port: 8089", "proxy_host: localhost"):
        (problem,) = problems(tmp_path, text, arguments=taken)
        assert "8089 is proxy_port as well" in problem.message


def test_a_models_engine_folder_needs_ours(tmp_path: Path) -> None:
    """Seen together with the top level."""
    text = "models:\n  m:\n    cmd: x ${PORT}\n    kv: {engine_directory: /slots}\n"
    (said,) = sentences(tmp_path, text)
    assert said.startswith("conf.yaml:4: models.m.kv: its engine_directory is set, and its directory is not: ")
    assert loaded(tmp_path, text + "kv: {directory: /here}").dialect is not None


# a folder of files


def test_a_folder_is_read_after_the_file(tmp_path: Path) -> None:
    """All of them are one config."""
    in_folder(tmp_path, b="proxy_port: 2\napi_keys: [two]\n", a="models: {n: {cmd: 'y ${PORT}'}}")
    found = from_folder(tmp_path, path=write(tmp_path, MODELS + "api_keys: [one]\n"))
    assert found.dialect is not None
    assert list(found.dialect.models) == ["m", "n"]
    assert found.paths == (f"{tmp_path / 'conf.yaml'}", f"{tmp_path / 'd/a.yaml'}", f"{tmp_path / 'd/b.yaml'}")
    assert (found.path, found.folder, found.directory) == (found.paths[0], str(tmp_path), str(tmp_path / "d"))
    assert (found.config.proxy_port, str(found.origins["proxy_port"])) == (2, f"{tmp_path / 'd/b.yaml'}:1")
    assert [key.key for key in found.config.api_keys if isinstance(key, Key)] == ["one", "two"]


def test_paths_start_at_the_folder_of_their_file(tmp_path: Path) -> None:
    """Also where one mapping is merged of several files."""
    in_folder(tmp_path, a='prefixes: {"@a": a.txt, "@c": /c.txt}')
    found = from_folder(tmp_path, path=write(tmp_path, MODELS + 'prefixes: {"@b": {template: b.txt, as_model: true}}'))
    assert found.config.prefixes == {
        "@b": Prefix(template=str(tmp_path / "b.txt"), as_model=True),
        "@a": Prefix(template=str(tmp_path / "d" / "a.txt")),
        "@c": Prefix(template="/c.txt"),
    }


def test_a_folder_counts_instead_of_the_default_file(tmp_path: Path) -> None:
    """As a file that is named does."""
    (tmp_path / ".config" / "bioproxy").mkdir(parents=True)
    write(tmp_path / ".config" / "bioproxy", "broken: [", name="config.yaml")
    in_folder(tmp_path, a=MODELS)
    assert from_folder(tmp_path).paths == (f"{tmp_path / 'd/a.yaml'}",)


def test_variables_may_name_file_and_folder(tmp_path: Path) -> None:
    """For containers and units; flags win."""
    in_folder(tmp_path, a=MODELS)
    file = write(tmp_path, "globalTTL: 5")
    environment = {"HOME": str(tmp_path), "BIOPROXY_CONFIG_DIR": "~/d", "BIOPROXY_CONFIG": file}
    found = load(environment=environment)
    assert found.dialect is not None
    assert (found.dialect.global_ttl, found.warnings) == (5, ())
    with pytest.raises(ConfigError, match="none: the folder cannot be read"):
        load(directory=f"{tmp_path}/none", environment=environment)


def test_a_folder_that_is_empty_or_not_named_is_an_error(tmp_path: Path) -> None:
    """There must be something to read."""
    in_folder(tmp_path)
    with pytest.raises(ConfigError, match="no configuration sources found"):
        from_folder(tmp_path)
    with pytest.raises(ConfigError, match="flag -config-dir: names no folder"):
        load(directory="", environment={"HOME": str(tmp_path)})


def test_problems_of_several_files_stand_together(tmp_path: Path) -> None:
    """File by file, each by line."""
    in_folder(tmp_path, a="\nqueue_limit: 0\n", b="admin_port: x\nproxy_port: y\n")
    with pytest.raises(ConfigError) as caught:
        from_folder(tmp_path, path=write(tmp_path, MODELS + "\n\nqueue_timeout: z\n"))
    places = [os.path.basename(problem.where) for problem in caught.value.problems]
    assert len(places) == 4
    assert [place for place in places if place.startswith("b")] == ["b.yaml:1", "b.yaml:2"]


def test_broken_syntax_is_told_alone(tmp_path: Path) -> None:
    """What follows from it is not."""
    (said,) = sentences(tmp_path, "models:\n  m: [\n")
    assert "not valid YAML" in said


def test_a_name_with_a_tilde_is_found(tmp_path: Path) -> None:
    """A shell does not expand -config=~/x, and messages name what can be opened."""
    write(tmp_path, MODELS + 'prefixes: {"@a": a.txt}\n')
    found = load(path="~/conf.yaml", environment={"HOME": str(tmp_path)})
    assert found.config.prefixes == {"@a": Prefix(template=f"{tmp_path / 'a.txt'}")}
    assert str(found.origins["prefixes"]) == f"{tmp_path / 'conf.yaml'}:2"


# TLS


@pytest.mark.parametrize(("given", "missing"), [("tls_cert_file", "tls_key_file"), ("tls_key_file", "tls_cert_file")])
def test_certificate_and_key_come_together(given: str, missing: str, tmp_path: Path) -> None:
    """In llama-swap's words, at the place of the one that is there."""
    (problem,) = problems(tmp_path, f"{given}: x.pem")
    assert (problem.key, problem.message) == (given, "both -tls-cert-file and -tls-key-file must be provided for TLS")
    config = loaded(tmp_path, f"{given}: x.pem\n{missing}: y.pem\n").config
    assert getattr(config, missing) == f"{tmp_path / 'y.pem'}"
