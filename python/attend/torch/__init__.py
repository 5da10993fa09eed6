"""PyTorch's attention on this library: the same signature, semantics and gradients, on CPU tensors."""
from ._function import scaled_dot_product_attention
from ._multihead_attention import MultiheadAttention
from ._replaced import replaced

__all__ = ["MultiheadAttention", "replaced", "scaled_dot_product_attention"]

# Pickled models and graphs of torch.fx name them as users do.
for _public in (MultiheadAttention, replaced, scaled_dot_product_attention):
    _public.__module__ = __name__
