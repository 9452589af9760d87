"""The web page in Chromium: how soon it paints, what it fetches for that, and what it costs to leave it open.

A program with two fake models is asked some ten times a second, which is fifty events a second and more on the page's
stream. The page Now is left open for three minutes, and Requests, which draws the most, for one. The heap is measured
after each minute, right after a garbage collection; the processor time of the renderer is the scheduler's count. The
lists that the page keeps are full within the first minute, so what grows after that would grow for ever.
`python -m bench.webpage` prints the table; `python -m bench.webpage 20` leaves Now open for twenty minutes.
"""

from __future__ import annotations

import gzip
import itertools
import shlex
import shutil
import statistics
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import msgspec
from playwright.sync_api import Browser, Page, sync_playwright

from bench import peers, swapping
from bench.report import Row, verdict
from bioproxy.admin.page import FOLDER, INDEX

BROWSERS = ("chromium", "chromium-headless-shell", "google-chrome")  # the second is all that .ci/run installs
PROGRAM = next(filter(None, map(shutil.which, BROWSERS)), "")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
LOADS = 5
HEAVY = ("requests", "playground", "cache", "machine")
PACE = 0.14  # seconds from one request of two clients to the next
MINUTE = 60.0
EVENTS = 50  # a second, at least
PAGES = {"Now": "", "Requests": "#/requests"}
MINUTES = 3  # that the first of them is left open
FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
FETCHED = """performance.getEntriesByType('resource').map(one => new URL(one.name).pathname)
  .filter(path => /\\.(js|css)$/.test(path))"""


class Open(msgspec.Struct, frozen=True):
    """A minute of a page that is open: heap at its end in bytes, share of a core, and events a second."""

    heap: float
    cpu: float
    events: float


class Traffic:
    """Requests at a steady pace, and a count of what the page's stream tells of them."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.events = 0
        self.stop = threading.Event()

    def ask(self) -> None:
        """One request after another, each of a size of its own."""
        for number in itertools.count():
            if self.stop.wait(PACE):
                return
            words = "word " * (number % 400)
            body = {"model": "ab"[number % 2], "messages": [{"role": "user", "content": words}]}
            request = urllib.request.Request(
                f"http://127.0.0.1:{self.port}{swapping.CHAT}",
                msgspec.json.encode(body),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=30) as answer:
                answer.read()

    def count(self) -> None:
        """What a page is told."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/live", timeout=60) as stream:
            for line in stream:
                self.events += line.startswith(b"id:")
                if self.stop.is_set():
                    return


@contextmanager
def busy(port: int) -> Iterator[Traffic]:
    """Traffic for as long as the block runs."""
    traffic = Traffic(port)
    threads = [threading.Thread(target=work) for work in (traffic.ask, traffic.ask, traffic.count)]
    for thread in threads:
        thread.start()
    try:
        yield traffic
    finally:
        traffic.stop.set()
        for thread in threads:
            thread.join()


def loaded(browser: Browser, url: str) -> tuple[float, int]:
    """Milliseconds to the first paint of a browser that never saw the page, and bytes of script and style, gzip."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(url)
        page.get_by_role("heading", level=1).wait_for()
        return float(page.evaluate(FIRST_PAINT)), sum(map(size, page.evaluate(FETCHED)))


def size(path: str) -> int:
    """Bytes of one of the page's files as gzip makes it."""
    file = FOLDER / urlsplit(path).path.partition("/ui/")[2]
    smaller = file.with_name(file.name + ".gz")
    return len(smaller.read_bytes() if smaller.exists() else gzip.compress(file.read_bytes()))


def renderers(browser: Browser) -> float:
    """Processor seconds of everything that draws and runs pages, so far."""
    found = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    return sum(peers.cpu_seconds(one["id"]) for one in found if one["type"] == "renderer")


def heap(page: Page) -> float:
    """Bytes of the page's objects that are in use."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    used = float(session.send("Runtime.getHeapUsage")["usedSize"])
    session.detach()
    return used


def minute(browser: Browser, page: Page, traffic: Traffic) -> Open:
    """Leave the page open."""
    began, cpu, events = time.perf_counter(), renderers(browser), traffic.events
    page.wait_for_timeout(MINUTE * 1000)
    wall = time.perf_counter() - began
    return Open(heap(page), (renderers(browser) - cpu) / wall, (traffic.events - events) / wall)


def stay(browser: Browser, url: str, traffic: Traffic, *, minutes: int) -> list[Open]:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(url)
        return [minute(browser, page, traffic) for _ in range(minutes)]


def rows(browser: Browser, port: int, most: int) -> list[Row]:
    url = f"http://127.0.0.1:{port}/ui/"
    paints, sizes = zip(*(loaded(browser, url) for _ in range(LOADS)), strict=True)
    paint, first = statistics.median(paints), max(sizes)
    heaviest, name = max((loaded(browser, f"{url}#/{one}")[1], one) for one in HEAVY)
    found = [
        Row(
            "first paint on loopback, nothing cached",
            f"{paint:.0f} ms (worst {max(paints):.0f} ms)",
            "",
            "≤ 1 s",
            paint <= 1000,
        ),
        Row("first load, script and style, gzip", f"{first / 1000:.0f} kB", "", "≤ 120 kB", first <= 120_000),
        Row(f"… of the heaviest page, {name}", f"{heaviest / 1000:.0f} kB", "", "≤ 120 kB", heaviest <= 120_000),
    ]
    with busy(port) as traffic:
        for (name, route), minutes in zip(PAGES.items(), (most, 1), strict=True):
            seen = stay(browser, url + route, traffic, minutes=minutes)
            events, cpu = min(one.events for one in seen), max(one.cpu for one in seen)
            enough = f"{events:.0f} events/s"
            name_of_cpu = f"share of a core of {name} while it is open, worst minute"
            found.append(Row(name_of_cpu, f"{cpu:.1%}", enough, f"≤ 10 % at {EVENTS} events/s", cpu <= 0.1))
            if minutes > 1:
                growth = seen[-1].heap / seen[0].heap
                shown = sorted({round(number * (minutes - 1) / 4) for number in range(5)})  # of the minutes
                heaps = ", ".join(f"{seen[at].heap / 1e6:.1f}" for at in shown)
                marks = ", ".join(str(at + 1) for at in shown)
                ours = f"{growth:.2f} x ({heaps} MB after {marks})"
                holds = growth <= 1.2 and events >= EVENTS
                found.append(Row(f"… heap after {minutes} minutes, of that after one", ours, enough, "≤ 1.2 x", holds))
    return found


def measure(minutes: int = MINUTES) -> list[Row]:
    """Every row; none without Chromium or without the page."""
    if not PROGRAM or not (FOLDER / INDEX).exists():
        print("the web page is not measured: it needs Chromium, and `make ui`", file=sys.stderr)
        return []
    program = shlex.join([sys.executable, "-I", "-S", str(swapping.FAKE), "--port"])
    models = {name: {"cmd": f"{program} ${{PORT}}"} for name in "ab"}
    groups = {"all": {"swap": False, "exclusive": False, "members": ["a", "b"]}}
    with swapping.serving(models, groups=groups) as (port, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=FLAGS)
        try:
            return rows(browser, port, minutes)
        finally:
            browser.close()


if __name__ == "__main__":
    print(verdict("The web page", measure(*map(int, sys.argv[1:]))))
