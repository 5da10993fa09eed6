"""The expression in float64: what every contestant's output is compared with."""

import torch

from benchmarks.linear_attention import expression


def version():
    return "torch " + torch.__version__ + " in float64"


def prepare(case, inputs):
    return expression.prepare(case, {name: tensor.double() for name, tensor in inputs.items()}, 32)
