"""What the project promises, as its user would try it: a llama-server, ten lines of configuration, the openai client.

Both programs are processes of their own here, and both die by SIGKILL. Tokens are counted by the engine itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fakes.real_engine import RealEngine
from support.apps import Bioproxy
from support.conversation import Conversation, openai_client
from support.kv_rig import text
from support.real_engine import evaluated, llama_server, real_engine

Json = Any
pytestmark = real_engine
CODE = text(700, "You know this code.") + "\nQuestion: <{message}>\n"
CONFIG = """\
proxy_port: {proxy}
admin_port: {admin}
backend_url: {engine}
state_directory: state
prefixes:
  "@code": code.txt
kv:
  min_seconds: 0.001
  save_after: {save_after}
  min_free: 0
"""
ROUNDING = 16  # tokens of a prompt's end that may be evaluated again: llama-server keeps at least one back


def program(folder: Path, engine: RealEngine, *, save_after: str = "20ms") -> Bioproxy:
    """The program on ten lines of YAML, with one template."""
    made = Bioproxy(folder / "config.yaml")
    (folder / "code.txt").write_text(CODE)
    values = {"proxy": made.proxy_port, "admin": made.admin_port, "engine": engine.url, "save_after": save_after}
    made.file.write_text(CONFIG.format(**values))
    assert len(made.file.read_text().splitlines()) == 10
    return made


async def warm(bioproxy: Bioproxy, *, evaluated: bool = True) -> int:
    """Wait until the template is on disk, `evaluated` by this program or not; its prompt prefix's length in tokens."""
    status = await bioproxy.until(lambda now: [one["state"] for one in now["warmup"]["targets"]] == ["saved"])
    [target] = status["warmup"]["targets"]
    assert (target["evaluated"] > 0) == evaluated
    return int(target["total"])


async def kept(bioproxy: Bioproxy, tokens: int) -> None:
    """Wait until a conversation of so many tokens is on disk."""
    await bioproxy.until(lambda now: any(not one["template"] and one["tokens"] >= tokens for one in now["snapshots"]))


async def test_a_template_is_evaluated_once_whatever_is_killed(tmp_path: Path) -> None:
    """Three turns through a template; kill -9 of both programs; the conversation goes on, a new one begins: warm."""
    async with llama_server(tmp_path) as engine, program(tmp_path, engine) as bioproxy:
        template = await warm(bioproxy)
        async with openai_client(bioproxy.port) as client:
            talk = Conversation(client)
            for words in ("@code what is it?", "who calls it?", "is it right?"):
                await talk.say(words)
        assert talk.turns[0].cached >= template
        assert sum(turn.evaluated for turn in talk.turns) < 150
        assert await evaluated(engine) < template + 300  # the warm-up, three turns, and the keeper's own probe
        await kept(bioproxy, talk.turns[-1].prompt)
        await bioproxy.kill()
        await engine.restart()
        await bioproxy.start()
        assert await warm(bioproxy, evaluated=False) == template
        async with openai_client(bioproxy.port) as client:
            assert (await talk.resumed(client).say("and again?")).cached >= talk.turns[-1].prompt - ROUNDING
            assert (await Conversation(client).say("@code a new question")).cached >= template
        assert await evaluated(engine) < 150


async def test_every_turn_may_use_the_template(tmp_path: Path) -> None:
    """With the prefix in each question its text stands there each time, and each place is evaluated once."""
    async with llama_server(tmp_path) as engine, program(tmp_path, engine) as bioproxy:
        template = await warm(bioproxy)
        async with openai_client(bioproxy.port) as client:
            talk = Conversation(client)
            for words in ("@code what is it?", "@code who calls it?"):
                await talk.say(words)
            assert talk.turns[1].prompt > 2 * template
            assert talk.turns[1].cached >= talk.turns[0].prompt
            assert talk.turns[1].evaluated < template + 100


async def test_sigterm_saves_what_pays(tmp_path: Path) -> None:
    """An orderly end writes the conversation that no idle save had taken yet; it ends with 0 and is warm afterwards."""
    async with llama_server(tmp_path) as engine, program(tmp_path, engine, save_after="1h") as bioproxy:
        await warm(bioproxy)
        async with openai_client(bioproxy.port) as client:
            talk = Conversation(client)
            await talk.say(text(300, "a long question"))
        assert all(one["template"] for one in (await bioproxy.status())["snapshots"])
        assert await bioproxy.stop() == 0
        await engine.restart()
        await bioproxy.start()
        async with openai_client(bioproxy.port) as client:
            assert (await talk.resumed(client).say("go on")).cached >= talk.turns[0].prompt - ROUNDING
