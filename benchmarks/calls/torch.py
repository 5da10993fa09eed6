"""PyTorch: scaled_dot_product_attention, the dispatcher's choice."""

from torch.nn import functional

from benchmarks.attention.torch import call, outputs, prepare as prepare_forward, version  # noqa: F401


def forward(case, inputs):
    """A function that computes the output of a case."""
    return call(case, inputs, functional.scaled_dot_product_attention)


def prepare(case, inputs):
    return prepare_forward(case, inputs, forward)
