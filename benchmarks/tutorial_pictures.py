"""Take pictures of every chapter of the built site, to look at: `python benchmarks/tutorial_pictures.py SITE OUT`.

Each at 1440 and 390 pixels, light and dark. Needs Chromium and `pip install playwright`.
"""

from __future__ import annotations

import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
WIDTHS = (1440, 390)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    """Take the pictures."""
    from playwright.sync_api import sync_playwright

    site, out = Path(sys.argv[1]), Path(sys.argv[2])
    wanted = sys.argv[3:] or [path.stem for path in sorted((site / "tutorial").glob("[0-9]*.html"))]
    out.mkdir(parents=True, exist_ok=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        for width in WIDTHS:
            for scheme in ("light", "dark"):
                context = browser.new_context(
                    viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
                )
                page = context.new_page()
                for chapter in wanted:
                    page.goto(f"http://127.0.0.1:{server.server_address[1]}/tutorial/{chapter}.html")
                    for figure in page.locator("[data-figure]").all():
                        figure.scroll_into_view_if_needed()
                        page.wait_for_function(
                            "(f) => 'ready' in f.dataset", arg=figure.element_handle(), timeout=120_000
                        )
                    page.wait_for_timeout(800)  # figures draw once more when their first answer is there
                    overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
                    if overflow > 0:
                        print(f"{chapter} at {width}: {overflow} pixels too wide")
                    page.evaluate("scrollTo(0, 0)")
                    page.screenshot(path=out / f"{chapter}-{width}-{scheme}.png", full_page=True)
                context.close()
        browser.close()
    server.shutdown()


if __name__ == "__main__":
    main()
