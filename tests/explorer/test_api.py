"""The explorer's server: its numbers, what it refuses, and that it stays up. The page: test_explorer_page.py."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import torch
import uvicorn
from torch import Tensor
from torture.launch import launch

from capsnet._support import dispatch
from capsnet._support.errors import CapsnetError
from capsnet.data.warping import affine_matrices, warp
from capsnet.explain import dimension_sheet
from capsnet.explorer import serve
from capsnet.explorer import session as sessions
from capsnet.explorer.app import create_app
from capsnet.explorer.serving import listen
from capsnet.explorer.session import Session, open_session
from capsnet.explorer.testset import FILE, Ablation, measure, read_measured
from capsnet.explorer.typescript import TARGET, declarations
from capsnet.explorer.worker import Busy, Worker
from capsnet.functional import squash
from capsnet.inference.evaluation import evaluate
from capsnet.models import CapsNet, CapsNetConfig
from capsnet.models.cnn import CNN, CNNConfig

SMALL = CapsNetConfig(stem_channels=16, primary_types=4, decoder=(32, 48))


def save(folder: Path, config: CapsNetConfig = SMALL, weight: float = 3.0) -> Path:
    """An untrained model whose votes are long enough for routing to decide something."""
    torch.manual_seed(3)
    model = CapsNet(config)
    with torch.no_grad():
        model.class_capsules.weight.mul_(weight)
    model.save_pretrained(folder)
    return folder


@contextmanager
def served(session: Session) -> Iterator[str]:
    """A real server on a free port."""
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(
        uvicorn.Config(create_app(session), log_level="warning", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listener.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(scope="module")
def session(folder: Path) -> Iterator[Session]:
    """Without the control that comes with the package: it has a test of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("capsnet.models.saved.SHIPPED", folder.parent / "none")
        yield open_session(str(folder))


@pytest.fixture(scope="module")
def address(session: Session) -> Iterator[str]:
    with served(session) as address:
        yield address


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=60) as client:
        yield client


def unpack(packed: dict[str, Any]) -> Tensor:
    data = np.frombuffer(base64.b64decode(packed["data"]), "<f4" if packed["dtype"] == "float32" else "u1")
    return torch.from_numpy(data.reshape(packed["shape"]).copy())


def layer(session: Session, index: int, **transform: float) -> dict[str, Any]:
    return {"pixels": (session.pictures[index].flatten().double() / 255).tolist(), "transform": transform}


