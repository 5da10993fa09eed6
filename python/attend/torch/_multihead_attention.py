"""PyTorch's layer with this library's attention inside."""
import torch

from .. import _core
from . import _composite
from ._autograd import attention
from ._errors import raising_as_torch
from ._modes import are_plain, transformed, wants_gradients


def _split_mask(mask, name):
    """torch.nn.MultiheadAttention's masks: True = ignored, or numbers to be added; as (True = attend, numbers)."""
    if mask is None:
        return None, None
    if mask.dtype == torch.bool:
        return ~mask, None
    if not mask.is_floating_point():
        raise TypeError(f"[MultiheadAttention] expected {name} of bool or floating type, found {mask.dtype}")
    return None, mask


def _is_causal(mask, q, k):
    """Whether it masks what is behind each query's position, and nothing else."""
    if mask.shape != (q.shape[2], k.shape[2]) or not (mask.dtype == torch.bool or mask.is_floating_point()):
        return False
    masked = True if mask.dtype == torch.bool else float("-inf")
    return torch.equal(mask, torch.full_like(mask, masked).triu(1))


def _both(a, b, combine):
    return b if a is None else a if b is None else combine(a, b)


class MultiheadAttention(torch.nn.MultiheadAttention):
    """torch.nn.MultiheadAttention with this library's attention between its projections: the same constructor,
    parameters, state dicts, arguments, results and gradients.

    Queries whose keys are all masked give zeros in place of NaN. PyTorch's own code runs for what is not on the CPU, for
    nested tensors, add_bias_kv, add_zero_attn, under torch.compile and function transforms, where dropout is to be seen in
    the returned weights, and where PyTorch's flash attention is switched off. torch.jit.script and torch.fx.symbolic_trace
    do not take the layer.

    >>> import torch, attend.torch
    >>> layer = attend.torch.MultiheadAttention(8, 2, batch_first=True)
    >>> x = torch.ones(1, 3, 8)
    >>> output, weights = layer(x, x, x)
    >>> output.shape, weights.shape
    (torch.Size([1, 3, 8]), torch.Size([1, 3, 3]))
    """

    @raising_as_torch
    def forward(self, query, key, value, key_padding_mask=None, need_weights=True, attn_mask=None,
                average_attn_weights=True, is_causal=False):
        """query [L, batch, embed_dim] (or [batch, L, embed_dim] with batch_first, or [L, embed_dim]); key and value
        likewise with their lengths and dimensions. key_padding_mask: [batch, S]; attn_mask: [L, S] or [batch * heads,
        L, S]; bool, True = ignored, or numbers added to the scores. is_causal: attn_mask is top-left causal. Returns
        the output and, with need_weights, weights [batch, L, S], or [batch, heads, L, S] unless averaged.

        Raises ValueError for shapes, TypeError for types; both are RuntimeErrors too.

        >>> import torch, attend.torch
        >>> layer, x = attend.torch.MultiheadAttention(8, 2), torch.ones(3, 1, 8)
        >>> layer(x, x, x, need_weights=False)[1] is None
        True
        """
        dropout = self.dropout if self.training else 0.0
        if (query.is_nested or query.device.type != "cpu" or self.bias_k is not None or self.add_zero_attn or
                (need_weights and dropout > 0.0) or not are_plain(query, key, value, key_padding_mask, attn_mask) or
                transformed() or not torch._C._get_flash_sdp_enabled()):
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
        # PyTorch, too, takes the hint's word for it only where it needs the mask for nothing else.
        hint = is_causal and key_padding_mask is None and not need_weights
        options, bias = self._masks(attn_mask, key_padding_mask, hint or (is_causal and _is_causal(attn_mask, q, k)), q, k)
        if dropout > 0.0:
            options["dropout"] = dropout
            options["seed"] = int(torch.randint(0, 2**62, (), device="cpu"))
        out = torch.empty(q.shape[0], q.shape[2], *q.shape[1::2], dtype=q.dtype, device="cpu").transpose(1, 2)
        weights = None
        if need_weights and not wants_gradients(q, k, v, bias):
            given = options if bias is None else {**options, "bias": bias}
            heads, weights, _ = _core.attention(q, k, v, return_weights=True, out=out, **given)
        else:
            heads = attention(q, k, v, bias, dict(options), out)
            weights = _composite.weights(q, k, bias, options) if need_weights else None
        output = torch.nn.functional.linear(heads.transpose(1, 2).flatten(2), self.out_proj.weight, self.out_proj.bias)
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if single:
            return output[0], None if weights is None else weights[0]
        return output if self.batch_first else output.transpose(0, 1), weights

    def _heads(self, query, key, value):
        """The projections, [batch, heads, length, head_dim]."""
        together = self.in_proj_weight is not None
        if together:
            weights = self.in_proj_weight.chunk(3)
        else:
            weights = self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        if together and query is key and key is value:
            rows = torch.nn.functional.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        else:
            rows = map(torch.nn.functional.linear, (query, key, value), weights, biases)
        return (x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2) for x in rows)

    def _masks(self, attn_mask, key_padding_mask, is_causal, q, k):
        """attend's options for PyTorch's masks, and numbers to be added to the scores."""
        options = {}
        pairs = (q.shape[2], k.shape[2])
        if is_causal:
            options["causal"], attn_mask = "top-left", None
        if attn_mask is not None and attn_mask.shape not in (pairs, (q.shape[0] * q.shape[1], *pairs)):
            raise ValueError(f"[MultiheadAttention] expected attn_mask {list(pairs)} or "
                             f"{[q.shape[0] * q.shape[1], *pairs]}, found {list(attn_mask.shape)}")
        if attn_mask is not None and attn_mask.dim() == 3:
            attn_mask = attn_mask.unflatten(0, q.shape[:2])
        if key_padding_mask is not None:
            if key_padding_mask.shape != (k.shape[0], k.shape[2]):
                raise ValueError(f"[MultiheadAttention] expected key_padding_mask [{k.shape[0]}, {k.shape[2]}], found "
                                 f"{list(key_padding_mask.shape)}")
            key_padding_mask = key_padding_mask[:, None, None]
        seen, bias = _split_mask(attn_mask, "attn_mask")
        seen_keys, key_bias = _split_mask(key_padding_mask, "key_padding_mask")
        seen, bias = _both(seen, seen_keys, torch.logical_and), _both(bias, key_bias, torch.add)
        if seen is not None:
            options["mask"] = seen
        return options, None if bias is None else bias.to(q.dtype)
