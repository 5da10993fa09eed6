"""flash-linear-attention on the CPU: its kernels are Triton's and need a GPU; what runs here are its `naive` forms in
PyTorch, in chunks where it has them. Forward only: their autograd keeps every chunk's state."""

import fla
import torch
from fla.ops.gated_delta_rule.naive import naive_chunk_gated_delta_rule
from fla.ops.gla.naive import naive_recurrent_gla
from fla.ops.linear_attn.naive import naive_chunk_linear_attn
from fla.ops.simple_gla.naive import naive_chunk_simple_gla

from benchmarks.harness.tensors import Unsupported
from benchmarks.linear_attention import reference

CHUNK = 64
MOST_STEPS = 8192  # of the recurrence, which takes a step of Python for each token


def version():
    return f"flash-linear-attention {fla.__version__}, torch {torch.__version__}"


def prepare(case, inputs):
    kind, length = case["kind"], inputs["query"].shape[2]
    if case["direction"] != "forward":
        raise Unsupported("its naive forms are compared forward only")
    if kind == "full":
        raise Unsupported("it has no form without an order")
    if length % CHUNK and kind in ("identity", "causal"):
        raise Unsupported(f"its chunks take multiples of {CHUNK} tokens")
    if kind == "channel" and length > MOST_STEPS:
        raise Unsupported("decays of channels go token by token in Python")
    query, key, value, gate, beta = reference.operands(reference.with_unit_keys(case, inputs))
    query, key, value = (x.transpose(1, 2).contiguous() for x in (query, key, value))
    if gate is not None:
        gate = gate.transpose(1, 2).contiguous()
        gate = gate if kind == "channel" else gate.squeeze(-1)

    def compute():
        if kind in ("identity", "causal"):
            return naive_chunk_linear_attn(reference.features(case, query), reference.features(case, key), value,
                                           scale=1.0, normalize=kind == "causal")
        if kind == "scalar":
            return naive_chunk_simple_gla(query, key, value, gate, scale=1.0)[0]
        if kind == "channel":
            return naive_recurrent_gla(query, key, value, gate)[0] * query.shape[-1] ** 0.5
        return naive_chunk_gated_delta_rule(query, key, value, gate, beta.transpose(1, 2), scale=1.0)[0]

    def run():
        with torch.no_grad():
            return compute()

    return run


def outputs(result):
    return {"output": result.transpose(1, 2)}
