"""PyTorch: the expression as its user would write it, in chunks of 64 tokens."""

import torch

from benchmarks.linear_attention import reference


def version():
    return "torch " + torch.__version__


def prepare(case, inputs):
    return reference.timed(case, inputs, 64)


def outputs(result):
    return result
