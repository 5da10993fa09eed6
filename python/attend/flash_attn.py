"""The functions of the flash-attn package (github.com/Dao-AILab/flash-attention, 2.x) on CPU tensors: names, signatures
and semantics, with autograd. Tensors are [batch, length, heads, dim], packed ones [all lengths, heads, dim].

What differs: float32 and float64 work too, as do any head dimensions; dropout has a pattern of its own, by position; the
log-sum-exp of a query that attends to nothing is -inf; the returned probabilities are normalised, negative where dropped.
torch.compile and export keep calls of one operator, which torch.func's vmap and reverse mode take too; not those with returned
probabilities, pages, a cache, or slopes for each sequence of packed ones. Errors are ValueError or TypeError, and RuntimeErrors too.
"""
import numbers as _numbers

import torch as _torch

from . import _core
from .torch._autograd import attention_with_log_sum_exp as _attention_with_log_sum_exp
from .torch._errors import check_number as _check_number, raising_as_torch as _raising_as_torch
from .torch._flash_operator import flash_attention_by_operator as _flash_attention_by_operator
from .torch._modes import (are_meta as _are_meta, is_traced as _is_traced, refuse_traces as _refuse_traces,
                           wants_gradients as _wants_gradients)

__all__ = ["flash_attn_func", "flash_attn_kvpacked_func", "flash_attn_qkvpacked_func", "flash_attn_varlen_func",
           "flash_attn_varlen_kvpacked_func", "flash_attn_varlen_qkvpacked_func", "flash_attn_with_kvcache"]


def _check(function, name, x, shape):
    """That x is a tensor of the shape, "batch, L, 3, heads, d": as many dimensions, and the numbers among them."""
    if not isinstance(x, _torch.Tensor):
        raise TypeError(f"[{function}] expected {name} to be a torch.Tensor [{shape}], found {type(x).__name__}")
    sizes = shape.split(", ")
    if x.dim() != len(sizes) or any(size.isdigit() and int(size) != n for size, n in zip(sizes, x.shape)):
        raise ValueError(f"[{function}] expected {name} [{shape}], found {list(x.shape)}")


def _check_integers(function, name, x, shape):
    _check(function, name, x, shape)
    if x.is_floating_point() or x.is_complex() or x.dtype == _torch.bool:
        raise TypeError(f"[{function}] expected {name} of integers, found {x.dtype}")


def _check_new(function, name, x, batch, new, cache):
    """That x is what goes into the cache [.., .., kv_heads, d]: nothing is broadcast, nothing rounded."""
    shape = [batch, new, *cache.shape[2:]]
    if list(x.shape) != shape:
        raise ValueError(f"[{function}] expected {name} {shape}, found {list(x.shape)}")
    if x.dtype != cache.dtype:
        raise TypeError(f"[{function}] expected {name} of {cache.dtype}, as the cache is, found {x.dtype}")


def _is_whole(x):
    return isinstance(x, (int, _torch.SymInt)) or hasattr(x, "__index__")


def _check_whole(function, name, x):
    if not _is_whole(x):
        raise TypeError(f"[{function}] expected {name} to be a whole number, found {type(x).__name__}")


def _sides(window_size):
    try:
        left, right = window_size
    except (TypeError, ValueError):
        raise ValueError(f"[flash_attn] expected window_size (left, right), found {window_size!r}") from None
    if not (_is_whole(left) and _is_whole(right)):
        raise TypeError(f"[flash_attn] expected window_size of two whole numbers (-1: unbounded), found {window_size!r}")
    return left, right


def _options(softmax_scale, causal, window_size, softcap, alibi_slopes, dropout_p=0.0):
    if softmax_scale is not None:
        _check_number("flash_attn", "softmax_scale", softmax_scale)
    _check_number("flash_attn", "softcap", softcap)
    _check_number("flash_attn", "dropout_p", dropout_p)
    options = {"scale": softmax_scale}
    left, right = _sides(window_size)
    if causal:
        options["causal"] = "bottom-right"
        right = -1  # the mask bounds it
    if left >= 0 or right >= 0:
        options["window"] = (max(left, -1), max(right, -1))
    if not softcap <= 0.0:  # NaN is refused where it is read
        options["softcap"] = softcap
    if alibi_slopes is not None:
        options["alibi_slopes"] = alibi_slopes
    if dropout_p != 0.0:
        options["dropout"], options["seed"] = dropout_p, _torch.randint(0, 2**62, (), device="cpu")
    return options


