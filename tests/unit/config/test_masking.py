"""No key is shown, whichever way it is written and wherever it would be; everything else stays as it was."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bioproxy.admin import listing
from bioproxy.admin.status import presentable
from bioproxy.config.describe import describe, describe_dialect
from bioproxy.config.dialect.schema import DialectConfig, Model
from bioproxy.config.masking import (
    MASK,
    MaskedOutput,
    is_secret,
    masked_command,
    masked_environment,
    masked_text,
    masked_url_password,
    masked_value,
    masked_words,
    secrets_in,
)
from bioproxy.engines import attach
from bioproxy.engines.facts import EngineFacts
from bioproxy.engines.process import Process
from bioproxy.engines.stall import StallStatistics
from bioproxy.models.command import split
from bioproxy.models.state import State
from support.config_files import loaded, problems, sentences, write

SECRETS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=12, max_size=20)
KEY = "s3cret-of-the-operator"
# One secret in each form that a command line has.
COMMANDS = [
    "x --api-key {} -c 1",
    "x --api-key={}",
    "x --apikey {}",
    "x --hf-token '{}'",
    'x -hft "{}"',
    "x --hf_token {}",
    "x --api-key \\\n  {} -c",
    "x --api-key\n{}\n-c",
    'x --api-key "{} two" -c',
    *([] if sys.platform == "win32" else ["x --api-key two\\ {} -c"]),  # there these are two words
    "docker run -e HF_TOKEN={} image",
    "docker run --env=HF_TOKEN={} image",
    "docker run -eHF_TOKEN={} image",
    "LLAMA_API_KEY={} x",
    "env hf_token={} x",
    "PGPASSWORD={} x",
    "x -H 'Authorization: Bearer {}'",
    'x -H "authorization: Basic {}" -c',
    'x --header "X-Api-Key: {}" -c',
    "x --header=Cookie:{}",
    "x --url http://user:{}@host/",
    "x --url https://{}@host/",
    "x --url http://user:p@{}@host/",
    "x --url http://host/?n=1&api_key={}",
    'sh -c "x --api-key {} | tee log" -c',
    "sh -c '--api-key {}'",
    "sh -c \"x --api-key '{}'; y\"",
    """x --kwargs '{{"api_key": "{}"}}'""",
    """x --kwargs '{{"password":["a", "{}"]}}'""",
    "x --token {}",
    "x --password={}",
    "x --client-secret {}",
]
# The same in what a program says.
WORDS = [
    'an unfinished --api-key "{} and more',
    "args: --api-key {} --port 1",
    "['x', '--api-key', '{}']",
    '["x","--api-key","{}"]',
    "Namespace(api_key=['{}'], n=1)",
    "Authorization: Bearer {}",
    "< set-cookie: session={}; Path=/",
    "refused the bearer {}",
    '{{"headers": {{"x-api-key": "{}"}}}}',
    r"body: {{\"token\": \"{}\"}}",
    "cannot fetch https://user:{}@host/model.gguf",
]


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("x --api-key s3cret -c 1", f"x --api-key {MASK} -c 1"),
        ("x --api-key=s3cret", f"x --api-key={MASK}"),
        ("x --api-key 'two words' -c", f"x --api-key {MASK} -c"),
        ("env HF_TOKEN=s3cret x", f"env HF_TOKEN={MASK} x"),
        ("x --proxy http://me:s3cret@host:1/p", f"x --proxy http://me:{MASK}@host:1/p"),
        ('sh -c "x --api-key k" -c "y z"', f'sh -c "x --api-key {MASK}" -c "y z"'),
        ("-H 'Authorization: Bearer k' -c", f"-H 'Authorization: Bearer {MASK}' -c"),
        ('{"api_key": "k", "n": 1}', f'{{"api_key": {MASK}, "n": 1}}'),
    ],
)
def test_secrets_in_commands(command: str, shown: str) -> None:
    """By flag, variable, header, field and URL; what stands beside them is left."""
    assert masked_command(command) == shown


@given(SECRETS, st.sampled_from([*COMMANDS, *WORDS]))
def test_no_secret_is_left(secret: str, place: str) -> None:
    """Wherever one may stand."""
    assume(secret not in place)
    assert secret not in masked_command(place.format(secret))


@given(SECRETS, st.sampled_from(COMMANDS))
def test_nor_in_words_that_were_split(secret: str, place: str) -> None:
    """A value with blanks is one word, and a script is one, too."""
    assume(secret not in place)
    words = split(place.format(secret))
    assert secret not in " ".join(masked_words(words))
    assert len(masked_words(words)) == len(words)


@pytest.mark.parametrize("place", [place for place in COMMANDS if not re.search(r"two|p@", place)])
def test_a_secret_is_known_in_the_words_of_its_program(place: str) -> None:
    """It says them without the name before it, and without the quotes around it."""
    secrets = secrets_in(split(place.format(KEY)), [])
    assert masked_text(f"the value {KEY} is not valid", secrets) == f"the value {MASK} is not valid"


@pytest.mark.parametrize(
    "command",
    [
        "llama-server --port 5800 -m /models/key.gguf",
        "x --api-key-file /keys --max-tokens 5 --override-kv tokenizer.ggml.add_bos=bool:false",
        "x --ssl-key-file /k http://host:80/a@b ssh://git@host/x",
        "# a comment with a key\nx 'quoted  blanks'\\\n  --jinja",
        "error: duplicate key: 'x'; n_tokens=5, cache_tokens.size() = 3",
        "error loading model: key not found in model: general.architecture",
        "x --api-key",
        "",
    ],
)
def test_what_is_no_secret_stays(command: str) -> None:
    """To the last blank."""
    assert masked_command(command) == command


def test_words_keep_what_is_no_secret() -> None:
    """Each argument stays one, whatever is in it."""
    words = ("llama-server", "-m", "m.gguf", "--api-key", "abc", "--api-key=def", "-hft", "hf_1", "--port", "1", "a b")
    hidden = [
        "llama-server",
        "-m",
        "m.gguf",
        "--api-key",
        MASK,
        f"--api-key={MASK}",
        "-hft",
        MASK,
        "--port",
        "1",
        "a b",
    ]
    assert masked_words(words) == hidden
    assert masked_words(()) == []


def test_variables_of_a_model() -> None:
    """By their names, in capitals or not."""
    variables = ["HF_TOKEN=a b=c", "openai_api_key=x", "CUDA_VISIBLE_DEVICES=0", "PROXY=http://a:b@c", "KEY",
                 "LLAMA_ARG_CTX_SIZE=4096", "API_KEY_FILE=/k", "ARGS=--api-key k -c"]  # fmt: skip
    assert masked_environment(variables) == [
        f"HF_TOKEN={MASK}", f"openai_api_key={MASK}", "CUDA_VISIBLE_DEVICES=0", f"PROXY=http://a:{MASK}@c", "KEY",
        "LLAMA_ARG_CTX_SIZE=4096", "API_KEY_FILE=/k", f"ARGS=--api-key {MASK} -c",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["--api-key", "-hft", "HF_TOKEN", "x-api-key", "Set-Cookie", "apiKey", "TOKENIZERS_X"])
def test_names_of_secrets(name: str) -> None:
    """Of flags, variables, headers and fields."""
    assert is_secret(name)


@pytest.mark.parametrize(
    "name", ["--api-key-file", "-hf", "--max-tokens", "tokenizer", "KEY_PATH", "x-request-id", "-c"]
)
def test_names_of_other_things(name: str) -> None:
    """A file's name is no secret, and many tokens are a number."""
    assert not is_secret(name)


