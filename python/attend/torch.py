"""PyTorch's attention on this library: the same signature, semantics and gradients, on CPU tensors."""
import contextlib

import torch as _torch

from . import _core

__all__ = ["scaled_dot_product_attention", "replaced"]


class _Attention(_torch.autograd.Function):
    """Output and log-sum-exp; gradients of query, key, value and bias."""

    @staticmethod
    def forward(ctx, query, key, value, bias, options, out):
        given = options if bias is None else {**options, "bias": bias}
        output, _, log_sum_exp = _core.attention(query, key, value, return_log_sum_exp=True, out=out, **given)
        ctx.options = options
        ctx.save_for_backward(query, key, value, bias, output, log_sum_exp)
        ctx.mark_non_differentiable(log_sum_exp)
        return output, log_sum_exp

    @staticmethod
    @_torch.autograd.function.once_differentiable
    def backward(ctx, grad_output, _):
        query, key, value, bias, output, log_sum_exp = ctx.saved_tensors
        given = ctx.options if bias is None else {**ctx.options, "bias": bias}
        gradients = _core.attention_backward(grad_output, query, key, value, output, log_sum_exp, **given)
        return gradients.query, gradients.key, gradients.value, gradients.bias, None, None


def _wants_gradients(query, key, value, bias):
    return _torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad or
                                         (bias is not None and bias.requires_grad))


def _attention(query, key, value, bias, options, out=None):
    """attend.attention with keywords `options`, and gradients where they are asked for."""
    if _wants_gradients(query, key, value, bias):
        return _Attention.apply(query, key, value, bias, options, out)[0]
    if bias is not None:
        options["bias"] = bias
    return _core.attention(query, key, value, out=out, **options)


def _attention_with_log_sum_exp(query, key, value, options, out=None):
    if _wants_gradients(query, key, value, None):
        return _Attention.apply(query, key, value, None, options, out)
    output, _, log_sum_exp = _core.attention(query, key, value, return_log_sum_exp=True, out=out, **options)
    return output, log_sum_exp


def _four_dimensions(x, name):
    """[..., L, d] as [batch, heads, L, d]: leading dimensions become one batch."""
    if x.dim() < 2:
        raise ValueError(f"[scaled_dot_product_attention] expected {name} of at least two dimensions, found {x.dim()}")
    if x.dim() == 4:
        return x
    return x[(None,) * (4 - x.dim())] if x.dim() < 4 else x.flatten(0, -4)


def scaled_dot_product_attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None,
                                 enable_gqa=False):
    """torch.nn.functional.scaled_dot_product_attention: softmax(query key^T scale + attn_mask) value.

    query [..., heads, L, d], key [..., kv_heads, S, d], value [..., kv_heads, S, dv]: float32, float64, bfloat16 or
    float16, on the CPU. attn_mask: bool (True = attend) or numbers added to the scores, broadcast to [..., heads, L, S].
    is_causal: top-left. Dropout is drawn from PyTorch's generator (a seed of it, so not with PyTorch's own pattern).
    Raises ValueError or TypeError.

    >>> import torch, attend.torch
    >>> x = torch.ones(1, 2, 3, 4, requires_grad=True)
    >>> attend.torch.scaled_dot_product_attention(x, x, x, is_causal=True).sum().backward()
    >>> x.grad.shape
    torch.Size([1, 2, 3, 4])
    """
    if attn_mask is not None and is_causal:
        raise ValueError("[scaled_dot_product_attention] expected attn_mask or is_causal, found both")
    rank = query.dim()
    leading = None
    if rank != 4 or key.dim() != 4 or value.dim() != 4:
        leading = _torch.broadcast_shapes(query.shape[:-3], key.shape[:-3], value.shape[:-3])
        rank = max(query.dim(), key.dim(), value.dim())
        if rank > 4:
            query, key, value = (x.expand(*leading, *x.shape[-3:]) for x in (query, key, value))
        query, key, value = (_four_dimensions(x, name) for x, name in
                             ((query, "query"), (key, "key"), (value, "value")))
    if query.shape[0] != key.shape[0] or query.shape[0] != value.shape[0]:
        batch = max(query.shape[0], key.shape[0], value.shape[0])
        query, key, value = (x.expand(batch, *x.shape[1:]) for x in (query, key, value))
    heads = query.shape[1]
    if not enable_gqa and (key.shape[1] != heads or value.shape[1] != heads):
        heads = max(heads, key.shape[1], value.shape[1])
        if any(x.shape[1] not in (1, heads) for x in (query, key, value)):
            raise ValueError("[scaled_dot_product_attention] expected as many heads in query, key and value (or "
                             f"enable_gqa=True), found {query.shape[1]}, {key.shape[1]} and {value.shape[1]}")
        query, key, value = (x.expand(x.shape[0], heads, *x.shape[2:]) for x in (query, key, value))
    options = {"scale": scale}
    if is_causal:
        options["causal"] = "top-left"
    if dropout_p > 0.0:
        options["dropout"] = dropout_p
        options["seed"] = int(_torch.randint(0, 2**62, ()).item())
    bias = None
    if attn_mask is not None:
        if attn_mask.dim() > 4:
            attn_mask = attn_mask.expand(*leading, *attn_mask.shape[-3:]).flatten(0, -4)
        if attn_mask.dtype == _torch.bool:
            options["mask"] = attn_mask
        else:
            bias = attn_mask
    output = _attention(query, key, value, bias, options)
    if rank > 4:
        return output.reshape(*leading, *output.shape[1:])
    for _ in range(4 - rank):
        output = output[0]
    return output


@contextlib.contextmanager
def replaced():
    """Within it torch.nn.functional.scaled_dot_product_attention is this module's, for CPU tensors: a model that calls
    it runs on attend, unchanged.

    >>> import torch, attend.torch
    >>> x = torch.ones(1, 2, 3, 4)
    >>> with attend.torch.replaced():
    ...     y = torch.nn.functional.scaled_dot_product_attention(x, x, x)
    >>> y.shape
    torch.Size([1, 2, 3, 4])
    """
    functional = _torch.nn.functional
    original = functional.scaled_dot_product_attention

    def either(query, *arguments, **keywords):
        ours = query.device.type == "cpu"
        return (scaled_dot_product_attention if ours else original)(query, *arguments, **keywords)

    functional.scaled_dot_product_attention = either
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = original
