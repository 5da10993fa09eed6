"""AMD's plugin for PyTorch: its own attention kernel, forward only."""

import torch
import zentorch

from benchmarks.harness.tensors import Unsupported


def version():
    return "zentorch " + zentorch.__version__


def prepare(case, inputs):
    if case["dtype"] not in ("float32", "bfloat16"):
        raise Unsupported("zentorch_sdpa takes float32 and bfloat16 only")
    query, key, value = inputs["query"], inputs["key"], inputs["value"]
    mask = inputs.get("bias")
    if "mask" in inputs:  # it takes none of booleans, so its user has to write this
        mask = torch.zeros(inputs["mask"].shape, dtype=query.dtype).masked_fill_(~inputs["mask"], -torch.inf)
    causal = case["mask"] == "causal"
    attend = torch.ops.zentorch.zentorch_sdpa.default

    def run():
        with torch.no_grad():
            return attend(query, key, value, 0.0, causal, attn_mask=mask)[0]

    return run


def outputs(result):
    return {"output": result}
