"""Both engines against the library, and what the engine in the browser says when something is wrong."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from playwright import sync_api as playwright
from torch import Tensor

import capsnet
from capsnet.explorer.schemas import Transform
from capsnet.explorer.session import open_session
from capsnet.explorer.site import export_site
from capsnet.models import CapsNetConfig
from chromium import PATIENCE
from explorer_client import ask, save, served, unpack
from site_server import hosted

pytestmark = pytest.mark.browser
DIGITS = 100
#: Digits whose movement is compared, which costs 17 images each.
COMPARED = 10
TOLERANCE = 1e-4
#: Asks the page's own engine and packs arrays as the server does.
ASK = """async ([name, question, arrays]) => {
  const { engine } = await import("./api.js");
  const answer = await engine.ask(name, question);
  const pack = ({ shape, data }) => {
    let text = "";
    for (const byte of new Uint8Array(data.buffer, data.byteOffset, data.byteLength)) text += String.fromCharCode(byte);
    return { shape, dtype: "float32", data: btoa(text) };
  };
  return { ...answer, ...Object.fromEntries(arrays.map((array) => [array, pack(answer[array])])) };
}"""
STILL = Transform().model_dump()


@pytest.fixture(scope="module")
def site(exported: Path) -> Iterator[str]:
    with hosted(exported.parents[1]) as host:
        yield f"{host}a/site/"


def opened(browser: Any, address: str) -> Any:
    page = browser.new_context(bypass_csp=True).new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    return page


@pytest.mark.parametrize("engine", ["server", "browser"])
def test_a_hundred_digits_give_the_library_s_numbers(engine: str, browser: Any, site: str) -> None:
    session = open_session("capsnet-mnist")
    model, control = capsnet.load_model("capsnet-mnist"), capsnet.load_model("cnn-mnist")
    images = session.pictures[:DIGITS].float() / 255
    assert len(images) == DIGITS
    worst: dict[str, float] = {}
    with served(session) as address, httpx.Client(base_url=address, timeout=60) as client:
        page = opened(browser, site) if engine == "browser" else None
        for number, image in enumerate(images):
            iterations = 1 + number % 10
            with torch.no_grad():
                trace = model.trace(image[None], iterations)
                drawn = model.decode(trace.capsules.expand(10, -1, -1), torch.arange(10))
                scores = control.scores(image[None])[0]
            layers = [{"pixels": image.flatten().tolist(), "transform": STILL}]
            question = {"layers": layers, "iterations": iterations, "focus": None}
            wanted: dict[str, Tensor] = {
                "primary": trace.primary[0],
                "couplings": trace.routing.couplings[:, 0],
                "capsules": trace.capsules[0],
                "lengths": trace.lengths[0],
                "reconstructions": drawn,
            }
            found = (
                page.evaluate(ASK, ["trace", question, [*wanted]])
                if page
                else ask(client, "trace", **question)
            )
            answers = {name: unpack(found[name]) for name in wanted}
            if number < COMPARED:
                movement = {"layers": layers, "parameter": "rotation", "focus": None}
                swept = (
                    page.evaluate(ASK, ["sweep", movement, ["control_scores"]])
                    if page
                    else ask(client, "sweep", **movement)
                )
                answers["control"] = unpack(swept["control_scores"])[swept["origin"]]
                wanted["control"] = scores
            for name, value in wanted.items():
                got = answers[name]
                assert got.shape == value.shape
                worst[name] = max(worst.get(name, 0.0), float((got - value).abs().max()))
            assert found["ranking"][0] == int(trace.lengths[0].argmax())
    assert max(worst.values()) <= TOLERANCE, worst


def test_a_page_that_computes_itself_says_how(browser: Any, site: str) -> None:
    page = opened(browser, site)
    playwright.expect(page.locator("#engine")).to_contain_text("float16")
    playwright.expect(page.locator("#engine")).to_contain_text("on 100 images")
    page.context.close()


def test_the_control_is_loaded_when_the_comparison_opens(browser: Any, site: str) -> None:
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    files: list[str] = []
    page.on("request", lambda request: files.append(request.url.rpartition("/")[2]))
    page.goto(site)
    page.wait_for_selector("html[data-traced]")
    assert "weights.bin" in files
    assert "control.bin" not in files
    page.click("#tab-control")
    playwright.expect(page.locator("#answer .answer.control b")).to_have_text("4")
    assert "control.bin" in files
    page.close()


def broken(exported: Path, place: Path, name: str, content: bytes | None) -> Path:
    copy = copytree(exported, place / "site")
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_bytes(content)
    return copy


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("model/trace-3.onnx", "missing", "model/trace-3.onnx did not arrive (404)"),
        ("model/weights.bin", "cut", "model/weights.bin was cut short"),
        ("model/weights.bin", "other", "model/weights.bin is not the one that was exported"),
        ("runtime/ort-wasm-simd-threaded.wasm", "missing", "did not arrive (404)"),
        ("data/engine.json", "missing", "data/engine.json did not arrive (404)"),
    ],
)
def test_a_file_that_does_not_arrive_whole_is_named(
    browser: Any, exported: Path, tmp_path: Path, name: str, change: str, said: str
) -> None:
    content = (exported / name).read_bytes()
    now = {
        "missing": None,
        "cut": content[: len(content) // 2],
        "other": gzip.compress(np.zeros(100, np.uint8).tobytes()).ljust(len(content), b"\0"),
    }
    with hosted(broken(exported, tmp_path, name, now[change])) as address:
        page = opened(browser, address)
        playwright.expect(page.locator("#problem")).to_contain_text(said)
        assert page.locator("h1").is_visible()
        page.context.close()


def test_a_browser_without_simd_is_named(browser: Any, site: str) -> None:
    context = browser.new_context()
    context.route(
        "**/engines/worker.js",
        lambda route: route.fulfill(
            body="WebAssembly.validate = () => false;\n" + route.fetch().text(),
            content_type="text/javascript",
        ),
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(site)
    playwright.expect(page.locator("#problem")).to_contain_text("no WebAssembly with SIMD")
    context.close()


def test_a_run_of_the_user_s_own_as_a_site(browser: Any, tmp_path: Path) -> None:
    """Another image size, three classes, leaky routing with a bias, no decoder, exact weights."""
    config = CapsNetConfig(
        image_shape=(1, 20, 24),
        num_classes=3,
        stem_channels=8,
        primary_types=2,
        decoder=None,
        routing_leaky=True,
        routing_bias=True,
    )
    run = save(tmp_path / "mine", config)
    done = export_site(str(run), tmp_path / "site", float32=True)
    assert done.difference < 1e-5
    pixels = torch.rand(480, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        lengths = capsnet.load_model(run).scores(pixels.view(1, 1, 20, 24))[0]
    with hosted(tmp_path / "site") as address:
        page = opened(browser, address)
        page.wait_for_selector("html[data-traced]")
        playwright.expect(page.locator("#about")).to_contain_text("mine")
        layers = [{"pixels": pixels.tolist(), "transform": STILL}]
        found = page.evaluate(ASK, ["trace", {"layers": layers, "iterations": 3, "focus": None}, ["lengths"]])
        page.context.close()
    torch.testing.assert_close(unpack(found["lengths"]), lengths, atol=TOLERANCE, rtol=0)
