"""Measure the explorer's response times in a browser: start, stroke, slider.

    python benchmarks/explorer.py [RUN] [--site DIR] [--repeats 40] [--out explorer.json]

With --site, an exported site is measured beside the server, in turns: the browser then computes the answers itself.
Needs Chromium and `pip install playwright`. A stroke counts from the pointer's event until the network's answer,
the overview and the routing view have been painted; a slider from its event until the new reconstruction has.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

TARGETS = {
    "server": {"start_s": 5.0, "stroke_ms": 150.0, "slider_ms": 50.0},
    "browser": {"start_s": 2.0, "stroke_ms": 80.0, "slider_ms": 16.0},
}
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
#: Runs in the page before its own scripts: measures the time from an input event to the paint of its answer.
WATCH = """
(() => {
  const waits = { traced: [], drawn: [] };
  let from = { traced: null, drawn: null };
  window.__waits = waits;
  addEventListener("pointermove", (e) => { if (e.buttons) from.traced ??= e.timeStamp; }, true);
  addEventListener("input", (e) => { from.drawn ??= e.timeStamp; }, true);
  const channel = new MessageChannel();
  let done = [];
  channel.port1.onmessage = () => { for (const f of done.splice(0)) f(performance.now()); };
  new MutationObserver((changes) => {
    for (const { attributeName } of changes) {
      const name = attributeName.replace("data-", "");
      const start = from[name];
      if (start == null) continue;
      from[name] = null;
      requestAnimationFrame(() => { done.push((now) => waits[name].push(now - start)); channel.port2.postMessage(0); });
    }
  }).observe(document, { subtree: true, attributes: true, attributeFilter: ["data-traced", "data-drawn"] });
})();
"""


def main() -> None:
    """Measure and print; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", nargs="?", default="capsnet-mnist")
    parser.add_argument("--site", type=Path, metavar="DIR")
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no Chromium here: apt-get install chromium")
    engines = {"server": lambda: serve(options.run)}
    if options.site:
        engines["browser"] = lambda: host(options.site)
    figures: dict[str, dict[str, list[float]]] = {
        name: {figure: [] for figure in TARGETS[name]} for name in engines
    }
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        for begin in engines.values():  # fills the caches of files and of compiled kernels
            start(browser, begin)
        for turn in range(3):
            for name, begin in engines.items():
                seconds, server, page = start(browser, begin, keep=True)
                figures[name]["start_s"].append(seconds)
                if turn > 0:
                    figures[name]["stroke_ms"] += draw(page, options.repeats // 2)
                    figures[name]["slider_ms"] += slide(page, options.repeats // 2)
                page.context.close()
                stop(server)
        browser.close()
    report(options.run, figures, options.out)


def serve(run: str) -> tuple[subprocess.Popen[str], str]:
    """Start the explorer's server; return it and its address."""
    program = f"from capsnet.explorer import serve; serve({run!r}, 0, False)"
    server = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    for line in server.stderr:
        if "http://" in line:
            return server, line[line.index("http://") :].split()[0]
    sys.exit("the server did not start")


def host(site: Path) -> tuple[subprocess.Popen[str], str]:
    """Start a static host for an exported site; return it and its address."""
    command = [
        sys.executable,
        "-u",
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        "--directory",
        str(site),
        "0",
    ]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    line = server.stdout.readline()
    return server, line[line.index("http://") : line.index(")")]


def start(
    browser: Any, begin: Callable[[], tuple[subprocess.Popen[str], str]], keep: bool = False
) -> tuple[float, subprocess.Popen[str], Any]:
    """Return the seconds to a page that accepts a stroke: from the command, or from the static files."""
    began = time.perf_counter()
    server, address = begin()
    if server.stdout is not None:  # a static host, which is there already
        began = time.perf_counter()
    # The page forbids foreign scripts, and the code that reads the measurements is one.
    page = browser.new_context(viewport={"width": 1440, "height": 900}, bypass_csp=True).new_page()
    page.add_init_script(WATCH)
    page.goto(f"{address}#v=routing")
    page.wait_for_selector("html[data-traced]")
    seconds = time.perf_counter() - began
    if not keep:
        page.context.close()
        stop(server)
    return seconds, server, page


def stop(server: subprocess.Popen[str]) -> None:
    """Stop the server and wait for its end."""
    server.terminate()
    server.wait(timeout=60)
    for stream in (server.stderr, server.stdout):
        if stream:
            stream.close()


def draw(page: Any, repeats: int) -> list[float]:
    """Return the milliseconds from pointer movements to the painted answer."""
    box = page.locator(".board canvas").bounding_box()
    page.mouse.move(box["x"] + 120, box["y"] + 100)
    page.mouse.down()
    for step in range(repeats):
        page.mouse.move(box["x"] + 120 + 3 * (step % 30), box["y"] + 100 + 4 * (step % 37))
        page.wait_for_timeout(350)
    page.mouse.up()
    waits: list[float] = page.evaluate("window.__waits.traced")
    return waits[2:]  # the browser compiles code during the first ones


def slide(page: Any, repeats: int) -> list[float]:
    """Return the milliseconds from slider movements to the painted reconstruction."""
    page.click("#tab-classes")
    page.wait_for_selector(".meaning:not(:empty)", timeout=180_000)  # queued behind everything else
    page.wait_for_timeout(1000)
    page.evaluate("window.__waits.drawn.length = 0")
    page.focus("#pose-3")
    for step in range(repeats):
        page.keyboard.press("ArrowRight" if step % 20 < 10 else "ArrowLeft")
        page.wait_for_timeout(120)
    waits: list[float] = page.evaluate("window.__waits.drawn")
    return waits[2:]


def report(run: str, figures: dict[str, dict[str, list[float]]], out: Path | None) -> None:
    """Print a table; return exit code 1 if a target is missed."""
    machine = (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    print(f"{run} on {machine}")
    print(f"{'engine':10}{'':12}{'median':>10}{'90 %':>10}{'target':>10}{'n':>6}")
    missed = []
    for engine, measured in figures.items():
        for name, values in measured.items():
            middle, high = median(values), quantiles(values, n=10)[-1] if len(values) > 9 else max(values)
            target = TARGETS[engine][name]
            print(f"{engine:10}{name:12}{middle:10.2f}{high:10.2f}{target:10.0f}{len(values):6}")
            if middle > target:
                missed.append(f"{engine} {name}")
    if out:
        out.write_text(json.dumps({"run": run, "machine": machine, "figures": figures}, indent=2) + "\n")
    if missed:
        sys.exit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
