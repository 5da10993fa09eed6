"""The equation in float64, a head at a time: what every contestant's output is compared with."""

import torch


def version():
    return "torch " + torch.__version__ + " in float64"


def attend(case, query, key, value, bias=None, mask=None):
    """One head, [queries, d] and [keys, d]. Autograd goes through."""
    scores = query @ key.T / query.shape[-1] ** 0.5
    if bias is not None:
        scores = scores + bias
    if case["mask"] == "causal":
        mask = torch.ones(scores.shape, dtype=torch.bool).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return torch.softmax(scores, -1) @ value


def heads_of(inputs):
    """(batch, head, head of key and value) of every head of queries."""
    batch, heads = inputs["query"].shape[:2]
    group = heads // inputs["key"].shape[1]
    return [(sequence, head, head // group) for sequence in range(batch) for head in range(heads)]


def wide(inputs):
    """Inputs as float64, but for the mask."""
    return {name: tensor if tensor.dtype == torch.bool else tensor.double() for name, tensor in inputs.items()}


def prepare(case, inputs):
    inputs = wide(inputs)
    shared = {name: inputs[name][0, 0] for name in ("bias", "mask") if name in inputs}

    def run():
        output = torch.empty(*inputs["query"].shape[:3], inputs["value"].shape[-1], dtype=torch.float64)
        for sequence, head, kv_head in heads_of(inputs):
            output[sequence, head] = attend(case, inputs["query"][sequence, head], inputs["key"][sequence, kv_head],
                                            inputs["value"][sequence, kv_head], **shared)
        return {"output": output}

    return run
