"""attend.flash_attn against the formula in float64, written with PyTorch."""
import itertools
import math

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from attend import flash_attn as fa


def formula(q, k, v, scale=None, causal=False, window=(-1, -1), softcap=0.0, slopes=None, lengths=None):
    """q [b, n, h, d], k and v [b, m, g, d] in float64; output and log-sum-exp."""
    b, n, h, d = q.shape
    m = k.shape[1]
    k, v = (x.repeat_interleave(h // x.shape[2], 2) for x in (k, v))
    lengths = torch.full((b,), m) if lengths is None else lengths
    scores = torch.einsum("bnhd,bmhd->bhnm", q, k) * (1 / math.sqrt(d) if scale is None else scale)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    position = torch.arange(n)[None, :, None] + (lengths - n)[:, None, None]
    key = torch.arange(m)[None, None]
    if slopes is not None:
        slopes = slopes.double().expand(b, h)
        scores = scores - slopes[:, :, None, None] * (position - key).abs()[:, None]
    seen = (key < lengths[:, None, None]).expand(b, n, m).clone()
    left, right = window
    if causal:
        right = 0
    if left >= 0:
        seen &= key >= position - left
    if right >= 0:
        seen &= key <= position + right
    scores = scores.masked_fill(~seen[:, None], -math.inf)
    lse = torch.logsumexp(scores, -1)
    weights = torch.where(lse[..., None].isinf(), 0.0, torch.exp(scores - torch.where(lse.isinf(), 0.0, lse)[..., None]))
    return torch.einsum("bhnm,bmhd->bnhd", weights, v), lse, weights


def tensors(b=2, n=7, m=11, h=4, g=2, d=16, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    make = lambda *shape: torch.randn(*shape, generator=generator).to(dtype)
    return make(b, n, h, d), make(b, m, g, d), make(b, m, g, d)


def close(found, want, dtype=torch.float32):
    torch.testing.assert_close(found.double(), want, atol={torch.float32: 2e-6, torch.float64: 1e-12,
                                                           torch.bfloat16: 3e-2, torch.float16: 4e-3}[dtype], rtol=0)


OPTIONS = [dict(), dict(causal=True), dict(window=(3, 1)), dict(causal=True, window=(2, 5)), dict(softcap=1.5),
           dict(scale=0.3), dict(slopes=True), dict(slopes=True, causal=True, softcap=3.0)]


def keywords(options, h=4):
    slopes = torch.tensor([0.5 ** i for i in range(1, h + 1)]) if options.get("slopes") else None
    return (dict(softmax_scale=options.get("scale"), causal=options.get("causal", False),
                 window_size=options.get("window", (-1, -1)), softcap=options.get("softcap", 0.0), alibi_slopes=slopes),
            {**options, "slopes": slopes})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", OPTIONS)
def test_func(options, dtype):
    theirs, ours = keywords(options)
    for n, m in ((7, 11), (11, 7), (1, 9), (9, 9)):
        q, k, v = tensors(n=n, m=m, dtype=dtype)
        out, lse, probabilities = fa.flash_attn_func(q, k, v, return_attn_probs=True, **theirs)
        want, want_lse, weights = formula(q.double(), k.double(), v.double(), **ours)
        assert out.shape == q.shape and out.dtype == dtype and out.is_contiguous()
        close(out, want, dtype)
        close(probabilities, weights, dtype)
        torch.testing.assert_close(lse.double(), want_lse, atol=1e-3 if dtype == torch.bfloat16 else 1e-5, rtol=0)
        assert torch.equal(out, fa.flash_attn_func(q, k, v, **theirs))


@pytest.mark.parametrize("options", OPTIONS)
def test_gradients(options):
    theirs, ours = keywords(options)
    q, k, v = (x.requires_grad_() for x in tensors())
    gradient = torch.randn(q.shape)
    found = torch.autograd.grad(fa.flash_attn_func(q, k, v, **theirs), (q, k, v), gradient)
    wide = [x.detach().double().requires_grad_() for x in (q, k, v)]
    want = torch.autograd.grad(formula(*wide, **ours)[0], wide, gradient.double())
    for a, b in zip(found, want):
        torch.testing.assert_close(a.double(), b, atol=2e-5, rtol=0)


def test_packed_forms_are_the_same():
    q, k, v = tensors(n=9, m=9, g=4)
    want = fa.flash_attn_func(q, k, v, causal=True)
    qkv = torch.stack((q, k, v), 2).requires_grad_()
    out = fa.flash_attn_qkvpacked_func(qkv, causal=True)
    assert torch.equal(out, want)
    assert torch.equal(fa.flash_attn_kvpacked_func(q, torch.stack((k, v), 2), causal=True), want)
    out.sum().backward()
    separate = [x.clone().requires_grad_() for x in (q, k, v)]
    fa.flash_attn_func(*separate, causal=True).sum().backward()
    assert torch.equal(qkv.grad, torch.stack([x.grad for x in separate], 2))


@pytest.mark.parametrize("options", OPTIONS)
def test_varlen(options):
    theirs, ours = keywords(options)
    lengths_q, lengths_k = [3, 1, 6, 4], [5, 8, 6, 2]
    starts = lambda lengths: torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)
    q, k, v = tensors(b=1, n=sum(lengths_q), m=sum(lengths_k))
    q, k, v = (x[0].requires_grad_() for x in (q, k, v))
    out, lse, _ = fa.flash_attn_varlen_func(q, k, v, starts(lengths_q), starts(lengths_k), max(lengths_q), max(lengths_k),
                                            return_attn_probs=True, **theirs)
    found = torch.autograd.grad(out, (q, k, v), torch.ones_like(out))
    wide = [x.detach().double().requires_grad_() for x in (q, k, v)]
    rows, begin_q, begin_k = [], 0, 0
    for a, b in zip(lengths_q, lengths_k):
        part, part_lse, _ = formula(wide[0][None, begin_q:begin_q + a], wide[1][None, begin_k:begin_k + b],
                                    wide[2][None, begin_k:begin_k + b], **ours)
        rows.append(part[0])
        torch.testing.assert_close(lse[:, begin_q:begin_q + a].double(), part_lse[0], atol=1e-5, rtol=0)
        begin_q, begin_k = begin_q + a, begin_k + b
    close(out, torch.cat(rows))
    for a, b in zip(found, torch.autograd.grad(torch.cat(rows).sum(), wide)):
        torch.testing.assert_close(a.double(), b, atol=2e-5, rtol=0)
    if lengths_q == lengths_k:
        packed = fa.flash_attn_varlen_qkvpacked_func(torch.stack((q, k, v), 1), starts(lengths_q), max(lengths_q), **theirs)
        assert torch.equal(packed, out)


@pytest.mark.parametrize("one_for_each", [False, True])
def test_varlen_slopes_and_probabilities(one_for_each):
    lengths_q, lengths_k = [3, 0, 6, 4], [5, 8, 6, 2]
    starts_q, starts_k = (torch.tensor([0, *itertools.accumulate(x)], dtype=torch.int32) for x in (lengths_q, lengths_k))
    q, k, v = (x[0].requires_grad_() for x in tensors(b=1, n=sum(lengths_q), m=sum(lengths_k)))
    slopes = torch.rand(4, 4) if one_for_each else torch.rand(4).expand(4, 4)
    given = slopes if one_for_each else slopes[0]
    call = lambda **more: fa.flash_attn_varlen_func(q, k, v, starts_q, starts_k, 7, 9, alibi_slopes=given, causal=True, **more)
    out, lse, probabilities = call(return_attn_probs=True)
    assert torch.equal(out, call()) and probabilities.shape == (4, 4, 7, 9)
    for i, (a, b) in enumerate(zip(starts_q, starts_q[1:])):
        x = [x[None, c:d].detach().double() for x, c, d in ((q, a, b), (k, starts_k[i], starts_k[i + 1]), (v, starts_k[i], starts_k[i + 1]))]
        want, want_lse, weights = formula(*x, causal=True, slopes=slopes[i])
        close(out[a:b], want[0])
        close(lse[:, a:b], want_lse[0])
        padded = torch.zeros(4, 7, 9, dtype=torch.float64)
        padded[:, :weights.shape[2], :weights.shape[3]] = weights[0]
        close(probabilities[i], padded)
    assert all(x.isfinite().all() for x in torch.autograd.grad(out.sum(), (q, k, v)))
    if one_for_each:
        with pytest.raises(ValueError, match="slopes"):
            fa.flash_attn_varlen_func(q, k, v, starts_q, starts_k, 7, 9, alibi_slopes=slopes[:2])
        with pytest.raises(ValueError, match="cu_seqlens"):
            fa.flash_attn_varlen_func(q[1:], k, v, starts_q, starts_k, 7, 9, alibi_slopes=slopes)


@pytest.mark.parametrize("one_for_each", [False, True])
@pytest.mark.parametrize("sequences", [0, 2])
def test_varlen_rows_of_no_sequence(sequences, one_for_each):
    """As of buffers that are longer than what is in them."""
    q, k, v = (x[0] for x in tensors(b=1, n=7, m=9))
    starts_q = torch.tensor([0, 2, 5], dtype=torch.int32)[:sequences + 1]
    starts_k = torch.tensor([0, 4, 6], dtype=torch.int32)[:sequences + 1]
    slopes = torch.rand(sequences, 4) if one_for_each else None
    call = lambda q, k, v, **more: fa.flash_attn_varlen_func(q, k, v, starts_q, starts_k, 3, 4, alibi_slopes=slopes, **more)
    out, lse, probabilities = call(q, k, v, return_attn_probs=True)
    assert torch.equal(out, call(q, k, v)) and probabilities.shape == (sequences, 4, 3, 4)
    assert torch.equal(fa.flash_attn_varlen_func(q, k, v, starts_q, starts_k, 2, 3, alibi_slopes=slopes, return_attn_probs=True)[2],
                       probabilities[:, :, :2, :3])
    used = 5 if sequences else 0
    assert (out[used:] == 0).all() and (lse[:, used:] == float("-inf")).all()
    if sequences:
        want = call(q[:5], k[:6], v[:6], return_attn_probs=True)
        assert torch.equal(out[:5], want[0]) and torch.equal(lse[:, :5], want[1]) and torch.equal(probabilities, want[2])


def test_dropout_keeps_its_share():
    q, k, v = tensors(n=64, m=64)
    out, lse, weights = fa.flash_attn_func(q, k, v, dropout_p=0.25, return_attn_probs=True)
    assert abs((weights < 0).double().mean().item() - 0.25) < 0.01
    want, want_lse, kept = formula(q.double(), k.double(), v.double())
    close(weights.abs(), kept)
    torch.testing.assert_close(lse.double(), want_lse, atol=1e-5, rtol=0)
    used = torch.where(weights < 0, 0.0, kept) / 0.75
    close(out, torch.einsum("bhnm,bmhd->bnhd", used, v.double().repeat_interleave(2, 2)))
    torch.manual_seed(5)
    a = fa.flash_attn_func(q, k, v, dropout_p=0.25)
    torch.manual_seed(5)
    assert torch.equal(a, fa.flash_attn_func(q, k, v, dropout_p=0.25))


def rotated(x, cos, sin, positions, interleaved):
    """By complex numbers."""
    r = cos.shape[1]
    a, b = (x[..., 0:2 * r:2], x[..., 1:2 * r:2]) if interleaved else (x[..., :r], x[..., r:2 * r])
    turn = torch.complex(cos, sin)[positions][:, :, None]
    z = torch.complex(a, b) * turn
    turned = torch.stack((z.real, z.imag), -1).flatten(-2) if interleaved else torch.cat((z.real, z.imag), -1)
    return torch.cat((turned, x[..., 2 * r:]), -1)


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("rotary", [None, True, False])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("new", [0, 1, 3])
def test_kvcache(paged, rotary, causal, new):
    if rotary is not None and new == 0:
        return
    torch.manual_seed(3)
    b, h, g, d, size, page = 3, 4, 2, 16, 48, 16
    lengths = torch.tensor([5, 20, 33], dtype=torch.int32)
    n = max(new, 1)
    q = torch.randn(b, n, h, d)
    k, v = (torch.randn(b, new, g, d), torch.randn(b, new, g, d)) if new else (None, None)
    dense_k, dense_v = torch.randn(b, size, g, d), torch.randn(b, size, g, d)
    table = None
    if paged:
        table = torch.randperm(b * size // page).reshape(b, size // page).int()
        cache_k, cache_v = (torch.empty(b * size // page, page, g, d) for _ in range(2))
        for s in range(b):
            for p in range(size // page):
                cache_k[table[s, p]] = dense_k[s, p * page:(p + 1) * page]
                cache_v[table[s, p]] = dense_v[s, p * page:(p + 1) * page]
    else:
        cache_k, cache_v = dense_k.clone(), dense_v.clone()
    cos = sin = None
    wide_q = q.double()
    wide_k = k.double() if new else None
    if rotary is not None:
        angle = torch.randn(64, 6)
        cos, sin = angle.cos(), angle.sin()
        steps = torch.arange(n) if causal else torch.zeros(n, dtype=torch.long)
        wide_q = rotated(wide_q, cos.double(), sin.double(), lengths[:, None].long() + steps, rotary)
        wide_k = rotated(wide_k, cos.double(), sin.double(), lengths[:, None].long() + torch.arange(new), rotary)
    out, lse = fa.flash_attn_with_kvcache(q, cache_k, cache_v, k, v, cos, sin, cache_seqlens=lengths, block_table=table,
                                          causal=causal, rotary_interleaved=bool(rotary), return_softmax_lse=True)
    want_k, want_v = dense_k.double(), dense_v.double()
    for s in range(b):
        for i in range(new):
            want_k[s, lengths[s] + i], want_v[s, lengths[s] + i] = wide_k[s, i], v[s, i].double()
    want, want_lse, _ = formula(wide_q, want_k, want_v, causal=causal, lengths=lengths.long() + new)
    close(out, want)
    torch.testing.assert_close(lse.double(), want_lse, atol=1e-5, rtol=0)
    if not paged:
        close(cache_k, want_k)  # written in place


def test_kvcache_entries_and_left_padding():
    torch.manual_seed(4)
    q = torch.randn(2, 1, 4, 8)
    cache_k, cache_v = torch.randn(5, 24, 2, 8), torch.randn(5, 24, 2, 8)
    entries, left, lengths = (torch.tensor(x, dtype=torch.int32) for x in ([3, 1], [4, 0], [10, 24]))
    out = fa.flash_attn_with_kvcache(q, cache_k, cache_v, cache_seqlens=lengths, cache_batch_idx=entries,
                                     cache_leftpad=left, causal=True)
    for s in range(2):
        part = slice(int(left[s]), int(lengths[s]))
        want, _, _ = formula(q[s:s + 1].double(), cache_k[entries[s], part][None].double(),
                             cache_v[entries[s], part][None].double(), causal=True)
        close(out[s:s + 1], want)
    with pytest.raises(ValueError, match="room for"):
        fa.flash_attn_with_kvcache(q, cache_k[:2], cache_v[:2], q[:, :, :2], q[:, :, :2], cache_seqlens=24)


def test_rotary_counts_padding_as_places():
    q, k, v = tensors(n=2, m=2)
    _, cache_k, cache_v = tensors(m=16, seed=1)
    angle = torch.rand(16, 4)
    lengths, left = torch.tensor([5, 9], dtype=torch.int32), torch.tensor([2, 3], dtype=torch.int32)
    padded, whole = cache_k.clone(), cache_k.clone()
    call = lambda cache, **more: fa.flash_attn_with_kvcache(q, cache, cache_v.clone(), k, v, angle.cos(), angle.sin(),
                                                            cache_seqlens=lengths, causal=True, **more)
    found = call(padded, cache_leftpad=left)
    call(whole)
    assert torch.equal(padded, whole)
    for i in range(2):
        begin, end = int(left[i]), int(lengths[i])
        turned = rotated(q[i:i + 1].double(), angle.cos().double(), angle.sin().double(), torch.arange(end, end + 2)[None], True)
        values = torch.cat((cache_v[i, :end], v[i]))[begin:]
        close(found[i], formula(turned, whole[i:i + 1, begin:end + 2].double(), values[None].double(), causal=True)[0][0])


def test_wrong_tensors_are_named():
    q, k, v = tensors()
    cache = torch.zeros(2, 16, 2, 16)
    starts = torch.tensor([0, 7], dtype=torch.int32)
    turns = torch.zeros(5, 8)
    calls = [(lambda: fa.flash_attn_func(q[0], k, v), ValueError, r"q \[batch, L, heads, d\], found \[7, 4, 16\]"),
             (lambda: fa.flash_attn_func(q.numpy(), k, v), TypeError, "q to be a torch.Tensor .*found ndarray"),
             (lambda: fa.flash_attn_func(q, k, v, window_size=3), ValueError, "window_size .*found 3"),
             (lambda: fa.flash_attn_qkvpacked_func(torch.zeros(2, 5, 2, 4, 8)), ValueError, "qkv .*3, heads"),
             (lambda: fa.flash_attn_kvpacked_func(q, torch.zeros(2, 5, 3, 4, 8)), ValueError, "kv .*2, heads"),
             (lambda: fa.flash_attn_varlen_func(q, k, v, starts, starts, 7, 7), ValueError, r"q \[all, heads, d\]"),
             (lambda: fa.flash_attn_with_kvcache(q, cache, cache.clone(), k, cache_seqlens=3), ValueError, "k and v"),
             (lambda: fa.flash_attn_with_kvcache(q, cache, cache.clone(), k, v, turns), ValueError, "rotary_sin"),
             (lambda: fa.flash_attn_with_kvcache(q, cache, cache.clone(), k[:, :4], v[:, :4], turns, turns,
                                                 cache_seqlens=3), ValueError, "of 7 positions, found 5")]
    for call, kind, message in calls:
        with pytest.raises(kind, match=message):
            call()


@pytest.mark.parametrize("named, changes", [
    ("k", dict(k=(2, 1, 1, 8))), ("k", dict(k=(1, 1, 2, 8), v=(1, 1, 2, 8))), ("v", dict(v=(2, 1, 3, 8))),
    ("v", dict(k=(2, 2, 2, 8))), ("alibi_slopes", dict(alibi_slopes=torch.ones(3))),
    ("pages", dict(cache_batch_idx=torch.tensor([-1, 0]))), ("room", dict(cache_seqlens=-1)), ("room", dict(cache_seqlens=16)),
    ("left padding", dict(cache_leftpad=torch.tensor([-1, 2]))), ("cache_seqlens", dict(cache_seqlens=torch.tensor([1.0, 2.0]))),
    ("rotary_sin", dict(rotary_cos=torch.ones(20, 4), rotary_sin=torch.ones(20, 1))),
    ("rotary_cos", dict(rotary_cos=torch.ones(2, 4), rotary_sin=torch.ones(2, 4))),
    ("rotary_cos", dict(rotary_cos=torch.ones(20, 5), rotary_sin=torch.ones(20, 5))),
    ("float32", dict(dtype=torch.float64))])
def test_a_call_that_is_refused_writes_nothing_into_the_cache(named, changes):
    dtype = changes.pop("dtype", torch.float32)
    k, v = (torch.ones(changes.pop(name, (2, 1, 2, 8)), dtype=dtype) for name in ("k", "v"))
    k_cache, v_cache = torch.zeros(2, 16, 2, 8), torch.zeros(2, 16, 2, 8)
    with pytest.raises((ValueError, TypeError), match=named):
        fa.flash_attn_with_kvcache(torch.ones(2, 1, 4, 8), k_cache, v_cache, k, v, **{"cache_seqlens": 3, **changes})
    assert not k_cache.any() and not v_cache.any()


def test_caches_of_inference_mode_and_another_default_device():
    with torch.inference_mode():
        k_cache, v_cache = torch.zeros(2, 16, 2, 8), torch.zeros(2, 16, 2, 8)
    x = torch.randn(2, 1, 2, 8)
    plain = k_cache.clone(), v_cache.clone()
    want = fa.flash_attn_with_kvcache(x, *plain, x, x, cache_seqlens=3)
    with torch.device("meta"):
        found = fa.flash_attn_with_kvcache(x, k_cache, v_cache, x, x, cache_seqlens=3)
    assert torch.equal(found, want) and not found.is_inference()
    assert torch.equal(k_cache, plain[0]) and torch.equal(v_cache, plain[1]) and k_cache[:, 3].any()


@pytest.mark.parametrize("lengths", [[2, 2], [2, 3]])
def test_tables_of_pages_whatever_the_queries(lengths):
    pages = torch.randn(6, 16, 2, 8)
    starts = torch.tensor([0, lengths[0], sum(lengths)], dtype=torch.int32)
    keys = torch.tensor([0, 20, 36], dtype=torch.int32)
    q = torch.randn(sum(lengths), 4, 8)
    run = lambda table: fa.flash_attn_varlen_func(q, pages, pages, starts, keys, max(lengths), 20,
                                                  block_table=torch.tensor(table, dtype=torch.int32))
    x = torch.cat([pages[[0, 5]].flatten(0, 1)[:20], pages[2]])
    torch.testing.assert_close(run([[0, 5], [2, 2**31 - 1]]), fa.flash_attn_varlen_func(q, x, x, starts, keys, 3, 20))
    for table in ([[0, -1], [2, 3]], [[0, 6], [2, 3]]):
        with pytest.raises(ValueError, match=r"pages in \[0, 6\)"):
            run(table)
    with pytest.raises(ValueError, match="20"):
        run([[0], [1]])
    none = torch.zeros(3, dtype=torch.int32)
    empty = fa.flash_attn_varlen_func(q[:0], pages, pages, none, keys, 0, 20,
                                      block_table=torch.tensor([[0, 1], [2, 3]], dtype=torch.int32))
    assert empty.shape == (0, 4, 8)


def test_rotary_of_float64_is_float64():
    angles = torch.randn(20, 4, dtype=torch.float64)
    x = torch.randn(1, 1, 2, 8, dtype=torch.float64)
    cache = torch.zeros(1, 16, 2, 8, dtype=torch.float64)
    fa.flash_attn_with_kvcache(x, cache, cache.clone(), x, x, angles.cos(), angles.sin(), 5, rotary_interleaved=False)
    turned = torch.view_as_real(torch.complex(x[..., :4], x[..., 4:]) * torch.polar(torch.ones(4).double(), angles[5]))
    torch.testing.assert_close(cache[0, 5], turned[0, 0].transpose(-1, -2).flatten(-2), atol=1e-14, rtol=1e-14)


TRACED = {"func": lambda q, st: fa.flash_attn_func(q, q, q, causal=True, window_size=(3, -1), softcap=5.0),
          "slopes": lambda q, st: fa.flash_attn_kvpacked_func(q, torch.stack((q, q), 2)[:, :, :, :2], softmax_scale=0.3,
                                                              alibi_slopes=torch.tensor([0.5, 0.25, 0.1, 0.0])),
          "log_sum_exp": lambda q, st: sum(x.sum() for x in fa._run(q, q, q, fa._options(None, True, (-1, -1), 0.0, None))),
          "varlen": lambda q, st: fa.flash_attn_varlen_func(q[0], q[0], q[0], st, st, 3, 3, causal=True),
          "dropout": lambda q, st: fa.flash_attn_func(q, q, q, 0.5)}


@pytest.mark.parametrize("name", TRACED)
def test_whole_graphs(name):
    q, starts = torch.randn(2, 5, 4, 8, requires_grad=True), torch.tensor([0, 2, 5], dtype=torch.int32)
    torch.manual_seed(1)
    want = TRACED[name](q, starts)
    gradient, = torch.autograd.grad(want.square().sum(), q)
    torch._dynamo.reset()
    compiled = torch.compile(TRACED[name], backend="aot_eager", fullgraph=True)
    torch.manual_seed(1)
    found = compiled(q, starts)
    assert torch.equal(found, want) and found.stride() == want.stride()
    assert torch.equal(torch.autograd.grad(found.square().sum(), q)[0], gradient)

    class Module(torch.nn.Module):
        def forward(self, q, starts):
            return TRACED[name](q, starts)

    for strict in (False, True):
        exported = torch.export.export(Module(), (q.detach(), starts), strict=strict).module()
        torch.manual_seed(1)
        assert torch.equal(exported(q.detach(), starts), want)


def test_what_graphs_do_not_hold():
    x, slopes = torch.randn(1, 5, 2, 8), torch.rand(2, 2)
    starts = torch.tensor([0, 2, 5], dtype=torch.int32)
    calls = (lambda x: fa.flash_attn_func(x, x, x, return_attn_probs=True)[0],
             lambda x: fa.flash_attn_varlen_func(x[0], x[0], x[0], starts, starts, 3, 3, alibi_slopes=slopes),
             lambda x: fa.flash_attn_with_kvcache(x, x, x, cache_seqlens=3))
    for call in calls:
        torch._dynamo.reset()
        torch.testing.assert_close(torch.compile(call, backend="aot_eager")(x), call(x))  # by a break in the graph
    for call in calls:
        for record in (lambda f: make_fx(f)(x), lambda f: torch.jit.trace(f, (x,), check_trace=False)):
            with pytest.raises(RuntimeError, match="not traced"):
                record(call)
    call = lambda q: fa.flash_attn_func(q, x, x)
    tangents = lambda q: torch.func.jvp(call, (q,), (torch.ones_like(q),))[1]
    for refused in (lambda: make_fx(tangents)(x), lambda: torch.compile(tangents, backend="aot_eager")(x)):
        torch._dynamo.reset()
        with pytest.raises((RuntimeError, NotImplementedError)):
            refused()


def test_compiled_writes_to_a_cache():
    torch._dynamo.reset()
    x = torch.randn(2, 1, 2, 8)
    cache = torch.randn(2, 16, 2, 8)

    def step(x, keys, values):
        return fa.flash_attn_with_kvcache(x * 2, keys, values, x, x, cache_seqlens=3, causal=True) + 1

    want, found = [cache.clone(), cache.clone()], [cache.clone(), cache.clone()]
    output = step(x, *want)
    again = fa.flash_attn_with_kvcache(x * 2, *want, x, x, cache_seqlens=np.int64(3), causal=True) + 1
    assert torch.equal(again, output)
    torch.testing.assert_close(torch.compile(step, backend="aot_eager")(x, *found), output)
    assert all(torch.equal(a, b) for a, b in zip(found, want))


@pytest.mark.parametrize("scale", [np.float64(0.5), torch.tensor(0.5), 1 / np.sqrt(8)], ids=str)
def test_numbers_of_other_kinds_compile(scale):
    x = torch.randn(1, 5, 2, 8)
    call = lambda x: fa.flash_attn_func(x, x, x, softmax_scale=scale, softcap=np.float32(5))
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(call, backend="aot_eager")(x), call(x))


def test_errors_are_runtime_errors_too():
    x = torch.ones(1, 2, 2, 4)
    for error, call in ((ValueError, lambda: fa.flash_attn_func(torch.ones(1, 2, 3, 4), x, x)), (TypeError, lambda: fa.flash_attn_func(x.int(), x, x)),
                        (TypeError, lambda: fa.flash_attn_qkvpacked_func(None)), (ValueError, lambda: fa.flash_attn_with_kvcache(x, x, x, x, x, cache_seqlens=9))):
        with pytest.raises(RuntimeError) as found:
            call()
        assert isinstance(found.value, error)


@pytest.mark.parametrize("options,found", [
    ({"window_size": (None, None)}, r"window_size of two whole numbers \(-1: unbounded\), found \(None, None\)"),
    ({"window_size": "ab"}, "window_size of two whole numbers .* found 'ab'"), ({"window_size": (1.0, 2)}, "window_size of two whole numbers"),
    ({"softcap": None}, "softcap to be a number, found NoneType"), ({"dropout_p": None}, "dropout_p to be a number, found NoneType"),
    ({"softmax_scale": "a"}, "softmax_scale to be a number, found str")], ids=str)
def test_numbers_that_are_none_are_named(options, found):
    x = torch.ones(1, 2, 3, 4)
    for function in (fa.flash_attn_func, fa.flash_attn_with_kvcache):
        if function is fa.flash_attn_func or "dropout_p" not in options:
            with pytest.raises(TypeError, match=found):
                function(x, x, x, **options)


@pytest.mark.parametrize("gradients", [False, True])
def test_pages_and_lengths_that_do_not_fit_are_named(gradients):
    q, starts = torch.ones(4, 2, 8, requires_grad=gradients), torch.tensor([0, 2, 4], dtype=torch.int32)
    pages, table = torch.ones(2, 16, 2, 8), torch.tensor([[0], [1]])
    call = lambda pages, table, length: fa.flash_attn_varlen_func(q, pages, pages, starts, starts, length, 2, block_table=table)
    assert call(pages, table, 2).shape == q.shape
    for error, match, given in [(TypeError, "max_seqlen_q to be a whole number, found float", (pages, table, 1.0)),
                                (TypeError, "max_seqlen_q to be a whole number, found NoneType", (pages, table, None)),
                                (ValueError, r"block_table \[sequences, pages\], found \[2\]", (pages, table[:, 0], 2)),
                                (TypeError, "block_table to be a torch.Tensor .*, found list", (pages, [[0], [1]], 2)),
                                (ValueError, "expected", (pages[:, :0], table, 2))]:
        with pytest.raises(error, match=match):
            call(*given)
    with pytest.raises(TypeError, match="max_seqlen_k to be a whole number"):
        fa.flash_attn_varlen_func(q, q, q, starts, starts, 2, None, return_attn_probs=True)


def test_what_would_be_lost_is_refused():
    q, cache = torch.randn(2, 1, 1, 4), torch.zeros(1, 8, 1, 4)
    with pytest.raises(ValueError, match="expected k_cache with memory of its own"):
        fa.flash_attn_with_kvcache(q, cache.expand(2, 8, 1, 4), torch.zeros(2, 8, 1, 4), q, q, cache_seqlens=0)
    fa.flash_attn_with_kvcache(q, cache.expand(2, 8, 1, 4), cache.expand(2, 8, 1, 4), cache_seqlens=3)  # reads alone
    with pytest.raises(TypeError, match="expected softmax_scale to be a number, found a tensor that requires gradients"):
        fa.flash_attn_func(q, q, q, softmax_scale=torch.tensor(0.5, requires_grad=True))
    with pytest.raises(ValueError, match="soft cap"):
        fa.flash_attn_func(q, q, q, softcap=float("nan"))
