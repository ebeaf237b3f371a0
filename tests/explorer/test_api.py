"""The explorer's answers are the numbers of the library."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx
import pytest
import torch

from capsnet._support import dispatch
from capsnet.data.warping import affine_matrices, warp
from capsnet.explain import dimension_sheet
from capsnet.explorer import session as sessions
from capsnet.explorer.session import Session, open_session
from capsnet.explorer.testset import FILE, Ablation, measure, read_measured
from capsnet.functional import squash
from capsnet.inference.evaluation import evaluate
from capsnet.models import CapsNetConfig
from capsnet.models.cnn import CNN, CNNConfig
from explorer_client import SMALL, ask, layer, save, served, unpack

# Numbers


@pytest.mark.quick
def test_numbers_are_the_library_s_for_100_digits(client: httpx.Client, session: Session) -> None:
    images = session.pictures[:100].float() / 255
    with dispatch.disabled():
        trace = session.model.trace(images)
        drawn = session.model.decode(trace.capsules)
    for index in range(100):
        answer = ask(client, "trace", layers=[layer(session, index)], iterations=SMALL.routing_iterations)
        torch.testing.assert_close(unpack(answer["lengths"]), trace.lengths[index], atol=1e-5, rtol=0)
        torch.testing.assert_close(unpack(answer["capsules"]), trace.capsules[index], atol=1e-5, rtol=0)
        torch.testing.assert_close(unpack(answer["primary"]), trace.primary[index], atol=1e-5, rtol=0)
        couplings = trace.routing.couplings[:, index]
        torch.testing.assert_close(unpack(answer["couplings"]), couplings, atol=1e-5, rtol=0)
        winner = answer["ranking"][0]
        assert winner == int(trace.lengths[index].argmax())
        picture = unpack(answer["reconstructions"])[winner]
        torch.testing.assert_close(picture, drawn[index], atol=1e-5, rtol=0)


def test_two_transformed_layers_are_warped_added_and_clipped(client: httpx.Client, session: Session) -> None:
    moved = {"rotation": 20.0, "shear": 0.2, "scale_x": 1.1, "scale_y": 0.9, "shift_x": 3.0, "shift_y": -2.0}
    answer = ask(client, "trace", layers=[layer(session, 0, **moved), layer(session, 1)])
    first, second = session.pictures[:2].float() / 255
    matrices = affine_matrices(
        rotation=torch.tensor([20.0]),
        shear=torch.tensor([0.2]),
        scale=torch.tensor([[1.1, 0.9]]),
        translation=torch.tensor([[3.0, -2.0]]),
    )
    turned = warp(first[None], matrices)[0]
    torch.testing.assert_close(unpack(answer["layers"]), torch.stack((turned, second)))
    torch.testing.assert_close(unpack(answer["image"]), (turned + second).clamp(max=1))
    assert sorted(answer["speakers"]) == sorted(answer["ranking"][:2])
    # The frame goes with the ink: its middle is where the turned digit's is.
    ink = turned[0] > 0.05
    middle = torch.stack([ink.nonzero().float().mean(0)[1] + 0.5, ink.nonzero().float().mean(0)[0] + 0.5])
    assert (unpack(answer["outlines"])[0].mean(0) - middle).abs().max() < 3


def test_each_speaker_draws_its_own_layer_best(client: httpx.Client, session: Session) -> None:
    there = ask(client, "trace", layers=[layer(session, 0), layer(session, 2)])
    back = ask(client, "trace", layers=[layer(session, 2), layer(session, 0)])
    drawn, layers = unpack(there["reconstructions"]), unpack(there["layers"])
    own = [(drawn[k] - image).square().sum() for k, image in zip(there["speakers"], layers, strict=True)]
    other = [
        (drawn[k] - image).square().sum() for k, image in zip(there["speakers"], layers.flip(0), strict=True)
    ]
    assert sum(own) <= sum(other)
    assert back["speakers"] == there["speakers"][::-1]


def test_support_of_all_places_adds_up_to_the_sum_s(client: httpx.Client, session: Session) -> None:
    answer = ask(client, "trace", layers=[layer(session, 3)], iterations=5)
    support, sums = unpack(answer["support"]), unpack(answer["sums"])
    assert support.shape == (5, *SMALL.grid, 10)
    torch.testing.assert_close(support.sum(dim=(1, 2)), sums, atol=1e-4, rtol=1e-4)
    lengths = unpack(answer["iteration_lengths"])
    torch.testing.assert_close(lengths, sums.square() / (1 + sums.square()), atol=1e-5, rtol=1e-4)


def test_votes_are_seen_along_the_parent_s_vector(client: httpx.Client, session: Session) -> None:
    answer = ask(client, "trace", layers=[layer(session, 3)], focus=7, iterations=4)
    cloud = answer["cloud"]
    points, couplings = unpack(cloud["points"]), unpack(answer["couplings"])[:, :, 7]
    pose = unpack(answer["capsules"])[7]
    votes = torch.einsum(
        "ic,icd->id", unpack(answer["primary"]), session.model.class_capsules.weight[:, :, 7].detach()
    )
    torch.testing.assert_close(points[:, 0], votes @ (pose / pose.norm()), atol=1e-4, rtol=1e-4)
    outputs = torch.stack((pose.norm(), torch.tensor(0.0)))
    torch.testing.assert_close(unpack(cloud["outputs"])[-1], outputs, atol=1e-5, rtol=0)
    weights = couplings / couplings.sum(dim=1, keepdim=True)
    torch.testing.assert_close(unpack(cloud["mean"]), weights @ points, atol=1e-4, rtol=1e-4)
    assert cloud["focus"] == 7
    assert 0 < cloud["shown"] <= 1


def test_a_child_s_arithmetic_holds(client: httpx.Client, session: Session) -> None:
    scene = {"layers": [layer(session, 5)], "iterations": 4}
    whole = ask(client, "trace", **scene)
    for child in (0, 17, SMALL.in_caps - 1):
        answer = ask(client, "child", **scene, child=child, parent=2)
        u, vote = unpack(answer["u"]), unpack(answer["vote"])
        torch.testing.assert_close(u, unpack(whole["primary"])[child], atol=1e-5, rtol=0)
        torch.testing.assert_close(squash(unpack(answer["before"])), u, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(unpack(answer["weight"]) @ u, vote)
        logits, agreement = unpack(answer["logits"])[:, 2], torch.tensor(answer["agreement"])
        torch.testing.assert_close(logits[1:], logits[:-1] + agreement[:-1], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(unpack(answer["couplings"]), unpack(whole["couplings"])[:, child])
        kind, place = divmod(child, SMALL.grid[0] * SMALL.grid[1])
        assert (answer["type"], answer["row"], answer["column"]) == (kind, *divmod(place, SMALL.grid[1]))
        lengths, squashed = unpack(answer["squash_curve"]).unbind(1)
        assert lengths[-1] > answer["before_length"]
        torch.testing.assert_close(squashed, lengths.square() / (1 + lengths.square()))
    # The last capsule of the grid sees the lower right of the image, and not beyond it.
    assert answer["field"] == [10, 10, 27, 27]


def test_a_pixel_of_conv1_is_its_sum(client: httpx.Client, session: Session) -> None:
    scene = {"layers": [layer(session, 5)]}
    maps = unpack(ask(client, "maps", **scene)["maps"])
    channel, row, column = (int(x) for x in (maps == maps.max()).nonzero()[0])
    answer = ask(client, "pixel", **scene, channel=channel, row=row, column=column)
    assert answer["value"] == pytest.approx(float(maps.max()), abs=1e-5)
    assert answer["dot"] + answer["bias"] == pytest.approx(answer["value"], abs=1e-5)
    products = unpack(answer["patch"]) * unpack(answer["kernel"])
    torch.testing.assert_close(unpack(answer["products"]), products)
    image = session.pictures[5].float() / 255
    torch.testing.assert_close(unpack(answer["patch"]), image[:, row : row + 9, column : column + 9])


@pytest.mark.parametrize("size", [2, 3, 4])
def test_pooling_cannot_tell_the_shuffled_map(client: httpx.Client, session: Session, size: int) -> None:
    scene = {"layers": [layer(session, 8)]}
    maps = unpack(ask(client, "maps", **scene)["maps"])
    channel = int(maps.flatten(1).var(dim=1).argmax())
    answer = ask(client, "pool", **scene, channel=channel, size=size)
    before, after = unpack(answer["map"]), unpack(answer["shuffled"])
    assert not torch.equal(before, after)
    torch.testing.assert_close(before.flatten().sort().values, after.flatten().sort().values, atol=0, rtol=0)
    assert torch.equal(unpack(answer["pooled"]), unpack(answer["shuffled_pooled"]))
    assert answer["moved"] >= 0.5
    rows, columns = unpack(answer["winners"]).long().unbind(-1)
    assert torch.equal(before[rows, columns], unpack(answer["pooled"]))


def test_tweaked_capsules_draw_what_the_library_draws(client: httpx.Client, session: Session) -> None:
    pose = torch.linspace(-0.5, 0.5, 16)
    capsules = torch.zeros(1, 10, 16)
    capsules[0, 6] = pose
    answer = ask(client, "decode", number=6, pose=pose.tolist())
    torch.testing.assert_close(unpack(answer["image"]), session.model.decode(capsules, 6)[0].detach())
    assert answer["length"] == pytest.approx(float(pose.norm()), abs=1e-6)
    sheet = ask(client, "sheet", number=6, pose=pose.tolist())
    torch.testing.assert_close(unpack(sheet["images"]), dimension_sheet(session.model, capsules[0], 6))
    assert len(sheet["offsets"]) == unpack(sheet["images"]).shape[1]


def test_meanings_are_given_per_number(client: httpx.Client) -> None:
    answer = client.get("/api/meanings", params={"number": 3}).json()
    assert answer["examples"] >= 2
    assert len(answer["meanings"]) == 16


def test_sweep_starts_from_where_the_digit_lies(client: httpx.Client, session: Session) -> None:
    scene = {"layers": [layer(session, 4, rotation=10.0)]}
    here = ask(client, "trace", **scene)
    for parameter in ("rotation", "shift_x", "shift_y", "scale", "shear"):
        answer = ask(client, "sweep", **scene, parameter=parameter)
        origin = answer["origin"]
        assert answer["values"][origin] == (1 if parameter == "scale" else 0)
        lengths = unpack(answer["lengths"])
        torch.testing.assert_close(lengths[origin], unpack(here["lengths"]), atol=1e-5, rtol=0)
        assert answer["pose_change"][origin] == 0
        assert max(answer["pose_change"]) > 0
        assert answer["control_scores"] is None
    turned = ask(client, "trace", layers=[layer(session, 4, rotation=10.0 + 7.5)])
    sweep = ask(client, "sweep", **scene, parameter="rotation")
    torch.testing.assert_close(unpack(sweep["images"])[sweep["origin"] + 1], unpack(turned["image"]))


def test_ablation_of_one_image(client: httpx.Client, session: Session) -> None:
    answer = ask(client, "ablation", layers=[layer(session, 9)])
    images = session.pictures[9:10].float() / 255
    for row in answer["rows"]:
        lengths = session.model.trace(images, row["iterations"]).lengths[0]
        torch.testing.assert_close(torch.tensor(row["lengths"]), lengths, atol=1e-5, rtol=0)
    uniform = answer["rows"][0]
    assert (uniform["iterations"], uniform["moved"]) == (1, 0)
    assert uniform["entropy"] == pytest.approx(1)
    assert answer["rows"][-1]["entropy"] < 1


def test_ablation_of_the_test_set_counts_the_library_s_errors(client: httpx.Client, session: Session) -> None:
    deadline = time.monotonic() + 600  # on a busy machine
    while not (answer := client.get("/api/testset").json())["rows"]:
        assert answer["done"] <= answer["total"] == 1000  # all done, and the rows not yet there
        assert time.monotonic() < deadline
        time.sleep(0.1)  # it is measured in the background
    assert session.dataset is not None
    own = next(row for row in answer["rows"] if row["iterations"] == SMALL.routing_iterations)
    assert own["changed"] == 0
    assert (own["errors"], own["n"]) == (evaluate(session.model, session.dataset.test).errors, 1000)
    assert own["interval"][0] < own["error"] < own["interval"][1]


def test_measured_test_set_is_kept_beside_the_model(tmp_path: Path) -> None:
    session = open_session(
        str(save(tmp_path / "kept", CapsNetConfig(stem_channels=4, primary_types=1, decoder=None)))
    )
    assert session.dataset is not None
    test = session.dataset.test
    object.__setattr__(session.dataset, "test", test.subset(torch.arange(30)))  # type: ignore[attr-defined]
    measured = measure(session)
    assert (measured.done, len(measured.rows)) == (30, 5)
    with served(session) as address:
        assert httpx.get(f"{address}/api/testset").json() == json.loads(measured.model_dump_json())
    # Figures of other weights are not shown.
    weights = tmp_path / "kept" / "model.safetensors"
    assert read_measured(tmp_path / "kept") == measured
    weights.write_bytes(weights.read_bytes() + b" ")
    assert read_measured(tmp_path / "kept") is None
    (tmp_path / "kept" / FILE).write_text("{}")
    assert read_measured(tmp_path / "kept") is None


def test_agents_route_as_the_equations_say(client: httpx.Client) -> None:
    estimates = torch.tensor(
        [[[1.5, 1.0], [0.0, -1.0]], [[1.4, 1.1], [1.0, 0.3]], [[-1.0, 0.5], [0.1, -1.2]]]
    )
    answer = ask(client, "agents", estimates=estimates.tolist(), iterations=3)
    logits = torch.zeros(3, 2)
    for step in range(3):
        couplings = logits.softmax(dim=1)
        v = squash(torch.einsum("ij,ijd->jd", couplings, estimates))
        torch.testing.assert_close(unpack(answer["couplings"])[step], couplings)
        torch.testing.assert_close(unpack(answer["outputs"])[step], v)
        logits = logits + torch.einsum("ijd,jd->ij", estimates, v)


# Other models


def test_colour_images_of_another_size_without_a_decoder(tmp_path: Path) -> None:
    config = CapsNetConfig(
        image_shape=(3, 24, 20), num_classes=4, stem_channels=6, primary_types=3, decoder=None
    )
    session = open_session(str(save(tmp_path / "colour", config)))
    with served(session) as address, httpx.Client(base_url=address, timeout=30) as client:
        info = client.get("/api/model").json()
        assert (info["has_decoder"], info["control"]) == (False, None)
        assert client.get("/api/examples").json()["labels"] == []
        pixels = torch.rand(3 * 24 * 20).tolist()
        answer = ask(client, "trace", layers=[{"pixels": pixels}])
        assert answer["reconstructions"] is None
        assert unpack(answer["couplings"]).shape == (3, config.in_caps, 4)
        assert client.post("/api/decode", json={"number": 1, "pose": [0.1] * 16}).status_code == 422
        assert client.get("/api/testset").json()["total"] == 0


def test_a_network_for_overlapping_digits_offers_single_ones(tmp_path: Path) -> None:
    save(
        tmp_path / "pairs",
        CapsNetConfig(
            image_shape=(1, 36, 36), stem_channels=6, primary_types=2, routing_leaky=True, routing_bias=True
        ),
    )
    about = json.loads((tmp_path / "pairs" / "config.json").read_text())
    about["training"] = {"data": "multimnist5k"}
    (tmp_path / "pairs" / "config.json").write_text(json.dumps(about))
    session = open_session(str(tmp_path / "pairs"))
    assert session.dataset is not None
    pair = session.dataset.test.batch(torch.tensor([7]))
    torch.testing.assert_close(
        session.pictures[7].float() / 255, pair.originals[0, 0], atol=0.5 / 255, rtol=0
    )
    assert session.labels[7] == [int(pair.labels[0, 0])]
    with served(session) as address, httpx.Client(base_url=address, timeout=30) as client:
        support = ask(client, "trace", layers=[layer(session, 7), layer(session, 8)])
        assert len(support["speakers"]) == 2


def test_control_that_comes_with_the_package_runs_beside(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = CNN(CNNConfig.max_pooling(SMALL)).eval()
    control.save_pretrained(tmp_path / sessions.CONTROL)
    monkeypatch.setattr("capsnet.models.saved.SHIPPED", tmp_path)
    session = open_session(str(folder))
    assert session.control is not None
    with served(session) as address, httpx.Client(base_url=address, timeout=30) as client:
        about = client.get("/api/model").json()["control"]
        assert (about["name"], about["parameters"]) == (sessions.CONTROL, control.parameter_count())
        scene = {"layers": [layer(session, 1)]}
        scores = session.control.scores(session.pictures[1:2].float() / 255)[0].detach()
        sweep = ask(client, "sweep", **scene)
        assert sweep["feature_change"][sweep["origin"]] == 0 < max(sweep["feature_change"])
        torch.testing.assert_close(
            unpack(sweep["control_scores"])[sweep["origin"]], scores, atol=1e-5, rtol=0
        )
    ablation = Ablation(session, limit=10)
    while ablation.step():
        pass
    assert ablation.result().control_error is not None
