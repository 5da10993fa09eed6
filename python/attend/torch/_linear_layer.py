"""A layer with PyTorch's parameters of multi-head attention and linear attention inside."""
import numpy
import torch

from .. import _core
from .._results import LinearAttentionResult
from ._errors import raising_as_torch
from ._linear_attention import _check_options, linear_attention
from ._multihead_attention import MultiheadAttention, own_copies


def _check_tensors(**tensors):
    for name, x in tensors.items():
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"[LinearAttention] expected {name} to be a torch.Tensor, found {type(x).__name__}")


def _hidden(mask, name):
    """A mask of bool, or of numbers of which -inf hides: as bool, True = hidden."""
    _check_tensors(**{name: mask})
    if mask.dtype == torch.bool:
        return mask
    if not mask.is_floating_point():
        raise TypeError(f"[LinearAttention] expected {name} of bool or floating type, found {mask.dtype}")
    hidden = mask == float("-inf")
    if not bool((hidden | (mask == 0)).all()):
        raise ValueError(f"[LinearAttention] expected {name} of 0 and -inf, found other numbers: linear attention has no "
                         "scores to add them to")
    return hidden


def _check_causal(attn_mask, length, keys):
    hidden = _hidden(attn_mask, "attn_mask")
    if hidden.shape[-2:] != (length, keys):
        raise ValueError(f"[LinearAttention] expected attn_mask [..., {length}, {keys}], found {list(hidden.shape)}")
    later = torch.ones(length, keys, dtype=torch.bool, device=hidden.device).triu(1)
    if not torch.equal(hidden, later.expand_as(hidden)):
        raise ValueError("[LinearAttention] expected attn_mask to be the causal mask, found another: linear attention can "
                         "hide later keys from all queries (is_causal) and padding behind keys (key_padding_mask or "
                         "key_lengths), but no other pairs of query and key")


def _lengths(key_padding_mask, batch, keys):
    """What key_padding_mask leaves of each sequence."""
    hidden = _hidden(key_padding_mask, "key_padding_mask")
    if hidden.shape != (batch, keys):
        raise ValueError(f"[LinearAttention] expected key_padding_mask [{batch}, {keys}], found {list(hidden.shape)}")
    lengths = keys - hidden.sum(-1)
    if not torch.equal(hidden, torch.arange(keys, device=hidden.device) >= lengths[:, None]):
        raise ValueError("[LinearAttention] expected key_padding_mask to hide keys at the end of sequences, found others "
                         "hidden: linear attention leaves out padding behind tokens alone")
    return lengths


def _padded(nested):
    """A nested tensor as [batch, length, width], and its lengths."""
    if nested.layout != torch.strided:
        raise TypeError(f"[LinearAttention] expected nested tensors of torch.strided, found {nested.layout}")
    return torch.nested.to_padded_tensor(nested, 0.0), [len(x) for x in nested.unbind()]


