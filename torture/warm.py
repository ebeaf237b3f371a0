"""Import what every forked `capsnet` process needs."""

import accelerate  # noqa: F401
import torch._dynamo  # noqa: F401  (the optimizer imports it; seconds)

import capsnet.cli
import capsnet.data
import capsnet.data.folder
import capsnet.models
import capsnet.report.page
import capsnet.report.story
import capsnet.routing.cpu.kernels
import capsnet.training.loop  # noqa: F401
