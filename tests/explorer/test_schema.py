"""The explorer's API against its own OpenAPI description: whatever fits it, or does not, the server stands."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from capsnet.explorer.api import router
from capsnet.explorer.app import create_app
from capsnet.explorer.session import open_session
from capsnet.models import CapsNet, CapsNetConfig

schemathesis = pytest.importorskip("schemathesis", reason="no schemathesis here: pip install schemathesis")
from hypothesis import HealthCheck, given, settings  # noqa: E402

OPERATIONS = sorted((route.path, method) for route in router.routes for method in route.methods)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    torch.manual_seed(0)
    # The smallest image that the two convolutions take: valid requests are found often.
    config = CapsNetConfig(image_shape=(1, 17, 17), stem_channels=4, primary_types=2, decoder=(8,))
    CapsNet(config).save_pretrained(folder)
    app = create_app(open_session(str(folder)), hosts=("testserver",))
    return schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_api_keeps_to_its_description(api: Any, path: str, method: str, mode: Any) -> None:
    """Answers fit the description; what is described is accepted, and what is not is refused with a 4xx."""
    operation = api[path][method]
    takes_anything = (method == "GET" and not operation.query) or path == "/api/picture"
    if mode is schemathesis.GenerationMode.NEGATIVE and takes_anything:
        pytest.skip("nothing that could be sent goes against the description")

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def check(case: Any) -> None:
        case.call_and_validate(timeout=30)

    check()
