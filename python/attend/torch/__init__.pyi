from contextlib import AbstractContextManager
from typing import Literal, SupportsFloat, overload

import torch
from torch import Tensor
from torch.nn.attention.bias import CausalBias

from .._core import LinearAttentionState, _Algorithm, _FeatureMap, _Integers
from .._results import LinearAttentionResult

__all__ = ["LinearAttention", "MultiheadAttention", "linear_attention", "replaced", "scaled_dot_product_attention"]

def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | CausalBias | None = None,
                                 dropout_p: float = 0.0, is_causal: bool = False, *,
                                 scale: float | Tensor | None = None, enable_gqa: bool = False) -> Tensor: ...
@overload
def linear_attention(query: Tensor, key: Tensor, value: Tensor, *, feature_map: _FeatureMap = "elu_plus_one",
                     normalise: bool = False, causal: bool = False, scale: SupportsFloat = 1.0,
                     decay: Tensor | None = None, beta: Tensor | None = None, key_lengths: _Integers | None = None,
                     query_starts: _Integers | None = None, key_starts: _Integers | None = None,
                     initial_state: Tensor | None = None, initial_normaliser: Tensor | None = None,
                     algorithm: _Algorithm = "auto", return_state: Literal[False] = False) -> Tensor: ...
@overload
def linear_attention(query: Tensor, key: Tensor, value: Tensor, *, feature_map: _FeatureMap = "elu_plus_one",
                     normalise: bool = False, causal: bool = False, scale: SupportsFloat = 1.0,
                     decay: Tensor | None = None, beta: Tensor | None = None, key_lengths: _Integers | None = None,
                     query_starts: _Integers | None = None, key_starts: _Integers | None = None,
                     initial_state: Tensor | None = None, initial_normaliser: Tensor | None = None,
                     algorithm: _Algorithm = "auto", return_state: Literal[True]) -> LinearAttentionResult: ...
@overload
def linear_attention(query: Tensor, key: Tensor, value: Tensor, *, feature_map: _FeatureMap = "elu_plus_one",
                     normalise: bool = False, causal: bool = False, scale: SupportsFloat = 1.0,
                     decay: Tensor | None = None, beta: Tensor | None = None, key_lengths: _Integers | None = None,
                     query_starts: _Integers | None = None, key_starts: _Integers | None = None,
                     initial_state: Tensor | None = None, initial_normaliser: Tensor | None = None,
                     algorithm: _Algorithm = "auto", return_state: bool = False) -> Tensor | LinearAttentionResult: ...

class MultiheadAttention(torch.nn.MultiheadAttention):
    def forward(self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
                need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
                is_causal: bool = False) -> tuple[Tensor, Tensor | None]: ...

class LinearAttention(MultiheadAttention):
    feature_map: _FeatureMap
    normalise: bool
    causal: bool
    scale: float
    def __init__(self, embed_dim: int, num_heads: int, *, dropout: float = 0.0, bias: bool = True,
                 kdim: int | None = None, vdim: int | None = None, batch_first: bool = True,
                 feature_map: _FeatureMap = "elu_plus_one", normalise: bool = True, causal: bool = False,
                 scale: float = 1.0, device: torch.device | str | int | None = None,
                 dtype: torch.dtype | None = None) -> None: ...
    def extra_repr(self) -> str: ...
    def forward(self, query: Tensor, key: Tensor | None = None, value: Tensor | None = None,  # type: ignore[override]
                key_padding_mask: Tensor | None = None, need_weights: Literal[False] = False,
                attn_mask: Tensor | None = None, average_attn_weights: bool = True, is_causal: bool = False, *,
                key_lengths: _Integers | None = None, decay: Tensor | None = None, beta: Tensor | None = None,
                initial_state: Tensor | None = None, initial_normaliser: Tensor | None = None,
                return_state: bool = False) -> tuple[Tensor, None] | LinearAttentionResult: ...
    def make_state(self, batch: int) -> LinearAttentionState: ...
    def step(self, x: Tensor, state: LinearAttentionState, *, decay: Tensor | None = None,
             beta: Tensor | None = None) -> Tensor: ...

def replaced() -> AbstractContextManager[None]: ...
