"""What functions return besides arrays."""
from typing import Any, NamedTuple

from numpy import float32
from numpy.typing import NDArray


class AttentionResult(NamedTuple):
    """Of attend.attention; what was not asked for is None."""
    output: Any
    weights: Any
    log_sum_exp: Any


class AttentionGradients(NamedTuple):
    """Of attend.attention_backward."""
    query: Any
    key: Any
    value: Any
    bias: Any


class LinearAttentionResult(NamedTuple):
    """Of attend.linear_attention with return_state; denominator and normaliser are None where not normalised."""
    output: Any
    denominator: Any
    state: Any
    normaliser: Any


class LinearAttentionGradients(NamedTuple):
    """Of attend.linear_attention_backward; what was not given is None."""
    query: Any
    key: Any
    value: Any
    decay: Any
    beta: Any
    initial_state: Any
    initial_normaliser: Any


class MatmulGradients(NamedTuple):
    """Of attend.matmul_backward."""
    x: Any
    weight: Any
    bias: Any


class WordAlignment(NamedTuple):
    """Of Translation.words: bytes of each word, from and to, and (source, target, weight) between them."""
    source: list[tuple[int, int]]
    target: list[tuple[int, int]]
    links: list[tuple[int, int, float]]


class TranslationAttention(NamedTuple):
    """Of Translation.attention, for one sentence: encoder [layers, heads, source, source], cross [layers, heads, target,
    source] and decoder [layers, heads, target, target], whose keys are decoder_tokens."""
    source_tokens: list[str]
    target_tokens: list[str]
    encoder: NDArray[float32]
    cross: NDArray[float32]
    decoder_tokens: list[str]
    decoder: NDArray[float32]
