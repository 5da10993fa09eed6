"""A layer with PyTorch's parameters of multi-head attention and linear attention inside."""
import torch

from .. import _core
from .._results import LinearAttentionResult
from ._errors import raising_as_torch
from ._linear_attention import linear_attention
from ._multihead_attention import MultiheadAttention


class LinearAttention(MultiheadAttention):
    """Linear attention between the projections of torch.nn.MultiheadAttention: its parameters, initialization and state
    dicts, batch first, and time O(L). Weights that were trained for a softmax load, but compute something else.

    feature_map, normalise, causal and scale are those of every call; by default Katharopoulos et al., "Transformers are
    RNNs", 2020: elu(x) + 1, normalised.

    >>> import torch, attend.torch
    >>> layer = attend.torch.LinearAttention(8, 2, causal=True)
    >>> x = torch.ones(1, 3, 8)
    >>> layer(x).shape
    torch.Size([1, 3, 8])
    >>> state = layer.make_state(batch=1)
    >>> rows = [layer.step(x[:, t:t + 1], state) for t in range(3)]
    >>> torch.allclose(torch.cat(rows, 1), layer(x), atol=1e-6)
    True
    """

    def __init__(self, embed_dim, num_heads, *, bias=True, kdim=None, vdim=None, feature_map="elu_plus_one",
                 normalise=True, causal=False, scale=1.0, device=None, dtype=None):
        super().__init__(embed_dim, num_heads, bias=bias, kdim=kdim, vdim=vdim, batch_first=True, device=device,
                         dtype=dtype)
        self.feature_map, self.normalise, self.causal, self.scale = feature_map, normalise, causal, scale

    def _options(self):
        return {"feature_map": self.feature_map, "normalise": self.normalise, "scale": self.scale}

    @raising_as_torch
    def forward(self, query, key=None, value=None, *, key_lengths=None, decay=None, beta=None, initial_state=None,
                initial_normaliser=None, return_state=False):
        """query [batch, L, embed_dim], key [batch, S, kdim], value [batch, S, vdim]; the query's in their place where
        they are not given. Keywords as of attend.torch.linear_attention. Returns [batch, L, embed_dim], or with
        return_state a LinearAttentionResult whose output is projected.

        Raises ValueError for shapes, TypeError for types; both are RuntimeErrors too.

        >>> import torch, attend.torch
        >>> layer, x = attend.torch.LinearAttention(8, 2), torch.ones(2, 3, 8)
        >>> layer(x, key_lengths=[3, 1]).shape
        torch.Size([2, 3, 8])
        """
        key = query if key is None else key
        value = key if value is None else value
        if query.dim() != 3 or key.dim() != 3 or value.dim() != 3:
            raise ValueError("[LinearAttention] expected query, key and value [batch, length, width], found "
                             f"{query.dim()}, {key.dim()} and {value.dim()} dimensions")
        found = linear_attention(*self._heads(query, key, value), causal=self.causal, key_lengths=key_lengths,
                                 decay=decay, beta=beta, initial_state=initial_state,
                                 initial_normaliser=initial_normaliser, return_state=return_state, **self._options())
        if not return_state:
            return self._projected(found)
        return LinearAttentionResult(self._projected(found.output), *found[1:])

    def make_state(self, batch):
        """An attend.LinearAttentionState for step."""
        dtype = str(self.out_proj.weight.dtype).removeprefix("torch.")
        return _core.LinearAttentionState(batch, self.num_heads, self.head_dim, self.head_dim, dtype)

    @raising_as_torch
    @torch.no_grad()
    def step(self, x, state, *, decay=None, beta=None):
        """Causal self attention of the next tokens x [batch, n, embed_dim], which the state takes in. No gradients.

        >>> import torch, attend.torch
        >>> layer = attend.torch.LinearAttention(8, 2)
        >>> layer.step(torch.ones(1, 1, 8), layer.make_state(1)).shape
        torch.Size([1, 1, 8])
        """
        if x.dim() != 3:
            raise ValueError(f"[LinearAttention] expected x [batch, length, width], found {x.dim()} dimensions")
        return self._projected(state.step(*self._heads(x, x, x), decay=decay, beta=beta, **self._options()))

    def _projected(self, heads):
        return torch.nn.functional.linear(heads.transpose(1, 2).flatten(2), self.out_proj.weight, self.out_proj.bias)
