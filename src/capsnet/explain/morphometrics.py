"""Measure light strokes on a dark ground: thickness, slant, width and more.

The choice of measures follows Morpho-MNIST (Castro et al. 2019); the definitions here are simpler.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

#: Columns of `measure`.
MEASURES = ("area", "length", "thickness", "slant", "width", "height", "across", "down")

#: Images are enlarged this many times before strokes are measured, for a thickness finer than one pixel.
FINE = 4
#: Share of the ink that width and height ignore at each end, so that stray pixels do not count.
TAIL = 0.02


def measure(images: Float[Tensor, "batch channels height width"]) -> NDArray[np.float64]:
    """Measure each image's ink (mean over channels, in units of its brightest pixel).

    Returns:
        (batch, measures) in the order of `MEASURES`, in pixels unless another unit is given. A row is NaN if
        the image has no ink.
        area: number of pixels with at least half the brightest pixel's value;
        length: length of the stroke, area / thickness;
        thickness: thickness of the stroke, twice the distance from its middle line to its edge;
        slant: angle in degrees by which vertical strokes lean to the right, from second moments;
        width, height: extent of the ink without the outer 2 % at each end; width after removing the slant;
        across, down: position of the ink's centre, relative to the image's centre.
    """
    ink = images.detach().to("cpu", torch.float64).mean(dim=1).clamp(min=0).numpy()
    brightest = ink.max(axis=(1, 2), keepdims=True, initial=0.0)
    ink = ink / np.where(brightest > 0, brightest, np.nan)
    area, thickness = _strokes(np.nan_to_num(ink))

    down = np.arange(ink.shape[1])[:, None] - (ink.shape[1] - 1) / 2
    across = np.arange(ink.shape[2])[None, :] - (ink.shape[2] - 1) / 2
    mass = ink.sum(axis=(1, 2))
    centre_x, centre_y = (ink * across).sum(axis=(1, 2)) / mass, (ink * down).sum(axis=(1, 2)) / mass
    dx, dy = across - centre_x[:, None, None], down - centre_y[:, None, None]
    vertical = (ink * dy * dy).sum(axis=(1, 2))
    # y points down: a stroke that leans right has its ink to the right where y is small.
    lean = -(ink * dx * dy).sum(axis=(1, 2)) / np.where(vertical > 0, vertical, np.nan)
    upright = dx + np.nan_to_num(lean)[:, None, None] * dy
    with np.errstate(divide="ignore", invalid="ignore"):
        length = area / thickness
    columns = {
        "area": area,
        "length": length,
        "thickness": thickness,
        "slant": np.degrees(np.arctan(lean)),
        "width": _extent(upright, ink),
        "height": _extent(np.broadcast_to(dy, ink.shape), ink),
        "across": centre_x,
        "down": centre_y,
    }
    measured = np.stack([columns[name] for name in MEASURES], axis=1)
    measured[brightest[:, 0, 0] <= 0] = np.nan
    return measured


def is_light_on_dark(images: Float[Tensor, "batch channels height width"]) -> bool:
    """Return whether `measure` is meaningful: one channel and a nearly black border."""
    border = torch.cat([images[..., [0, -1], :].flatten(), images[..., :, [0, -1]].flatten()])
    return images.shape[1] == 1 and float(border.mean()) < 0.1


def correlations(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Pearson correlations, (p, q), of the columns of x (n, p) and y (n, q).

    Rows with a non-finite value are ignored. A constant column gives NaN.

    >>> correlations(np.array([[1.0], [2.0], [3.0]]), np.array([[2.0, 5.0], [4.0, 5.0], [6.0, 5.0]]))
    array([[ 1., nan]])
    """
    rows = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
    if rows.sum() < 2:
        return np.full((x.shape[1], y.shape[1]), np.nan)
    x, y = x[rows], y[rows]
    dx, dy = x - x.mean(axis=0), y - y.mean(axis=0)
    nx, ny = np.sqrt((dx * dx).sum(axis=0)), np.sqrt((dy * dy).sum(axis=0))
    # A constant column minus its mean leaves rounding errors, which are not variation.
    nx[nx <= 1e-12 * np.abs(x).max(axis=0) * len(x)] = np.nan
    ny[ny <= 1e-12 * np.abs(y).max(axis=0) * len(y)] = np.nan
    result: NDArray[np.float64] = dx.T @ dy / nx[:, None] / ny[None, :]
    return result


def _strokes(ink: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return area and thickness of the strokes, (batch,) each."""
    from scipy import ndimage

    # A black border of one pixel, so that every stroke has an edge.
    padded = torch.from_numpy(np.pad(ink, ((0, 0), (1, 1), (1, 1))))[:, None]
    fine = interpolate(padded, scale_factor=FINE, mode="bilinear")[:, 0].numpy() >= 0.5
    distance = np.zeros(fine.shape)
    for image, found in zip(fine, distance, strict=True):
        found[:] = ndimage.distance_transform_edt(image)
    middle = fine & (distance >= ndimage.maximum_filter(distance, size=(1, 3, 3)) - 1e-9)
    count = middle.sum(axis=(1, 2))
    half = np.where(middle, distance, 0.0).sum(axis=(1, 2)) / np.maximum(count, 1)
    # The distance ends at the next pixel's centre; the edge is half a pixel nearer.
    thickness = np.where(count > 0, (2 * half - 1) / FINE, np.nan)
    return fine.sum(axis=(1, 2)) / FINE**2, thickness


def _extent(positions: NDArray[np.float64], ink: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the extent, (batch,), that leaves TAIL of the ink outside at each end."""
    places, weights = (x.reshape(len(ink), ink.shape[1] * ink.shape[2]) for x in (positions, ink))
    order = np.argsort(places, axis=1, kind="stable")
    places, weights = np.take_along_axis(places, order, 1), np.take_along_axis(weights, order, 1)
    share = np.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True)
    first, last = (share >= TAIL).argmax(axis=1), (share >= 1 - TAIL).argmax(axis=1)
    rows = np.arange(len(ink))
    result: NDArray[np.float64] = places[rows, last] - places[rows, first] + 1
    return result