def _with_numbers(options):
    """Options with the numbers in their tensors, as the library takes them."""
    options = dict(options)
    if "seed" in options:
        options["seed"] = int(options["seed"])
    if "query_starts" in options:
        options["mask"] = _core.Mask.packed(options.pop("query_starts"), options.pop("key_starts"))
    return options


def _run(q, k, v, options):
    """Output [batch, length, heads, dim], as it lies in memory, and log-sum-exp [batch, heads, length]."""
    rows = [x.transpose(1, 2) for x in (q, k, v)]
    if _is_traced() or _torch._C._are_functorch_transforms_active() or _are_meta(q, k, v):
        output, log_sum_exp = _flash_attention_by_operator(*rows, options)
    else:
        options = _with_numbers(options)
        out = _torch.empty(*q.shape[:3], v.shape[3], dtype=q.dtype, device="cpu").transpose(1, 2)
        output, log_sum_exp = _attention_with_log_sum_exp(*rows, options, out)
    return output.transpose(1, 2), log_sum_exp


def _run_paged(q, k, v, table, lengths, starts, options):
    """The same over pages [pages, page size, heads, dim] where they lie."""
    result = _core._paged_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), table, lengths,
                                    left_padding=starts, **options)
    return result.output.transpose(1, 2).contiguous(), result.log_sum_exp


def _probabilities(q, k, v, options):
    """[batch, heads, Lq, Lk] before dropout, negative where it dropped; without gradients."""
    _refuse_traces()
    options = _with_numbers(options)
    with _torch.no_grad():
        def weights(given):
            return _core.attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), return_weights=True,
                                   **given).weights
        kept = weights({name: x for name, x in options.items() if name not in ("dropout", "seed")})
        return kept if "dropout" not in options else _torch.where(weights(options) == 0, -kept, kept)


def _slices(starts, x):
    """Where the sequences of x [all, ...] lie."""
    _refuse_traces()  # which would keep these numbers
    starts = starts.tolist()
    if starts[:1] != [0] or starts[-1] > len(x) or sorted(starts) != starts:
        raise ValueError(f"[flash_attn_varlen_func] expected cu_seqlens that rise from 0 to at most {len(x)}, found {starts}")
    return [slice(a, b) for a, b in zip(starts, starts[1:])]


