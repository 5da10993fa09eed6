"""What functions return besides arrays."""
from typing import Any, NamedTuple


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
