"""smallNORB's formats, the rendered toys, and the splits by viewpoint."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from capsnet._support.errors import CapsnetError
from capsnet.data import load
from capsnet.data.npz import write_npz
from capsnet.data.smallnorb import STEMS, halve, load_views, read_matrix
from capsnet.data.toys.rendering import SETS, render, render_instances
from capsnet.data.toys.shapes import Solid, assemble, toy
from capsnet.data.viewpoints import viewpoint_split, viewpoints
from capsnet.data.views import Views

BYTES, INTEGERS = 0x1E3D4C55, 0x1E3D4C54


def matrix(array: np.ndarray, kind: int = BYTES) -> bytes:
    """As published: at least three sizes are written, whatever the number of dimensions."""
    sizes = [*array.shape, 1, 1][: max(3, array.ndim)]
    head = struct.pack(f"<ii{len(sizes)}i", kind, array.ndim, *sizes)
    return head + array.astype("<u1" if kind == BYTES else "<i4").tobytes()


def write_published(directory: Path, info: bool = True, zipped: bool = False) -> dict[str, np.ndarray]:
    """Three elevations × three azimuths (one of each familiar) of one instance of two categories."""
    directory.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    rows = np.array([(4, e, a, 0, c) for e in (0, 2, 8) for a in (0, 30, 10) for c in (0, 3)])
    images = {}
    for part, stem in STEMS.items():
        images[part] = random.integers(0, 256, (len(rows), 2, 96, 96), dtype=np.uint8)
        files = {"dat": matrix(images[part]), "cat": matrix(rows[:, 4], INTEGERS)}
        if info:
            files["info"] = matrix(rows[:, :4], INTEGERS)
        for kind, content in files.items():
            if zipped:
                (directory / f"{stem}-{kind}.mat.gz").write_bytes(gzip.compress(content, 1))
            else:
                (directory / f"{stem}-{kind}.mat").write_bytes(content)
    return images


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if "real_data" not in request.fixturenames:
        monkeypatch.delenv("CAPSNET_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("zipped", [True, False])
def test_published_smallnorb_is_prepared_once(tmp_path: Path, cache: Path, zipped: bool) -> None:
    images = write_published(tmp_path / "smallnorb", zipped=zipped)
    train, _, provenance = load_views(tmp_path)
    pixels = images["train"].astype(float).reshape(-1, 2, 48, 2, 48, 2).mean((3, 5))
    assert np.array_equal(train.images.numpy(), np.floor(pixels + 0.5))
    assert train.category.tolist() == [0, 3] * 9
    assert train.elevation is not None
    assert train.azimuth is not None
    assert train.elevation.unique().tolist() == [30, 40, 70]
    assert train.azimuth.unique().tolist() == [0, 100, 300]
    assert "18 training" in provenance
    prepared = sorted(path.name for path in cache.rglob("*") if path.is_file())
    assert prepared == ["test.npz", "train.npz"]
    for path in (tmp_path / "smallnorb").glob("*dat*"):
        path.write_bytes(b"never read again")
    assert torch.equal(load_views(tmp_path)[0].images, train.images)


def test_splits_by_viewpoint(tmp_path: Path) -> None:
    write_published(tmp_path / "smallnorb")
    for axis, familiar, novel in (("azimuth", 12, 6), ("elevation", 12, 6)):
        dataset = load(f"smallnorb-{axis}", tmp_path)
        assert (len(dataset.train), len(dataset.test), dataset.image_shape) == (familiar, novel, (2, 32, 32))
        assert dataset.class_names == ("animal", "human", "airplane", "truck", "car")
        parts = viewpoints("smallnorb", axis, tmp_path)  # type: ignore[arg-type]
        assert [len(part) for part in parts] == [familiar, familiar, novel]
        seen = {image.numpy().tobytes() for image in parts.familiar.images}
        assert not any(image.numpy().tobytes() in seen for image in parts.novel.images)


def test_images_are_grouped_by_toy_where_the_files_say_it(tmp_path: Path) -> None:
    write_published(tmp_path / "smallnorb")
    dataset = load("smallnorb", tmp_path)
    assert dataset.test.groups.tolist() == [20, 23] * 9  # instance 4 of the categories 0 and 3
    assert dataset.test.subset(torch.tensor([1, 0])).to("cpu").groups.tolist() == [23, 20]
    assert viewpoints("smallnorb", "azimuth", tmp_path).novel.groups.tolist() == [20, 23] * 3
    write_published(tmp_path / "unlabelled" / "smallnorb", info=False)
    assert load("smallnorb", tmp_path / "unlabelled").test.groups is None


def test_crops(tmp_path: Path) -> None:
    images = write_published(tmp_path / "smallnorb")
    dataset = load("smallnorb", tmp_path)
    centre = halve(images["test"])[:, :, 8:40, 8:40]
    assert np.array_equal((dataset.test.batch(torch.arange(18)).images * 255).round().numpy(), centre)
    corner = dataset.train.batch(torch.tensor([5]), torch.zeros(1, 2)).images
    assert np.array_equal((corner[0] * 255).round().numpy(), halve(images["train"])[5, :, :32, :32])


def test_adding_the_info_files_later_helps(tmp_path: Path) -> None:
    write_published(tmp_path / "smallnorb", info=False)
    assert len(load("smallnorb", tmp_path).train) == 18
    with pytest.raises(CapsnetError, match=r"these files have no azimuth.*-info.mat.*or.* objects3d-azimuth"):
        load("smallnorb-azimuth", tmp_path)
    write_published(tmp_path / "smallnorb", info=True)
    assert len(load("smallnorb-azimuth", tmp_path).train) == 12


@pytest.mark.slow
def test_real_smallnorb(real_data: Callable[[str], Path]) -> None:
    dataset = load("smallnorb", real_data("smallnorb48"))
    assert (len(dataset.train), len(dataset.test), dataset.image_shape) == (24_300, 24_300, (2, 32, 32))
    assert "JPEG" in dataset.provenance
    assert "not to be sold" in dataset.provenance
    assert dataset.test.groups.unique(return_counts=True)[1].tolist() == [972] * 25
    labels = dataset.train.batch(torch.arange(20), torch.zeros(20, 2)).labels
    assert set(labels.flatten().tolist()) == {0, 1, 2, 3, 4}
    with pytest.raises(CapsnetError, match="have no elevation"):
        load("smallnorb-elevation", real_data("smallnorb48"))


def test_missing_smallnorb_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        CapsnetError, match=r"smallnorb-5x46789.*-dat.mat is not on this machine; get the six files"
    ):
        load("smallnorb", tmp_path)


WHOLE = matrix(np.zeros((2, 2, 3, 3)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a smallNORB matrix"),
        (b"P5\n96 96\n255\n", "not a smallNORB matrix"),
        (struct.pack("<ii", BYTES, 99), "says 99 dimensions"),
        (WHOLE[:14], "ends within its header"),
        (WHOLE[:-1], r"is truncated, its header says \(2, 2, 3, 3\) = 36 bytes"),
        (WHOLE + b"\0", "has extra bytes at the end"),
        (struct.pack("<ii3i", BYTES, 3, -1, -1, 9), "impossible shape"),
        (struct.pack("<ii3i", INTEGERS, 1, 2**30, 1, 1), "impossible shape"),
    ],
)
def test_damaged_matrices(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "m.mat"
    path.write_bytes(content)
    with pytest.raises(CapsnetError, match=message):
        read_matrix(path)


def test_files_that_do_not_belong_together(tmp_path: Path, cache: Path) -> None:
    write_published(tmp_path / "smallnorb")
    stem = tmp_path / "smallnorb" / STEMS["train"]
    for kind, content, message in (
        ("info", matrix(np.zeros((17, 4)), INTEGERS), r"\(17, 4\), not 4 numbers per image"),
        ("cat", matrix(np.zeros(17), INTEGERS), "not the 18 categories"),
        ("cat", matrix(np.full(18, 5), INTEGERS), "not the 18 categories"),
        ("dat", matrix(np.zeros((18, 2, 108, 108))), "not stereo pairs of 96×96"),
    ):
        Path(f"{stem}-{kind}.mat").write_bytes(content)
        with pytest.raises(CapsnetError, match=message):
            load("smallnorb", tmp_path)
        assert not list(cache.rglob("train.npz")), "nothing half-prepared may stay"


def test_damaged_prepared_files(tmp_path: Path) -> None:
    for name in ("train.npz", "test.npz"):
        write_npz(tmp_path / name, {"images": np.zeros((3, 2, 48, 48), np.uint8), "category": np.zeros(3)})
    assert len(load("smallnorb", tmp_path).train) == 3
    good = (tmp_path / "train.npz").read_bytes()
    for content in (b"", b"hello", good[:200], good[:-50], b"PK\x03\x04" + b"\0" * 90):
        (tmp_path / "train.npz").write_bytes(content)
        with pytest.raises(CapsnetError, match="not a NumPy archive, or damaged"):
            load("smallnorb", tmp_path)
    np.savez(tmp_path / "train.npz", images=np.array([{}], dtype=object), category=np.zeros(1))
    with pytest.raises(CapsnetError, match="not a NumPy archive, or damaged"):
        load("smallnorb", tmp_path)
    for arrays, message in (
        ({"pixels": np.zeros(3)}, "does not hold smallNORB.s images and category"),
        ({"images": np.zeros((3, 2, 48, 48), np.uint8), "category": np.zeros(2)}, "another number of labels"),
    ):
        write_npz(tmp_path / "train.npz", arrays)
        with pytest.raises(CapsnetError, match=message):
            load("smallnorb", tmp_path)


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CapsnetError, match="cannot write"):
        write_npz(tmp_path / "file" / "x.npz", {"a": np.zeros(1)})


def test_a_ball_is_where_it_should_be() -> None:
    ball = assemble([Solid((3, 3, 3), radius=2)])
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 2, 0]])
    radius = float(-ball.distance(points)[0])
    torch.testing.assert_close(ball.distance(points), torch.tensor([-radius, 1 - radius, 2 - radius]))
    picture = render(ball, azimuths=[0], elevations=[30], lightings=[0], size=32)[0, 0, 0].float()
    background = picture[0, 0]
    silhouette = picture != background
    assert torch.equal(silhouette, silhouette.flip(1)), "left as right"
    assert silhouette[16, 16]
    assert float(silhouette.float().mean()) == pytest.approx(torch.pi * (radius / 1.04 / 2) ** 2, rel=0.1)
    assert picture[10, 16] > picture[22, 16], "lit from above"


def test_the_camera_goes_round_and_up() -> None:
    # A long bar along x, with a knob on its front end.
    bar = assemble([Solid((0, 0, 0), (1, 0, 0), 0.1), Solid((1, 0, 0.15), radius=0.25)])
    end_on, side_on, behind = render(bar, azimuths=[0, 90, 180], elevations=[0.0], lightings=[0], size=32)[
        :, 0, 0
    ]

    def extent(picture: torch.Tensor) -> tuple[int, int]:
        seen = picture != picture[0, 0]
        return int(seen.any(1).sum()), int(seen.any(0).sum())

    assert extent(side_on)[1] > 3 * extent(end_on)[1]
    seen = (side_on != side_on[0, 0]).float()
    assert seen[:, :16].sum() > seen[:, 16:].sum(), "from its left-hand side the front is on the left"
    assert abs(extent(behind)[1] - extent(end_on)[1]) <= 2
    above = render(bar, azimuths=[0], elevations=[90.0], lightings=[0], size=32)[0, 0, 0]
    assert extent(above)[0] > 2.5 * extent(above)[1], "from above the bar points down the picture"
    seen = (above != above[0, 0]).float()
    assert seen[16:].sum() > seen[:16].sum(), "its front at the bottom, towards where the camera was"


def test_lighting_changes_shading_not_shape() -> None:
    pictures = render(toy(4, 0), azimuths=[40], elevations=[40])[0, 0].float()
    silhouettes = [(p - p[0, 0]).abs() > 0 for p in pictures]
    assert len({p.numpy().tobytes() for p in pictures}) == 6
    overlap = (silhouettes[0] & silhouettes[3]).sum() / (silhouettes[0] | silhouettes[3]).sum()
    assert overlap > 0.9


def test_toys_differ_and_fit_the_picture() -> None:
    pictures = torch.stack(
        [
            render(toy(c, i), azimuths=[60], elevations=[30], lightings=[0])[0, 0, 0]
            for c in range(5)
            for i in (0, 7)
        ]
    ).float()
    edge = torch.cat((pictures[:, 0], pictures[:, -1], pictures[:, :, 0], pictures[:, :, -1]), 1)
    assert (edge == edge[0, 0]).all(), "the border is background"
    covered = (pictures != edge[0, 0]).float().mean((1, 2))
    assert 0.04 < float(covered.min()) < float(covered.max()) < 0.6
    gaps = (pictures[:, None] - pictures).abs().mean((2, 3)) + 99 * torch.eye(10)
    assert gaps.min() > 1


def test_the_toys_of_the_larger_set_are_200_different_ones() -> None:
    train, test = SETS["objects3d200"]
    toys = [toy(category, instance) for instance in (*train, *test) for category in range(5)]
    assert len({(shape.centres.numpy().tobytes(), shape.halves.numpy().tobytes()) for shape in toys}) == 200


@pytest.mark.quick
def test_rendered_views_carry_their_labels() -> None:
    views = render_instances([3], elevations=[30])
    assert len(views) == 5 * 18 * 6
    assert views.azimuth is not None
    assert views.lighting is not None
    row = int(((views.category == 2) & (views.azimuth == 140) & (views.lighting == 4)).nonzero())
    alone = render(toy(2, 3), azimuths=[140], elevations=[30], lightings=[4])[0, 0]
    assert torch.equal(views.images[row], alone)
    split = viewpoint_split(views, views, "azimuth", "objects3d")
    assert [len(part) for part in split] == [180, 180, 360]


def test_objects3d_is_rendered_once(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    calls: list[tuple[int, ...]] = []

    def few(instances: tuple[int, ...]) -> Views:
        calls.append(instances)
        label = torch.arange(8) % 5
        elevation = torch.tensor([30, 35, 40, 45, 50, 55, 60, 65])
        return Views(torch.zeros(8, 1, 48, 48, dtype=torch.uint8), label, label, label, elevation, label)

    monkeypatch.setattr("capsnet.data.toys.rendering.render_instances", few)
    dataset = load("objects3d-elevation")
    again = load("objects3d")
    assert calls == [(4, 6, 7, 8, 9), (0, 1, 2, 3, 5)]
    assert (len(dataset.train), len(dataset.test), len(again.test)) == (3, 5, 8)
    assert again.image_shape == (1, 32, 32)
    assert "NOT smallNORB" in again.provenance
    assert sorted(path.name for path in cache.rglob("*.npz")) == ["test.npz", "train.npz"]