def _gathered(pages, table, lengths):
    """The rows of sequences one after the other; entries of the table behind a sequence's last page are not looked at."""
    size = pages.shape[1]
    if len(lengths) != len(table):
        raise ValueError(f"[flash_attn_varlen_func] expected block_table of {len(lengths)} sequences, found {len(table)}")
    rows = [pages.new_empty(0, *pages.shape[2:])]
    for entries, n in zip(table.long(), lengths):
        used = entries[:-(-n // max(size, 1))]
        if n > size * len(used):
            raise ValueError(f"[flash_attn_varlen_func] expected block_table with room for {n} keys, found "
                             f"{size * len(used)}")
        if len(used) > 0 and not 0 <= int(used.min()) <= int(used.max()) < len(pages):
            raise ValueError(f"[flash_attn_varlen_func] expected pages in [0, {len(pages)}), found {used.tolist()}")
        rows.append(pages[used].flatten(0, 1)[:n])
    return _torch.cat(rows)


def _padded(matrices, q, rows, columns):
    """Matrices [heads, Lq, Lk] of many sizes, cut or with zeros behind them, as [matrices, heads, rows, columns]."""
    result = q.new_zeros(len(matrices), q.shape[1], rows, columns)
    for to, x in zip(result, matrices):
        to[:, :x.shape[1], :x.shape[2]] = x[:, :rows, :columns]
    return result


@_raising_as_torch
def flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
                    alibi_slopes=None, deterministic=False, return_attn_probs=False):
    """softmax(q k^T scale) v for q [batch, Lq, heads, d], k and v [batch, Lk, kv_heads, d].

    causal is bottom-right: the last query sees every key. window_size: (left, right) around the query's position, -1 =
    unbounded. alibi_slopes: float32 [heads] or [batch, heads]. Results are always deterministic. Returns [batch, Lq,
    heads, d]; with return_attn_probs also the log-sum-exp [batch, heads, Lq] and the probabilities.

    >>> import torch
    >>> from attend.flash_attn import flash_attn_func
    >>> x = torch.ones(1, 3, 2, 4)
    >>> flash_attn_func(x, x, x, causal=True).shape
    torch.Size([1, 3, 2, 4])
    """
    for name, x in (("q", q), ("k", k), ("v", v)):
        _check("flash_attn_func", name, x, "batch, L, heads, d")
    options = _options(softmax_scale, causal, window_size, softcap, alibi_slopes, dropout_p)
    output, log_sum_exp = _run(q, k, v, options)
    return (output, log_sum_exp, _probabilities(q, k, v, options)) if return_attn_probs else output


@_raising_as_torch
def flash_attn_kvpacked_func(q, kv, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
                             alibi_slopes=None, deterministic=False, return_attn_probs=False):
    """flash_attn_func with keys and values in one tensor [batch, Lk, 2, kv_heads, d].

    >>> import torch
    >>> from attend.flash_attn import flash_attn_kvpacked_func
    >>> flash_attn_kvpacked_func(torch.ones(1, 3, 4, 8), torch.ones(1, 5, 2, 2, 8)).shape
    torch.Size([1, 3, 4, 8])
    """
    _check("flash_attn_kvpacked_func", "kv", kv, "batch, L, 2, heads, d")
    return flash_attn_func(q, kv[:, :, 0], kv[:, :, 1], dropout_p, softmax_scale, causal, window_size, softcap,
                           alibi_slopes, deterministic, return_attn_probs)


@_raising_as_torch
def flash_attn_qkvpacked_func(qkv, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
                              alibi_slopes=None, deterministic=False, return_attn_probs=False):
    """flash_attn_func with queries, keys and values in one tensor [batch, L, 3, heads, d].

    >>> import torch
    >>> from attend.flash_attn import flash_attn_qkvpacked_func
    >>> flash_attn_qkvpacked_func(torch.ones(1, 5, 3, 2, 4), causal=True).shape
    torch.Size([1, 5, 2, 4])
    """
    _check("flash_attn_qkvpacked_func", "qkv", qkv, "batch, L, 3, heads, d")
    return flash_attn_func(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], dropout_p, softmax_scale, causal, window_size,
                           softcap, alibi_slopes, deterministic, return_attn_probs)


