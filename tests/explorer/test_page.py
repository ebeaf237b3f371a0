"""The explorer's page in a real browser: what a visitor does, by mouse and by keyboard, on a laptop and a phone."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import pytest
from playwright import sync_api as playwright

from capsnet.explorer.session import open_session
from chromium import PATIENCE
from explorer_client import served
from site_server import hosted

LAPTOP = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
#: Writes down what the button and the slider say while routing plays: a busy machine may see few of its frames.
LOOK_ON = """() => {
  window.seen = [];
  const play = document.querySelector("#play"), at = document.querySelector("#at");
  new MutationObserver(() => {
    const now = `${play.textContent}, at ${at.value}`;
    if (now !== window.seen.at(-1)) window.seen.push(now);
  }).observe(play, { childList: true });
}"""
Open = Callable[..., Any]


@pytest.fixture(scope="session", params=["server", "browser"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """The model that comes with the package: computed by a real server, or by the browser from an exported site."""
    if request.param == "browser":
        with hosted(request.getfixturevalue("exported").parents[1]) as host:
            yield f"{host}a/site/"
        return
    with served(open_session("capsnet-mnist")) as host:
        yield f"{host}/"


pytestmark = pytest.mark.browser


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Open]:
    """Open the page. Afterwards: nothing was asked of another machine, and the console is clean."""
    contexts, complaints = [], []

    def listen_to(page: Any) -> None:
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on(
            "console",
            lambda message: message.type in ("error", "warning") and complaints.append(message.text),
        )
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
        page.on(
            "request",
            lambda request: (
                request.url.startswith((address, "data:", "blob:")) or complaints.append(request.url)
            ),
        )

    def visit(link: str = "", viewport: dict[str, int] = LAPTOP, **options: Any) -> Any:
        context = browser.new_context(viewport=viewport, reduced_motion="reduce", **options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        listen_to(page)
        page.goto(address + link)
        page.wait_for_selector("html[data-traced]")
        return settled(page)

    yield visit
    for context in contexts:
        context.close()
    assert not complaints


def settled(page: Any) -> Any:
    """The page once every question has its answer and every change is drawn."""
    page.wait_for_selector("html:not([data-busy])")
    return page


@contextmanager
def redrawn(page: Any) -> Iterator[None]:
    """What is done inside leads to a new answer of the network; all of it has arrived afterwards."""
    before = settled(page).locator("html").get_attribute("data-traced")
    yield
    page.wait_for_selector(f"html[data-traced]:not([data-traced='{before}'])")
    settled(page)


@contextmanager
def changed(page: Any, selector: str) -> Iterator[None]:
    """What is done inside changes how a part of the page looks."""
    place = settled(page).locator(selector).first
    before = place.screenshot()
    yield
    assert settled(page).locator(selector).first.screenshot() != before, f"{selector} looks as before"


def said(page: Any) -> list[tuple[str, float]]:
    """The capsules' answer as the page says it: classes and lengths."""
    words = page.locator("#answer .answer").first.locator(".said")
    texts = [words.nth(k).inner_text().split() for k in range(words.count())]
    return [(name, float(length)) for name, length in texts]


def lengths(page: Any) -> list[float]:
    """The ten capsules' lengths as the overview says them."""
    label = page.locator("#tab-classes canvas").get_attribute("aria-label")
    return [float(value) for value in re.findall(r"\d (\d\.\d\d)", label)]


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


# 1. Draw, pick, drop, drag


def test_draw_with_the_mouse(visit: Open) -> None:
    page = visit()
    page.click("#clear")
    page.wait_for_selector("text=the board is empty")
    box = settled(page).locator(".board canvas").bounding_box()
    with redrawn(page):  # a one: a straight stroke
        page.mouse.move(box["x"] + box["width"] * 0.53, box["y"] + box["height"] * 0.26)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.47, box["y"] + box["height"] * 0.74, steps=12)
        page.mouse.up()
    playwright.expect(page.locator("#answer .said b").first).to_have_text("1")
    assert said(page)[0][1] > 0.5


