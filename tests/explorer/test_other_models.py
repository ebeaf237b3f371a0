"""Every routed model can be explored: its numbers are the library's, and what does not apply gives a reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from capsnet.explorer.session import open_session
from capsnet.models import CapsNetConfig
from capsnet.models.efficient_capsnet import EfficientCapsNetConfig
from capsnet.models.inverted_attention import InvertedAttentionConfig
from capsnet.models.matrix_capsules import MatrixCapsulesConfig
from capsnet.models.variational_bayes import VariationalBayesConfig
from chromium import PATIENCE
from explorer_client import ask, served, unpack

SIZES: dict[str, Any] = {"image_shape": (1, 28, 28), "num_classes": 10}
TINY: dict[str, Any] = {**SIZES, "primary_types": 3, "conv_types": (4, 4)}
CAPSNET: dict[str, Any] = {"stem_channels": 4, "primary_types": 2, "decoder": None}
CONFIGS = {
    "efficient-capsnet": EfficientCapsNetConfig(**SIZES, channels=(4, 4, 4, 16), decoder=(8,)),
    "matrix-capsules": MatrixCapsulesConfig(**TINY, stem_channels=4),
    "variational-bayes": VariationalBayesConfig(**TINY, stem_channels=4),
    "one-layer": VariationalBayesConfig.single(**SIZES, stem_channels=4, primary_types=3),
    "inverted-attention": InvertedAttentionConfig(**TINY, backbone="simple", backbone_channels=4),
    "sequential": InvertedAttentionConfig(**TINY, backbone="simple", backbone_channels=4, order="sequential"),
    **{
        f"capsnet-{routing}": CapsNetConfig(**CAPSNET, routing=routing)
        for routing in ("em", "self-attention", "inverted-attention", "variational-bayes")
    },
}


@pytest.fixture(params=CONFIGS)
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("capsnet.models.saved.SHIPPED", tmp_path / "none")
    torch.manual_seed(0)
    CONFIGS[request.param].build().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_drawing_s_scores_votes_and_couplings_are_the_library_s(folder: Path) -> None:
    session = open_session(str(folder))
    model: Any = session.model
    image = torch.rand(1, 1, 28, 28)
    scene = {"layers": [{"pixels": image.flatten().double().tolist()}]}
    with served(session) as address, httpx.Client(base_url=address, timeout=60) as client:
        info = client.get("/api/model").json()
        steps = info["geometry"]["iterations"]
        answer = ask(client, "trace", **scene, iterations=steps)
        trace = model.class_routing(image)
        torch.testing.assert_close(
            unpack(answer["lengths"]), model.scores(image)[0].detach(), atol=1e-5, rtol=0
        )
        torch.testing.assert_close(unpack(answer["couplings"]), trace.couplings[:, 0], atol=1e-5, rtol=0)
        assert unpack(answer["iteration_lengths"]).shape == (steps, 10)

        # A child's vote is W times each of its rows, and its product with the pose is what is called agreement.
        child = ask(client, "child", **scene, iterations=steps, child=1, parent=2)
        weight, u = unpack(child["weight"]), unpack(child["u"])
        vote = unpack(child["vote"])
        torch.testing.assert_close((u.view(-1, weight.shape[1]) @ weight.T).flatten(), vote)
        torch.testing.assert_close(trace.votes()[1, 2].flatten(), vote, atol=1e-5, rtol=1e-5)
        pose = unpack(answer["capsules"])[2]
        assert child["agreement"][-1] == pytest.approx(float(vote @ pose), abs=1e-4)

        # Fewer iterations are the first ones, of an exported program too, which computes the most that it can.
        if steps > 1:
            kept = session.programs["trace"].kept(trace, torch.tensor(1))
            torch.testing.assert_close(kept.votes(), model.class_routing(image, 1).votes())
            fewer = unpack(ask(client, "trace", **scene, iterations=1)["iteration_lengths"])
            torch.testing.assert_close(fewer[0], unpack(answer["iteration_lengths"])[0])

        sweep = ask(client, "sweep", **scene)
        middle = unpack(sweep["lengths"])[sweep["origin"]]
        torch.testing.assert_close(middle, unpack(answer["lengths"]), atol=1e-5, rtol=0)
        assert (answer["reconstructions"] is None) == (not info["has_decoder"])
        assert client.get("/openapi.json").status_code == 200

        # What does not apply is refused with the sentence that the page shows in its place.
        spot = {"channel": 0, "row": 0, "column": 0}
        asked = {"maps": scene, "pixel": {**scene, **spot}, "ablation": scene}
        for path, body in asked.items():
            part = "ablation" if path == "ablation" else "conv1"
            found = client.post(f"/api/{path}", json=body)
            if part in info["absent"]:
                assert (found.status_code, found.json()["detail"]) == (422, info["absent"][part])
            else:
                assert found.status_code == 200
        one_pass = steps == 1
        assert ("ablation" in info["absent"]) == one_pass == (info["max_iterations"] == 1)
        assert client.get("/api/testset").status_code == (422 if one_pass else 200)


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    yield page
    context.close()
    assert not complaints


@pytest.mark.browser
@pytest.mark.parametrize("name", ["efficient-capsnet-mnist", "matrix-capsules"])
def test_the_page_shows_what_applies_and_says_why_the_rest_does_not(
    name: str, page: Any, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    run = name
    if name in CONFIGS:
        CONFIGS[name].build().save_pretrained(tmp_path / name)
        run = str(tmp_path / name)
    session = open_session(run)
    with served(session) as address:
        page.goto(address)
        expect(page.locator("#child-table tbody tr")).to_have_count(session.iterations)
        if name.endswith("mnist"):  # it is trained, and the page starts with a four
            expect(page.locator("#answer .said b").first).to_have_text("4")
            expect(page.locator("#detail")).to_contain_text("one pass")
        else:
            page.select_option("#iterations", "5")
            expect(page.locator("#child-table tbody tr")).to_have_count(5)
        expect(page.locator("#detail")).to_contain_text(session.absent["places"])
        for view in {"conv1", "primary", "reconstruction", "ablation"} & session.absent.keys():
            page.click(f"#tab-{view}")
            expect(page.locator("#detail .notice")).to_have_text(session.absent[view])
        for view in ("input", "classes", "control"):
            page.click(f"#tab-{view}")
            expect(page.locator("#detail")).to_have_attribute("data-view", view)
            page.wait_for_selector("html:not([data-busy])")
        expect(page.locator("#tour-start")).to_be_disabled()
        page.close()  # before the server stops: the page may still ask it something
