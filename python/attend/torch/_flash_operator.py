"""The flash-attn functions' attention as an operator of known shapes and gradients: what torch.compile, export, traces,
torch.func's transforms and tensors without memory see. Ordinary calls pass it by, as they do _operator's."""
from typing import List, Optional

import torch
import torch.autograd.forward_ad as forward_ad

from .. import _core
from ._modes import for_any_call, operator_for_this_call, refuse_gradients_of_gradients, refuse_tangents
from ._operator import _check_shapes
from ._transforms import as_autograd_functions, register_vmap

_NAMES = ("alibi_slopes", "query_starts", "key_starts", "seed", "causal", "window", "scale", "softcap", "dropout")


@torch.library.custom_op("attend::flash_attention", mutates_args=())
def flash_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, alibi_slopes: Optional[torch.Tensor],
                    query_starts: Optional[torch.Tensor], key_starts: Optional[torch.Tensor],
                    seed: Optional[torch.Tensor], causal: Optional[str], window: Optional[List[int]],
                    scale: Optional[float], softcap: float, dropout: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and log-sum-exp of query [batch, heads, Lq, d]; starts: of sequences packed into a batch of 1."""
    options = _options(alibi_slopes, query_starts, key_starts, seed, causal, window, scale, softcap, dropout)
    output, _, log_sum_exp = _core.attention(query, key, value, return_log_sum_exp=True, out=_output_of(query, value),
                                             **options)
    return output, log_sum_exp


@torch.library.custom_op("attend::flash_attention_backward", mutates_args=())
def flash_attention_backward(
        grad_output: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, output: torch.Tensor,
        log_sum_exp: torch.Tensor, alibi_slopes: Optional[torch.Tensor], query_starts: Optional[torch.Tensor],
        key_starts: Optional[torch.Tensor], seed: Optional[torch.Tensor], causal: Optional[str],
        window: Optional[List[int]], scale: Optional[float], softcap: float,
        dropout: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of query, key and value."""
    options = _options(alibi_slopes, query_starts, key_starts, seed, causal, window, scale, softcap, dropout)
    gradients = _core.attention_backward(grad_output, query, key, value, output, log_sum_exp, **options)
    return gradients[0], gradients[1], gradients[2]


def _options(alibi_slopes, query_starts, key_starts, seed, causal, window, scale, softcap, dropout):
    """attend's keywords."""
    options = {"causal": causal, "scale": scale}
    if window is not None:
        options["window"] = tuple(window)
    if softcap > 0.0:
        options["softcap"] = softcap
    if alibi_slopes is not None:
        options["alibi_slopes"] = alibi_slopes
    if seed is not None:
        options["dropout"], options["seed"] = dropout, int(seed)
    if query_starts is not None:
        options["mask"] = _core.Mask.packed(query_starts, key_starts)
    return options


def _output_of(query, value):
    """An output that lies as flash-attn's do, [batch, Lq, heads, dv] in memory."""
    batch, heads, length, _ = query.shape
    return query.new_empty(batch, length, heads, value.shape[3]).transpose(1, 2)


@flash_attention.register_fake
def _(query, key, value, *_):
    _check_shapes(query, key, value, None, "flash_attention")
    precise = torch.float64 if query.dtype == torch.float64 else torch.float32
    return _output_of(query, value), query.new_empty(query.shape[:3], dtype=precise)


@flash_attention_backward.register_fake
def _(grad_output, query, key, value, *_):
    return tuple(x.new_empty(x.shape) for x in (query, key, value))


def _save_for_backward(ctx, inputs, output):
    query, key, value, slopes, query_starts, key_starts, seed, *ctx.rest = inputs
    ctx.save_for_backward(query, key, value, *output, slopes, query_starts, key_starts, seed)
    ctx.mark_non_differentiable(output[1])


def _backward_by(operator):

    def backward(ctx, grad_output, _):
        gradients = operator(grad_output, *ctx.saved_tensors, *ctx.rest)
        return *gradients, *(None,) * len(_NAMES)

    return backward


Gradients, TransformedFlashAttention = as_autograd_functions(
    flash_attention, flash_attention_backward, (0,), _save_for_backward, _backward_by, refuse_gradients_of_gradients,
    refuse_tangents)
flash_attention.register_autograd(_backward_by(for_any_call(flash_attention_backward, Gradients.apply)),
                                  setup_context=_save_for_backward)
register_vmap(flash_attention, flash_attention_backward)


def flash_attention_by_operator(query, key, value, options):
    """flash_attention by attend.flash_attn's options."""
    operator = operator_for_this_call(flash_attention, TransformedFlashAttention.apply)
    if operator is flash_attention and forward_ad._current_level >= 0:
        refuse_tangents()
    given = {"window": None, "softcap": 0.0, "dropout": 0.0, **options}
    for name in ("scale", "softcap", "dropout"):  # NumPy's numbers, tensors of one
        given[name] = None if given[name] is None else float(given[name])
    return operator(query, key, value, *(given.get(name) for name in _NAMES))