def test_draw_with_the_keyboard_and_erase_again(visit: Open) -> None:
    page = visit()
    page.focus("#clear")
    press(page, "Enter")
    page.wait_for_selector("text=the board is empty")
    page.focus(".board canvas")
    with redrawn(page):
        press(page, *["ArrowUp"] * 9, "Space", *["ArrowDown"] * 18, "Space")
    playwright.expect(page.locator("#answer .said b").first).to_have_text("1")
    assert "a drawing" in page.locator(".board canvas").get_attribute("aria-label")
    page.focus("#tool-erase")
    press(page, "Enter")
    page.focus(".board canvas")
    press(page, *["ArrowUp"] * 18, "Space", *["ArrowDown"] * 18, "Space")
    page.wait_for_selector("text=the board is empty")


def test_pick_a_test_digit_and_open_a_picture(visit: Open) -> None:
    page = visit()
    for digit in ("3", "7"):
        with redrawn(page):
            page.locator(f".pick[aria-label$=': {digit}']").focus()
            press(page, "Enter")
        playwright.expect(page.locator("#answer .said b").first).to_have_text(digit)
    first = page.locator(".pick").first.get_attribute("aria-label")
    page.click("#more-digits")
    assert settled(page).locator(".pick").first.get_attribute("aria-label") != first

    from PIL import Image, ImageDraw

    image = Image.new("L", (280, 280), 255)  # ink on paper
    ImageDraw.Draw(image).line((145, 50, 135, 230), fill=0, width=24)
    file = io.BytesIO()
    image.save(file, "PNG")
    with redrawn(page):
        page.set_input_files(
            "#picture", {"name": "one.png", "mimeType": "image/png", "buffer": file.getvalue()}
        )
    playwright.expect(page.locator("#answer .said b").first).to_have_text("1")


def test_a_file_that_is_not_a_picture_is_explained(browser: Any, address: str) -> None:
    page = browser.new_page()  # the browser logs the refusal: no clean console here
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.wait_for_selector("html[data-traced]")
    page.set_input_files("#picture", {"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"})
    playwright.expect(page.locator("#problem")).to_contain_text("not an image")
    page.close()


def test_handles_turn_scale_shear_and_move(visit: Open) -> None:
    page = visit("#v=input")
    page.click("#tool-move")
    turned = page.locator("#shapes .slider output")
    for handle, (dx, dy), row in (
        ("turn", (60, 20), 0), ("scale", (-25, -20), 1), ("shear", (25, 0), 2), ("move", (20, -15), 3),
    ):  # fmt: skip
        before = turned.nth(row).inner_text()
        box = settled(page).locator(f".grip.{handle}").bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        with redrawn(page):
            page.mouse.move(x, y)
            page.mouse.down()
            page.mouse.move(x + dx, y + dy, steps=5)
            page.mouse.up()
        playwright.expect(turned.nth(row)).not_to_have_text(before)
    page.click("#motion-reset")
    playwright.expect(turned.nth(0)).to_have_text("0°")
    for handle, row in (("turn", 0), ("scale", 1), ("shear", 2), ("move", 3)):
        before = turned.nth(row).inner_text()
        page.locator(f".grip.{handle}").focus()
        with redrawn(page):
            press(page, "ArrowRight")
        playwright.expect(turned.nth(row)).not_to_have_text(before)


# 2. The way through the network


