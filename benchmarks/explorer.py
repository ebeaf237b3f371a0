"""Measure the explorer's response times in a browser: start, stroke, slider.

    python benchmarks/explorer.py [RUN] [--repeats 40] [--out explorer.json]

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
from pathlib import Path
from statistics import median, quantiles
from typing import Any

TARGETS = {"start_s": 5.0, "stroke_ms": 150.0, "slider_ms": 50.0}
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
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no Chromium here: apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        start(browser, options.run)  # fills the caches of files and of compiled kernels
        starts = []
        for _ in range(3):
            seconds, server, page = start(browser, options.run, keep=True)
            starts.append(seconds)
            if len(starts) < 3:
                page.context.close()
                stop(server)
        strokes = draw(page, options.repeats)
        sliders = slide(page, options.repeats)
        stop(server)
        browser.close()
    figures = {"start_s": starts, "stroke_ms": strokes, "slider_ms": sliders}
    report(options.run, figures, options.out)


def start(browser: Any, run: str, keep: bool = False) -> tuple[float, subprocess.Popen[str], Any]:
    """Return the seconds from the command to a page that accepts a stroke."""
    program = f"from capsnet.explorer import serve; serve({run!r}, 0, False)"
    began = time.perf_counter()
    server = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    for line in server.stderr:
        if "http://" in line:
            break
    else:
        sys.exit("the server did not start")
    address = line[line.index("http://") :].split()[0]
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
    if server.stderr:
        server.stderr.close()


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
    page.wait_for_selector(".meaning:not(:empty)")
    page.wait_for_timeout(1000)
    page.evaluate("window.__waits.drawn.length = 0")
    page.focus("#pose-3")
    for step in range(repeats):
        page.keyboard.press("ArrowRight" if step % 20 < 10 else "ArrowLeft")
        page.wait_for_timeout(120)
    waits: list[float] = page.evaluate("window.__waits.drawn")
    return waits[2:]


def report(run: str, figures: dict[str, list[float]], out: Path | None) -> None:
    """Print a table; return exit code 1 if a target is missed."""
    machine = (
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    print(f"{run} on {machine}")
    print(f"{'':12}{'median':>10}{'90 %':>10}{'target':>10}{'n':>6}")
    missed = []
    for name, values in figures.items():
        middle, high = median(values), quantiles(values, n=10)[-1] if len(values) > 9 else max(values)
        print(f"{name:12}{middle:10.2f}{high:10.2f}{TARGETS[name]:10.0f}{len(values):6}")
        if middle > TARGETS[name]:
            missed.append(name)
    if out:
        out.write_text(json.dumps({"run": run, "machine": machine, "figures": figures}, indent=2) + "\n")
    if missed:
        sys.exit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
