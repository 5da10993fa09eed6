"""Linear attention as an operator of known shapes and gradients, as _operator.py has attention.

All forms of it take the same arguments: seven tensors that have gradients (query to initial_normaliser), three of whole
numbers, options, and whether the state is returned.
"""
import functools
from typing import Optional

import torch

from .. import _core
from ._modes import for_any_call
from ._operator import _check_shapes, _output_like
from ._transforms import as_autograd_functions, register_vmap

_DIFFERENTIABLE = 7
_NAMES = ("decay", "beta", "initial_state", "initial_normaliser", "key_lengths", "query_starts", "key_starts",
          "feature_map", "normalise", "causal", "scale", "algorithm")


def compute(query, key, value, *rest):
    """Output, denominator, state and normaliser; empty where there is none, or nobody needs it."""
    *given, return_state = rest
    options = dict(zip(_NAMES, given))
    if not (return_state or options["normalise"]):
        return _core.linear_attention(query, key, value, **options), *(query.new_empty(0) for _ in range(3))
    return _or_empty(query, _core.linear_attention(query, key, value, return_state=True, **options))


def compute_gradients(grad_output, output, denominator, grad_state, grad_normaliser, query, key, value, *given):
    """Gradients of the seven tensors; empty where there is none."""
    return _or_empty(query, _core.linear_attention_backward(
        grad_output, query, key, value, output=output, denominator=denominator, grad_state=grad_state,
        grad_normaliser=grad_normaliser, **dict(zip(_NAMES, given))))


def _or_empty(query, tensors):
    return tuple(query.new_empty(0) if x is None else x for x in tensors)


@torch.library.custom_op("attend::linear_attention", mutates_args=())
def linear_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, decay: Optional[torch.Tensor],
                     beta: Optional[torch.Tensor], initial_state: Optional[torch.Tensor],
                     initial_normaliser: Optional[torch.Tensor], key_lengths: Optional[torch.Tensor],
                     query_starts: Optional[torch.Tensor], key_starts: Optional[torch.Tensor], feature_map: str,
                     normalise: bool, causal: bool, scale: float, algorithm: str,
                     return_state: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    return compute(query, key, value, decay, beta, initial_state, initial_normaliser, key_lengths, query_starts,
                   key_starts, feature_map, normalise, causal, scale, algorithm, return_state)


@torch.library.custom_op("attend::linear_attention_backward", mutates_args=())
def linear_attention_backward(grad_output: torch.Tensor, output: Optional[torch.Tensor],
                              denominator: Optional[torch.Tensor], grad_state: Optional[torch.Tensor],
                              grad_normaliser: Optional[torch.Tensor], query: torch.Tensor, key: torch.Tensor,
                              value: torch.Tensor, decay: Optional[torch.Tensor], beta: Optional[torch.Tensor],
                              initial_state: Optional[torch.Tensor], initial_normaliser: Optional[torch.Tensor],
                              key_lengths: Optional[torch.Tensor], query_starts: Optional[torch.Tensor],
                              key_starts: Optional[torch.Tensor], feature_map: str, normalise: bool, causal: bool,
                              scale: float, algorithm: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor,
                                                                     torch.Tensor, torch.Tensor, torch.Tensor,
                                                                     torch.Tensor]:
    return compute_gradients(grad_output, output, denominator, grad_state, grad_normaliser, query, key, value, decay,
                             beta, initial_state, initial_normaliser, key_lengths, query_starts, key_starts,
                             feature_map, normalise, causal, scale, algorithm)


def _wide(query):
    return torch.float64 if query.dtype == torch.float64 else torch.float32


@linear_attention.register_fake
def _(query, key, value, decay, beta, initial_state, initial_normaliser, key_lengths, query_starts, key_starts,
      feature_map, normalise, causal, scale, algorithm, return_state):
    _check_shapes(query, key, value, None, "linear_attention")
    if not (return_state or normalise):
        return _output_like(query, value), *(query.new_empty(0) for _ in range(3))
    sequences = query.shape[0] if query_starts is None else query_starts.shape[0] - 1
    of_state = sequences, key.shape[1], key.shape[3]
    make = functools.partial(query.new_empty, dtype=_wide(query))
    denominator, normaliser = (make(x) if normalise else query.new_empty(0) for x in (query.shape[:3], of_state))
    return query.new_empty(*query.shape[:3], value.shape[3]), denominator, make((*of_state, value.shape[3])), normaliser


@linear_attention_backward.register_fake
def _(grad_output, output, denominator, grad_state, grad_normaliser, query, key, value, decay, beta, initial_state,
      initial_normaliser, *_):
    wide = [None if x is None else x.new_empty(x.shape, dtype=_wide(query))
            for x in (decay, beta, initial_state, initial_normaliser)]
    return _or_empty(query, [*(x.new_empty(x.shape) for x in (query, key, value)), *wide])


def save_for_backward(ctx, inputs, output):
    *given, ctx.has_state = inputs
    ctx.set_materialize_grads(False)  # a state that nobody used has none
    ctx.mark_non_differentiable(output[1])
    ctx.normalise = given[_NAMES.index("normalise") + 3]
    whole = [x if isinstance(x, torch.Tensor) else None for x in given[_DIFFERENTIABLE:10]]
    ctx.lists = [None if isinstance(x, torch.Tensor) else x for x in given[_DIFFERENTIABLE:10]]
    ctx.rest = given[10:]
    forward = output[:2] if ctx.normalise else (None, None)
    ctx.save_for_backward(*given[:_DIFFERENTIABLE], *whole, *forward)


def backward_by(operator):
    """The gradient of all forms. @param operator: called as compute_gradients is."""

    def backward(ctx, grad_output, _, grad_state, grad_normaliser):
        *saved, output, denominator = ctx.saved_tensors
        inputs = saved[:_DIFFERENTIABLE]
        query, _, value = inputs[:3]
        whole = [y if x is None else x for x, y in zip(saved[_DIFFERENTIABLE:], ctx.lists)]
        if not ctx.has_state:
            grad_state = grad_normaliser = None
        if grad_output is None:
            grad_output = query.new_zeros(*query.shape[:3], value.shape[3])
        gradients = operator(grad_output, output, denominator, grad_state, grad_normaliser if ctx.normalise else None,
                             *inputs, *whole, *ctx.rest)
        wanted = (None if x is None or not needed else gradient
                  for x, gradient, needed in zip(inputs, gradients, ctx.needs_input_grad))
        return *wanted, *(None,) * 9

    return backward


def _refuse_second(*_):
    raise RuntimeError("[linear_attention] expected gradients to be differentiated once, found gradients of gradients")


def _refuse_tangents(*_):
    raise NotImplementedError("[linear_attention] expected gradients in reverse mode, found forward mode (jvp)")


Gradients, TransformedLinearAttention = as_autograd_functions(
    linear_attention, linear_attention_backward, (0, 3, 4), save_for_backward, backward_by, _refuse_second, _refuse_tangents)
linear_attention.register_autograd(backward_by(for_any_call(linear_attention_backward, Gradients.apply)),
                                   setup_context=save_for_backward)
register_vmap(linear_attention, linear_attention_backward)