def test_every_stage_opens_with_numbers_of_this_image(visit: Open) -> None:
    page = visit()
    page.focus("#tab-routing")
    press(page, "Home")
    headings = []
    for _ in range(8):
        headings.append(settled(page).locator("#detail h2").inner_text())
        assert page.locator("[role=tab][aria-selected=true]").count() == 1
        assert not page.locator("#detail").inner_text().count("NaN")
        press(page, "ArrowRight")
    assert len(set(headings)) == 8
    page.click("#tab-conv1")
    playwright.expect(page.locator("#detail .equation").last).to_contain_text("relu(")
    title = settled(page).locator("#detail h3")
    before = title.inner_text()
    page.locator("[aria-roledescription^=mosaic]").focus()
    press(page, "ArrowRight")
    playwright.expect(title).not_to_have_text(before)
    page.click("#tab-primary")
    playwright.expect(page.locator("#detail h3")).to_contain_text("Capsule")
    before = settled(page).locator("#detail h3").inner_text()
    page.locator("[aria-roledescription^='grid of capsules']").click(position={"x": 150, "y": 150})
    playwright.expect(page.locator("#detail h3")).not_to_have_text(before)
    page.click("#tab-input")
    page.locator("[aria-roledescription^='grid of numbers']").click(position={"x": 3, "y": 3})
    playwright.expect(page.locator("#detail .equation")).to_contain_text("row 0, column 0")


# 3. Routing


def test_routing_plays_steps_and_scrubs(visit: Open) -> None:
    page = visit("#v=routing")
    playwright.expect(page.locator("#child-table tbody tr")).to_have_count(3)
    with changed(page, "#detail figure.big canvas"):
        page.click("#step-back")
    playwright.expect(page.locator("#at")).to_have_value("2")
    page.focus("#at")
    press(page, "Home")
    playwright.expect(page.locator("#at")).to_have_value("1")
    page.focus("#play")
    press(page, "Enter")  # where motion is not wanted, Play goes on by one
    playwright.expect(page.locator("#at")).to_have_value("2")
    page.select_option("#iterations", "10")
    playwright.expect(page.locator("#child-table tbody tr")).to_have_count(10)
    assert page.input_value("#at") == "10"
    title = page.locator(".child-detail h3")
    page.locator(".chip[data-class='7']").focus()
    press(page, "Enter")
    playwright.expect(title).to_contain_text("votes for “7”")
    before = settled(page).locator(".child-detail h3").inner_text()
    page.locator("#detail figure.big canvas").first.click(position={"x": 330, "y": 150})
    playwright.expect(title).not_to_have_text(before)


def test_routing_moves_while_it_plays(browser: Any, address: str) -> None:
    # The page forbids foreign scripts, and the one that looks on here is foreign.
    context = browser.new_context(viewport=LAPTOP, bypass_csp=True)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(f"{address}#v=routing&t=1")
    page.wait_for_selector("#child-table")
    page.evaluate(LOOK_ON)
    page.click("#play")
    playwright.expect(page.locator("#at")).to_have_value("3")
    playwright.expect(page.locator("#play")).to_have_text("Play")
    seen = page.evaluate("window.seen")
    assert (seen[0], seen[-1]) == ("Pause, at 1", "Play, at 3")
    context.close()


# 4. Tweak


def test_sliders_redraw_the_digit(visit: Open) -> None:
    page = visit("#v=classes")
    page.wait_for_selector("html[data-drawn]")
    with changed(page, ".stack canvas"):
        page.focus("#pose-0")
        press(page, *["ArrowRight"] * 40)
    assert page.locator("#pose-reset").is_enabled()
    page.click("#pose-reset")
    playwright.expect(page.locator("#pose-reset")).to_be_disabled()
    playwright.expect(page.locator(".meaning:not(:empty)").first).to_be_visible()  # measured, not typed
    page.click("#sheet")
    playwright.expect(page.locator("#sheet-figure")).to_be_visible()
    with changed(page, "#sheet-figure canvas"):
        page.click(".chip[data-class='3']")


# 5. Two digits


