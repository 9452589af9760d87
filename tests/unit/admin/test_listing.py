"""Lists of models, as llama-swap's and llama.cpp's clients read them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bioproxy.admin import listing
from bioproxy.admin.listing import Look, Now
from bioproxy.config.dialect.schema import Capabilities, DialectConfig, Model, Peer, Profile, Selector, SelectorSettings
from bioproxy.config.masking import MASK
from bioproxy.models.state import State


def config(**keys: Any) -> DialectConfig:
    return DialectConfig(**keys)


def only(model: Model, look: Look | None = None, *, router: bool = False) -> dict[str, Any]:
    """The record of the one model `m`."""
    listed = listing.models(config(models={"m": model}), look or Look(), now=7, router=router)
    assert listed["object"] == "list"
    (record,) = listed["data"]
    assert isinstance(record, dict)
    return record


def records(made: DialectConfig, look: Look | None = None, *, router: bool = False) -> dict[str, dict[str, Any]]:
    """All records by their id, in the list's order."""
    listed = listing.models(made, look or Look(), now=7, router=router)["data"]
    return {record["id"]: record for record in listed}


def test_a_record_has_what_every_client_reads() -> None:
    """And nothing that the config does not say."""
    assert only(Model()) == {
        "id": "m",
        "object": "model",
        "created": 7,
        "owned_by": "llama-swap",
        "status": {"value": "unloaded"},
        "meta": {"llamaswap": {"type": "model"}},
    }


def test_names_and_metadata_stand_in_the_record() -> None:
    """What the list itself says of a model wins over its metadata."""
    record = only(Model(name=" N ", description=" D ", metadata={"type": "mine", "size": {"b": 7}}))
    assert (record["name"], record["description"]) == ("N", "D")
    assert record["meta"]["llamaswap"] == {"type": "model", "size": {"b": 7}}


@pytest.mark.parametrize(
    ("capabilities", "described"),
    [
        (Capabilities(), {}),
        (Capabilities(inputs=("text", "image"), outputs=("text",)), {"vision": True}),
        (Capabilities(inputs=("audio",), outputs=("text",)), {"audio_transcriptions": True}),
        (Capabilities(inputs=("text",), outputs=("audio",)), {"audio_speech": True}),
        (Capabilities(inputs=("text",), outputs=("image",)), {"image_generation": True}),
        (
            Capabilities(inputs=("text", "image"), outputs=("image",)),
            {"vision": True, "image_generation": True, "image_to_image": True},
        ),
        (Capabilities(tools=True), {"function_calling": True}),
        (Capabilities(reranker=True), {"reranker": True}),
    ],
)
def test_capabilities(capabilities: Capabilities, described: dict[str, bool]) -> None:
    """Only what is true is said."""
    assert only(Model(capabilities=capabilities)).get("capabilities", {}) == described


@pytest.mark.parametrize(
    ("capabilities", "architecture"),
    [
        (Capabilities(), None),
        (Capabilities(inputs=("text",)), {"input_modalities": ["text"]}),
        (Capabilities(outputs=("audio",)), {"output_modalities": ["audio"]}),
        (
            Capabilities(inputs=("text", "image"), outputs=("text",)),
            {"input_modalities": ["text", "image"], "output_modalities": ["text"], "modality": "text+image->text"},
        ),
    ],
)
def test_architecture(capabilities: Capabilities, architecture: object) -> None:
    """A modality needs both lists."""
    assert only(Model(capabilities=capabilities)).get("architecture") == architecture


def test_tools_and_context_have_keys_of_their_own() -> None:
    """As OpenRouter's and llama.cpp's clients read them."""
    record = only(Model(capabilities=Capabilities(tools=True, context=4096)))
    assert record["supported_parameters"] == ["tools", "tool_choice"]
    assert record["context_length"] == record["meta"]["n_ctx"] == 4096


def test_metadata_describes_a_model_only_without_capabilities() -> None:
    """The config's own capabilities win."""
    metadata = {"architecture": "x", "capabilities": 1, "supported_parameters": 2, "context_length": 3, "k": 4}
    assert only(Model(metadata=metadata))["meta"]["llamaswap"] == {**metadata, "type": "model"}
    described = only(Model(metadata=metadata, capabilities=Capabilities(tools=True)))
    assert described["meta"]["llamaswap"] == {"k": 4, "type": "model"}


