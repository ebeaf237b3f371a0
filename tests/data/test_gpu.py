"""On a GPU: the same batches as on the CPU, without waiting for the device, and inside a CUDA graph."""

from __future__ import annotations

import pytest
import torch

from capsnet.data.augmentation import (
    Affine,
    Brightness,
    Compose,
    Contrast,
    Flip,
    RandomCrop,
    RandomPlacement,
    Shift,
)
from capsnet.data.dataset import Examples, Source
from capsnet.data.fixed_random import freeze
from capsnet.data.overlapping import Pairs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def examples(**options: object) -> Examples:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (50, 2, 28, 28), dtype=torch.uint8, generator=generator)
    return Examples(images, torch.arange(50) % 10, **options)  # type: ignore[arg-type]


SOURCES: dict[str, Source] = {
    "plain": examples(),
    "shift": examples(augment=Shift(2)),
    "placement": examples(augment=RandomPlacement(40)),
    "affine": examples(augment=Affine(20, 0.2, (0.8, 1.2), 2)),
    "photographs": examples(augment=Compose([RandomCrop(24), Flip(), Brightness(0.2), Contrast(0.2, 1.8)])),
    "pairs": Pairs.of(examples()),
    "frozen pairs": freeze(Pairs.of(examples()), 1, 80),
}


@pytest.mark.parametrize("name", SOURCES)
def test_batches_do_not_depend_on_the_device(name: str) -> None:
    source = SOURCES[name]
    indices = torch.randint(0, 50, (64,), generator=torch.Generator().manual_seed(1))
    uniforms = torch.rand(64, source.draws, generator=torch.Generator().manual_seed(2))
    expected = source.batch(indices, uniforms)
    moved, indices, uniforms = source.to("cuda"), indices.cuda(), uniforms.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = moved.batch(indices, uniforms)
        targets = result.targets(10)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(result.labels.cpu(), expected.labels)
    torch.testing.assert_close(result.images.cpu(), expected.images, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(result.originals.cpu(), expected.originals, rtol=1e-5, atol=2e-5)
    assert torch.equal(targets.cpu(), expected.targets(10))


@pytest.mark.parametrize("name", SOURCES)
def test_batches_are_made_inside_a_cuda_graph(name: str) -> None:
    source = SOURCES[name].to("cuda")
    indices = torch.zeros(16, dtype=torch.int64, device="cuda")
    uniforms = torch.zeros(16, source.draws, device="cuda")
    source.batch(indices, uniforms)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = source.batch(indices, uniforms)
    indices.copy_(torch.randint(0, 50, (16,)))
    uniforms.copy_(torch.rand(16, source.draws))
    graph.replay()
    expected = source.batch(indices, uniforms)
    torch.testing.assert_close(captured.images, expected.images)
    assert torch.equal(captured.labels, expected.labels)
