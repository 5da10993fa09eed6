"""torch.nn.functional.scaled_dot_product_attention."""
import torch
import torch.autograd.forward_ad as forward_ad
from torch.nn.attention.bias import CausalBias, CausalVariant
from torch.overrides import handle_torch_function, has_torch_function

from .. import _core
from . import _composite, _operator
from ._autograd import Attention, attention
from ._errors import TorchTypeError, TorchValueError, as_torch, check_number
from ._modes import (are_meta, are_plain, autocast, differentiates_more, is_traced, is_transformed, operator_for_this_call,
                     wants_gradients)

# Calls of plain tensors for their numbers alone; True where gradients are wanted too, None for all others. To ask PyTorch
# takes as long as a small attention, so it is asked in C++.
_plain_attention = _core._plain_attention(
    (torch._C._is_tracing, torch._C._len_torch_dispatch_stack, torch._C._len_torch_function_stack,
     torch._C._are_functorch_transforms_active, torch._C._is_any_autocast_enabled), torch._C._get_flash_sdp_enabled,
    torch.is_grad_enabled)


_of_pytorch = torch._C._nn.scaled_dot_product_attention  # replaced() leaves it


def scaled_dot_product_attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, *, scale=None,
                                 enable_gqa=False):
    """torch.nn.functional.scaled_dot_product_attention: softmax(query key^T scale + attn_mask) value.

    query [..., heads, L, d], key [..., kv_heads, S, d], value [..., kv_heads, S, dv]: float32, float64, bfloat16 or
    float16, on the CPU. attn_mask: bool (True = attend) or numbers added to the scores, broadcast to [..., heads, L, S],
    or a torch.nn.attention.bias.CausalBias. is_causal: top-left. Dropout is drawn from PyTorch's generator (a seed of it,
    so not with PyTorch's own pattern). Gradients of gradients and forward mode are taken of PyTorch's operations, with all
    scores in memory; where its flash attention is switched off, as by torch.nn.attention.sdpa_kernel(SDPBackend.MATH),
    PyTorch's own function is called. Raises ValueError or TypeError, which are RuntimeErrors too, as PyTorch's.

    >>> import torch, attend.torch
    >>> x = torch.ones(1, 2, 3, 4, requires_grad=True)
    >>> attend.torch.scaled_dot_product_attention(x, x, x, is_causal=True).sum().backward()
    >>> x.grad.shape
    torch.Size([1, 2, 3, 4])
    """
    try:
        if dropout_p == 0.0 and forward_ad._current_level < 0 and not torch.compiler.is_dynamo_compiling():
            output = _plain_attention(query, key, value, attn_mask, is_causal, scale, enable_gqa)
            if output is True:
                mask, bias = _mask_and_bias(attn_mask)
                return Attention.apply(query, key, value, bias, _options(scale, "top-left" if is_causal else None, mask),
                                       None, False)
            if output is not None:
                return output
        return _of_any_tensors(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
    except (TypeError, ValueError) as error:
        raise as_torch(error) from None


def _of_any_tensors(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa):
    """The function for tensors of any kind and shape, whatever is done to it."""
    plain = are_plain(query, key, value, attn_mask)  # to ask what others are takes longer
    has_causal_bias = not plain and isinstance(attn_mask, CausalBias)
    given = (query, key, value) if has_causal_bias else (query, key, value, attn_mask)
    if has_torch_function(given):
        return handle_torch_function(scaled_dot_product_attention, given, query, key, value, attn_mask, dropout_p,
                                     is_causal, scale=scale, enable_gqa=enable_gqa)
    _check_types(query, key, value, attn_mask, dropout_p, is_causal, enable_gqa)
    _check(query, key, value, attn_mask, is_causal)
    if not torch._C._get_flash_sdp_enabled():
        return _of_pytorch(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    scale = _number(scale)
    causal = "top-left" if is_causal else None
    if has_causal_bias:
        causal, attn_mask = _of_causal_bias(attn_mask, query, key)
        plain = are_plain(query, key, value)
    if torch.is_autocast_enabled("cpu"):
        query, key, value, attn_mask = autocast(query, key, value, attn_mask)
    by_math = not _is_for_flash(query, key, value, attn_mask, dropout_p, enable_gqa)
    # Compilers and traces, which see what is written to, copy what they need.
    copied = by_math and not is_traced() and wants_gradients(query, key, value, attn_mask)
    if copied:
        query, key = query.clone(), key.clone()
    query, key, value, leading = _of_one_shape(query, key, value, enable_gqa)
    if attn_mask is not None:
        attn_mask = _mask_of_four_dimensions(attn_mask, leading)
        _check_mask(attn_mask, query)
    mask, bias = _mask_and_bias(attn_mask)
    seed = torch.randint(0, 2**62, (), device="cpu") if dropout_p != 0.0 else None
    if differentiates_more():
        options = {**_options(scale, causal, mask), "dropout": dropout_p, "seed": seed}
        output = _composite.attention(query, key, value, bias, options)
    elif not plain or is_transformed() or are_meta(query, key, value, mask, bias):
        operator = operator_for_this_call(_operator.attention, _operator.TransformedAttention.apply)
        output = operator(query, key, value, mask, bias, seed, causal, scale, dropout_p)[0]
    else:
        options = _options(scale, causal, mask)
        if seed is not None:
            options["dropout"], options["seed"] = dropout_p, int(seed)
        output = attention(query, key, value, bias, options)
    if not by_math:
        return output
    if leading is not None:
        output = output.reshape(*leading, *output.shape[-2:])
    return output.clone(memory_format=torch.contiguous_format) if copied else output.contiguous()


def _is_for_flash(query, key, value, attn_mask, dropout_p, enable_gqa):
    """Whether PyTorch would take its flash attention. Results of its other are contiguous and may be written to before
    backward, as may query and key; _core._plain_attention asks the same."""
    if not query.layout == key.layout == value.layout == torch.strided:
        return False
    return (dropout_p == 0.0 and query.dim() == key.dim() == value.dim() == 4 and
            query.shape[0] == key.shape[0] == value.shape[0] and query.shape[3] == key.shape[3] == value.shape[3] and
            key.shape[1] == value.shape[1] and (enable_gqa or query.shape[1] == key.shape[1]) and
            query.shape[2] > 0 and key.shape[2] > 0 and
            query.stride(3) == key.stride(3) == value.stride(3) == 1 and
            (attn_mask is None or (not attn_mask.requires_grad and attn_mask.dim() in (2, 4))))


def _check_types(query, key, value, attn_mask, dropout_p, is_causal, enable_gqa):
    tensors = {"query": query, "key": key, "value": value, **({} if attn_mask is None else {"attn_mask": attn_mask})}
    flags = {"is_causal": is_causal, "enable_gqa": enable_gqa}
    for kinds, expected, given in ((torch.Tensor, "a torch.Tensor", tensors), ((bool, torch.SymBool), "True or False", flags)):
        for name, x in given.items():
            if not isinstance(x, kinds):
                raise TorchTypeError(f"[scaled_dot_product_attention] expected {name} to be {expected}, found "
                                     f"{type(x).__name__}")
    check_number("scaled_dot_product_attention", "dropout_p", dropout_p)


def _check_mask(attn_mask, query):
    if attn_mask.dtype not in (torch.bool, torch.float32, query.dtype):
        raise TorchTypeError("[scaled_dot_product_attention] expected attn_mask of torch.bool, torch.float32 or query's "
                             f"{query.dtype}, found {attn_mask.dtype}")


def _check(query, key, value, attn_mask, is_causal):
    """What does not depend on how sizes fit together."""
    if attn_mask is not None and is_causal:
        theirs = ("CausalBias should not be used with causal=True" if isinstance(attn_mask, CausalBias) else
                  "Explicit attn_mask should not be set when is_causal=True")
        raise TorchValueError(f"[scaled_dot_product_attention] expected attn_mask or is_causal, found both. {theirs}")
    if query.is_nested or key.is_nested or value.is_nested:
        raise TorchTypeError("[scaled_dot_product_attention] expected tensors that are not nested, found nested ones")
    if min(query.dim(), key.dim(), value.dim()) < 2:
        raise TorchValueError("[scaled_dot_product_attention] expected query, key and value of at least two dimensions, "
                              f"found {query.dim()}, {key.dim()} and {value.dim()}")


def _number(scale):
    if scale is None:
        return None
    check_number("scaled_dot_product_attention", "scale", scale)
    return float(scale) if isinstance(scale, torch.Tensor) else scale


def _of_causal_bias(bias, query, key):
    """As the library's causal masks, of which bottom-right needs the bias's own lengths; or as a mask."""
    if bias.variant == CausalVariant.UPPER_LEFT or bias.seq_len_q == bias.seq_len_kv:
        return "top-left", None
    if bias.seq_len_q == query.shape[-2] and bias.seq_len_kv == key.shape[-2]:
        return "bottom-right", None
    seen = torch.ones(bias.seq_len_q, bias.seq_len_kv, dtype=torch.bool, device=query.device)
    return None, seen.tril(bias.seq_len_kv - bias.seq_len_q)


def _of_one_shape(query, key, value, enable_gqa):
    """Query, key and value of four dimensions, of one batch and (but for enable_gqa) as many heads; and the leading
    dimensions of the output, where it has other than four."""
    own = 3 if enable_gqa else 2  # dimensions at the end that may differ
    rank = max(query.dim(), key.dim(), value.dim())
    if enable_gqa:
        query, key, value = (x[None] if x.dim() == 2 and rank > 2 else x for x in (query, key, value))
    shapes = [x.shape[:-own] for x in (query, key, value)]
    leading = shapes[0]
    if not shapes[0] == shapes[1] == shapes[2]:
        try:
            leading = torch.broadcast_shapes(*shapes)
        except RuntimeError:
            raise TorchValueError(
                "[scaled_dot_product_attention] expected leading dimensions that broadcast (heads may be grouped with "
                f"enable_gqa=True), found {', '.join(str(list(x.shape[:-2])) for x in (query, key, value))}") from None
        query, key, value = (x.expand(*leading, *x.shape[-own:]) for x in (query, key, value))
    if enable_gqa:
        leading = query.shape[:-2]
        if rank > 2 and key.shape[-3] != value.shape[-3]:
            key, value = _of_all_heads(key, leading[-1]), _of_all_heads(value, leading[-1])
    if rank == 4:
        return query, key, value, None
    return *(x[(None,) * (4 - rank)] if rank < 4 else x.flatten(0, -4) for x in (query, key, value)), leading


def _of_all_heads(x, heads):
    """A key or value with its heads repeated to as many as the query's."""
    if x.shape[-3] == 0 or heads % x.shape[-3] != 0:
        raise TorchValueError(f"[scaled_dot_product_attention] expected a divisor of {heads} heads, found {x.shape[-3]}")
    return x.repeat_interleave(heads // x.shape[-3], -3)


def _mask_of_four_dimensions(attn_mask, leading):
    """[..., L, S] for a batch whose leading dimensions may have been flattened."""
    rank = 4 if leading is None else max(len(leading) + 2, 4)
    if attn_mask.dim() > rank:
        raise TorchValueError(f"[scaled_dot_product_attention] expected attn_mask of at most {rank} dimensions, found "
                              f"{attn_mask.dim()}")
    if rank == 4 or attn_mask.dim() < 4:
        return attn_mask
    return attn_mask.expand(*leading[:-1], *attn_mask.shape[-3:]).flatten(0, -4)


def _mask_and_bias(attn_mask):
    """PyTorch's mask as what is attended to, or as numbers to be added."""
    return (attn_mask, None) if attn_mask is not None and attn_mask.dtype == torch.bool else (None, attn_mask)


def _options(scale, causal, mask):
    """attend's keywords."""
    options = {"scale": scale}
    if causal is not None:
        options["causal"] = causal
    if mask is not None:
        options["mask"] = mask
    return options