def ask(client: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    response = client.post(f"/api/{path}", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


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
    deadline = time.monotonic() + 60
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
        scores = unpack(ask(client, "trace", **scene)["control"])
        image = session.pictures[1:2].float() / 255
        torch.testing.assert_close(scores, session.control.scores(image)[0].detach(), atol=1e-5, rtol=0)
        sweep = ask(client, "sweep", **scene)
        assert sweep["feature_change"][sweep["origin"]] == 0 < max(sweep["feature_change"])
        torch.testing.assert_close(
            unpack(sweep["control_scores"])[sweep["origin"]], scores, atol=1e-5, rtol=0
        )
    ablation = Ablation(session, limit=10)
    while ablation.step():
        pass
    assert ablation.result().control_error is not None


def test_explore_refuses_what_it_cannot_show(tmp_path: Path) -> None:
    with pytest.raises(CapsnetError, match="no model at"):
        serve("no-such-run", port=0, open_browser=False)
    CNN(CNNConfig.max_pooling(SMALL)).save_pretrained(tmp_path / "cnn")
    with pytest.raises(CapsnetError, match="capsule networks"):
        serve(str(tmp_path / "cnn"), port=0, open_browser=False)
    with listen("127.0.0.1", 0) as taken, pytest.raises(CapsnetError, match="another --port"):
        serve(str(tmp_path / "cnn"), port=taken.getsockname()[1], open_browser=False)
    with pytest.raises(CapsnetError, match="65535"):
        serve(str(tmp_path / "cnn"), port=70000, open_browser=False)


@pytest.mark.parametrize("missing", ["uvicorn", "fastapi"])
def test_missing_extra_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "capsnet.explorer.app")
    with pytest.raises(CapsnetError, match=rf"{missing}.*pip install 'capsnet\[explorer\]'"):
        serve("x", 0, False)


# What is refused

GOOD = [0.0] * 784
BAD: list[tuple[str, object, int, str]] = [
    ("trace", {"layers": [{"pixels": GOOD[1:]}]}, 422, "784"),
    ("trace", {"layers": []}, 422, "layers"),
    ("trace", {"layers": [{"pixels": GOOD}] * 3}, 422, "layers"),
    ("trace", {"layers": [{"pixels": [2.0, *GOOD[1:]]}]}, 422, "less than or equal to 1"),
    ("trace", {"layers": [{"pixels": ["a", *GOOD[1:]]}]}, 422, "number"),
    ("trace", {"layers": [{"pixels": GOOD, "transform": {"scale_x": 0}}]}, 422, "scale_x"),
    ("trace", {"layers": [{"pixels": GOOD, "transform": {"turn": 1}}]}, 422, "turn"),
    ("trace", {"layers": [{"pixels": GOOD}], "iterations": 0}, 422, "iterations"),
    ("trace", {"layers": [{"pixels": GOOD}], "iterations": 11}, 422, "iterations"),
    ("trace", {"layers": [{"pixels": GOOD}], "focus": 10}, 422, "10 classes"),
    ("trace", {"layers": [{"pixels": GOOD}], "run": "another"}, 404, "another"),
    ("trace", [], 422, "body"),
    ("child", {"layers": [{"pixels": GOOD}], "child": 144, "parent": 0}, 422, "143"),
    ("pixel", {"layers": [{"pixels": GOOD}], "channel": 0, "row": 20, "column": 0}, 422, "20×20"),
    ("pool", {"layers": [{"pixels": GOOD}], "channel": 16}, 422, "16 maps"),
    ("decode", {"number": 0, "pose": [0.1] * 15}, 422, "16 numbers"),
    ("decode", {"number": 99, "pose": [0.1] * 16}, 422, "10 classes"),
    ("agents", {"estimates": [[[0, 0]], [[0, 0], [1, 1]]]}, 422, "every house"),
    ("nothing", {}, 405, ""),
]


@pytest.mark.parametrize(("path", "body", "status", "reason"), BAD)
def test_bad_requests_get_a_reason(
    client: httpx.Client, path: str, body: object, status: int, reason: str
) -> None:
    response = client.post(f"/api/{path}", json=body)
    assert response.status_code == status
    assert reason in response.json()["detail"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused(client: httpx.Client, number: str) -> None:
    for body in (
        '{"layers": [{"pixels": [X]}]}'.replace("X", number),
        '{"layers": [{"pixels": [0], "transform": {"rotation": X}}]}'.replace("X", number),
    ):
        response = client.post("/api/trace", content=body, headers={"content-type": "application/json"})
        assert response.status_code == 422
        assert "finite" in response.json()["detail"] or "less than" in response.json()["detail"]


def test_invalid_json_is_refused(client: httpx.Client) -> None:
    for body in (b"", b"{", b"\xff\xfe", b"[" * 100_000):
        response = client.post("/api/trace", content=body, headers={"content-type": "application/json"})
        assert response.status_code in (400, 422)
        assert response.json()["detail"]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_other_content_types_are_refused(client: httpx.Client, kind: str) -> None:
    # These are what another site can send without asking the browser's permission.
    response = client.post("/api/trace", content=b"{}", headers={"content-type": kind})
    assert response.status_code == 415


def test_too_large_bodies_are_refused_before_they_are_read(address: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    for headers in ({"Content-Length": str(10**9)}, {"Content-Length": "many"}, {}):
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        connection.putrequest("POST", "/api/trace")
        connection.putheader("Content-Type", "application/json")
        for name, value in headers.items():
            connection.putheader(name, value)
        if not headers:
            connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        if not headers:  # announces nothing and sends 8 MB
            chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
            try:
                for _ in range(8):
                    connection.send(chunk)
            except OSError:
                pass  # refused while it was still being sent
        try:
            assert connection.getresponse().status in (
                (400, 413) if headers == {"Content-Length": "many"} else (413,)
            )
        except ConnectionError:
            assert not headers  # the server hung up on the rest
        connection.close()


def test_other_hosts_and_origins_are_refused(client: httpx.Client, address: str) -> None:
    port = address.rpartition(":")[2]
    for host in (
        "evil.example",
        "evil.example:80",
        f"evil.example:{port}",
        "localhost.evil.example",
        "",
        "[::1",
    ):
        response = client.get("/api/model", headers={"host": host})
        assert response.status_code in (400, 403), host
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
        assert client.get("/api/model", headers={"host": host}).status_code == 200
    body = {"layers": [{"pixels": GOOD}]}
    for origin in (
        "http://evil.example",
        "null",
        "https://127.0.0.1",
        f"http://localhost:{port}",
        "http://127.0.0.1:1",
    ):
        assert client.post("/api/trace", json=body, headers={"origin": origin}).status_code == 403
    assert client.post("/api/trace", json=body, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert client.post("/api/trace", json=body, headers={"origin": address}).status_code == 200


@pytest.mark.quick
@pytest.mark.parametrize(
    "path",
    [
        "/../app.py", "/../../errors.py", "/%2e%2e/app.py", "/..%2fapp.py", "/views/../../app.py",
        "/%2e%2e%2f%2e%2e%2ferrors.py",
        "//etc/passwd", "/etc/passwd", "/..\\app.py", "/%5c..%5capp.py", "/views/%00", "/.", "/views",
    ],
)  # fmt: skip
def test_files_outside_the_page_are_not_served(address: str, path: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    connection.putrequest("GET", path, skip_host=False)
    connection.endheaders()
    response = connection.getresponse()
    content = response.read()
    assert response.status in (400, 403, 404, 307) or (path == "/." and b"capsnet explorer" in content)
    assert b"import" not in content
    assert b"root:" not in content
    connection.close()


def test_every_answer_forbids_other_origins(client: httpx.Client) -> None:
    for path in ("/", "/main.js", "/api/model", "/api/nothing", "/openapi.json"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers
        assert headers["x-content-type-options"] == "nosniff"
    assert client.get("/docs").status_code == 404  # FastAPI's page would load scripts from elsewhere


def test_a_request_for_another_run_is_refused(client: httpx.Client) -> None:
    assert client.get("/api/model", params={"run": "small"}).json()["run"] == "small"
    refused = client.get("/api/model", params={"run": "capsnet-norb"})
    assert refused.status_code == 404
    assert "'small'" in refused.json()["detail"]


# Pictures


def picture(mode: str = "L", size: tuple[int, int] = (56, 56), paper: int = 255, ink: int = 0) -> bytes:
    from PIL import Image, ImageDraw

    image = Image.new(mode, size, paper)
    ImageDraw.Draw(image).rectangle((size[0] // 2 - 4, 10, size[0] // 2 + 4, size[1] - 10), fill=ink)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.mark.quick
def test_a_dropped_picture_becomes_light_on_dark(client: httpx.Client) -> None:
    on_paper = client.post("/api/picture", content=picture(), headers={"content-type": "image/png"})
    on_black = client.post(
        "/api/picture", content=picture(paper=0, ink=255), headers={"content-type": "image/png"}
    )
    pixels = unpack(on_paper.json()["image"])
    assert pixels.shape == (1, 28, 28)
    assert pixels[0, 14, 14] == 1
    assert pixels[0, :, 0].max() == 0
    torch.testing.assert_close(pixels, unpack(on_black.json()["image"]), atol=1.5 / 255, rtol=0)


@pytest.mark.quick
def test_files_that_are_not_pictures_are_refused(client: httpx.Client) -> None:
    for content in (b"", b"hello", picture()[:60]):
        response = client.post("/api/picture", content=content, headers={"content-type": "image/png"})
        assert response.status_code == 422
        assert "capsnet-" not in response.json()["detail"]  # our temporary folder is nobody's business
    # The server answers and hangs up while the body is still coming: only the status is sure to arrive.
    form = {"content-type": "image/png"}
    with client.stream("POST", "/api/picture", content=b"0" * 17_000_000, headers=form) as large:
        assert large.status_code == 413
    assert (
        client.post("/api/picture", content=picture(), headers={"content-type": "text/plain"}).status_code
        == 415
    )


# Staying up


def test_200_requests_at_once_are_answered_and_memory_stays(client: httpx.Client, session: Session) -> None:
    body = {"layers": [layer(session, 0)]}

    def one(_: int) -> int:
        with httpx.Client(base_url=client.base_url, timeout=60, verify=False) as own:  # no TLS to set up
            return own.post("/api/trace", json=body).status_code

    def crowd() -> int:
        with ThreadPoolExecutor(200) as pool:
            assert set(pool.map(one, range(200))) == {200}
        return psutil.Process().memory_info().rss

    before = crowd()  # buffers of 200 connections are made once
    assert crowd() - before < 100 * 2**20
    assert client.post("/api/trace", json=body).status_code == 200


def test_disconnecting_clients_do_not_stop_the_server(
    address: str, client: httpx.Client, session: Session
) -> None:
    host, port = address.removeprefix("http://").split(":")
    body = json.dumps({"layers": [layer(session, 0)], "iterations": 10}).encode()
    lines = ("POST /api/trace HTTP/1.1", f"Host: {host}:{port}", "Content-Type: application/json")
    head = "\r\n".join((*lines, f"Content-Length: {len(body)}", "", ""))
    for sent in (
        head.encode() + body[: len(body) // 2],
        head.encode() + body,
        b"POST /api",
    ):
        for _ in range(20):
            with socket.create_connection((host, int(port)), timeout=10) as gone:
                gone.sendall(sent)
    assert (
        client.post("/api/trace", content=body, headers={"content-type": "application/json"}).status_code
        == 200
    )


def test_cancelled_work_is_never_done_and_a_full_queue_says_so() -> None:
    worker = Worker(waiting=2)
    started, release, done = threading.Event(), threading.Event(), []

    def hold() -> None:
        started.set()
        release.wait(20)

    holding = worker.submit(hold)
    assert started.wait(20)
    abandoned = worker.submit(lambda: done.append("abandoned"))
    wanted = worker.submit(lambda: done.append("wanted"))
    with pytest.raises(Busy, match="waiting"):
        worker.submit(lambda: None)
    assert abandoned.cancel()
    release.set()
    holding.result(20)
    wanted.result(20)
    assert done == ["wanted"]
    failing: Callable[[], float] = lambda: 1 / 0  # noqa: E731
    with pytest.raises(ZeroDivisionError):
        worker.submit(failing).result(20)
    worker.submit(lambda: done.append("after")).result(20)  # an error does not end the thread
    worker.close()
    with pytest.raises(Busy, match="closing"):
        worker.submit(lambda: None)


def test_the_command_prints_its_address_and_ends_on_interrupt(folder: Path, tmp_path: Path) -> None:
    explorer = launch(tmp_path / "log", "explore", folder, "--port", 0, "--no-browser")
    deadline = time.monotonic() + 60
    while not (tmp_path / "log").exists() or "\n" not in explorer.said:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    address = explorer.said.split()[1]
    assert "small" in httpx.get(f"{address}api/model", timeout=30, verify=False).text
    assert explorer.process.pid is not None
    os.kill(explorer.process.pid, signal.SIGINT)
    assert explorer.wait() == 0
    assert "Traceback" not in explorer.said


# The page's types


def test_the_page_s_types_are_the_server_s() -> None:
    assert TARGET.read_text(encoding="utf-8") == declarations(), "run: python -m capsnet.explorer.typescript"


def test_the_page_type_checks() -> None:
    here = Path(__file__).parents[2]
    local = here / "node_modules" / ".bin" / "tsc"
    tsc = str(local) if local.exists() else shutil.which("tsc")
    if tsc is None:
        pytest.skip("no TypeScript here: npm install typescript")
    done = subprocess.run(
        [tsc, "-p", str(here / "src/capsnet/explorer/tsconfig.json")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_page_asks_nothing_of_other_machines() -> None:
    """Also in what no test opens: no address of another machine in any of the page's files."""
    for file in (Path(__file__).parents[2] / "src/capsnet/explorer/static").rglob("*"):
        if file.suffix in {".js", ".css", ".html", ".svg"}:
            addresses = re.findall(
                r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s\"')]*", file.read_text(encoding="utf-8")
            )
            assert {a for a in addresses if not a.startswith("http://www.w3.org/")} == set(), file
