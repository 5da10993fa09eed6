"""attend from Python: its scaled_dot_product_attention for tensors of PyTorch."""

import attend.torch
import torch

from benchmarks.attention.torch import call, outputs, prepare as prepare_forward  # noqa: F401


def version():
    return f"attend {attend.__version__} in torch {torch.__version__}"


def forward(case, inputs):
    """A function that computes the output of a case."""
    return call(case, inputs, attend.torch.scaled_dot_product_attention)


def prepare(case, inputs):
    return prepare_forward(case, inputs, forward)
