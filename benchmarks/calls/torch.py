"""PyTorch: scaled_dot_product_attention, the dispatcher's choice."""

import torch
from torch.nn import functional

from benchmarks.attention.torch import call, outputs, version  # noqa: F401


def prepare(case, inputs, attention=functional.scaled_dot_product_attention):
    # For the whole process: torch.no_grad() around each call takes a fifth of its time.
    torch.set_grad_enabled(False)
    return call(case, inputs, attention)
