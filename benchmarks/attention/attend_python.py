"""attend from Python: its scaled_dot_product_attention for tensors of PyTorch."""

import attend.torch
import torch

from benchmarks.harness.tensors import Unsupported


def version():
    return f"attend {attend.__version__} in torch {torch.__version__}"


def forward(case, inputs):
    """A function that computes the output of a case."""
    if case["dtype"] == "int8":
        raise Unsupported("attend.torch attends in floating types only")
    query, key, value = inputs["query"], inputs["key"], inputs["value"]
    options = {
        "attn_mask": inputs.get("mask", inputs.get("bias")),
        "is_causal": case["mask"] == "causal",
        "enable_gqa": case["grouped"],
    }
    return lambda: attend.torch.scaled_dot_product_attention(query, key, value, **options)


def prepare(case, inputs):
    compute = forward(case, inputs)

    def run():
        with torch.no_grad():
            return compute()

    return run


def outputs(result):
    return {"output": result}
