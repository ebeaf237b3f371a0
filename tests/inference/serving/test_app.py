"""The application of a served model, without a network: where it works, and what it refuses."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fastapi.testclient import TestClient
from onnx import TensorProto, helper
from PIL import Image

from capsnet import CapsnetError
from capsnet._support import guard
from capsnet._support.sockets import listen
from capsnet.inference.serving import app
from capsnet.inference.serving.app import Settings, create_app
from capsnet.inference.serving.model import OnnxModel
from capsnet.inference.serving.requests import from_files, from_json

SHAPE = (1, 4, 4)


def written(path: Path, input_type: int = TensorProto.FLOAT, outputs: int = 1) -> Path:
    """An ONNX file of means over rows and columns: two scores."""
    given = helper.make_tensor_value_info("images", input_type, ["n", *SHAPE])
    nodes, found = [helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT)], []
    for name in map(str, range(outputs)):
        nodes += [
            helper.make_node("ReduceMean", ["floats"], [f"mean{name}"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Unsqueeze", [f"mean{name}", "one"], [f"column{name}"]),
            helper.make_node("Concat", [f"column{name}", f"column{name}"], [name], axis=1),
        ]
        found.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]))
    one = helper.make_tensor("one", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "means", [given], found, [one])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)
    onnx.save_model(made, path)
    return path


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    settings = Settings(str(written(tmp_path / "means.onnx")), "means", ("a.example",))
    with TestClient(create_app(settings), base_url="http://a.example") as client:
        yield client


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(file, "PNG")
    return file.getvalue()


def post(client: TestClient, **headers: str) -> int:
    return client.post(
        "/predict", content=png(), headers={"content-type": "image/png", **headers}
    ).status_code


def test_small_bodies_too_are_decoded_outside_the_event_loop(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of 400 bytes may hold ten million pixels."""
    seen: list[str] = []

    def watched(*given: Any) -> Any:
        seen.append(threading.current_thread().name)
        return from_files(*given)

    monkeypatch.setattr(app, "from_files", watched)
    assert post(client) == 200
    assert seen[0].startswith("decoder")


def test_nothing_is_decoded_after_the_time_of_a_request() -> None:
    with pytest.raises(TimeoutError):
        from_files([("a.png", png())], SHAPE, until=0.0)


def test_a_body_of_endless_lists_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(CapsnetError, match=r"more lists than 64 images of \(1, 4, 4\)"):
        from_json(b'{"images": [' + b"{}," * 1000 + b"{}]}", SHAPE)
    images = [np.zeros(SHAPE).tolist()] * 64  # the most lists that a right body has
    assert from_json(str({"images": images}).replace("'", '"').encode(), SHAPE).shape == (64, *SHAPE)


def test_bodies_hold_little_memory_together(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, status in ((len(png()) - 1, 503), (len(png()), 200), (len(png()), 200)):  # it is given back
        monkeypatch.setattr(guard, "MAX_HELD", limit)
        assert post(client) == status


def test_only_its_own_names_and_pages_may_ask(client: TestClient) -> None:
    assert post(client, host="b.example") == 403
    assert post(client, origin="https://b.example") == 403
    assert post(client, origin="null") == 403
    assert post(client, origin="http://a.example") == 200
    assert post(client, origin="https://a.example") == 200, "behind a proxy with TLS"


def test_scores_that_are_not_finite_are_the_servers_fault(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        OnnxModel, "scores", lambda self, images: np.full((len(images), 2), np.nan, np.float32)
    )
    answer = client.post("/predict", content=png(), headers={"content-type": "image/png"})
    assert (answer.status_code, "not finite" in answer.json()["detail"]) == (500, True)


@pytest.mark.parametrize("wrong", [{"input_type": TensorProto.UINT8}, {"outputs": 2}])
def test_files_with_other_inputs_or_outputs_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(CapsnetError, match=r"must take float32 images .* return scores"):
        OnnxModel.open(written(tmp_path / "wrong.onnx", **wrong))


@pytest.mark.parametrize("host", ["a..b", "x" * 64])
def test_a_name_that_no_host_can_have_is_one_line(host: str) -> None:
    with pytest.raises(CapsnetError, match=r"cannot listen on .*: this is no host name"):
        listen(host, 0)
