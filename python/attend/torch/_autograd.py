"""Attention with gradients, on tensors that are asked for their numbers alone."""
import torch

from .. import _core
from . import _composite, _operator
from ._modes import refuse_forward_mode, refuse_gradients_of_gradients, refuse_traces, wants_gradients


class _Gradients(torch.autograd.Function):
    """Those of Attention where they may be differentiated once more: by PyTorch's operations, or not at all."""

    @staticmethod
    def forward(ctx, grad_output, query, key, value, bias, output, log_sum_exp, options):
        ctx.save_for_backward(grad_output, query, key, value, bias)
        ctx.options = {name: x for name, x in options.items() if name not in ("bias", "bias_gradient")}
        return tuple(_core.attention_backward(grad_output, query, key, value, output, log_sum_exp, **options))

    @staticmethod
    def backward(ctx, *twice):
        if not _composite.is_known(ctx.options):
            refuse_gradients_of_gradients()
        return *_composite.gradients_of_gradients(twice, *ctx.saved_tensors, ctx.options), None, None, None


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
        if not _is_batched(grad_output) and _is_looked_at(grad_output) and _composite.is_known(given):
            return *_composite.gradients(grad_output, query, key, value, bias, given), None, None, None
        if bias is not None:
            given |= {"bias": bias, "bias_gradient": ctx.needs_input_grad[3]}
        if _is_batched(grad_output):
            gradients = _batched_gradients(grad_output, query, key, value, bias, output, log_sum_exp, given)
        elif torch.is_grad_enabled():
            gradients = _Gradients.apply(grad_output, query, key, value, bias, output, log_sum_exp, given)
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


def _is_batched(tensor):
    """Whether it stands for many: is_grads_batched, torch.func.vmap."""
    return torch._C._functorch.is_legacy_batchedtensor(tensor) or torch._C._functorch.is_functorch_wrapped_tensor(tensor)


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
