"""Pictures of the web page on a program that runs: `python -m tests.ui.look [PAGE...]`.

It starts the program on fake models, among them llama-servers with slots and templates, sends it the requests of a busy
quarter of a minute, and takes a picture of each page that is named, or of all: `now`, `models`, `models/alpha`,
`requests/last` (the newest request), `settings`. `--dark`, `--narrow` (a phone) and `--out DIR` say how and where to;
`--real` runs llama.cpp on two generated models, so that caches, swaps and restores are true; `--folder DIR`, an empty
one, is where templates and slot files lie, whose paths pages show; `--serve` takes no pictures but lets the program run
until Ctrl-C and goes on with the requests, for a browser or `npx vite`. What went wrong in the pages, and what reaches
beyond the window's right edge, is printed. The pictures in docs/pictures/ are some of these, in fewer colours.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import shlex
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.browser import Tab, chromium, new_tab, why_not
from support.http import call
from support.playground import Chat, events, script
from support.real_swap import WHEN_IDLE, Talk, two
from support.swap_models import fake
from support.swap_rig import Rig, swap_rig

Json = Any
LLAMA = Path(__file__).parents[1] / "fakes" / "llama_server.py"
OUT = Path("pictures")
PAGES = (  # the log first, while it has no lines about the page itself
    "logs", "now", "models", "models/alpha", "templates", "cache", "requests", "requests/last", "machine", "playground",
    "config", "settings",
)  # fmt: skip
ANSWER = """A **slot** is the place in which an engine keeps the KV cache of *one* conversation:

- as long as the next prompt begins like the one before, only what is new is read;
- with `-np 4` there are four of them, and each has its share of `-c`.

```sh
curl -s http://127.0.0.1:8080/slots | jq '.[].is_processing'
```

