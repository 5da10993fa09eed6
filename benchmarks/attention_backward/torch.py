"""PyTorch: the gradient of scaled_dot_product_attention. Forward runs once, before anything is timed."""

import torch

from benchmarks.attention.torch import forward, version  # noqa: F401


def prepare(case, inputs, forward=forward):
    grad_output = inputs.pop("grad_output")
    leaves = [inputs[name].requires_grad_() for name in ("query", "key", "value")]
    output = forward(case, inputs)()

    def run():
        return torch.autograd.grad(output, leaves, grad_output, retain_graph=True)

    return run


def outputs(result):
    return dict(zip(("grad_query", "grad_key", "grad_value"), result))
