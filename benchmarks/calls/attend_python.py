"""attend from Python: its scaled_dot_product_attention for tensors of PyTorch."""

import attend.torch

from benchmarks.attention.attend_python import outputs, version  # noqa: F401
from benchmarks.calls.torch import prepare as prepare_call


def prepare(case, inputs):
    return prepare_call(case, inputs, attend.torch.scaled_dot_product_attention)
