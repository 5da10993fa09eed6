"""Autograd through the equation in float64, a head at a time."""

import torch

from benchmarks.attention.reference import attend, heads_of, version, wide  # noqa: F401


def prepare(case, inputs):
    inputs = wide(inputs)

    def run():
        names = ("query", "key", "value")
        sums = {f"grad_{name}": torch.zeros_like(inputs[name]) for name in names}
        for sequence, head, kv_head in heads_of(inputs):
            leaves = [inputs[name][sequence, where].requires_grad_()
                      for name, where in zip(names, (head, kv_head, kv_head))]
            gradients = torch.autograd.grad(attend(case, *leaves), leaves, inputs["grad_output"][sequence, head])
            for name, where, gradient in zip(names, (head, kv_head, kv_head), gradients):
                sums[f"grad_{name}"][sequence, where] += gradient
        return sums

    return run