@_raising_as_torch
def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0,
                           softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None,
                           deterministic=False, return_attn_probs=False, block_table=None):
    """flash_attn_func for sequences one after the other: q [all queries, heads, d], k and v [all keys, kv_heads, d].

    cu_seqlens: int32 [sequences + 1], where each begins. alibi_slopes: [heads] or [sequences, heads]. block_table: int32
    [sequences, pages] of k and v [pages, page size, kv_heads, d], which are read where they lie if all sequences have the
    same few queries, and there are no gradients. Returns [all queries, heads, d]; with return_attn_probs also the
    log-sum-exp [heads, all queries] and the probabilities [sequences, heads, max_seqlen_q, max_seqlen_k].

    >>> import torch
    >>> from attend.flash_attn import flash_attn_varlen_func
    >>> x, starts = torch.ones(5, 2, 8), torch.tensor([0, 2, 5], dtype=torch.int32)
    >>> flash_attn_varlen_func(x, x, x, starts, starts, 3, 3, causal=True).shape
    torch.Size([5, 2, 8])
    """
    _check("flash_attn_varlen_func", "q", q, "all, heads, d")
    for name, x in (("k", k), ("v", v)):
        _check("flash_attn_varlen_func", name, x, "all, heads, d" if block_table is None else "pages, page_size, heads, d")
    for name, x in (("cu_seqlens_q", cu_seqlens_q), ("cu_seqlens_k", cu_seqlens_k)):
        _check("flash_attn_varlen_func", name, x, "sequences + 1")
    if block_table is not None or return_attn_probs:
        _check_whole("flash_attn_varlen_func", "max_seqlen_q", max_seqlen_q)
    if return_attn_probs:
        _check_whole("flash_attn_varlen_func", "max_seqlen_k", max_seqlen_k)
    if block_table is not None:
        _check_integers("flash_attn_varlen_func", "block_table", block_table, "sequences, pages")
        lengths = cu_seqlens_k[1:] - cu_seqlens_k[:-1]
        same = q.shape[0] == len(lengths) * max_seqlen_q > 0 and bool((cu_seqlens_q.diff() == max_seqlen_q).all())
        if same and dropout_p == 0.0 and not return_attn_probs and not _wants_gradients(q, k, v, None):
            options = _options(softmax_scale, causal, window_size, softcap, alibi_slopes)
            return _run_paged(q.unflatten(0, (-1, max_seqlen_q)), k, v, block_table, lengths, None, options)[0].flatten(0, 1)
        k, v = (_gathered(x, block_table, lengths.tolist()) for x in (k, v))
    if alibi_slopes is not None and alibi_slopes.dim() == 2:
        rows, keys = _slices(cu_seqlens_q, q), _slices(cu_seqlens_k, k)
        if not len(rows) == len(keys) == len(alibi_slopes):
            raise ValueError(f"[flash_attn_varlen_func] expected alibi_slopes of {len(rows)} sequences, found "
                             f"{len(alibi_slopes)}, and cu_seqlens_k of {len(keys)}")
        rows.append(slice(rows[-1].stop if rows else 0, len(q)))  # of no sequence
        keys.append(slice(0, 0))
        alibi_slopes = _torch.nn.functional.pad(alibi_slopes, (0, 0, 0, 1))
        # A packed batch is one batch, which has one row of slopes.
        parts = [flash_attn_func(q[None, a], k[None, b], v[None, b], dropout_p, softmax_scale, causal, window_size, softcap,
                                 slopes, return_attn_probs=return_attn_probs)
                 for a, b, slopes in zip(rows, keys, alibi_slopes)]
        if not return_attn_probs:
            return _torch.cat(parts, 1)[0]
        output, log_sum_exp, probabilities = zip(*parts)
        return (_torch.cat(output, 1)[0], _torch.cat(log_sum_exp, 2)[0],
                _padded([x[0] for x in probabilities[:-1]], q, max_seqlen_q, max_seqlen_k))
    options = _options(softmax_scale, causal, window_size, softcap, alibi_slopes, dropout_p)
    options |= {"query_starts": cu_seqlens_q, "key_starts": cu_seqlens_k}
    output, log_sum_exp = _run(q[None], k[None], v[None], options)
    if not return_attn_probs:
        return output[0]
    packed = _probabilities(q[None], k[None], v[None], options)[0]
    places = zip(_slices(cu_seqlens_q, q), _slices(cu_seqlens_k, k))
    return output[0], log_sum_exp[0], _padded([packed[:, a, b] for a, b in places], q, max_seqlen_q, max_seqlen_k)


@_raising_as_torch
def flash_attn_varlen_kvpacked_func(q, kv, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0,
                                    softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0,
                                    alibi_slopes=None, deterministic=False, return_attn_probs=False):
    """flash_attn_varlen_func with keys and values in one tensor [all keys, 2, kv_heads, d].

    >>> import torch
    >>> from attend.flash_attn import flash_attn_varlen_kvpacked_func
    >>> x, starts = torch.ones(5, 2, 8), torch.tensor([0, 2, 5], dtype=torch.int32)
    >>> flash_attn_varlen_kvpacked_func(x, torch.ones(5, 2, 2, 8), starts, starts, 3, 3).shape
    torch.Size([5, 2, 8])
    """
    _check("flash_attn_varlen_kvpacked_func", "kv", kv, "all, 2, heads, d")
    return flash_attn_varlen_func(q, kv[:, 0], kv[:, 1], cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k,
                                  dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic,
                                  return_attn_probs)


@_raising_as_torch
def flash_attn_varlen_qkvpacked_func(qkv, cu_seqlens, max_seqlen, dropout_p=0.0, softmax_scale=None, causal=False,
                                     window_size=(-1, -1), softcap=0.0, alibi_slopes=None, deterministic=False,
                                     return_attn_probs=False):
    """flash_attn_varlen_func with queries, keys and values in one tensor [all, 3, heads, d].

    >>> import torch
    >>> from attend.flash_attn import flash_attn_varlen_qkvpacked_func
    >>> starts = torch.tensor([0, 2, 5], dtype=torch.int32)
    >>> flash_attn_varlen_qkvpacked_func(torch.ones(5, 3, 2, 8), starts, 3).shape
    torch.Size([5, 2, 8])
    """
    _check("flash_attn_varlen_qkvpacked_func", "qkv", qkv, "all, 3, heads, d")
    return flash_attn_varlen_func(qkv[:, 0], qkv[:, 1], qkv[:, 2], cu_seqlens, cu_seqlens, max_seqlen, max_seqlen,
                                  dropout_p, softmax_scale, causal, window_size, softcap, alibi_slopes, deterministic,
                                  return_attn_probs)


