"""The routes that lead to a model."""

from __future__ import annotations

import pytest

from bioproxy.errors import NotFound
from bioproxy.front.cors import Cors, options_headers
from bioproxy.front.routes import (
    COMPUTING,
    METERED_COUNTING,
    MORE_COMPUTING,
    PROBES,
    Route,
    engine_target,
    find_model_path,
    look_target,
    not_loaded,
    not_served,
    only_looks,
    recorded,
)
from bioproxy.wire.http1.message import Request
from bioproxy.wire.http1.router import NotAllowed


def request(method: str, target: str, **fields: str) -> Request:
    lower = {name.replace("_", "-").encode(): value.encode() for name, value in fields.items()}
    raw = target.encode()
    return Request(method, raw, path=target.partition("?")[0], headers=list(lower.items()), fields=lower)


def find(one: Request) -> Route | NotAllowed | None:
    return find_model_path(one.method, one.path, one.target.partition(b"?")[2])


def route(method: str, target: str) -> Route:
    found = find(request(method, target))
    assert isinstance(found, Route)
    return found


@pytest.mark.parametrize("path", [*COMPUTING, *MORE_COMPUTING, *METERED_COUNTING])
def test_what_computes_starts_its_model_and_is_metered(path: str) -> None:
    """llama-swap's routes and those of llama-server."""
    found = route("POST", path)
    assert found.starts
    assert found.metered
    assert found.endpoint == path


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/v/chat/completions", "/chat/completions"),
        ("/v/messages/count_tokens", "/messages/count_tokens"),
        ("/v/reranking", "/reranking"),
        ("/audioapi/v1/tasks/run", "/v1/tasks/run"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/audio/speech", "/v1/audio/speech"),
        ("/slots/0", "/slots/0"),
    ],
)
def test_the_engine_is_asked_for_its_own_path(path: str, sent: str) -> None:
    """With the client's query."""
    target = f"{path}?a=%2F".encode()
    assert engine_target(route("POST", path), target) == f"{sent}?a=%2F".encode()


def test_a_path_that_stays_is_the_same_object() -> None:
    """Nothing is built for it."""
    target = b"/v1/chat/completions"
    assert engine_target(route("POST", target.decode()), target) is target


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/chat/completions", "chat"),
        ("/v/chat/completions", "chat"),
        ("/chat/completions", "chat"),
        ("/v/messages", "anthropic"),
        ("/v/messages/count_tokens", "anthropic"),
        ("/v/responses", "responses"),
        ("/completion", "completion"),
        ("/apply-template", "chat"),
        ("/v1/embeddings", None),
        ("/v1/audio/transcriptions", None),
    ],
)
def test_where_templates_are_expanded(path: str, dialect: str | None) -> None:
    """By any of a route's paths."""
    assert route("POST", path).dialect == dialect


@pytest.mark.parametrize("path", ["/v1/messages/count_tokens", "/tokenize", "/detokenize", "/apply-template"])
def test_counting_needs_the_model_and_no_turn(path: str) -> None:
    """It starts the model, for who counts is about to ask."""
    found = route("POST", path)
    assert (found.gate, found.starts) == ("free", True)


@pytest.mark.parametrize("path", PROBES)
def test_looking_starts_nothing(path: str) -> None:
    """Monitors and chat pages look every few seconds."""
    assert not route("GET", f"{path}?model=x").starts
    assert not route("HEAD", f"{path}?model=x").starts


@pytest.mark.parametrize("path", ["/v1/audio/voices", "/sdapi/v1/loras"])
def test_what_is_asked_right_before_computing_starts_the_model(path: str) -> None:
    """As in llama-swap."""
    found = route("GET", f"{path}?model=x")
    assert (found.starts, found.gate, found.metered) == (True, "free", False)


@pytest.mark.parametrize("path", [*PROBES, "/health", "/v1/health"])
def test_a_look_past_all_routing_is_a_look(path: str) -> None:
    """With the model in the path as with the model in the query; a slot action has nothing to act on either."""
    assert only_looks("GET", path)
    assert only_looks("HEAD", path)
    assert only_looks("POST", "/slots/0")
    assert not only_looks("POST", path)
    assert not only_looks("GET", "/v1/models")


