"""Attention of PyTorch's own operations, with all scores in memory: derivatives of any order and direction, and tensors of
any kind."""
import numpy
import torch

from .. import _core

KNOWN = frozenset(("mask", "causal", "scale", "dropout", "seed"))


def is_known(options):
    """Whether attention() below has these of attend.attention's keywords."""
    mask = options.get("mask")
    return (options.keys() <= KNOWN and options.get("causal") in (None, "top-left") and
            (mask is None or isinstance(mask, torch.Tensor)))


def weights(query, key, bias, options):
    """[batch, heads, Lq, Lk], before dropout; 0 in rows that attend to nothing."""
    scale = options.get("scale")
    group = query.shape[1] // max(key.shape[1], 1)
    if group > 1:
        key = key.repeat_interleave(group, 1)
    scores = query @ key.transpose(-1, -2) * (max(query.shape[-1], 1)**-0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + bias
    seen = options.get("mask")
    if options.get("causal") is not None:
        before = torch.ones(scores.shape[-2:], dtype=torch.bool, device="cpu").tril()
        seen = before if seen is None else seen & before
    if seen is not None:
        scores = scores.masked_fill(~seen, float("-inf"))
    if seen is None and bias is None:
        return scores.softmax(-1)
    # A row without keys would be NaN.
    unseen = (scores == float("-inf")).all(-1, keepdim=True)
    return scores.masked_fill(unseen, 0.0).softmax(-1).masked_fill(unseen, 0.0)


def attention(query, key, value, bias, options):
    """attend.attention's output with keywords `options`; bfloat16 and float16 are rounded at last."""
    dtype = query.dtype
    if dtype in (torch.bfloat16, torch.float16):
        query, key, value, bias = (None if x is None else x.float() for x in (query, key, value, bias))
    rows = weights(query, key, bias, options)
    dropout = options.get("dropout", 0.0)
    if dropout != 0.0:
        rows = rows * _kept(rows.shape, dropout, options["seed"]) / max(1.0 - dropout, torch.finfo(rows.dtype).tiny)
    group = query.shape[1] // max(value.shape[1], 1)
    return (rows @ (value.repeat_interleave(group, 1) if group > 1 else value)).to(dtype)


def _kept(shape, dropout, seed):
    """What dropout keeps of weights of that shape."""
    # Tensors that transforms made would have no numbers.
    zeros = [numpy.zeros((*shape[:2], length, 1), numpy.float32) for length in (shape[2], shape[3], shape[3])]
    kept = _core.attention(*zeros, return_weights=True, dropout=dropout, seed=int(seed)).weights != 0
    return torch.from_numpy(kept)


def gradients(grad_output, query, key, value, bias, options):
    """Those of query, key, value and bias, where grad_output is no plain tensor."""
    with torch.enable_grad():
        given = [None if x is None else x.detach().requires_grad_() for x in (query, key, value, bias)]
        output = attention(*given, options)
    present = [x for x in given if x is not None]
    found = iter(torch.autograd.grad(output, present, grad_output))
    return tuple(None if x is None else next(found) for x in given)


def gradients_of_gradients(twice, grad_output, query, key, value, bias, options):
    """What `twice`, the gradients of gradients()' results, say of grad_output, query, key, value and bias."""
    given = [x for x in (query, key, value, bias) if x is not None]

    def once(grad_output, *given):
        return torch.func.vjp(lambda *x: attention(*x, *(None,) * (4 - len(x)), options), *given)[1](grad_output)

    found, pull = torch.func.vjp(once, grad_output, *given)
    result = pull(tuple(torch.zeros_like(x) if y is None else y for x, y in zip(found, twice)))
    return *result, *(None,) * (5 - len(result))
