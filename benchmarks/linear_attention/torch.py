"""PyTorch: the expression as its user would write it, 64 tokens a chunk (the fastest of 32 to 256 at 4k tokens)."""

import torch

from benchmarks.linear_attention import expression


def version():
    return "torch " + torch.__version__


def prepare(case, inputs):
    return expression.prepare(case, inputs, 64)


def outputs(result):
    return result
