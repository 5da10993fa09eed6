"""The scaling in which flash-attn returns probabilities, which its suite undoes."""
import functools

import torch


def unnormalised(function):
    """`function` with probabilities as exp(score - the row's largest), the scaling of a block that holds all keys."""

    @functools.wraps(function)
    def call(*arguments, **keywords):
        result = function(*arguments, **keywords)
        if not isinstance(result, tuple):
            return result
        output, log_sum_exp, probabilities = result
        probabilities = probabilities.float()
        largest = probabilities.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        return output, log_sum_exp, probabilities / largest

    return call