class LinearAttention(MultiheadAttention):
    """Linear attention between the projections of torch.nn.MultiheadAttention: its parameters, initialization, state
    dicts, arguments and pairs of results, in time O(L), also in place of a torch.nn.TransformerEncoderLayer's self_attn.
    Weights that were trained for a softmax load, but compute something else.

    batch_first is True unless given. feature_map, normalise, causal and scale are those of every call; by default
    Katharopoulos et al., "Transformers are RNNs", 2020: elu(x) + 1, normalised. Of dropout there is none: there are no
    weights to drop. Raises ValueError for values, and combinations without a meaning; TypeError for types.

    >>> import torch, attend.torch
    >>> layer = attend.torch.LinearAttention(8, 2, causal=True)
    >>> x = torch.ones(1, 3, 8)
    >>> output, no_weights = layer(x)
    >>> output.shape
    torch.Size([1, 3, 8])
    >>> state = layer.make_state(batch=1)
    >>> rows = [layer.step(x[:, t:t + 1], state) for t in range(3)]
    >>> torch.allclose(torch.cat(rows, 1), output, atol=1e-6)
    True
    >>> encoder_layer = torch.nn.TransformerEncoderLayer(8, 2, batch_first=True)
    >>> encoder_layer.self_attn = layer
    >>> encoder_layer(x).shape
    torch.Size([1, 3, 8])
    """

    @raising_as_torch
    def __init__(self, embed_dim, num_heads, *, dropout=0.0, bias=True, kdim=None, vdim=None, batch_first=True,
                 feature_map="elu_plus_one", normalise=True, causal=False, scale=1.0, device=None, dtype=None):
        if dropout != 0.0:
            raise ValueError("[LinearAttention] expected dropout of 0, since linear attention has no weights to drop, "
                             f"found {dropout}")
        super().__init__(embed_dim, num_heads, bias=bias, kdim=kdim, vdim=vdim, batch_first=batch_first, device=device,
                         dtype=dtype)
        # PyTorch's Transformer asks this before it takes the weights past the layer, for a softmax.
        self._qkv_same_embed_dim = False
        self.feature_map, self.normalise, self.causal, self.scale = feature_map, normalise, causal, scale
        _check_options(feature_map, scale, normalise=normalise, causal=causal)
        one = numpy.ones((1, 1, 1, 1), numpy.float32)
        _core.linear_attention(one, one, one, causal=causal, **self._options())  # says what does not go together

    def _reset_parameters(self):
        for weight in (self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
            if weight is not None:
                torch.nn.init.xavier_uniform_(weight)
        if self.in_proj_bias is not None:
            torch.nn.init.zeros_(self.in_proj_bias)
            torch.nn.init.zeros_(self.out_proj.bias)

    def extra_repr(self):
        return (f"{self.embed_dim}, {self.num_heads}, batch_first={self.batch_first}, feature_map={self.feature_map!r}, "
                f"normalise={self.normalise}, causal={self.causal}, scale={self.scale}")

    def _options(self):
        return {"feature_map": self.feature_map, "normalise": self.normalise, "scale": self.scale}

    @raising_as_torch
    def forward(self, query, key=None, value=None, key_padding_mask=None, need_weights=False, attn_mask=None,
                average_attn_weights=True, is_causal=False, *, key_lengths=None, decay=None, beta=None,
                initial_state=None, initial_normaliser=None, return_state=False):
        """query [batch, L, embed_dim] (or [L, batch, embed_dim] without batch_first, or [L, embed_dim]); key [batch, S,
        kdim] and value [batch, S, vdim] likewise; the query's in their place where they are not given. Returns the
        output, of the query's shape, and None, since there are no weights; or with return_state a LinearAttentionResult
        whose output is projected.

        key_padding_mask: [batch, S], bool (True = padding) or 0 and -inf; padding is behind tokens. attn_mask: the causal
        mask [..., L, L], bool (True = hidden) or 0 and -inf, which is causal for this call; is_causal: that it is, and
        not looked at. Other keywords as of attend.torch.linear_attention.

        Raises ValueError for shapes and other masks, TypeError for types; both are RuntimeErrors too.

        >>> import torch, attend.torch
        >>> layer, x = attend.torch.LinearAttention(8, 2), torch.ones(2, 3, 8)
        >>> layer(x, key_lengths=[3, 1])[0].shape
        torch.Size([2, 3, 8])
        """
        if need_weights:
            raise ValueError("[LinearAttention] expected need_weights=False, since linear attention has no weights, found "
                             "True")
        key = query if key is None else key
        value = key if value is None else value
        _check_tensors(query=query, key=key, value=value)
        if key_padding_mask is not None and key_lengths is not None:
            raise ValueError("[LinearAttention] expected key_padding_mask or key_lengths, found both")
        nested, rank = query.is_nested, query.dim()
        if nested:
            if not (key.is_nested and value.is_nested) or key_padding_mask is not None or key_lengths is not None:
                raise ValueError("[LinearAttention] expected key and value to be nested as the query is, and no other "
                                 "lengths, found some")
            given, (query, rows) = query, _padded(query)
            key, key_lengths = (query, rows) if key is given else _padded(key)
            value = query if value is given else _padded(value)[0]
        if rank not in (2, 3) or key.dim() != rank or value.dim() != rank:
            raise ValueError("[LinearAttention] expected query, key and value of 3 dimensions (or 2 without a batch), "
                             f"found {rank}, {key.dim()} and {value.dim()}")
        swapped = rank == 3 and not nested and not self.batch_first
        if rank == 3 and not nested and self.batch_first and torch.is_grad_enabled():
            query, key, value = own_copies(query, key, value)
        query, key, value = self._batches(query, key, value, swapped)
        causal = self.causal or bool(is_causal)
        if attn_mask is not None and not is_causal:
            _check_causal(attn_mask, query.shape[1], key.shape[1])
            causal = True
        if key_padding_mask is not None:
            if rank == 2 and isinstance(key_padding_mask, torch.Tensor):
                key_padding_mask = key_padding_mask[None]
            key_lengths = _lengths(key_padding_mask, *key.shape[:2])
        found = linear_attention(*self._heads(query, key, value), causal=causal, key_lengths=key_lengths, decay=decay,
                                 beta=beta, initial_state=initial_state, initial_normaliser=initial_normaliser,
                                 return_state=return_state, **self._options())
        output = self._projected(found.output if return_state else found)
        if nested:
            output = torch.nested.as_nested_tensor([x[:n] for x, n in zip(output, rows)])
        else:
            output = output[0] if rank == 2 else output.transpose(0, 1) if swapped else output
        return LinearAttentionResult(output, *found[1:]) if return_state else (output, None)

    def make_state(self, batch):
        """An attend.LinearAttentionState for step."""
        dtype = str(self.out_proj.weight.dtype).removeprefix("torch.")
        return _core.LinearAttentionState(batch, self.num_heads, self.head_dim, self.head_dim, dtype)

    @raising_as_torch
    @torch.no_grad()
    def step(self, x, state, *, decay=None, beta=None):
        """Self attention of the next tokens x [batch, n, embed_dim] (or [n, batch, embed_dim] without batch_first), which
        the state takes in: the rows that a causal layer's forward gives them. No gradients.

        Raises ValueError for shapes and of layers that are not causal, TypeError for types.

        >>> import torch, attend.torch
        >>> layer = attend.torch.LinearAttention(8, 2, causal=True)
        >>> layer.step(torch.ones(1, 1, 8), layer.make_state(1)).shape
        torch.Size([1, 1, 8])
        """
        if not self.causal:
            raise ValueError("[LinearAttention] expected step of a layer with causal=True, whose forward it continues, "
                             "found causal=False")
        _check_tensors(x=x)
        if not isinstance(state, _core.LinearAttentionState):
            raise TypeError("[LinearAttention] expected state to be an attend.LinearAttentionState, found "
                            f"{type(state).__name__}")
        if x.dim() != 3:
            raise ValueError(f"[LinearAttention] expected x [batch, length, width], found {x.dim()} dimensions")
        x, *_ = self._batches(x, x, x, not self.batch_first)
        output = self._projected(state.step(*self._heads(x, x, x), decay=decay, beta=beta, **self._options()))
        return output if self.batch_first else output.transpose(0, 1)

    @staticmethod
    def _batches(query, key, value, swapped):
        """The three as [batch, length, width], one tensor still where they are one."""
        def of(x):
            return x[None] if x.dim() == 2 else x.transpose(0, 1) if swapped else x
        rows = of(query)
        keys = rows if key is query else of(key)
        return rows, keys, keys if value is key else of(value)

    def _projected(self, heads):
        return torch.nn.functional.linear(heads.transpose(1, 2).flatten(2), self.out_proj.weight, self.out_proj.bias)
