"""Attention as an operator of known shapes and gradients: what torch.compile, export, trace, fake tensors and function
transforms see. Ordinary calls pass it by, since its dispatch takes longer than a small attention."""
from typing import Optional

import torch

from .. import _core
from ._modes import for_any_call, refuse_gradients_of_gradients, refuse_tangents
from ._transforms import as_autograd_functions, register_vmap


@torch.library.custom_op("attend::attention", mutates_args=())
def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Optional[torch.Tensor],
              bias: Optional[torch.Tensor], seed: Optional[torch.Tensor], causal: Optional[str], scale: Optional[float],
              dropout: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and log-sum-exp."""
    output, _, log_sum_exp = _core.attention(query, key, value, return_log_sum_exp=True, out=_output_like(query, value),
                                             **_options(mask, bias, seed, causal, scale, dropout))
    return output, log_sum_exp


@torch.library.custom_op("attend::attention_backward", mutates_args=())
def attention_backward(grad_output: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
                       output: torch.Tensor, log_sum_exp: torch.Tensor, mask: Optional[torch.Tensor],
                       bias: Optional[torch.Tensor], seed: Optional[torch.Tensor], causal: Optional[str],
                       scale: Optional[float],
                       dropout: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of query, key, value and bias; an empty one where there is no bias."""
    grad_query, grad_key, grad_value, grad_bias = _core.attention_backward(
        grad_output, query, key, value, output, log_sum_exp, **_options(mask, bias, seed, causal, scale, dropout))
    return grad_query, grad_key, grad_value, query.new_empty(0) if grad_bias is None else grad_bias


def _options(mask, bias, seed, causal, scale, dropout):
    options = {"mask": mask, "bias": bias, "causal": causal, "scale": scale, "dropout": dropout}
    return options if seed is None else {**options, "seed": int(seed)}


def _output_like(query, value):
    """An output in memory as the extension's own: in the query's order, if it can be."""
    if query.shape[3] == value.shape[3] and query.stride(3) == 1:
        output = torch.empty_like(query)
        if output.stride(3) == 1:
            return output
    return query.new_empty(*query.shape[:3], value.shape[3])


@attention.register_fake
def _(query, key, value, mask, bias, seed, causal, scale, dropout):
    _check_shapes(query, key, value, bias if mask is None else mask)
    precise = torch.float64 if query.dtype == torch.float64 else torch.float32
    return _output_like(query, value), query.new_empty(query.shape[:3], dtype=precise)


def _check_shapes(query, key, value, attn_mask, operation="attention"):
    """What the extension would refuse of tensors with memory."""
    for name, x in {"query": query, "key": key, "value": value}.items():
        torch._check_value(x.dim() == 4, lambda: (
            f"[{operation}] expected {name} [batch, heads, length, size], found {x.dim()} dimensions"))
    shapes = f"query {list(query.shape)}, key {list(key.shape)} and value {list(value.shape)}"
    for right, what in [(query.shape[0] == key.shape[0] == value.shape[0], "query, key and value of one batch"),
                        (key.shape[3] == query.shape[3], "query and key of one size"),
                        (key.shape[2] == value.shape[2], "as many keys as values"),
                        (key.shape[1] == value.shape[1], "as many heads of keys as of values"),
                        (key.shape[1] == query.shape[1] or query.shape[1] % max(key.shape[1], 1) == 0,
                         "a multiple of the keys' heads"),
                        (query.dtype == key.dtype == value.dtype, "one type")]:
        torch._check_value(right, lambda: f"[{operation}] expected {what}, found {shapes}")
    if attn_mask is not None:
        scores = (*query.shape[:3], key.shape[2])
        for found, wanted in zip(reversed(attn_mask.shape), reversed(scores)):
            torch._check_value(found == 1 or found == wanted, lambda: (
                f"[{operation}] expected a mask that broadcasts to {list(scores)}, found {list(attn_mask.shape)}"))


@attention_backward.register_fake
def _(grad_output, query, key, value, output, log_sum_exp, mask, bias, *_):
    return tuple(query.new_empty(0) if x is None else x.new_empty(x.shape) for x in (query, key, value, bias))


def _save_for_backward(ctx, inputs, output):
    query, key, value, mask, bias, seed, *ctx.rest = inputs
    ctx.save_for_backward(query, key, value, *output, mask, bias, seed)
    ctx.mark_non_differentiable(output[1])


def _backward_by(operator):

    def backward(ctx, grad_output, _):
        query, key, value, bias = operator(grad_output, *ctx.saved_tensors, *ctx.rest)
        return query, key, value, None, bias if ctx.needs_input_grad[4] else None, None, None, None, None

    return backward


Gradients, TransformedAttention = as_autograd_functions(
    attention, attention_backward, (0,), _save_for_backward, _backward_by, refuse_gradients_of_gradients, refuse_tangents)
attention.register_autograd(_backward_by(for_any_call(attention_backward, Gradients.apply)), setup_context=_save_for_backward)
register_vmap(attention, attention_backward)
