"""What the explorer's server refuses: bad numbers, foreign origins, files outside the page, what is not a picture."""

from __future__ import annotations

import http.client
import io

import httpx
import pytest
import torch

from explorer_client import unpack

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
    ("trace", {"layers": [{"pixels": GOOD}], "focus": 10}, 422, "numbered from 0"),
    ("trace", {"layers": [{"pixels": GOOD}], "run": "another"}, 404, "another"),
    ("trace", [], 422, "body"),
    ("child", {"layers": [{"pixels": GOOD}], "child": 144, "parent": 0}, 422, "143"),
    ("pixel", {"layers": [{"pixels": GOOD}], "channel": 0, "row": 20, "column": 0}, 422, "20×20"),
    ("pool", {"layers": [{"pixels": GOOD}], "channel": 16}, 422, "16 maps"),
    ("decode", {"number": 0, "pose": [0.1] * 15}, 422, "16 numbers"),
    ("decode", {"number": 99, "pose": [0.1] * 16}, 422, "numbered from 0"),
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
        assert "capsnet-" not in response.json()["detail"]  # no path of the server's machine is shown
    # The server answers and hangs up while the body is still coming: only the status is sure to arrive.
    form = {"content-type": "image/png"}
    with client.stream("POST", "/api/picture", content=b"0" * 17_000_000, headers=form) as large:
        assert large.status_code == 413
    assert (
        client.post("/api/picture", content=picture(), headers={"content-type": "text/plain"}).status_code
        == 415
    )
