"""PyTorch's attention on this library: the same signature, semantics and gradients, on CPU tensors."""
import contextlib
from typing import Optional as _Optional

import torch as _torch
import torch.autograd.forward_ad as _forward_ad

from . import _core

__all__ = ["MultiheadAttention", "replaced", "scaled_dot_product_attention"]


class _Gradients(_torch.autograd.Function):
    """Those of _Attention where they may be differentiated once more: which is refused, or a part would be missing."""

    @staticmethod
    def forward(ctx, grad_output, query, key, value, bias, output, log_sum_exp, options):
        return tuple(_core.attention_backward(grad_output, query, key, value, output, log_sum_exp, **options))

    @staticmethod
    def backward(ctx, *_):
        raise RuntimeError("[attention] expected gradients to be differentiated once, found gradients of gradients, which "
                           "PyTorch has with torch.nn.attention.sdpa_kernel(SDPBackend.MATH)")


class _Attention(_torch.autograd.Function):
    """Output, or a pair of it and the log-sum-exp; gradients of query, key, value and bias."""

    @staticmethod
    def forward(ctx, query, key, value, bias, options, out, return_log_sum_exp):
        given = options if bias is None else {**options, "bias": bias}
        output, _, log_sum_exp = _core.attention(query, key, value, return_log_sum_exp=True, out=out, **given)
        # Saved as tensors, so that PyTorch notices if they are written to before backward.
        ctx.names = [name for name, x in options.items() if isinstance(x, _torch.Tensor)]
        ctx.options = {name: x for name, x in options.items() if name not in ctx.names}
        ctx.save_for_backward(query, key, value, bias, output, log_sum_exp, *(options[name] for name in ctx.names))
        if not return_log_sum_exp:
            return output
        ctx.mark_non_differentiable(log_sum_exp)
        return output, log_sum_exp

    @staticmethod
    def backward(ctx, grad_output, *_):
        query, key, value, bias, output, log_sum_exp, *tensors = ctx.saved_tensors
        given = {**ctx.options, **dict(zip(ctx.names, tensors))}
        if bias is not None:
            given["bias"] = bias
        if _torch.is_grad_enabled():
            gradients = _Gradients.apply(grad_output, query, key, value, bias, output, log_sum_exp, given)
        else:
            gradients = _core.attention_backward(grad_output, query, key, value, output, log_sum_exp, **given)
        return *gradients, None, None, None


# What torch.compile, export, trace, fake tensors and function transforms see: an operator of known shapes and gradients.
# Ordinary calls pass it by, since its dispatch takes longer than a small attention.
@_torch.library.custom_op("attend::attention", mutates_args=())
def _operator(query: _torch.Tensor, key: _torch.Tensor, value: _torch.Tensor, mask: _Optional[_torch.Tensor],
              bias: _Optional[_torch.Tensor], seed: _Optional[_torch.Tensor], causal: bool, scale: _Optional[float],
              dropout: float) -> tuple[_torch.Tensor, _torch.Tensor]:
    output, _, log_sum_exp = _core.attention(query, key, value, return_log_sum_exp=True,
                                             **_operator_options(mask, bias, seed, causal, scale, dropout))
    return output, log_sum_exp


@_torch.library.custom_op("attend::attention_backward", mutates_args=())
def _operator_backward(grad_output: _torch.Tensor, query: _torch.Tensor, key: _torch.Tensor, value: _torch.Tensor,
                       output: _torch.Tensor, log_sum_exp: _torch.Tensor, mask: _Optional[_torch.Tensor],
                       bias: _Optional[_torch.Tensor], seed: _Optional[_torch.Tensor], causal: bool,
                       scale: _Optional[float], dropout: float) -> list[_torch.Tensor]:
    gradients = _core.attention_backward(grad_output, query, key, value, output, log_sum_exp,
                                         **_operator_options(mask, bias, seed, causal, scale, dropout))
    return [x for x in gradients if x is not None]


def _operator_options(mask, bias, seed, causal, scale, dropout):
    options = {"mask": mask, "bias": bias, "causal": "top-left" if causal else None, "scale": scale, "dropout": dropout}
    return options if seed is None else {**options, "seed": int(seed)}


@_operator.register_fake
def _(query, key, value, mask, bias, seed, causal, scale, dropout):
    precise = _torch.float64 if query.dtype == _torch.float64 else _torch.float32
    return query.new_empty(*query.shape[:3], value.shape[3]), query.new_empty(query.shape[:3], dtype=precise)


@_operator_backward.register_fake
def _(grad_output, query, key, value, output, log_sum_exp, mask, bias, *_):
    return [x.new_empty(x.shape) for x in (query, key, value, bias) if x is not None]