def test_two_digits_and_one_erased(visit: Open) -> None:
    page = visit("#v=reconstruction")
    page.click(".pick[aria-label$=': 0']")
    page.click("#digit-1")
    playwright.expect(page.locator("#answer .answer >> nth=0").locator("b")).to_have_text(["0", "8"])
    assert all(length > 0.5 for _, length in said(settled(page)))
    playwright.expect(page.locator(".gallery figure:visible")).to_have_count(4)
    before = lengths(page)[8]
    page.focus("#tool-erase")
    press(page, "Enter")
    box = settled(page).locator(".board canvas").bounding_box()
    page.mouse.move(box["x"] + 40, box["y"] + 40)
    page.mouse.down()
    for row in range(40, int(box["height"]) - 30, 16):
        page.mouse.move(box["x"] + 40, box["y"] + row)
        page.mouse.move(box["x"] + box["width"] - 40, box["y"] + row, steps=3)
    page.mouse.up()
    playwright.expect(page.locator("#answer .said.unsure")).to_have_count(1)
    assert lengths(settled(page))[8] < before - 0.3
    page.click("#digit-remove")
    playwright.expect(page.locator("#answer .said b").first).to_have_text("0")
    playwright.expect(page.locator("#digit-0")).to_be_hidden()


# 6. The CNN beside it


def test_the_control_answers_and_moves_beside(visit: Open) -> None:
    page = visit("#v=control")
    playwright.expect(page.locator("#answer .answer.control b")).to_have_text("4")
    playwright.expect(page.locator("#detail")).to_contain_text("exactly equal")
    playwright.expect(page.locator("#detail .key")).to_have_count(4)
    for parameter in ("shift_x", "scale"):
        with changed(page, "#detail figure.full canvas"):
            page.locator(f"[data-parameter={parameter}]").focus()
            press(page, "Enter")
    with redrawn(page):
        page.focus("#motion-rotation")
        press(page, "ArrowRight")


# 7. Does routing matter here?


def test_the_honest_panel(visit: Open) -> None:
    page = visit("#v=ablation")
    tables = page.locator("#detail table")
    playwright.expect(tables).to_have_count(2)
    for table, entropy in ((tables.first, 4), (tables.last, 6)):
        playwright.expect(table.locator("tbody tr")).to_have_count(5)
        uniform = table.locator("tbody tr").first
        assert uniform.locator("td").nth(entropy).inner_text() == "1.000"
        assert uniform.locator("th").inner_text() == "1, uniform"
    playwright.expect(page.locator("#detail")).to_contain_text("Uniform couplings:")


# The tour, the link, the phone


def test_tour_drives_the_page_and_can_be_left(visit: Open) -> None:
    page = visit()
    page.focus("#tour-start")
    press(page, "Enter")
    views, titles = [], []
    for step in range(1, 11):
        playwright.expect(page.locator("#tour .quiet")).to_have_text(f"Step {step} of 10")
        titles.append(page.locator("#tour h2").inner_text())
        settled(page)
        views.append(page.locator("[role=tab][aria-selected=true]").get_attribute("id"))
        if step == 5:
            page.click("#agents-play")
            playwright.expect(page.locator("#tour .agents output")).to_have_text("round 4")
            page.locator(".agent").first.focus()
            with changed(page, "#tour .agents-plot"):
                press(page, *["ArrowLeft"] * 10)
        page.click("#tour-next")
    playwright.expect(page.locator("#tour")).to_be_hidden()  # after the last step
    assert len(set(titles)) == 10
    assert {
        "tab-control",
        "tab-primary",
        "tab-routing",
        "tab-classes",
        "tab-reconstruction",
        "tab-ablation",
    } <= set(views)
    page.click("#tour-start")
    press(page, "Escape")
    playwright.expect(page.locator("#tour")).to_be_hidden()


def test_a_link_reproduces_the_state(visit: Open) -> None:
    page = visit("#v=routing")
    page.click("#digit-1")
    box = settled(page).locator(".board canvas").bounding_box()
    with redrawn(page):
        page.mouse.move(box["x"] + 90, box["y"] + 100)
        page.mouse.down()
        page.mouse.move(box["x"] + 180, box["y"] + 220, steps=4)
        page.mouse.up()
    page.select_option("#iterations", "5")
    page.click("#step-back")
    page.click(".chip[data-class='3']")
    page.locator("#motion-shear").fill("0.31")
    page.wait_for_url(lambda url: "0.31" in url)  # the address follows a moment later
    settled(page)
    other = visit("#" + page.url.partition("#")[2])
    playwright.expect(other.locator("#at")).to_have_value("4")
    playwright.expect(other.locator(".chip[data-class='3']").first).to_have_attribute("aria-pressed", "true")
    assert said(other) == said(page)
    assert lengths(other) == lengths(page)
    assert other.locator(".board canvas").screenshot() == page.locator(".board canvas").screenshot()
    assert other.locator("#child-table").inner_text() == page.locator("#child-table").inner_text()