@pytest.mark.parametrize(
    ("state", "value", "router"),
    [
        (State.STOPPED, "unloaded", "unloaded"),
        (State.STARTING, "loaded", "loading"),
        (State.READY, "loaded", "loaded"),
        (State.STOPPING, "loaded", "unloaded"),
        (State.FAILED, "unloaded", "unloaded"),
        (State.SHUTDOWN, "unloaded", "unloaded"),
    ],
)
def test_the_state_in_the_words_of_both_programs(state: State, value: str, router: str) -> None:
    """llama-swap calls everything loaded that has a process."""
    look = Look(processes={"m": Now(state=state)})
    assert only(Model(), look)["status"] == {"value": value}
    assert only(Model(), look, router=True)["status"]["value"] == router


def test_the_router_tells_the_command_and_what_failed() -> None:
    """Its clients read `failed` and `exit_code`."""
    look = Look(processes={"m": Now(state=State.FAILED, args=("llama-server", "-c", "1"), exit_code=1)})
    status = {"value": "unloaded", "args": ["llama-server", "-c", "1"], "failed": True, "exit_code": 1}
    assert only(Model(), look, router=True)["status"] == status
    assert only(Model(), look)["status"] == {"value": "unloaded"}


ALIASES = {"zeta": "m", "b": "m", "other": "m"}


def test_aliases_are_named_in_their_models_record() -> None:
    """All of them, those of setParamsByID too; none has a record of its own."""
    listed = records(config(models={"m": Model(), "other": Model()}, aliases=ALIASES))
    assert list(listed) == ["m", "other"]
    assert listed["m"]["meta"]["llamaswap"]["aliases"] == ["zeta", "b"]
    assert "aliases" not in listed["other"]["meta"]["llamaswap"]


def test_aliases_have_records_where_the_config_wants_it() -> None:
    """Everything is their model's but the name; sorted with the others."""
    model = Model(name="N", metadata={"k": 1})
    made = config(models={"m": model}, aliases=ALIASES, include_aliases_in_list=True)
    listed = records(made, Look(processes={"m": Now(state=State.READY)}))
    assert list(listed) == ["b", "m", "other", "zeta"]
    assert listed["b"]["meta"]["llamaswap"] == {"k": 1, "type": "alias", "modelID": "m"}
    assert (listed["b"]["name"], listed["b"]["status"]["value"]) == ("N", "loaded")


def test_unlisted_models_are_absent_with_all_their_names() -> None:
    """They can be called all the same."""
    made = config(models={"m": Model(unlisted=True)}, aliases={"a": "m"}, include_aliases_in_list=True)
    assert records(made, Look(prefixes={"m": ("@code",)})) == {}


def test_a_template_can_be_a_model() -> None:
    """Its name is the model's and the template's, without the sign that begins a prefix."""
    look = Look(prefixes={"m": ("@code",)}, processes={"m": Now(state=State.READY)})
    record = records(config(models={"m": Model()}), look)["m+code"]
    assert record["name"] == "m @code"
    assert record["status"] == {"value": "loaded"}
    assert record["meta"]["llamaswap"] == {"type": "template", "modelID": "m", "prefix": "@code"}


def test_peers_models_have_their_qualified_names() -> None:
    """Nothing is known of their state."""
    record = records(config(peers={"p": Peer(models=("org/big",))}))["p/org/big"]
    assert record["name"] == "p: org/big"
    assert record["status"] == {"value": "unloaded"}
    assert record["meta"] == {"llamaswap": {"type": "peer", "peerID": "p"}}


def selecting(strategy: str, *targets: str, **keys: Any) -> DialectConfig:
    selector = Selector(strategy=strategy, targets=targets, **keys)
    return config(models={"a": Model(), "b": Model()}, aliases={"bb": "b"}, selectors={"s": selector})


def test_a_selector_tells_how_it_chooses() -> None:
    """Its own words win over its metadata."""
    made = selecting(
        "spillover", "a", "bb", metadata={"k": 1, "type": 2}, settings=SelectorSettings(spillover=3), name="S"
    )
    record = records(made)["s"]
    told = {"k": 1, "type": "selector", "strategy": "spillover", "targets": ["a", "bb"], "spillover": 3}
    assert record["meta"]["llamaswap"] == told
    assert record["name"] == "S"


