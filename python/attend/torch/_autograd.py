"""Attention with gradients, on tensors that are asked for their numbers alone."""
import types

import torch
import torch.autograd.forward_ad as forward_ad

from .. import _core
from . import _composite, _operator
from ._modes import (refuse_forward_mode, refuse_gradients_of_gradients, refuse_tangents, refuse_traces, wants_gradients)
from ._transforms import one_by_one


class _Gradients(torch.autograd.Function):
    """Those of query, key, value and, if it has one, bias, where they may be differentiated once more or are transformed:
    in grad_output, in which they are linear, and by PyTorch's operations in the others, or not at all there."""

    @staticmethod
    def forward(grad_output, query, key, value, bias, output, log_sum_exp, given):
        gradients = _core.attention_backward(grad_output, query, key, value, output, log_sum_exp, **given.options)
        return tuple(x for x in gradients if x is not None)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *tensors, ctx.given = inputs
        ctx.set_materialize_grads(False)  # zeros could not be told from tangents
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx, *twice):
        options = {name: x for name, x in ctx.given.options.items() if name not in ("bias", "bias_gradient")}
        if not _composite.is_known(options):
            refuse_gradients_of_gradients()
        return *_composite.gradients_of_gradients(twice, *ctx.saved_tensors[:5], options), None, None, None

    @staticmethod
    def jvp(ctx, tangent, *others):
        if tangent is None or any(x is not None for x in others):
            refuse_tangents()
        return _Gradients.apply(tangent, *ctx.saved_tensors[1:], ctx.given)

    @staticmethod
    def vmap(info, in_dims, *arguments):
        return one_by_one(_Gradients.apply, info, in_dims, *arguments)


class Attention(torch.autograd.Function):
    """Output, or a pair of it and the log-sum-exp; gradients of query, key, value and bias."""

    @staticmethod
    def forward(ctx, query, key, value, bias, options, out, return_log_sum_exp):
        given = options if bias is None else {**options, "bias": bias}
        output, _, log_sum_exp = _core.attention(query, key, value, return_log_sum_exp=True, out=out, **given)
        # Saved as tensors, so that PyTorch notices if they are written to before backward; but its own gradients do not
        # look at boolean masks again.
        ctx.names = [name for name, x in options.items() if isinstance(x, torch.Tensor)]
        ctx.options = {name: x for name, x in options.items() if name not in ctx.names}
        tensors = [_copy(x) if x.dtype == torch.bool else x for x in (options[name] for name in ctx.names)]
        ctx.save_for_backward(query, key, value, bias, output, log_sum_exp, *tensors)
        if not return_log_sum_exp:
            return output
        ctx.mark_non_differentiable(log_sum_exp)
        return output, log_sum_exp

    @staticmethod
    def backward(ctx, grad_output, *_):
        query, key, value, bias, output, log_sum_exp, *tensors = ctx.saved_tensors
        given = {**ctx.options, **dict(zip(ctx.names, tensors))}
        if not is_batched(grad_output) and _is_looked_at(grad_output) and _composite.is_known(given):
            return *_composite.gradients(grad_output, query, key, value, bias, given), None, None, None
        if bias is not None:
            given |= {"bias": bias, "bias_gradient": ctx.needs_input_grad[3]}
        if is_batched(grad_output):
            gradients = _batched_gradients(grad_output, query, key, value, bias, output, log_sum_exp, given)
        elif is_differentiated(grad_output):
            # Transforms would take a dictionary apart.
            found = _Gradients.apply(grad_output, query, key, value, bias, output, log_sum_exp, types.SimpleNamespace(options=given))
            gradients = (*found, None)[:4]
        else:
            gradients = _core.attention_backward(grad_output, query, key, value, output, log_sum_exp, **given)
        return *gradients, None, None, None


def _copy(mask):
    """Of what it has in memory."""
    for d in range(mask.dim()):
        if mask.stride(d) == 0 and mask.shape[d] > 1:
            mask = mask.narrow(d, 0, 1)
    return mask.clone()


def _is_looked_at(grad_output):
    """Whether it, or somebody else, wants to see the operations of its gradients."""
    return type(grad_output) is not torch.Tensor or torch._C._len_torch_dispatch_stack() > 0


def is_batched(tensor):
    """Whether it stands for many: is_grads_batched."""
    return torch._C._functorch.is_legacy_batchedtensor(tensor)


def is_differentiated(*grad_outputs):
    """Whether gradients for these may have derivatives, or torch.func's transforms are at work on them."""
    return (torch.is_grad_enabled() or forward_ad._current_level >= 0 or
            any(x is not None and torch._C._functorch.is_functorch_wrapped_tensor(x) for x in grad_outputs))


def _batched_gradients(grad_output, query, key, value, bias, output, log_sum_exp, options):
    """Those of many grad_output at once, by the operator, which has all of them."""
    options = {name: x for name, x in options.items() if name not in ("bias", "bias_gradient")}
    given = {"mask": None, "bias": bias, "seed": None, "causal": None, "scale": None, "dropout": 0.0, **options}
    if not (options.keys() <= _composite.KNOWN and (given["mask"] is None or isinstance(given["mask"], torch.Tensor))):
        raise NotImplementedError("[flash_attn] expected one gradient at a time, found a batch of them")
    if given["seed"] is not None:
        given["seed"] = torch.tensor(given["seed"], device="cpu")
    gradients = _operator.attention_backward(grad_output, query, key, value, output, log_sum_exp, **given)
    return *gradients[:3], None if bias is None else gradients[3]


def attention(query, key, value, bias, options, out=None):
    """attend.attention with keywords `options`, and gradients where they are asked for."""
    if wants_gradients(query, key, value, bias):
        return Attention.apply(query, key, value, bias, options, out, False)
    if bias is not None:
        options["bias"] = bias
    return _core.attention(query, key, value, out=out, **options)


def attention_with_log_sum_exp(query, key, value, options, out=None):
    refuse_traces()
    refuse_forward_mode(query, key, value)
    if wants_gradients(query, key, value, None):
        return Attention.apply(query, key, value, None, options, out, True)
    output, _, log_sum_exp = _core.attention(query, key, value, return_log_sum_exp=True, out=out, **options)
    return output, log_sum_exp
