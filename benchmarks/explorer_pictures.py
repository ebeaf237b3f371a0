"""Take the pictures of docs/explorer.md, and a short film, from the running page.

    python benchmarks/explorer_pictures.py docs/images

Needs Chromium and `pip install playwright`. Each stays below 300 kB.
"""

from __future__ import annotations

import io
import math
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

FRAMES = 32
LAPTOP, PHONE = (1440, 900), (390, 844)
#: Name → (size of the window, dark, the page's state, height of the picture or None for the window's).
PICTURES: dict[str, tuple[tuple[int, int], bool, str, int | None]] = {
    "routing": (LAPTOP, False, "v=routing&r=10&t=6", 1440),
    "overview": (LAPTOP, False, "v=primary&a=e8~18~0~1~1~0~0&tool=move", None),
    "tweak": (LAPTOP, False, "v=classes&sheet=1", 1500),
    "two-digits": (LAPTOP, False, "v=reconstruction&a=e11~0~0~1~1~-4~0&b=e4~0~0~1~1~4~0&on=1", None),
    "pooling": (LAPTOP, True, "v=control", 1500),
    "ablation": (LAPTOP, True, "v=ablation", 1500),
    "tour": (LAPTOP, False, "v=routing&t=1&tour=4", None),
    "phone": (PHONE, True, "v=routing&r=10&t=10", 3000),
    "phone-light": (PHONE, False, "v=classes", 2500),
}
READY = {
    "tweak": ".meaning:not(:empty)",
    "phone-light": ".meaning:not(:empty)",
    "pooling": "#detail .key",
    "ablation": "#detail table >> nth=1",
    "tour": ".agents-plot circle[r='8.5']",
}


def main() -> None:
    """Take all pictures."""
    import uvicorn
    from playwright.sync_api import sync_playwright

    from capsnet.explorer.app import create_app
    from capsnet.explorer.serving import listen
    from capsnet.explorer.session import open_session

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None or len(sys.argv) != 2:
        sys.exit(f"{__doc__}")
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(create_app(open_session("capsnet-mnist")), log_level="warning"))
    threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=chromium, args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        for name in PICTURES:
            take(browser, address, name, Path(sys.argv[1]) / f"explorer-{name}.png")
        film(browser, address, Path(sys.argv[1]) / "explorer.gif")
        browser.close()
    server.should_exit = True


def take(browser: Any, address: str, name: str, path: Path) -> None:
    """Open the page in one state and save a picture of it."""
    from PIL import Image

    (width, height), dark, state, tall = PICTURES[name]
    page = browser.new_page(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
        device_scale_factor=1,
    )
    page.set_default_timeout(120_000)
    page.goto(f"{address}#{state}")
    page.wait_for_selector("html[data-traced]")
    if name in READY:
        page.wait_for_selector(READY[name])
    page.wait_for_timeout(2500)
    content = page.screenshot(full_page=tall is not None)
    page.close()
    image = Image.open(io.BytesIO(content)).convert("RGB")
    if tall is not None:
        image = image.crop((0, 0, image.width, min(image.height, tall)))
    image.save(path, optimize=True)
    if path.stat().st_size > 300_000:
        image.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
            path, optimize=True
        )
    print(f"{path}: {image.width}×{image.height}, {path.stat().st_size / 1000:.0f} kB")


def film(browser: Any, address: str, path: Path) -> None:
    """Film the page while a digit turns back and forth."""
    from PIL import Image

    page = browser.new_page(viewport={"width": 1440, "height": 880}, reduced_motion="reduce")
    page.set_default_timeout(120_000)
    page.goto(f"{address}#v=routing&tool=move")
    page.wait_for_selector("html[data-traced]")
    frames = []
    for step in range(FRAMES):
        degrees = round(28 * math.sin(2 * math.pi * step / FRAMES))
        before = page.locator("html").get_attribute("data-traced")
        page.locator("#motion-rotation").fill(str(degrees))
        if step:
            page.wait_for_selector(f"html[data-traced]:not([data-traced='{before}'])")
        page.wait_for_timeout(500)
        image = (
            Image.open(io.BytesIO(page.screenshot()))
            .convert("RGB")
            .resize((960, 587), Image.Resampling.LANCZOS)
        )
        frames.append(image)
    page.close()
    # One palette for all frames, so that unchanged areas take no space.
    palette = frames[0].quantize(96, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=90, loop=0, optimize=True)
    print(f"{path}: {FRAMES} frames, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