def test_the_skip_link_goes_to_the_detail_and_keeps_everything_else(visit: Open) -> None:
    page = visit("#v=primary&i=40&r=2&tool=move&a=e3~10~0~1~1~2~0")
    page.wait_for_url(lambda url: "m=" in url)
    before = page.url
    page.locator("a.skip").focus()
    page.keyboard.press("Enter")
    playwright.expect(page.locator("#detail")).to_be_focused()
    page.wait_for_url(before)
    assert settled(page).locator("#problem").is_hidden()


def test_a_link_with_an_impossible_motion_still_shows_a_picture(visit: Open) -> None:
    page = visit("#m=capsnet-mnist&a=e3~999~9~9~9~500~500&pose=" + "~".join(["200"] * 16))
    page.wait_for_url(lambda url: "~4~4~60~60" in unquote(url))
    assert settled(page).locator("#problem").is_hidden()
    assert "pose" not in page.evaluate("location.hash")


@pytest.mark.parametrize(
    "link", ["#m=capsnet-mnist&v=nothing&a=zzz&r=99&t=-1&f=77&i=9999999&c=1.x&tour=98&pose=a~b", "#%E0%A4%A"]
)
def test_a_broken_link_still_opens(visit: Open, link: str) -> None:
    page = visit(link)
    assert said(page)[0][0] == "4"


def test_a_link_to_another_model_says_so(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(f"{address}#m=my-own-run&v=input")
    playwright.expect(page.locator("#problem")).to_contain_text("my-own-run")
    page.wait_for_selector("html[data-traced]")
    page.close()


@pytest.mark.parametrize(
    "view", ["input", "conv1", "primary", "routing", "classes", "reconstruction", "control", "ablation"]
)
def test_nothing_is_wider_than_a_phone(visit: Open, view: str) -> None:
    page = visit(f"#v={view}", PHONE, has_touch=True, color_scheme="dark")
    page.wait_for_selector("#detail h2")
    metrics = page.context.new_cdp_session(page).send("Page.getLayoutMetrics")
    assert metrics["cssContentSize"]["width"] <= PHONE["width"]


def test_a_finger_draws(visit: Open) -> None:
    page = visit("#v=input", PHONE, has_touch=True)
    page.click("#clear")
    page.wait_for_selector("text=the board is empty")
    box = settled(page).locator(".board canvas").bounding_box()
    touch = page.context.new_cdp_session(page)
    x = box["x"] + box["width"] / 2
    with redrawn(page):
        for kind, share in (
            ("touchStart", 0.27),
            ("touchMove", 0.4),
            ("touchMove", 0.6),
            ("touchMove", 0.73),
            ("touchEnd", None),
        ):
            points = [] if share is None else [{"x": x, "y": box["y"] + box["height"] * share}]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    playwright.expect(page.locator("#answer .said b").first).to_have_text("1")


def test_everything_that_can_be_worked_has_a_name(visit: Open) -> None:
    for view in ("routing", "classes", "control"):
        page = visit(f"#v={view}")
        page.wait_for_selector("#detail h2")
        tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
        working = {"button", "slider", "tab", "combobox", "application", "link", "checkbox"}
        nodes = [
            node for node in tree if node.get("role", {}).get("value") in working and not node["ignored"]
        ]
        assert len(nodes) > 30
        nameless = [
            node["role"]["value"] for node in nodes if not node.get("name", {}).get("value", "").strip()
        ]
        assert nameless == []
