"""Attention as tutorials write it with PyTorch and flash-attn: only the imports differ. Cells of a notebook, or a script."""
# %%
import torch

from attend.flash_attn import flash_attn_qkvpacked_func  # from flash_attn import flash_attn_qkvpacked_func
from attend.torch import MultiheadAttention  # from torch.nn import MultiheadAttention
from attend.torch import scaled_dot_product_attention  # from torch.nn.functional import scaled_dot_product_attention

torch.manual_seed(12)

# %% Scaled dot-product attention: every token looks at those before it.
batch, heads, length, dim = 2, 4, 16, 32
query, key, value = (torch.randn(batch, heads, length, dim, requires_grad=True) for _ in range(3))
output = scaled_dot_product_attention(query, key, value, is_causal=True)
print("scaled_dot_product_attention:", tuple(output.shape))

# %% The same by the definition.
scores = query @ key.transpose(-1, -2) / dim**0.5
scores = scores.masked_fill(~torch.ones(length, length, dtype=torch.bool).tril(), float("-inf"))
print("largest difference from the definition: below 1e-5 is", ((scores.softmax(-1) @ value) - output).abs().max().item() < 1e-5)

# %% Flash attention on queries, keys and values in one tensor, with gradients.
qkv = torch.stack((query, key, value), dim=3).permute(0, 2, 3, 1, 4).detach().requires_grad_()
packed = flash_attn_qkvpacked_func(qkv, causal=True)
packed.sum().backward()
print("flash_attn_qkvpacked_func:", tuple(packed.shape), "gradient:", tuple(qkv.grad.shape))

# %% A layer of a Transformer, with the state of PyTorch's own.
theirs = torch.nn.MultiheadAttention(heads * dim, heads, batch_first=True)
layer = MultiheadAttention(heads * dim, heads, batch_first=True)
layer.load_state_dict(theirs.state_dict())
x = torch.randn(batch, length, heads * dim)
output, weights = layer(x, x, x)
print("MultiheadAttention:", tuple(output.shape), "weights:", tuple(weights.shape))