Reading $n$ tokens after $m$ cached ones costs about $n \\cdot (m + n/2)$ products.
"""
TIMINGS = {
    "cache_n": 1804, "prompt_n": 14, "prompt_ms": 61.2, "prompt_per_second": 228.8, "predicted_n": 112,
    "predicted_ms": 1867.0, "predicted_per_second": 60.0,
}  # fmt: skip
QUESTIONS = ("What is a slot?", "Who holds a grant, and for how long?", "Explain the queue in one sentence.")


def llama(folder: Path, **keys: Json) -> Json:
    """A fake llama-server with slots on disk, at the pace of a small model."""
    program = [sys.executable, "-I", "-S", str(LLAMA)]
    pace = ["--tokens-per-second", "8000", "--decode-rate", "150", "--predict", "40", "--bytes-per-token", "4000"]
    words = [*program, "--slot-save-path", str(folder / "slots"), "-np", "2", *pace, "--port"]
    return {"cmd": f"{shlex.join(words)} ${{PORT}}", **keys}


@asynccontextmanager
async def machine(folder: Path, *, real: bool) -> AsyncIterator[Rig]:
    """The program, as a household might have it."""
    (folder / "slots").mkdir()
    (folder / "code.txt").write_text("You know this code:\n" + "def f(x): return x + 1\n" * 400 + "\n<{message}>")
    (folder / "mail.txt").write_text("You answer mail, in few words.\n<{message}>")
    shared: Json = {"prefixes": {"@code": str(folder / "code.txt"), "@mail": str(folder / "mail.txt")}}
    shared["captureBuffer"] = 20
    if real:
        async with swap_rig(
            folder, dict(zip(("alpha", "beta"), two().values(), strict=True)), kv=WHEN_IDLE, **shared
        ) as rig:
            yield rig
        return
    models: Json = {
        "alpha": llama(
            folder, name="Alpha 7B", description="Good for code", aliases=["gpt-4o", "alpha-latest"], ttl=600
        ),
        "beta": llama(folder, name="Beta 3B"),
        "gamma": fake("--start_delay 1.5", ttl=30),
        "broken": fake("--exit 3"),
        "hidden": fake(unlisted=True),
        "org/ranker": fake(capabilities={"in": ["text"], "out": ["text"], "reranker": True}),
    }
    shared |= {
        "kv": {"min_seconds": 0.0, "min_free": 0},
        "profiles": {"work": {"pins": {"big": "alpha"}}, "home": {"pins": {"big": "beta"}}},
        "groups": {"pair": {"swap": True, "exclusive": True, "members": ["alpha", "beta"]}},
    }  # fmt: skip
    async with swap_rig(folder, models, **shared) as rig:
        yield rig


async def busy(rig: Rig) -> None:
    """A quarter of a minute: templates, a conversation that goes on, swaps, faults."""
    talk: list[Json] = [{"role": "system", "content": "You are brief."}]
    for question in QUESTIONS:
        await rig.chat("alpha", messages=[{"role": "user", "content": f"@code {question}"}], stream=True)
        talk.append({"role": "user", "content": question})
        answer = await rig.chat("alpha", messages=talk)
        talk.append(answer.json()["choices"][0]["message"])
    await rig.chat("beta", messages=[{"role": "user", "content": "@mail When do we meet?"}], stream=True)
    await rig.chat("alpha", messages=[*talk, {"role": "user", "content": "And then?"}])
    await asyncio.gather(rig.chat("gamma"), rig.chat("broken"), rig.chat("nobody"), rig.chat("alpha"))


async def busy_and_real(rig: Rig) -> None:
    """A conversation that was swapped out and came back, and templates on both models."""
    talk = Talk(rig, "alpha")
    await talk.cold()
    for model in ("beta", "alpha"):
        await rig.chat(model, messages=[{"role": "user", "content": "@code What does f do?"}], max_tokens=12)
    for question in QUESTIONS:
        await talk.warm(question)
        await rig.chat("beta", messages=[{"role": "user", "content": f"@code {question}"}], max_tokens=12)
    await talk.warm()
    await rig.chat("alpha", messages=[{"role": "user", "content": "@mail Thanks."}], max_tokens=12, stream=True)
    await rig.chat("nobody")


async def pictures(rig: Rig, tab: Tab, *, pages: list[str], out: Path, how: str) -> None:
    newest = (await call(rig.ports.admin, "GET", "/api/requests?limit=1")).json()["requests"][0]["id"]
    for name in pages:
        route = "/" if name == "now" else "/" + name.replace("/last", f"/{newest}")
        await tab.open(rig.port, route, live=False)
        await settled(tab)
        await used(rig, tab, name)
        path = out / f"{name.replace('/', '-')}{how}.png"
        await tab.picture(path, whole=name != "config")  # its table has no end
        print(path, *await tab.spilled())


async def used(rig: Rig, tab: Tab, name: str) -> None:
    """Do what fills a page that is empty at first."""
    if name == "playground":
        await script(rig, "gamma", streams=events({"content": ANSWER}, timings=TIMINGS))
        await tab.open(rig.port, "/playground?model=gamma", live=False)
        await (chat := Chat(tab, rig)).say(QUESTIONS[0])
        await chat.ended()
    elif name == "config":
        await tab.page.get_by_role("tab", name="Values in force").click()
        await settled(tab)


async def settled(tab: Tab) -> None:
    """The page was drawn, and what it asked for had time to come: nothing tells that it has."""
    await tab.page.get_by_role("heading", level=1).wait_for()
    await asyncio.sleep(0.7)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.ui.look", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="of which to take pictures (default: all)")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--narrow", action="store_true", help="as wide as a phone")
    parser.add_argument("--all", action="store_true", help="both themes, wide and narrow")
    parser.add_argument("--real", action="store_true", help="llama.cpp on two generated models")
    parser.add_argument("--serve", action="store_true", help="take none; run until Ctrl-C")
    parser.add_argument("--folder", type=Path, help="where the program's files lie (default: a new one)")
    parser.add_argument("--out", type=Path, default=OUT, help=f"the folder for the pictures (default: {OUT})")
    return parser.parse_args()


async def main() -> int:
    asked = arguments()
    if reason := why_not():
        print(reason, file=sys.stderr)
        return 1
    traffic = busy_and_real if asked.real else busy
    ways = itertools.product((False, True), (False, True)) if asked.all else [(asked.dark, asked.narrow)]
    with tempfile.TemporaryDirectory() as new:
        async with machine(asked.folder or Path(new), real=asked.real) as rig:
            print(f"proxy http://127.0.0.1:{rig.port}/ui/  admin http://127.0.0.1:{rig.ports.admin}/ui/", flush=True)
            await traffic(rig)
            while asked.serve:
                await asyncio.sleep(3)
                await traffic(rig)
            async with chromium() as browser:
                for dark, narrow in ways:
                    async with new_tab(browser) as tab:
                        await tab.dark(on=dark)
                        if narrow:
                            await tab.phone()
                        how = f"{'-dark' if dark else ''}{'-narrow' if narrow else ''}"
                        await pictures(rig, tab, pages=asked.pages or [*PAGES], out=asked.out, how=how)
                        for one in dict.fromkeys(tab.wrong()):
                            print(f"wrong: {one}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except KeyboardInterrupt:
        sys.exit(0)