def _rotated(x, cos, sin, positions, interleaved):
    """Rotary embedding of x [batch, L, heads, d] at positions [batch, L]; the first 2 cos.shape[1] dimensions turn."""
    half, known = cos.shape[1], len(cos)
    if positions.numel() > 0 and int(positions.max()) >= known:
        raise ValueError(f"[flash_attn_with_kvcache] expected rotary_cos and rotary_sin of {int(positions.max()) + 1} "
                         f"positions, found {known}")
    wide = _torch.float64 if x.dtype == _torch.float64 else _torch.float32
    cos, sin = cos[positions][:, :, None].to(wide), sin[positions][:, :, None].to(wide)
    turned, rest = x[..., :2 * half].to(wide), x[..., 2 * half:]
    if interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
        turned = _torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)
    else:
        a, b = turned[..., :half], turned[..., half:]
        turned = _torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)
    return _torch.cat((turned.to(x.dtype), rest), dim=-1)


def _check_cache_arguments(q, k_cache, v_cache, k, v, rotary_cos, rotary_sin, cache_batch_idx, cache_leftpad, block_table):
    """What does not depend on how sizes fit together."""
    function = "flash_attn_with_kvcache"
    for name, x in (("q", q), ("k_cache", k_cache), ("v_cache", v_cache), ("k", k), ("v", v)):
        if x is not None or name not in ("k", "v"):
            _check(function, name, x, "batch, L, heads, d")
    for name, x in (("k_cache", k_cache), ("v_cache", v_cache)):
        if k is not None and any(stride == 0 and size > 1 for stride, size in zip(x.stride(), x.shape)):
            raise ValueError(f"[{function}] expected {name} with memory of its own for each element, since k and v are written "
                             f"into it, found strides {list(x.stride())}")
    for names, a, b in (("k and v", k, v), ("rotary_cos and rotary_sin", rotary_cos, rotary_sin)):
        if (a is None) != (b is None):
            raise ValueError(f"[{function}] expected {names}, or neither, found one")
    for name, x, shape in (("block_table", block_table, "batch, pages"), ("cache_batch_idx", cache_batch_idx, "batch"),
                           ("cache_leftpad", cache_leftpad, "batch")):
        if x is not None:
            _check_integers(function, name, x, shape)
    if block_table is not None and cache_batch_idx is not None:
        raise ValueError(f"[{function}] expected block_table or cache_batch_idx, found both")
    if rotary_cos is None:
        return
    if k is None:
        raise ValueError(f"[{function}] expected k and v with rotary_cos, found none")
    for name, x in (("rotary_cos", rotary_cos), ("rotary_sin", rotary_sin)):
        _check(function, name, x, "positions, rotary_dim / 2")
    if not 2 * rotary_cos.shape[1] <= q.shape[3]:
        raise ValueError(f"[{function}] expected rotary_cos [positions, at most {q.shape[3] // 2}], found "
                         f"{list(rotary_cos.shape)}")
    if rotary_cos.shape != rotary_sin.shape:
        raise ValueError(f"[{function}] expected rotary_sin {list(rotary_cos.shape)}, as rotary_cos is, found "
                         f"{list(rotary_sin.shape)}")


def _sequences_of(q, k_cache, cache_seqlens, cache_batch_idx, cache_leftpad, block_table):
    """Pages of each sequence [batch, pages], their lengths [batch], and where they begin [batch]. A cache without a table is
    one page for each sequence."""
    batch = q.shape[0]
    table = block_table
    if table is None:
        table = (_torch.arange(batch, device="cpu") if cache_batch_idx is None else cache_batch_idx)[:, None]
    table = table.long()
    if cache_seqlens is None:
        cache_seqlens = table.shape[1] * k_cache.shape[1]
    if isinstance(cache_seqlens, _numbers.Integral):
        lengths = _torch.full((batch,), int(cache_seqlens), dtype=_torch.long, device="cpu")
    else:
        _check_integers("flash_attn_with_kvcache", "cache_seqlens", cache_seqlens, "batch")
        lengths = cache_seqlens.long()
    starts = _torch.zeros(batch, dtype=_torch.long, device="cpu") if cache_leftpad is None else cache_leftpad.long()
    for name, x in (("block_table or cache_batch_idx", table), ("cache_seqlens", lengths), ("cache_leftpad", starts)):
        if len(x) != batch:
            raise ValueError(f"[flash_attn_with_kvcache] expected {name} of {batch} sequences, found {len(x)}")
    return table, lengths, starts


