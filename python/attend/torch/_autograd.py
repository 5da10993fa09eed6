"""Attention with gradients, on tensors that are asked for their numbers alone."""
import torch

from .. import _core
from . import _operator
from ._modes import refuse_forward_mode, refuse_gradients_of_gradients, refuse_traces, wants_gradients


class _Gradients(torch.autograd.Function):
    """Those of Attention where they may be differentiated once more: which is refused."""

    @staticmethod
    def forward(ctx, grad_output, query, key, value, bias, output, log_sum_exp, options):
        return tuple(_core.attention_backward(grad_output, query, key, value, output, log_sum_exp, **options))

    @staticmethod
    def backward(ctx, *_):
        refuse_gradients_of_gradients()


class Attention(torch.autograd.Function):
    """Output, or a pair of it and the log-sum-exp; gradients of query, key, value and bias."""

    @staticmethod
    def forward(ctx, query, key, value, bias, options, out, return_log_sum_exp):
        given = options if bias is None else {**options, "bias": bias}
        output, _, log_sum_exp = _core.attention(query, key, value, return_log_sum_exp=True, out=out, **given)
        # Saved as tensors, so that PyTorch notices if they are written to before backward.
        ctx.names = [name for name, x in options.items() if isinstance(x, torch.Tensor)]
        ctx.options = {name: x for name, x in options.items() if name not in ctx.names}
        ctx.save_for_backward(query, key, value, bias, output, log_sum_exp, *(options[name] for name in ctx.names))
        if not return_log_sum_exp:
            return output
        ctx.mark_non_differentiable(log_sum_exp)
        return output, log_sum_exp

    @staticmethod
    def backward(ctx, grad_output, *_):
        query, key, value, bias, output, log_sum_exp, *tensors = ctx.saved_tensors
        given = {**ctx.options, **dict(zip(ctx.names, tensors))}
        if bias is not None:
            given |= {"bias": bias, "bias_gradient": ctx.needs_input_grad[3]}
        if _is_batched(grad_output):
            gradients = _batched_gradients(grad_output, query, key, value, bias, output, log_sum_exp, given)
        elif torch.is_grad_enabled():
            gradients = _Gradients.apply(grad_output, query, key, value, bias, output, log_sum_exp, given)
        else:
            gradients = _core.attention_backward(grad_output, query, key, value, output, log_sum_exp, **given)
        return *gradients, None, None, None


def _is_batched(tensor):
    """Whether it stands for many: is_grads_batched, torch.func.vmap."""
    return torch._C._functorch.is_legacy_batchedtensor(tensor) or torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def _batched_gradients(grad_output, query, key, value, bias, output, log_sum_exp, options):
    """Those of many grad_output at once, by the operator, which has all of them."""
    options = {name: x for name, x in options.items() if name != "bias_gradient"}
    given = {"mask": None, "bias": bias, "seed": None, "causal": None, "scale": None, "dropout": 0.0, **options}
    if len(given) > 6 or not (given["mask"] is None or isinstance(given["mask"], torch.Tensor)):
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