def _save_for_operator_backward(ctx, inputs, output):
    query, key, value, mask, bias, seed, *ctx.rest = inputs
    ctx.save_for_backward(query, key, value, *output, mask, bias, seed)
    ctx.mark_non_differentiable(output[1])


def _backward_of_operator(ctx, grad_output, _):
    gradients = _operator_backward(grad_output, *ctx.saved_tensors, *ctx.rest)
    bias = gradients[3] if len(gradients) == 4 else None
    return *gradients[:3], None, bias, None, None, None, None


_operator.register_autograd(_backward_of_operator, setup_context=_save_for_operator_backward)


def _one_by_one(operator):
    """The operator's rule for vmap: a call for each member of the batch."""

    def rule(info, in_dims, *arguments):
        def member(i):
            return [x if d is None else x.select(d, i) for x, d in zip(arguments, in_dims)]
        results = [operator(*member(i)) for i in range(info.batch_size)]
        together = [_torch.stack(x) for x in zip(*results)]
        return (tuple(together), (0,) * len(together)) if operator is _operator else (together, [0] * len(together))

    return rule


_operator.register_vmap(_one_by_one(_operator))
_operator_backward.register_vmap(_one_by_one(_operator_backward))


def _traced():
    """Whether PyTorch records what is done to real tensors."""
    return _torch.jit.is_tracing() or _torch._C._get_dispatch_mode(_torch._C._TorchDispatchModeKey.PROXY) is not None


_PLAIN = frozenset((_torch.Tensor, _torch.nn.Parameter))


def _are_plain(query, key, value, *others):
    """Whether all are PyTorch's own tensors (or None, of the others)."""
    return (type(query) in _PLAIN and type(key) in _PLAIN and type(value) in _PLAIN and
            all(x is None or type(x) in _PLAIN for x in others))


def _transformed():
    """Whether more is asked for than the numbers in tensors."""
    return (_torch.compiler.is_compiling() or _torch._C._is_tracing() or _torch._C._len_torch_dispatch_stack() > 0 or
            _torch._C._are_functorch_transforms_active() or _forward_ad._current_level >= 0)


def _refuse_traces():
    """Of calls that a trace would keep as constants."""
    if _traced():
        raise RuntimeError("[flash_attn] expected a call that is not traced, found one that is")


def _refuse_forward_mode():
    # PyTorch would take the tangents of an operator without gradients for zeros.
    if _forward_ad._current_level >= 0:
        raise NotImplementedError("[attention] expected gradients in reverse mode, found forward mode (jvp)")


def _wants_gradients(query, key, value, bias):
    return _torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad or
                                         (bias is not None and bias.requires_grad))


def _attention(query, key, value, bias, options, out=None):
    """attend.attention with keywords `options`, and gradients where they are asked for."""
    if _wants_gradients(query, key, value, bias):
        return _Attention.apply(query, key, value, bias, options, out, False)
    if bias is not None:
        options["bias"] = bias
    return _core.attention(query, key, value, out=out, **options)


def _attention_with_log_sum_exp(query, key, value, options, out=None):
    _refuse_traces()
    _refuse_forward_mode()
    if _wants_gradients(query, key, value, None):
        return _Attention.apply(query, key, value, None, options, out, True)
    output, _, log_sum_exp = _core.attention(query, key, value, return_log_sum_exp=True, out=out, **options)
    return output, log_sum_exp


def _autocast(*tensors):
    """What PyTorch's autocast gives its attention: float64 and bool stay as they are."""
    dtype = _torch.get_autocast_dtype("cpu")
    return (x.to(dtype) if x is not None and x.is_floating_point() and x.dtype != _torch.float64 else x for x in tensors)


def _four_dimensions(x, name):
    """[..., L, d] as [batch, heads, L, d]: leading dimensions become one batch."""
    if x.dim() < 2:
        raise ValueError(f"[scaled_dot_product_attention] expected {name} of at least two dimensions, found {x.dim()}")
    if x.dim() == 4:
        return x
    return x[(None,) * (4 - x.dim())] if x.dim() < 4 else x.flatten(0, -4)


def _of_one_shape(query, key, value, enable_gqa):
    """Query, key and value of four dimensions, of one batch and (but for enable_gqa) as many heads; and what they were:
    the leading dimensions of more than four, and how many."""
    leading = None
    rank = query.dim()
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
    return query, key, value, leading, rank


def _mask_and_bias(attn_mask):
    """PyTorch's mask as what is attended to, or as numbers to be added."""
    return (attn_mask, None) if attn_mask is not None and attn_mask.dtype == _torch.bool else (None, attn_mask)


def _options(scale, is_causal, mask):
    """attend's keywords."""
    options = {"scale": scale}
    if is_causal:
        options["causal"] = "top-left"
    if mask is not None:
        options["mask"] = mask
    return options


