"""PyTorch: linear without a bias; int8 by its dynamically quantised linear."""

import torch
from torch.nn import functional

from benchmarks.attention.torch import outputs, version  # noqa: F401


def quantised(weight):
    """W in int8 with a scale for each output, packed by PyTorch's default engine (x86), which takes FBGEMM or oneDNN,
    whichever suits the processor."""
    scales = weight.abs().amax(1).clamp(min=1e-30).double() / 127
    zeros = torch.zeros(scales.shape, dtype=torch.long)
    packed = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
    return torch.ops.quantized.linear_prepack(packed, None)


def prepare(case, inputs):
    x, weight = inputs["x"], inputs["weight"]
    if case["dtype"] == "int8":
        packed = quantised(weight)
        linear = torch.ops.quantized.linear_dynamic

        def compute():
            return linear(x, packed)
    else:
        def compute():
            return functional.linear(x, weight)

    def run():
        with torch.no_grad():
            return compute()

    return run
