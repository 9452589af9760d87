"""What a config changes in the bodies of a model's requests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bioproxy.config.dialect.schema import Filters
from bioproxy.errors import BioproxyError, RequestError
from bioproxy.front.body import filters as under_test
from bioproxy.front.body.filters import Compiled, compile_filters
from bioproxy.templates.bodies import Body

BODY = b'{"model":"gemma","temperature":0.7,"top_p":0.9,"stream":true}'


def compiled(use_model_name: str = "", **settings: Any) -> Compiled:
    found = compile_filters(Filters(**settings), use_model_name=use_model_name)
    assert found is not None
    return found


def apply(raw: bytes, filters: Compiled | None, *, requested: str, model_name: str = "") -> bytes:
    body = Body(raw)
    under_test.apply(body, filters, requested=requested, model_name=model_name)
    return body.written()


def applied(filters: Compiled | None, body: bytes = BODY, *, requested: str = "gemma", model_name: str = "") -> Any:
    return json.loads(apply(body, filters, requested=requested, model_name=model_name))


@pytest.mark.parametrize("strip", ["", " , ,", "model", " model , model"])
def test_a_model_without_filters_has_none(strip: str) -> None:
    """Its requests cost one `if`; `model` cannot be stripped."""
    assert compile_filters(Filters(strip_params=strip, set_params={"model": "x"})) is None


def test_a_request_without_filters_passes_as_the_same_object() -> None:
    """Nothing is decoded."""
    assert apply(BODY, None, requested="gemma") is BODY


def test_a_body_that_has_everything_already_passes_as_the_same_object() -> None:
    """Nothing to strip, and what is set is what the client said."""
    filters = compiled(strip_params="seed", set_params={"temperature": 0.7}, use_model_name="gemma")
    assert apply(BODY, filters, requested="gemma") is BODY


def test_parameters_are_stripped() -> None:
    """Blanks and repetitions do not matter."""
    assert applied(compiled(strip_params=" top_p,temperature , top_p")) == {"model": "gemma", "stream": True}


def test_the_older_spelling_strips_too() -> None:
    """Where the newer one is empty."""
    assert "top_p" not in applied(compiled(legacy_strip_params="top_p"))


def test_parameters_are_set_by_path() -> None:
    """A dot goes into an object, and what is there already gives way."""
    changed = applied(compiled(set_params={"chat_template_kwargs.enable_thinking": False, "temperature": 0}))
    assert changed["chat_template_kwargs"] == {"enable_thinking": False}
    assert changed["temperature"] == 0


def test_what_is_stripped_can_be_set() -> None:
    """Setting comes after stripping: a client's value is replaced, whatever it was."""
    assert applied(compiled(strip_params="top_p", set_params={"top_p": 0.5}))["top_p"] == 0.5


def test_an_id_has_parameters_of_its_own() -> None:
    """They come last, so they win; other names of the model do not get them."""
    filters = compiled(set_params={"temperature": 0.1}, set_params_by_id={"gemma:hot": {"temperature": 1.5}})
    assert applied(filters, requested="gemma:hot")["temperature"] == 1.5
    assert applied(filters, requested="gemma")["temperature"] == 0.1


def test_later_keys_see_what_earlier_ones_did() -> None:
    """Sorted: `a` before `a.b`."""
    assert applied(compiled(set_params={"a.b": 2, "a": {"c": 1}}))["a"] == {"c": 1, "b": 2}


def test_a_value_of_the_config_is_not_changed_by_a_request() -> None:
    """It is shared by all requests."""
    filters = compiled(set_params={"a": {"c": []}, "a.c.-1": 1})
    assert applied(filters)["a"] == applied(filters)["a"] == {"c": [1]}


def test_the_models_name_is_replaced() -> None:
    """What the config wants wins over what profile or selector made of it."""
    assert applied(compiled(use_model_name="org/real"))["model"] == "org/real"
    assert applied(compiled(use_model_name="org/real"), model_name="other")["model"] == "org/real"
    assert applied(None, model_name="other")["model"] == "other"


def test_filters_cannot_change_the_models_name() -> None:
    """`model` is left out of all of them."""
    filters = compiled(strip_params="model,seed", set_params={"model": "x"}, set_params_by_id={"g": {"model": "y"}})
    assert applied(filters, requested="g")["model"] == "gemma"


def test_the_rest_of_the_body_stays_the_same_bytes() -> None:
    """A conversation is not decoded for one parameter."""
    messages = rb'[{"role": "user", "content": "\u00e9 \/"}, 12345678901234567890123]'
    changed = apply(b'{"messages":' + messages + b"}", compiled(set_params={"seed": 1}), requested="gemma")
    assert changed == b'{"messages":' + messages + b',"seed":1}'


@pytest.mark.parametrize("body", [b"", b"[1]", b'{"a":', b'{"a": NaN}'])
def test_a_body_that_cannot_be_changed_is_refused(body: bytes) -> None:
    """The message begins as llama-swap's, and says why."""
    with pytest.raises(RequestError, match=r"^error setting parameter seed in request: .*no JSON object") as refused:
        apply(body, compiled(set_params={"seed": 1}), requested="gemma")
    assert refused.value.status == 400


def test_a_body_that_cannot_be_read_passes_if_there_is_nothing_to_strip() -> None:
    """The engine may understand it."""
    body = b'{"a": NaN}'
    assert apply(body, compiled(strip_params="seed"), requested="gemma") is body


def test_a_body_that_cannot_be_read_is_refused_if_there_is_something_to_strip() -> None:
    """What the operator took out must not reach the engine by a trick."""
    with pytest.raises(RequestError, match="`seed`"):
        apply(b'{"seed": 1, "a": NaN}', compiled(strip_params="seed"), requested="gemma")


def test_a_path_that_does_not_fit_the_body_is_the_clients_error() -> None:
    """The sentence names the parameter."""
    with pytest.raises(RequestError, match=r"error setting parameter stop\.x in request: there is a list"):
        apply(b'{"stop":["a"]}', compiled(set_params={"stop.x": 1}), requested="gemma")


def test_a_config_with_a_wrong_path_loads_and_its_requests_are_refused() -> None:
    """Only those whose name it is meant for; the sentence is there at start."""
    filters = compiled(set_params_by_id={"g": {"a..b": 1}})
    assert len(filters.faults) == 1
    assert filters.faults[0].startswith("error setting parameter a..b in request: the path 'a..b' has an empty part")
    assert apply(BODY, filters, requested="gemma") is BODY
    with pytest.raises(BioproxyError, match=r"a\.\.b") as refused:
        apply(BODY, filters, requested="g")
    assert refused.value.status == 500


def test_a_wrong_path_to_strip_says_so() -> None:
    """As llama-swap words it."""
    with pytest.raises(BioproxyError, match=r"^error stripping parameter a\* in request"):
        apply(BODY, compiled(strip_params="a*"), requested="gemma")
