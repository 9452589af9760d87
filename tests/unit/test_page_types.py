"""The types of the web page are those of the Structs that it is sent."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from bioproxy.admin import listing
from bioproxy.admin.performance import report
from bioproxy.admin.routes import Json
from bioproxy.config.dialect.schema import Capabilities, DialectConfig, Model, Peer, Profile, Selector
from bioproxy.errors import ConfigError
from bioproxy.errors import Problem as Mistake
from bioproxy.samples import GpuSample, Look, SystemSample
from tools import page_types

CONFIG = DialectConfig(
    models={"m": Model(name="M", capabilities=Capabilities(inputs=("text",), outputs=("text",), tools=True))},
    peers={"p": Peer(proxy="http://127.0.0.1:1", models=("far",))},
    selectors={"s": Selector(strategy="pin", targets=("m",), name="S", description="d")},
    profiles={"w": Profile(pins={"x": "m"})},
)


def strict(struct: type[Any]) -> type[Any]:
    """The same Struct, which refuses fields that it does not know."""
    fields = [
        (field.encode_name, field.type) if field.required else (field.encode_name, field.type, field.default)
        for field in msgspec.structs.fields(struct)
    ]
    return msgspec.defstruct(struct.__name__, fields, forbid_unknown_fields=True, kw_only=True)


def test_the_file_is_what_the_structs_make_of_it() -> None:
    """If this fails: python -m tools.page_types."""
    assert page_types.TARGET.read_text("utf-8") == page_types.page()


def test_a_field_that_may_be_absent_is_marked() -> None:
    """Nothing else is: what has a default is sent, too."""
    page = page_types.page()
    assert "  load_avg_1?: number;" in page
    assert '  outcome: "client_error"' in page


def test_every_event_that_the_page_hears_is_one_of_the_notices() -> None:
    """A new event must not be left out in silence."""
    names = {one.__name__ for one in page_types.notices()}
    assert {"WarmupEnded", "ConfigReloaded", "SavingPaused"} <= names
    assert "RequestEnded" not in names


def machine() -> Json:
    now = datetime.now(UTC)
    return report([Look(SystemSample(timestamp=now), (GpuSample(timestamp=now, id=0, name="g"),))])


BODIES: dict[str, tuple[type[Any], Json]] = {
    "performance": (page_types.Performance, machine()),
    "profiles": (page_types.Profiles, listing.profiles(CONFIG, "w")),
    "models": (page_types.ModelList, listing.models(CONFIG, listing.Look(profile="w"), now=0)),
    "error": (page_types.ErrorAnswer, {"error": {"message": "m", "type": "t", "code": 400}}),
    "problems": (page_types.ErrorWords, {"message": "m", "type": "t", "code": 1, "problems": [Mistake("x")]}),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_made_without_a_struct_has_the_fields_of_its_type(name: str) -> None:
    """No field more, none less."""
    struct, body = BODIES[name]
    msgspec.json.decode(msgspec.json.encode(body), type=strict(struct))


@pytest.mark.parametrize("record", listing.models(CONFIG, listing.Look(profile="w"), now=0)["data"], ids=str)
def test_each_kind_of_listed_name_has_the_fields_of_its_type(record: Json) -> None:
    """Models, peers' models, selectors, a profile's names."""
    msgspec.json.decode(msgspec.json.encode(record), type=strict(page_types.ListedModel))


def test_a_refused_configuration_tells_its_problems() -> None:
    """As the type says."""
    assert ConfigError([Mistake("x", where="c.yaml:3", key="kv.policy")]).problems[0].where == "c.yaml:3"
