"""No key is shown, and everything else stays as it was written."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bioproxy.config.masking import MASK, masked_command, masked_environment, masked_url_password

SECRETS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=12, max_size=20)
PLACES = ["x --api-key {} -c 1", "x --api-key={}", "x --hf-token '{}'", 'x -hft "{}"', "docker -e HF_TOKEN={} image",
          "x -H 'Authorization: Bearer {}'",
          "x --url http://user:{}@host/", "LLAMA_API_KEY={} x", "x --api-key\n{}\n-c"]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("x --api-key s3cret -c 1", f"x --api-key {MASK} -c 1"),
        ("x --api-key=s3cret", f"x --api-key={MASK}"),
        ("x --api-key 'two words' -c", f"x --api-key {MASK} -c"),
        ("env HF_TOKEN=s3cret x", f"env HF_TOKEN={MASK} x"),
        ("x --proxy http://me:s3cret@host:1/p", f"x --proxy http://me:{MASK}@host:1/p"),
    ],
)
def test_secrets_in_commands(command: str, shown: str) -> None:
    """By flag, variable and URL."""
    assert masked_command(command) == shown


@given(SECRETS, st.sampled_from(PLACES))
def test_no_secret_is_left(secret: str, place: str) -> None:
    """Wherever one may stand."""
    assume(secret not in place)
    assert secret not in masked_command(place.format(secret))


@pytest.mark.parametrize(
    "command",
    [
        "llama-server --port 5800 -m /models/key.gguf",
        "x --api-key-file /keys --max-tokens 5 --override-kv tokenizer.ggml.add_bos=bool:false",
        "x --ssl-key-file /k http://host:80/a@b",
        "# a comment with a key\nx 'quoted  blanks'\\\n  --jinja",
        "",
    ],
)
def test_what_is_no_secret_stays(command: str) -> None:
    """To the last blank."""
    assert masked_command(command) == command


def test_variables_of_a_model() -> None:
    """By their names, in capitals or not."""
    variables = ["HF_TOKEN=a b=c", "openai_api_key=x", "CUDA_VISIBLE_DEVICES=0", "PROXY=http://a:b@c", "KEY"]
    assert masked_environment(variables) == [
        f"HF_TOKEN={MASK}", f"openai_api_key={MASK}", "CUDA_VISIBLE_DEVICES=0", f"PROXY=http://a:{MASK}@c", "KEY",
    ]  # fmt: skip


def test_a_url_without_a_password_stays() -> None:
    """Ports are none."""
    assert masked_url_password("http://host:8080/a:b") == "http://host:8080/a:b"