# Calls of plain tensors for their numbers alone; True where gradients are wanted too, None for all others. To ask PyTorch
# takes as long as a small attention, so it is asked in C++.
_plain_attention = _core._plain_attention(
    (_torch._C._is_tracing, _torch._C._len_torch_dispatch_stack, _torch._C._are_functorch_transforms_active,
     _torch._C._is_any_autocast_enabled), _torch.is_grad_enabled)


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
    if dropout_p == 0.0 and _forward_ad._current_level < 0 and not _torch.compiler.is_compiling():
        output = _plain_attention(query, key, value, attn_mask, is_causal, scale, enable_gqa)
        if output is True:
            mask, bias = _mask_and_bias(attn_mask)
            return _Attention.apply(query, key, value, bias, _options(scale, is_causal, mask), None, False)
        if output is not None:
            return output
    plain = _are_plain(query, key, value) and (attn_mask is None or type(attn_mask) in _PLAIN)
    if not plain:
        for name, x in (("query", query), ("key", key), ("value", value), ("attn_mask", attn_mask)):
            if not isinstance(x, _torch.Tensor) and not (x is None and name == "attn_mask"):
                raise TypeError(f"[scaled_dot_product_attention] expected {name} to be a torch.Tensor, found "
                                f"{type(x).__name__}")
    if attn_mask is not None and is_causal:
        raise ValueError("[scaled_dot_product_attention] expected attn_mask or is_causal, found both")
    if query.is_nested or key.is_nested or value.is_nested:
        raise TypeError("[scaled_dot_product_attention] expected tensors that are not nested, found nested ones")
    if _torch.is_autocast_enabled("cpu"):
        query, key, value, attn_mask = _autocast(query, key, value, attn_mask)
    query, key, value, leading, rank = _of_one_shape(query, key, value, enable_gqa)
    if attn_mask is not None and attn_mask.dim() > 4:
        attn_mask = attn_mask.expand(*leading, *attn_mask.shape[-3:]).flatten(0, -4)
    mask, bias = _mask_and_bias(attn_mask)
    seed = _torch.randint(0, 2**62, (), device="cpu") if dropout_p != 0.0 else None
    if not plain or _transformed():
        _refuse_forward_mode()
        output = _operator(query, key, value, mask, bias, seed, is_causal, scale, dropout_p)[0]
    else:
        options = _options(scale, is_causal, mask)
        if seed is not None:
            options["dropout"], options["seed"] = dropout_p, int(seed)
        output = _attention(query, key, value, bias, options)
    if rank == 4:
        return output
    if rank > 4:
        return output.reshape(*leading, *output.shape[1:])
    for _ in range(4 - rank):
        output = output[0]
    return output


def _split_mask(mask, name):
    """torch.nn.MultiheadAttention's masks: True = ignored, or numbers to be added; as (True = attend, numbers)."""
    if mask is None:
        return None, None
    if mask.dtype == _torch.bool:
        return ~mask, None
    if not mask.is_floating_point():
        raise TypeError(f"[MultiheadAttention] expected {name} of bool or floating type, found {mask.dtype}")
    return None, mask


def _both(a, b, combine):
    return b if a is None else a if b is None else combine(a, b)