def test_a_url_without_a_password_stays() -> None:
    """Ports are none."""
    assert masked_url_password("http://host:8080/a:b") == "http://host:8080/a:b"


def test_values_in_a_tree() -> None:
    """A field of a nested value is masked by its name."""
    value = {"setParams": {"api_key": KEY, "n": 1, "stop": ["a"]}, "tokens": [KEY, None]}
    assert masked_value(value) == {"setParams": {"api_key": MASK, "n": 1, "stop": ["a"]}, "tokens": [KEY, None]}


@pytest.mark.parametrize(
    "piece",
    ["KEY", "a.", "--a-", "-a ", '"', "'", "\\", '--api-key "', "bearer ", "a: ", "x_key:", '\\"key\\":\\"', "http://a@",
     "://", "token=", "[", " ", "\\\n"],
)  # fmt: skip
def test_a_megabyte_of_anything_is_gone_through_once(piece: str) -> None:
    """A program may write what it likes; a search that went back would take hours."""
    text = piece * (1_000_000 // len(piece))
    assert len(masked_command(text)) <= len(text) * len(MASK)


@given(st.lists(st.sampled_from(["s3cret", "s3", "cret", "x", " ", "\n", "other-key"]), max_size=12), st.data())
def test_a_secret_is_found_wherever_output_is_cut(words: list[str], data: st.DataObject) -> None:
    """Pieces come as the pipe gives them; nothing else is lost or kept back for good."""
    text = "".join(words).encode()
    masked, shown, rest = MaskedOutput(["other-key", "s3cret"]), b"", text
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        shown, rest = shown + masked.feed(rest[:size]), rest[size:]
    whole = text.replace(b"other-key", MASK.encode()).replace(b"s3cret", MASK.encode())
    assert shown + masked.rest() == whole


# where they are shown


@pytest.mark.parametrize("place", COMMANDS)
def test_no_output_shows_a_models_key(place: str) -> None:
    """`bioproxy config` and `/running`."""
    model = Model(
        cmd=place.format(KEY), cmd_stop=place.format(KEY), env=(f"HF_TOKEN={KEY}",), proxy=f"http://u:{KEY}@x"
    )
    config = DialectConfig(models={"a": model})
    look = listing.Look(processes={"a": listing.Now(state=State.READY, args=tuple(masked_words(split(model.cmd))))})
    outputs = (
        describe_dialect(config, {}),
        listing.running(config, look),
        listing.models(config, look, now=0, router=True),
    )
    for output in outputs:
        assert KEY not in msgspec.json.encode(output).decode()


@pytest.mark.parametrize("place", COMMANDS)
def test_status_shows_no_key_of_an_engine(place: str) -> None:
    """Neither of its command line, nor of what was started in its stead, nor of its environment."""
    words = tuple(split(place.format(KEY)))
    facts = EngineFacts(url="http://x", command=words, launched=words, environment=(f"LLAMA_API_KEY={KEY}",))
    statistics = attach.AttachmentStatistics(
        "http://x", attach.State.READY, "", 0.0, 1, 1, StallStatistics(0, 0.0, 0, 0, 0), facts
    )
    assert KEY not in msgspec.json.encode(presentable(statistics)).decode()


@pytest.mark.parametrize(
    "arguments", [["-hft", KEY], [f"--api-key={KEY}"], ["--hf-token", KEY], ["--url", f"http://u:{KEY}@x"]]
)
def test_config_shows_no_key_among_the_engines_arguments(arguments: list[str], tmp_path: Path) -> None:
    """They are shown at start-up."""
    write(tmp_path, "x", name="m.gguf")
    found = loaded(tmp_path, json.dumps({"model": "m.gguf", "engine_arguments": arguments}))
    assert KEY not in msgspec.json.encode(describe(found)).decode()


@pytest.mark.parametrize(
    "text",
    [
        f"backend_url: http://me:{KEY}@x:port",
        f"admin_key: [{KEY}]",
        f"api_keys: {KEY}",
        f"models: {{a: {{cmd: x, proxy: 'http://me:{KEY}@x:port'}}}}",
        f"models: {{a: {{cmd: x, env: 'HF_TOKEN={KEY}'}}}}",
        f"peers: {{p: {{proxy: 'http://me:{KEY}@x:port', models: [a]}}}}",
    ],
)
def test_errors_of_a_configuration_quote_no_key(text: str, tmp_path: Path) -> None:
    """What is wrong beside it is said all the same."""
    said = sentences(tmp_path, text)
    assert said
    assert KEY not in "\n".join(said)


def test_a_refused_proxy_tells_no_key(tmp_path: Path) -> None:
    """One that nobody can ask is shown without its password."""
    (found,) = problems(tmp_path, f"models: {{a: {{cmd: 'x ${{PORT}}', proxy: 'ftp://me:{KEY}@x'}}}}")
    assert "is no engine's address" in str(found)
    assert KEY not in str(found)


@pytest.mark.parametrize("place", [*WORDS, "the value '{}' is not valid"])
def test_the_last_words_of_a_process_hold_no_key(place: str) -> None:
    """Whether they stand in an error or in the log."""
    process = Process(["x", "--api-key", KEY], name="x", environment={"HF_TOKEN": f"other-{KEY}"})
    process.tail.feed(f"first {place.format(KEY)}\nthen {place.format(f'other-{KEY}')}\n".encode())
    assert KEY not in "\n".join(process.said())
    assert [line.partition(" ")[0] for line in process.said()] == ["first", "then"]