@pytest.mark.parametrize(
    ("method", "path", "sentence"),
    [
        ("POST", "/v1/chat/completions/", "did you mean /v1/chat/completions?"),
        ("POST", "/v1/v1/chat/completions", "did you mean /v1/chat/completions?"),
        ("POST", "/api/v1/messages", "did you mean /v1/messages?"),
        ("POST", "/responses", "did you mean /v1/responses?"),
        ("GET", "/v1/props", "did you mean /props?"),
        ("GET", "/v1/models/", "did you mean /v1/models?"),
        ("GET", "/models/own", "did you mean /v1/models/own?"),
        ("POST", "/v1/nothing", "docs/api.md lists the routes"),
    ],
)
def test_a_wrong_path_is_told_the_right_one(method: str, path: str, sentence: str) -> None:
    """A base URL with a part too many is the commonest."""
    error = not_served(method, path, None)
    assert error.status == 404
    assert error.message.startswith(f"nothing is served at {path}; {sentence}")


def test_a_wrong_method_is_told_the_right_one() -> None:
    """In the sentence, too."""
    error = not_served("GET", "/v1/messages", NotAllowed("POST"))
    assert (error.status, error.allow) == (405, "POST")
    assert error.message == "/v1/messages is served by POST, not by GET"


def test_metrics_without_a_model_are_ours() -> None:
    """Another table has them."""
    assert find(request("GET", "/metrics")) is None
    assert find(request("GET", "/metrics?model=")) is None


def test_slot_actions_start_nothing() -> None:
    """There is nothing to save in a model that is not there."""
    found = route("POST", "/slots/0?action=save&model=x")
    assert (found.endpoint, found.gate, found.starts) == ("/slots/{slot}", "slot_action", False)


def test_only_chats_tell_that_their_model_is_loading() -> None:
    """Not even by its other path."""
    assert route("POST", "/v1/chat/completions").loading
    assert not route("POST", "/v/chat/completions").loading
    assert not route("POST", "/v1/messages").loading


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/audio/voices", "GET, HEAD, POST"),
        ("POST", "/props", "GET, HEAD"),
    ],
)
def test_another_method_is_not_allowed(method: str, path: str, allow: str) -> None:
    """The answer names those that are."""
    assert find(request(method, path)) == NotAllowed(allow)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/unknown", "/", "/v/infill", "/upstream/x/v1/completions"])
def test_other_paths_lead_to_no_model(path: str) -> None:
    """Nobody can say which engine they are for."""
    assert find(request("POST", path)) is None


def test_what_is_recorded_behind_upstream() -> None:
    """A POST on a route that is metered."""
    assert recorded("POST", "/v1/chat/completions")
    assert not recorded("GET", "/v1/audio/voices")
    assert not recorded("GET", "/v1/chat/completions")
    assert not recorded("POST", "/style.css")
    assert find_model_path("POST", "/tokenize") is not None


def test_a_look_without_a_name_means_the_only_model() -> None:
    """Tools for one llama-server find their way."""
    assert look_target("", loaded=["m"]) == "m"
    assert look_target("x", loaded=["m"]) == "x"


@pytest.mark.parametrize("loaded", [[], ["a", "b"]])
def test_a_look_without_a_name_that_could_mean_any(loaded: list[str]) -> None:
    """The message begins as llama-swap's."""
    with pytest.raises(NotFound, match=r"^no model id could be identified"):
        look_target("", loaded=loaded)


def test_a_look_at_a_model_that_is_not_loaded() -> None:
    """409, and what would start it."""
    error = not_loaded("m", "/props")
    assert error.status == 409
    assert error.message.startswith("model m is not loaded; /props does not start it")


def test_a_preflight_names_the_headers_that_are_tokens() -> None:
    """What is none could add a line to the answer."""
    asked = request("OPTIONS", "/x", origin="http://localhost", access_control_request_headers="X-A, b c ,x-\u00e9,Y")
    assert dict(options_headers(Cors((), keys=False), asked))[b"Access-Control-Allow-Headers"] == b"X-A, Y"


def test_options_without_headers_to_ask_for_gets_the_usual_ones() -> None:
    """As llama-swap's list."""
    asked = request("OPTIONS", "/x", origin="http://localhost")
    allowed = b"Content-Type, Authorization, Accept, X-Requested-With"
    assert dict(options_headers(Cors((), keys=False), asked))[b"Access-Control-Allow-Headers"] == allowed


def test_foreign_pages_are_allowed_nothing() -> None:
    """Without keys they could make models compute, and stop them."""
    asked = request("OPTIONS", "/x", origin="https://evil.example", access_control_request_headers="X-A")
    assert not any(name.startswith(b"Access-Control") for name, _ in options_headers(Cors((), keys=False), asked))
