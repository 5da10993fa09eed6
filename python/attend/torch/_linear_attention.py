"""Linear attention with gradients."""
import numpy
import torch
from torch.overrides import handle_torch_function, has_torch_function

from .._results import LinearAttentionResult
from . import _linear_operator
from ._autograd import is_batched, is_differentiated
from ._errors import check_number, raising_as_torch
from ._modes import are_meta, are_plain, autocast, is_transformed, operator_for_this_call

_WHOLE = slice(7, 10)  # of the operator's arguments: key_lengths, query_starts, key_starts


def _gradients(grad_output, *arguments):
    """Those of a call of plain tensors, however they are asked for."""
    of_results = grad_output, *arguments[2:4]
    batched = any(x is not None and is_batched(x) for x in of_results)
    if not batched and not is_differentiated(*of_results):
        return _linear_operator.compute_gradients(grad_output, *arguments)
    numbers = [_as_tensor(x) for x in arguments[4:][_WHOLE]]
    operator = _linear_operator.linear_attention_backward if batched else _linear_operator.Gradients.apply
    return operator(grad_output, *arguments[:11], *numbers, *arguments[14:])


class _LinearAttention(torch.autograd.Function):
    """The operator on plain tensors, past its dispatch."""

    @staticmethod
    def forward(ctx, *inputs):
        output = _linear_operator.compute(*inputs)
        _linear_operator.save_for_backward(ctx, inputs, output)
        return output

    backward = staticmethod(_linear_operator.backward_by(_gradients))


def _as_tensor(numbers):
    if numbers is None or isinstance(numbers, torch.Tensor):
        return numbers
    return torch.as_tensor([numbers] if isinstance(numbers, (int, numpy.integer)) else numbers, device="cpu")


def _as_list(numbers):
    """A tensor's numbers now: what is written to it before backward changes nothing."""
    return numbers.tolist() if isinstance(numbers, torch.Tensor) else numbers


def _check_types(query, key, value, **others):
    for name, x in {"query": query, "key": key, "value": value, **others}.items():
        if not isinstance(x, torch.Tensor) and not (x is None and name in others):
            raise TypeError(f"[linear_attention] expected {name} to be a torch.Tensor, found {type(x).__name__}")


def _check_options(feature_map, scale, **switches):
    if callable(feature_map):
        raise TypeError("[linear_attention] expected feature_map to be a name, found a function: call it on query and "
                        "key, and give its results, which have its gradients, with feature_map='identity'")
    if not isinstance(feature_map, str):
        raise TypeError(f"[linear_attention] expected feature_map to be a str, found {type(feature_map).__name__}")
    check_number("linear_attention", "scale", scale)
    for name, x in switches.items():
        if not isinstance(x, bool):
            raise TypeError(f"[linear_attention] expected {name} to be True or False, found {type(x).__name__}")


@raising_as_torch
def linear_attention(query, key, value, *, feature_map="elu_plus_one", normalise=False, causal=False, scale=1.0,
                     decay=None, beta=None, key_lengths=None, query_starts=None, key_starts=None, initial_state=None,
                     initial_normaliser=None, algorithm="auto", return_state=False):
    """attend.linear_attention with gradients of query, key, value, decay, beta, initial_state and initial_normaliser,
    from the output and from the returned state.

    query [batch, heads, L, d], key [batch, kv_heads, S, d], value [batch, kv_heads, S, dv]: float32, float64, bfloat16
    or float16, on the CPU. Keywords as of attend.linear_attention, but that feature_map is 'elu_plus_one' unless given,
    which goes with all others; key_lengths, query_starts and key_starts may be tensors. With return_state a named tuple
    (output, denominator, state, normaliser), of which the denominator has no gradient. For a feature map of your own
    give phi(query), phi(key) and 'identity'. Raises ValueError or TypeError, which are RuntimeErrors too.

    >>> import torch, attend.torch
    >>> x = torch.ones(1, 2, 3, 4, requires_grad=True)
    >>> decay = torch.full((2,), -0.1, requires_grad=True)
    >>> y = attend.torch.linear_attention(x, x, x, causal=True, decay=decay, return_state=True)
    >>> (y.output.sum() + y.state.sum()).backward()
    >>> x.grad.shape, decay.grad.shape
    (torch.Size([1, 2, 3, 4]), torch.Size([2]))
    """
    tensors = query, key, value, decay, beta, initial_state, initial_normaliser
    if has_torch_function(tensors):
        return handle_torch_function(
            linear_attention, tensors, query, key, value, feature_map=feature_map, normalise=normalise, causal=causal,
            scale=scale, decay=decay, beta=beta, key_lengths=key_lengths, query_starts=query_starts,
            key_starts=key_starts, initial_state=initial_state, initial_normaliser=initial_normaliser,
            algorithm=algorithm, return_state=return_state)
    plain = are_plain(*tensors)
    if not plain:
        _check_types(query, key, value, decay=decay, beta=beta, initial_state=initial_state,
                     initial_normaliser=initial_normaliser)
    _check_options(feature_map, scale, normalise=normalise, causal=causal, return_state=return_state)
    if torch.is_autocast_enabled("cpu"):
        tensors = *autocast(query, key, value), *tensors[3:]
    numbers = key_lengths, query_starts, key_starts
    rest = feature_map, normalise, causal, float(scale), algorithm, return_state
    if not plain or is_transformed() or are_meta(*tensors):
        operator = operator_for_this_call(_linear_operator.linear_attention,
                                          _linear_operator.TransformedLinearAttention.apply)
        found = operator(*tensors, *(_as_tensor(x) for x in numbers), *rest)
    else:
        wanted = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)
        run = _LinearAttention.apply if wanted else _linear_operator.compute
        found = run(*tensors, *(_as_list(x) for x in numbers), *rest)
    output, denominator, state, normaliser = found
    if not return_state:
        return output
    return LinearAttentionResult(output, denominator if normalise else None, state, normaliser if normalise else None)