class MultiheadAttention(_torch.nn.MultiheadAttention):
    """torch.nn.MultiheadAttention with this library's attention between its projections: the same constructor,
    parameters, state dicts, arguments, results and gradients.

    Queries whose keys are all masked give zeros in place of NaN. PyTorch's own code runs for what is not on the CPU, for
    nested tensors, add_bias_kv, add_zero_attn, under torch.compile and function transforms, and where dropout is to be
    seen in the returned weights.

    >>> import torch, attend.torch
    >>> layer = attend.torch.MultiheadAttention(8, 2, batch_first=True)
    >>> x = torch.ones(1, 3, 8)
    >>> output, weights = layer(x, x, x)
    >>> output.shape, weights.shape
    (torch.Size([1, 3, 8]), torch.Size([1, 3, 3]))
    """

    def forward(self, query, key, value, key_padding_mask=None, need_weights=True, attn_mask=None,
                average_attn_weights=True, is_causal=False):
        """query [L, batch, embed_dim] (or [batch, L, embed_dim] with batch_first, or [L, embed_dim]); key and value
        likewise with their lengths and dimensions. key_padding_mask: [batch, S]; attn_mask: [L, S] or [batch * heads,
        L, S]; bool, True = ignored, or numbers added to the scores. is_causal: attn_mask is top-left causal. Returns
        the output and, with need_weights, weights [batch, L, S], or [batch, heads, L, S] unless averaged.

        Raises ValueError for shapes, TypeError for types.

        >>> import torch, attend.torch
        >>> layer, x = attend.torch.MultiheadAttention(8, 2), torch.ones(3, 1, 8)
        >>> layer(x, x, x, need_weights=False)[1] is None
        True
        """
        dropout = self.dropout if self.training else 0.0
        if (query.is_nested or query.device.type != "cpu" or self.bias_k is not None or self.add_zero_attn or
                (need_weights and dropout > 0.0) or not _are_plain(query, key, value, key_padding_mask, attn_mask) or
                _transformed()):
            return super().forward(query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights,
                                   is_causal)
        if is_causal and attn_mask is None:
            raise ValueError("[MultiheadAttention] expected attn_mask with is_causal, found none")
        single = query.dim() == 2
        if query.dim() not in (2, 3) or key.dim() != query.dim() or value.dim() != query.dim():
            raise ValueError("[MultiheadAttention] expected query, key and value of 3 dimensions (or 2 without a batch), "
                             f"found {query.dim()}, {key.dim()} and {value.dim()}")
        if single:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = self._heads(query, key, value)
        options, bias = self._masks(attn_mask, key_padding_mask, is_causal, q, k)
        if dropout > 0.0:
            options["dropout"] = dropout
            options["seed"] = int(_torch.randint(0, 2**62, (), device="cpu"))
        out = _torch.empty(q.shape[0], q.shape[2], *q.shape[1::2], dtype=q.dtype, device="cpu").transpose(1, 2)
        weights = None
        if need_weights and not _wants_gradients(q, k, v, bias):
            given = options if bias is None else {**options, "bias": bias}
            heads, weights, _ = _core.attention(q, k, v, return_weights=True, out=out, **given)
        else:
            heads = _attention(q, k, v, bias, dict(options), out)
            weights = self._weights(q, k, bias, options) if need_weights else None
        output = _torch.nn.functional.linear(heads.transpose(1, 2).flatten(2), self.out_proj.weight, self.out_proj.bias)
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if single:
            return output[0], None if weights is None else weights[0]
        return output if self.batch_first else output.transpose(0, 1), weights

    def _heads(self, query, key, value):
        """The projections, [batch, heads, length, head_dim]."""
        if self._qkv_same_embed_dim:
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        if self._qkv_same_embed_dim and query is key and key is value:
            rows = _torch.nn.functional.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        else:
            rows = map(_torch.nn.functional.linear, (query, key, value), weights, biases)
        return (x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2) for x in rows)

    def _masks(self, attn_mask, key_padding_mask, is_causal, q, k):
        """attend's options for PyTorch's masks, and numbers to be added to the scores."""
        options = {}
        if is_causal:
            options["causal"], attn_mask = "top-left", None
        if attn_mask is not None and attn_mask.dim() == 3:
            if attn_mask.shape[0] != q.shape[0] * q.shape[1]:
                raise ValueError(f"[MultiheadAttention] expected attn_mask [{q.shape[0] * q.shape[1]}, {q.shape[2]}, "
                                 f"{k.shape[2]}], found {list(attn_mask.shape)}")
            attn_mask = attn_mask.unflatten(0, q.shape[:2])
        if key_padding_mask is not None:
            if key_padding_mask.shape != (k.shape[0], k.shape[2]):
                raise ValueError(f"[MultiheadAttention] expected key_padding_mask [{k.shape[0]}, {k.shape[2]}], found "
                                 f"{list(key_padding_mask.shape)}")
            key_padding_mask = key_padding_mask[:, None, None]
        seen, bias = _split_mask(attn_mask, "attn_mask")
        seen_keys, key_bias = _split_mask(key_padding_mask, "key_padding_mask")
        seen, bias = _both(seen, seen_keys, _torch.logical_and), _both(bias, key_bias, _torch.add)
        if seen is not None:
            options["mask"] = seen
        return options, None if bias is None else bias.to(q.dtype)

    @staticmethod
    def _weights(q, k, bias, options):
        """The weights by PyTorch, which has their gradients."""
        scores = q @ k.transpose(-1, -2) * q.shape[-1]**-0.5
        if bias is not None:
            scores = scores + bias
        seen = options.get("mask")
        if "causal" in options:
            seen = _both(seen, _torch.ones(scores.shape[-2:], dtype=_torch.bool).tril(), _torch.logical_and)
        if seen is None:
            return scores.softmax(-1)
        # A row without keys would be NaN.
        return scores.masked_fill(~seen, float("-inf")).softmax(-1).masked_fill(~seen, 0.0)


@contextlib.contextmanager
def replaced():
    """Within it torch.nn.functional.scaled_dot_product_attention is this module's, for CPU tensors that are not nested: a model
    that calls it runs on attend, unchanged.

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
        ours = query.device.type == "cpu" and not query.is_nested
        return (scaled_dot_product_attention if ours else original)(query, *arguments, **keywords)

    functional.scaled_dot_product_attention = either
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = original
