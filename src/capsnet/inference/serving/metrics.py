"""Count requests and measure their times, in Prometheus' format."""

from __future__ import annotations

import os

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = CONTENT_TYPE_LATEST
#: Environment variable: a folder in which several workers keep their numbers. Must be set before this file is imported.
SHARED = "PROMETHEUS_MULTIPROC_DIR"

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
REQUESTS = Counter("capsnet_requests", "Requests for predictions, by status.", ["status"])
IMAGES = Counter("capsnet_images", "Classified images.")
SECONDS = Histogram("capsnet_request_seconds", "Time of a request for predictions.", buckets=_SECONDS)
BATCHES = Histogram("capsnet_batch_images", "Images in a batch.", buckets=(1, 2, 4, 8, 16))


def exposition() -> bytes:
    """Return all numbers, of all workers, as text."""
    if SHARED not in os.environ:
        alone: bytes = generate_latest(REGISTRY)
        return alone
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    shared: bytes = generate_latest(registry)
    return shared
