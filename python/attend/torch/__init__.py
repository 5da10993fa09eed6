"""PyTorch's attention on this library: the same signature, semantics and gradients, on CPU tensors."""
from ._function import scaled_dot_product_attention
from ._linear_attention import linear_attention
from ._linear_layer import LinearAttention
from ._multihead_attention import MultiheadAttention
from ._replaced import replaced

__all__ = ["LinearAttention", "MultiheadAttention", "linear_attention", "replaced", "scaled_dot_product_attention"]

# Pickled models and graphs of torch.fx name them as users do.
for _public in (LinearAttention, MultiheadAttention, linear_attention, replaced, scaled_dot_product_attention):
    _public.__module__ = __name__
