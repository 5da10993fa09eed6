"""PyTorch's layer with this library's attention inside."""
import torch

from .. import _core
from . import _composite
from ._autograd import attention
from ._errors import raising_as_torch
from ._modes import are_plain, is_transformed, wants_gradients


def _split_mask(mask):
    """torch.nn.MultiheadAttention's masks: True = ignored, or numbers to be added; as (True = attend, numbers)."""
    if mask is None:
        return None, None
    return (~mask, None) if mask.dtype == torch.bool else (None, mask)


def _is_mask(mask, *shapes):
    """Whether it is one, of one of the shapes; or none."""
    return mask is None or (mask.shape in shapes and (mask.dtype == torch.bool or mask.is_floating_point()))


def _is_causal(mask, q, k):
    """Whether it masks what is behind each query's position, and nothing else."""
    if mask.shape != (q.shape[2], k.shape[2]):
        return False
    masked = True if mask.dtype == torch.bool else float("-inf")
    return torch.equal(mask, torch.full_like(mask, masked).triu(1))


def _both(a, b, combine):
    return b if a is None else a if b is None else combine(a, b)


def own_copies(*tensors):
    """What backward keeps of them. PyTorch's layer, too, has it in memory of its own with batch_first: x += layer(x, x, x)[0]
    may then change x."""
    copies = {id(x): x.clone() for x in tensors}
    return [copies[id(x)] for x in tensors]


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

        Raises what PyTorch's layer raises, mostly AssertionError and RuntimeError.

        >>> import torch, attend.torch
        >>> layer, x = attend.torch.MultiheadAttention(8, 2), torch.ones(3, 1, 8)
        >>> layer(x, x, x, need_weights=False)[1] is None
        True
        """
        dropout = self.dropout if self.training else 0.0
        if (query.is_nested or query.device.type != "cpu" or self.bias_k is not None or self.add_zero_attn or
                (need_weights and dropout > 0.0) or not are_plain(query, key, value, key_padding_mask, attn_mask) or
                is_transformed() or not torch._C._get_flash_sdp_enabled() or (is_causal and attn_mask is None) or
                not self._fits(query, key, value, key_padding_mask, attn_mask)):
            return super().forward(query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights,
                                   is_causal)
        single = query.dim() == 2
        if single:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        elif torch.is_grad_enabled():
            query, key, value = own_copies(query, key, value)
        q, k, v = self._heads(query, key, value)
        # PyTorch, too, takes the hint's word for it only where it needs the mask for nothing else.
        hint = is_causal and key_padding_mask is None and not need_weights
        options, bias = self._masks(attn_mask, key_padding_mask, hint or (is_causal and _is_causal(attn_mask, q, k)), q, k)
        if dropout > 0.0:
            options["dropout"] = dropout
            options["seed"] = int(torch.randint(0, 2**62, (), device="cpu"))
        # In memory as the result is.
        batch, heads, length, dim = q.shape
        order = (0, 2, 1, 3) if self.batch_first or single else (1, 2, 0, 3)
        lengths = (batch, length) if self.batch_first or single else (length, batch)
        out = torch.empty(*lengths, heads, dim, dtype=q.dtype, device="cpu").permute(order)
        weights = None
        if need_weights and not wants_gradients(q, k, v, bias):
            given = options if bias is None else {**options, "bias": bias}
            out, weights, _ = _core.attention(q, k, v, return_weights=True, out=out, **given)
        else:
            out = attention(q, k, v, bias, dict(options), out)
            weights = _composite.weights(q, k, bias, options) if need_weights else None
        rows = out.transpose(1, 2) if self.batch_first or single else out.permute(2, 0, 1, 3)
        output = torch.nn.functional.linear(rows.flatten(2), self.out_proj.weight, self.out_proj.bias)
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if single:
            return output[0], None if weights is None else weights[0]
        return output, weights

    def _fits(self, query, key, value, key_padding_mask, attn_mask):
        """Whether shapes and types are as they should be; PyTorch's layer says what is wrong with others."""
        rank = query.dim()
        if rank not in (2, 3) or key.dim() != rank or value.dim() != rank or key.shape[:-1] != value.shape[:-1]:
            return False
        if (query.shape[-1], key.shape[-1], value.shape[-1]) != (self.embed_dim, self.kdim, self.vdim):
            return False
        lengths = 0 if self.batch_first or rank == 2 else 1  # where the batch is, if there is one
        batch = [] if rank == 2 else [query.shape[lengths]]
        if rank == 3 and key.shape[lengths] != batch[0]:
            return False
        pairs = tuple(x.shape[rank - 2 - lengths] for x in (query, key))
        heads = self.num_heads * (batch[0] if batch else 1)
        if not (_is_mask(attn_mask, pairs, (heads, *pairs)) and _is_mask(key_padding_mask, (*batch, pairs[1]))):
            return False
        parameters = (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight, self.in_proj_bias,
                      self.out_proj.weight, self.out_proj.bias)
        kinds = {x.dtype for x in (query, key, value, *parameters) if x is not None}
        return len(kinds) == 1 or torch.is_autocast_enabled("cpu")

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
        if is_causal:
            options["causal"], attn_mask = "top-left", None
        if attn_mask is not None and attn_mask.dim() == 3:
            attn_mask = attn_mask.unflatten(0, q.shape[:2])
        if key_padding_mask is not None:
            key_padding_mask = key_padding_mask[:, None, None]
        seen, bias = _split_mask(attn_mask)
        seen_keys, key_bias = _split_mask(key_padding_mask)
        seen, bias = _both(seen, seen_keys, torch.logical_and), _both(bias, key_bias, torch.add)
        if seen is not None:
            options["mask"] = seen
        return options, None if bias is None else bias.to(q.dtype)
