"""Linear attention written in PyTorch, in chunks of tokens where there is an order; autograd goes through. In float64
it is what every contestant's output is compared with, in the case's dtype the contestant torch."""

import torch
from torch.nn import functional


def version():
    return "torch " + torch.__version__ + " in float64"


def with_unit_keys(case, inputs):
    """The delta rule's keys have length 1, as a model's own layer would make them: longer ones let the state grow."""
    if case["kind"] != "delta":
        return inputs
    key = inputs["key"]
    wide = torch.promote_types(key.dtype, torch.float32)
    return {**inputs, "key": functional.normalize(key.to(wide), dim=-1).to(key.dtype)}


def operands(inputs):
    """Queries, keys, values and the logarithms of decays (None, [.., L, 1] or [.., L, d]), and beta."""
    query, key, value = inputs["query"], inputs["key"], inputs["value"]
    gate = inputs.get("gate")
    if gate is not None:
        gate = functional.logsigmoid(gate) / 16
        gate = gate if gate.dim() == 4 else gate.unsqueeze(-1)
    beta = torch.sigmoid(inputs["beta"]) if "beta" in inputs else None
    return query, key, value, gate, beta


def features(case, x):
    return functional.elu(x) + 1 if case["kind"] in ("full", "causal") else x


def full(case, query, key, value):
    """No order: phi(Q) (phi(K)^T V), divided by phi(Q) sum phi(K) where normalised."""
    query, key = features(case, query), features(case, key)
    output = query @ (key.transpose(-1, -2) @ value)
    if case["kind"] == "full":
        output = output / (query @ key.sum(-2).unsqueeze(-1))
    return output


def chunkwise(case, query, key, value, gate, beta, chunk):
    """In order: the state before each chunk, and the pairs inside of it."""
    normalised = case["kind"] == "causal"
    query, key = features(case, query), features(case, key)
    if normalised:
        value = torch.cat([value, torch.ones_like(value[..., :1])], -1)
    state = query.new_zeros(*query.shape[:2], key.shape[-1], value.shape[-1])
    parts = []
    for begin in range(0, query.shape[2], chunk):
        q, k, v = (x[:, :, begin:begin + chunk] for x in (query, key, value))
        visible = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).tril()
        q_in, k_in, q_among, k_among, k_out, total = q, k, q, k, k, None
        if gate is not None:
            sums = gate[:, :, begin:begin + chunk].to(q.dtype).cumsum(-2)
            total = sums[:, :, -1:].exp().transpose(-1, -2)
            q_in = q * sums.exp()
            k_in = k * sums.exp()
            q_among, k_among = q_in, k * (-sums).exp()
            k_out = k * (sums[:, :, -1:] - sums).exp()
        if beta is not None:
            b = beta[:, :, begin:begin + chunk].to(q.dtype).unsqueeze(-1)
            among = b * (k_in @ k_among.transpose(-1, -2)).tril(-1)
            right = b * (v - k_in @ state)
            wide = torch.promote_types(q.dtype, torch.float32)  # there is no solver for bfloat16
            v = torch.linalg.solve_triangular(torch.eye(q.shape[2], dtype=wide) + among.to(wide), right.to(wide),
                                              upper=False).to(q.dtype)
        weights = (q_among @ k_among.transpose(-1, -2)).masked_fill(~visible, 0)
        parts.append(q_in @ state + weights @ v)
        state = (state if total is None else state * total) + k_out.transpose(-1, -2) @ v
    output = torch.cat(parts, -2)
    return output[..., :-1] / output[..., -1:] if normalised else output


def compute(case, inputs, chunk):
    """The output of a case."""
    query, key, value, gate, beta = operands(inputs)
    if case["kind"] == "full":
        return full(case, query, key, value)
    return chunkwise(case, query, key, value, gate, beta, chunk)


def timed(case, inputs, chunk):
    """What is timed: forward, or autograd through it (forward runs once, before)."""
    inputs = with_unit_keys(case, inputs)
    if case["direction"] == "forward":
        def run():
            with torch.no_grad():
                return {"output": compute(case, inputs, chunk)}

        return run
    grad_output = inputs.pop("grad_output")
    leaves = [inputs[name].requires_grad_() for name in ("query", "key", "value")]
    output = compute(case, inputs, chunk)

    def run():
        gradients = torch.autograd.grad(output, leaves, grad_output, retain_graph=True)
        return dict(zip(("grad_query", "grad_key", "grad_value"), gradients))

    return run


def prepare(case, inputs):
    return timed(case, {name: tensor.double() for name, tensor in inputs.items()}, 32)