@pytest.mark.parametrize(
    ("strategy", "state", "loaded"),
    [
        ("warm", State.READY, True),
        ("warm", State.STARTING, True),
        ("warm", State.STOPPING, False),
        ("pin", State.READY, False),
    ],
)
def test_a_selector_is_loaded_with_its_targets(strategy: str, state: State, loaded: bool) -> None:
    """One that takes requests without a start; of `pin` only the first counts. Aliases are targets too."""
    look = Look(processes={"b": Now(state=state)})
    for router in (False, True):
        status = records(selecting(strategy, "a", "bb"), look, router=router)["s"]["status"]
        assert status == {"value": "loaded" if loaded else "unloaded"}


def test_unlisted_selectors_are_absent() -> None:
    """As models are."""
    assert "s" not in records(selecting("pin", "a", unlisted=True))


def test_the_active_profiles_new_names_are_listed() -> None:
    """Not those that are disabled, or that hide a name there is."""
    pins = {"new": "a", "chosen": "s", "off": "", "a": "b", "bb": "a", "big": "a", "p/big": "a"}
    made = msgspec.structs.replace(
        selecting("warm", "b"), profiles={"day": Profile(pins=pins)}, peers={"p": Peer(models=("big",))}
    )
    assert set(records(made)) == {"a", "b", "s", "p/big"}
    listed = records(made, Look(profile="day", processes={"a": Now(state=State.READY)}))
    assert set(listed) == {"a", "b", "s", "p/big", "new", "chosen"}
    assert listed["new"]["meta"] == {"llamaswap": {"type": "profile"}}
    assert [listed[name]["status"]["value"] for name in ("new", "chosen")] == ["loaded", "unloaded"]


def test_running_lists_what_has_a_process() -> None:
    """Sorted, with the command as it is run."""
    model = Model(cmd="run\n  --port 1", proxy="http://x", ttl=5, name="N", description="D")
    made = config(models={"b": model, "a": Model(), "c": Model(), "d": Model()})
    states = {"b": State.READY, "a": State.STOPPING, "c": State.FAILED, "d": State.STOPPED, "gone": State.READY}
    running = listing.running(made, Look(processes={name: Now(state=state) for name, state in states.items()}))
    assert [(each["model"], each["state"]) for each in running["running"]] == [("a", "stopping"), ("b", "ready")]
    assert running["running"][1] == {
        "model": "b", "state": "ready", "cmd": "run\n  --port 1", "proxy": "http://x", "ttl": 5,
        "name": "N", "description": "D",
    }  # fmt: skip


def test_running_tells_no_secrets() -> None:
    """A key in a command and a password in a URL are for nobody who may only use the models."""
    model = Model(cmd="run --api-key s3cret-k", proxy="http://me:s3cret-p@x")
    made = config(models={"a": model})
    (shown,) = listing.running(made, Look(processes={"a": Now(state=State.READY)}))["running"]
    assert (shown["cmd"], shown["proxy"]) == (f"run --api-key {MASK}", f"http://me:{MASK}@x")


def test_model_status_has_every_model() -> None:
    """Unlisted ones and the peers' too; what is not there is absent."""
    model = Model(unlisted=True, capabilities=Capabilities(tools=True, context=9))
    made = config(models={"m": model}, aliases={"x": "m"}, peers={"p": Peer(models=("big",))})
    assert listing.model_status(made, Look(processes={"m": Now(state=State.FAILED)})) == [
        {"id": "m", "name": "", "description": "", "state": "stopped", "unlisted": True, "peerID": "",
         "aliases": ["x"], "capabilities": {"function_calling": True}, "context_length": 9},
        {"id": "p/big", "name": "", "description": "", "state": "", "unlisted": False, "peerID": "p"},
    ]  # fmt: skip


def test_a_model_that_is_ready_tells_since_when() -> None:
    """As a page needs it to show how long it has been up; no other state has it."""
    made = config(models={"m": Model()})
    (ready,) = listing.model_status(made, Look(processes={"m": Now(state=State.READY, since=1_800_000_000.5)}))
    assert ready["readySince"] == "2027-01-15T08:00:00.500000+00:00"
    (other,) = listing.model_status(made, Look(processes={"m": Now(state=State.STARTING, since=1.0)}))
    assert "readySince" not in other


def test_profiles_are_listed_with_the_active_one() -> None:
    """Sorted; a disabled name is an empty text; no profile is null."""
    made = config(profiles={"b": Profile(pins={"x": ""}), "a": Profile(description="d", pins={"y": "m"})})
    listed = [
        {"id": "a", "description": "d", "pins": {"y": "m"}},
        {"id": "b", "description": "", "pins": {"x": ""}},
    ]
    assert listing.profiles(made, "b") == {"active": "b", "profiles": listed}
    assert listing.profiles(made, "")["active"] is None
