"""The built site in a browser: each chapter does what it asks of the reader, with the library's numbers."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright import sync_api as playwright
from torch.nn.functional import max_pool2d

import capsnet
from capsnet.data.warping import affine_matrices, warp
from capsnet.explorer.session import open_session
from capsnet.functional import margin_loss, squash
from capsnet.routing import trace_routing
from chromium import PATIENCE
from site_server import hosted

BUILT = os.environ.get("CAPSNET_SITE")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BUILT is None, reason="`make test-browser` builds the site and sets CAPSNET_SITE"),
]
Visit = Callable[..., Any]
CHAPTERS = (
    "1-pooling", "2-equivariance", "3-capsules", "4-routing", "5-network", "6-numbers", "7-two-digits", "8-results",
    "9-paper",
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The site in a sub-folder of a host."""
    folder = tmp_path_factory.mktemp("host")
    (folder / "some").mkdir()
    (folder / "some" / "where").symlink_to(Path(BUILT or "").resolve())
    with hosted(folder) as host:
        yield f"{host}some/where/"


@pytest.fixture
def visit(browser: Any, root: str) -> Iterator[Visit]:
    """Open a chapter. Afterwards: no request left the site's folder, and the console is clean."""
    contexts, complaints = [], []

    def visit(chapter: str, *figures: str, part: str = "tutorial", **options: Any) -> Any:
        context = browser.new_context(reduced_motion="reduce", **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("console", lambda m: m.type in ("error", "warning") and complaints.append(m.text))
        page.on("request", lambda r: r.url.startswith((root, "data:", "blob:")) or complaints.append(r.url))
        page.goto(f"{root}{part}/{chapter}.html")
        for figure in figures:
            page.locator(f"[data-figure={figure}]").scroll_into_view_if_needed()
            page.wait_for_selector(f"[data-figure={figure}][data-ready]")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not complaints


@pytest.fixture(scope="module")
def model() -> Any:
    return capsnet.load_model("capsnet-mnist")


@pytest.fixture(scope="module")
def digit() -> Callable[[int], torch.Tensor]:
    """The first example of a class, as the page shows it, in [0, 1]."""
    session = open_session("capsnet-mnist")
    return lambda k: session.pictures[session.labels.index([k])][None].float() / 255


def slide(page: Any, label: str, value: float) -> None:
    page.get_by_label(label, exact=True).fill(str(value))


def shown(page: Any, figure: str, name: str) -> float:
    return float(page.locator(f"[data-figure={figure}] [data-{name}]").first.get_attribute(f"data-{name}"))


def eventually(page: Any, figure: str, name: str, value: float, within: float = 1e-4) -> None:
    """A figure shows a number, once its engine has answered."""
    page.wait_for_function(
        "([figure, name, value, within]) => Math.abs(Number(document.querySelector(`[data-figure=${figure}] "
        "[data-${name}]`)?.dataset[name]) - value) <= within",
        arg=[figure, name, value, within],
    )


def test_chapter_1_two_faces_that_pool_to_the_same(visit: Visit) -> None:
    page = visit("1-pooling", "faces", "pool")
    figure = page.locator("[data-figure=faces]")
    figure.get_by_label("row 2, column 2", exact=True).click()
    playwright.expect(figure.locator(".verdict")).to_have_attribute("data-same", "false")
    figure.get_by_label("row 1, column 1", exact=True).click()  # in the same window
    playwright.expect(figure.locator(".verdict")).to_have_attribute("data-same", "true")
    map_ = torch.rand(8, 8)
    pooled = page.evaluate(
        "async (map) => (await import('./figures/faces.js')).maxPool(map, 8)", map_.flatten().tolist()
    )
    torch.testing.assert_close(torch.tensor(pooled).view(4, 4), max_pool2d(map_[None], 2)[0])
    assert shown(page, "pool", "gap") == 0


def test_chapter_2_the_pose_follows_and_t_prime_predicts_it(
    visit: Visit, model: Any, digit: Callable[[int], torch.Tensor]
) -> None:
    page = visit("2-equivariance", "turn")
    page.click("[data-figure=turn] [data-digit='4']")
    turned = warp(
        digit(4),
        affine_matrices(
            rotation=torch.tensor([15.0]),
            shear=torch.zeros(1),
            scale=torch.ones(1, 2),
            translation=torch.zeros(1, 2),
        ),
    )
    with torch.no_grad():
        before, after = model(digit(4))[0, 4], model(turned.clamp(0, 1))[0, 4]
    maps = json.loads((Path(BUILT or "") / "tutorial" / "measured.json").read_text())
    off = float((torch.tensor(maps["maps"][4]) @ before - after).norm() / after.norm())
    eventually(page, "turn", "off", off)
    assert shown(page, "turn", "unchanged") == pytest.approx(
        float((before - after).norm() / after.norm()), abs=1e-4
    )
    assert maps["r2"] > maps["r2_unchanged"]


def test_chapter_3_the_direction_stays(visit: Visit) -> None:
    page = visit("3-capsules", "squash")
    for at in (10, 90):
        slide(page, "length", at)
        s = shown(page, "squash", "s")
        assert shown(page, "squash", "v") == pytest.approx(float(squash(torch.tensor([s, 0.0]))[0]), abs=1e-4)
    before = shown(page, "squash", "v")
    slide(page, "angle", 200)
    assert shown(page, "squash", "v") == before


def test_chapter_4_a_boat_becomes_a_house(visit: Visit) -> None:
    page = visit("4-routing", "boat")
    page.click("[data-make=boat]")
    for number in range(5):
        eventually(page, "boat", "round", number + 1)
        wanted = routed(0)[number]
        eventually(page, "boat", "boat", wanted[0])
        eventually(page, "boat", "house", wanted[1])
        page.click("#boat-step")
    slide(page, "turn the rectangle", 180)
    for _ in range(4):
        page.click("#boat-step")
    boat, house = routed(180)[4]
    eventually(page, "boat", "house", house)
    eventually(page, "boat", "boat", boat)
    assert house > 0.7
    assert boat < 0.1
    page.locator("[data-figure=boat] .part").first.focus()
    page.keyboard.press("ArrowLeft")
    eventually(page, "boat", "round", 1)


def routed(rectangle: float) -> list[list[float]]:
    """‖v‖ of boat and house in five iterations, for the parts of a boat whose rectangle is turned."""
    places = {"boat": [(90, 0.3, 0.45), (0, 0, -0.5)], "house": [(0, 0, 0.6), (90, 0, -0.4)]}

    def vote(part: tuple[float, float, float], place: tuple[float, float, float]) -> list[float]:
        # In complex numbers: the whole's pose w = p / r, its position t − w ρ.
        p, t = complex(*direction(part[0])), complex(part[1], part[2])
        w = p / complex(*direction(place[0]))
        position = t - w * complex(place[1], place[2])
        return [w.real, w.imag, position.real, position.imag]

    def direction(degrees: float) -> tuple[float, float]:
        return math.cos(math.radians(degrees)), math.sin(math.radians(degrees))

    parts = [(90, 0.3, 0.45), (rectangle, 0, -0.5)]
    votes = torch.tensor([[vote(part, places[w][at]) for w in places] for at, part in enumerate(parts)])
    trace = trace_routing(torch.ones(1, 2, 1), votes[:, None], 5)
    lengths: list[list[float]] = trace.outputs[:, 0].norm(dim=-1).tolist()
    return lengths


def test_chapter_5_shapes_and_margins(visit: Visit, model: Any, digit: Callable[[int], torch.Tensor]) -> None:
    page = visit("5-network", "network", "margins")
    page.click("[data-figure=network] [data-digit='7']")
    with torch.no_grad():
        eventually(page, "network", "length", float(model.scores(digit(7))[0, 7]))
        lengths = model.scores(digit(2))
    target = torch.nn.functional.one_hot(torch.tensor([2]), 10)
    eventually(page, "margins", "loss", float(margin_loss(lengths, target)), within=1e-5)
    slide(page, "m⁺", 1)
    eventually(page, "margins", "loss", float(margin_loss(lengths, target, present=1.0)), within=1e-5)


def test_chapter_6_one_number_on_several_digits(
    visit: Visit, model: Any, digit: Callable[[int], torch.Tensor]
) -> None:
    page = visit("6-numbers", "sixteen")
    slide(page, "number", 5)
    slide(page, "change", 0.3)
    with torch.no_grad():
        pose = model(digit(0))
        pose[0, 0, 4] += 0.3
        eventually(page, "sixteen", "sum", float(model.decode(pose, 0).sum()), within=0.05)


def test_chapter_7_a_capsule_lets_go(visit: Visit, model: Any, digit: Callable[[int], torch.Tensor]) -> None:
    page = visit("7-two-digits", "two")
    for ink in (1.0, 0.0):
        slide(page, "ink of the 0", ink)
        image = torch.roll(digit(8), -3, 3) + ink * torch.roll(digit(0), 3, 3)
        with torch.no_grad():
            lengths = model.scores(image.clamp(max=1))[0]
        eventually(page, "two", "first", float(lengths[8]))
        eventually(page, "two", "second", float(lengths[0]))
        assert (float(lengths[0]) > 0.5) == (ink == 1)


def test_chapter_8_shows_every_seed_of_the_records(visit: Visit) -> None:
    page = visit("8-results", "results")
    page.get_by_role("button", name="Are poses equivariant?").click()
    folder = Path(__file__).parents[2] / "results/equivariance"
    records = [json.loads(p.read_text()) for p in sorted(folder.glob("r3-reconstruction-quick-s*.json"))]
    others = len(list(folder.glob("cnn-max-pool-quick-s*.json")))
    label = page.locator("[data-figure=results] svg").first.get_attribute("aria-label")
    values = [float(text) for text in re.findall(r"\d\.\d\d", label)[: len(records)]]
    assert values == [round(record["metrics"]["R²"], 2) for record in records]
    assert page.locator("[data-figure=results] svg").first.locator("circle").count() == len(records) + others


def test_chapter_9_steps_through_procedure_1(
    visit: Visit, model: Any, digit: Callable[[int], torch.Tensor]
) -> None:
    page = visit("9-paper", "procedure")
    with torch.no_grad():
        trace = model.trace(digit(4), 5)
    for number in (1, 4):
        slide(page, "iteration", number)
        eventually(page, "procedure", "length", float(trace.routing.outputs[number - 1, 0, 4].norm()))
    assert "softmax_over_parents(logits, leaky)" in page.inner_text("article")


@pytest.mark.parametrize(
    ("notebook", "shown"),
    [
        ("from-scratch", r"class capsules +\(100, 10, 16\) +largest difference \d\.\de-0[678]"),
        ("train-and-look", r"test error: \d+\.\d+% \(\d+ of 1000"),
        ("your-images", r"cnn-same-stem(.|\n)+CapsNet makes fewer errors(.|\n)+(Yes|No|In part|Undecided)"),
    ],
)
def test_a_notebook_shows_what_it_computed(visit: Visit, notebook: str, shown: str) -> None:
    """`make site` executed it; its assertions stopped the build if they failed."""
    page = visit(notebook, part="notebooks")
    assert re.search(shown, page.inner_text("article"))
    assert "Traceback" not in page.inner_text("article")
    images = page.locator("article img")
    assert all(width > 0 for width in images.evaluate_all("all => all.map((one) => one.naturalWidth)"))
    with page.expect_download() as download:
        page.get_by_role("link", name="Download this notebook").click()
    assert json.loads(Path(download.value.path()).read_text("utf-8"))["cells"]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_reads_without_scripts(browser: Any, root: str, chapter: str) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(f"{root}tutorial/{chapter}.html")
    text = page.inner_text("article")
    for part in ("The idea.", "Try.", "Predict first", "In the paper.")[: 3 if chapter == "9-paper" else 4]:
        assert part in text
    assert page.locator("[data-figure] p").first.is_visible()
    context.close()