def _places(k, v, k_cache, v_cache, table, lengths):
    """Of new keys [batch, new] in their sequences, behind the lengths."""
    function = "flash_attn_with_kvcache"
    _check_new(function, "k", k, len(table), k.shape[1], k_cache)
    _check_new(function, "v", v, len(table), k.shape[1], v_cache)
    places = lengths[:, None] + _torch.arange(k.shape[1], device="cpu")
    size = table.shape[1] * k_cache.shape[1]
    if places.numel() > 0 and not 0 <= int(places.min()) <= int(places.max()) < size:
        raise ValueError(f"[{function}] expected a cache with room for keys {int(places.min())} to {int(places.max())}, "
                         f"found {size}")
    return places


def _write(k_cache, v_cache, k, v, table, places):
    page_size = k_cache.shape[1]
    pages = table.gather(1, places // page_size)
    # Only in inference mode may caches be written to that were made in one.
    inference = k_cache.is_inference() or v_cache.is_inference()
    with _torch.inference_mode() if inference else _torch.no_grad():
        k_cache[pages, places % page_size] = k
        v_cache[pages, places % page_size] = v


@_raising_as_torch
def flash_attn_with_kvcache(q, k_cache, v_cache, k=None, v=None, rotary_cos=None, rotary_sin=None, cache_seqlens=None,
                            cache_batch_idx=None, cache_leftpad=None, block_table=None, softmax_scale=None,
                            causal=False, window_size=(-1, -1), softcap=0.0, rotary_interleaved=True, alibi_slopes=None,
                            num_splits=0, return_softmax_lse=False):
    """Attention over a cache of keys and values, which k and v are first written into, in place.

    q [batch, Lq, heads, d]; k_cache, v_cache [cache batch, size, kv_heads, d], or pages [pages, page size, kv_heads, d]
    with block_table int32 [batch, pages of a sequence]; k, v [batch, new, kv_heads, d] go behind cache_seqlens, an int or
    int32 [batch]. rotary_cos, rotary_sin [positions, rotary dim / 2] turn k and q at their places in the cache.
    cache_batch_idx: which entries of the cache; cache_leftpad: where each sequence begins. Returns [batch, Lq, heads, d],
    and with return_softmax_lse the log-sum-exp [batch, heads, Lq]. There are no gradients.

    >>> import torch
    >>> from attend.flash_attn import flash_attn_with_kvcache
    >>> cache, x = torch.zeros(1, 16, 2, 4), torch.ones(1, 1, 2, 4)
    >>> flash_attn_with_kvcache(x, cache, cache.clone(), x, x, cache_seqlens=3, causal=True).shape
    torch.Size([1, 1, 2, 4])
    """
    _check_cache_arguments(q, k_cache, v_cache, k, v, rotary_cos, rotary_sin, cache_batch_idx, cache_leftpad, block_table)
    _refuse_traces()
    with _torch.no_grad():
        table, lengths, starts = _sequences_of(q, k_cache, cache_seqlens, cache_batch_idx, cache_leftpad, block_table)
        options = _options(softmax_scale, causal, window_size, softcap, alibi_slopes)
        if k is not None:
            before = lengths
            places = _places(k, v, k_cache, v_cache, table, before)
            lengths = before + k.shape[1]
            # A call without queries checks the rest, so that a call that is refused writes nothing.
            _run_paged(q[:, :0], k_cache, v_cache, table, lengths, starts, options)
            if rotary_cos is not None:
                # Without a causal mask or window all queries stand where the first does.
                moves = causal or _sides(window_size) != (-1, -1)
                steps = _torch.arange(q.shape[1], device="cpu") * (1 if moves else 0)
                q = _rotated(q, rotary_cos, rotary_sin, before[:, None] + steps, rotary_interleaved)
                k = _rotated(k, rotary_cos, rotary_sin, places, rotary_interleaved)
            _write(k_cache, v_cache, k, v, table, places)
        output, log_sum_exp = _run_paged(q, k_cache, v_cache, table, lengths, starts, options)
        return (output, log_sum_exp) if return_softmax_lse else output
