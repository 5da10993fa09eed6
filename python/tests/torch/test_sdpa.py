"""attend.torch against torch.nn.functional.scaled_dot_product_attention."""
import subprocess
import sys
import threading

import pytest
import torch
from torch.nn.attention import SDPBackend

import attend
import attend.torch
from attend import _core

F = torch.nn.functional
BOUND = {torch.float32: 3e-6, torch.float64: 1e-12, torch.bfloat16: 3e-2, torch.float16: 4e-3}


def inputs(dtype, *, n=6, m=7, kv_heads=4, d=8, dv=8):
    torch.manual_seed(n * 100 + m)
    make = lambda *shape: torch.randn(*shape, dtype=dtype, requires_grad=True)
    return make(2, 4, n, d), make(2, kv_heads, m, d), make(2, kv_heads, m, dv)


def cases():
    torch.manual_seed(1)
    yield "plain", {}
    yield "causal", {"is_causal": True}
    yield "boolean", {"attn_mask": torch.rand(2, 1, 6, 7) > 0.3}
    yield "boolean rows without keys", {"attn_mask": (torch.rand(6, 7) > 0.3) & (torch.arange(6) != 2)[:, None]}
    yield "additive", {"attn_mask": torch.randn(4, 6, 7)}
    yield "scale", {"scale": 0.3}
    yield "grouped", {"enable_gqa": True}


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("name,options", list(cases()), ids=lambda x: x if isinstance(x, str) else "")
def test_equals_pytorch(name, options, dtype):
    q, k, v = inputs(dtype, kv_heads=2 if name == "grouped" else 4, dv=5)
    if name == "additive":
        options = {"attn_mask": options["attn_mask"].to(dtype).requires_grad_()}
    wrt = [q, k, v] + ([options["attn_mask"]] if name == "additive" else [])
    found = attend.torch.scaled_dot_product_attention(q, k, v, **options)
    # The judge in float64, or its own rounding would count.
    wide = [x.detach().double().requires_grad_() for x in wrt]
    if name == "additive":
        options = {"attn_mask": wide[3]}
    want = F.scaled_dot_product_attention(*wide[:3], **options)
    assert found.dtype == dtype and found.shape == want.shape
    torch.testing.assert_close(found.double(), want, atol=BOUND[dtype], rtol=0)
    gradient = torch.randn(want.shape, dtype=dtype)
    for a, b in zip(torch.autograd.grad(found, wrt, gradient), torch.autograd.grad(want, wide, gradient.double())):
        torch.testing.assert_close(a.double(), b, atol=4 * BOUND[dtype], rtol=0)


def test_any_rank():
    for q, k, v in [((5, 8), (7, 8), (7, 4)), ((3, 5, 8), (3, 7, 8), (3, 7, 4)), ((2, 2, 3, 5, 8), (2, 1, 3, 7, 8), (1, 2, 3, 7, 4)),
                    ((1, 3, 5, 8), (4, 3, 7, 8), (4, 3, 7, 4)), ((2, 3, 5, 8), (2, 1, 7, 8), (2, 1, 7, 4)),
                    ((2, 2, 3, 5, 8), (3, 7, 8), (7, 4)), ((5, 8), (7, 8), (2, 2, 3, 7, 4)), ((0, 3, 5, 8), (1, 3, 7, 8), (1, 3, 7, 4)),
                    ((2, 0, 5, 8), (2, 1, 7, 8), (2, 1, 7, 4))]:
        q, k, v = torch.randn(q), torch.randn(k), torch.randn(v)
        want = F.scaled_dot_product_attention(q, k, v)
        found = attend.torch.scaled_dot_product_attention(q, k, v)
        torch.testing.assert_close(found, want, atol=3e-6, rtol=0)


@pytest.mark.parametrize("mask", [(5, 7), (3, 5, 7), (2, 3, 5, 7), (1, 1, 5, 7), (2, 2, 3, 5, 7), (2, 1, 1, 1, 7)], ids=str)
def test_masks_of_five_dimensions(mask):
    q, k, v = torch.randn(2, 2, 3, 5, 8), torch.randn(2, 2, 3, 7, 8), torch.randn(2, 2, 3, 7, 4)
    for given in (torch.randn(mask), torch.rand(mask) > 0.3):
        torch.testing.assert_close(attend.torch.scaled_dot_product_attention(q, k, v, given),
                                   F.scaled_dot_product_attention(q, k, v, given), atol=3e-6, rtol=0)


def test_keys_and_values_in_groups_of_their_own():
    for heads in ((6, 2, 3), (6, 3, 2), (6, 6, 1)):
        q, k, v = (torch.randn(2, n, 5, 8, requires_grad=True) for n in heads)
        found = attend.torch.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        want = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        torch.testing.assert_close(found, want, atol=3e-6, rtol=0)
        for a, b in zip(torch.autograd.grad(found.sum(), (q, k, v)), torch.autograd.grad(want.sum(), (q, k, v))):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


@pytest.mark.parametrize("gradients", [False, True])
def test_outputs_lie_in_memory_as_the_query(gradients):
    for q in (torch.randn(2, 5, 3, 8).transpose(1, 2), torch.randn(2, 5, 3, 3, 8)[:, :, 1].transpose(1, 2), torch.randn(2, 3, 5, 8),
              torch.randn(5, 2, 3, 8).permute(1, 2, 0, 3), torch.randn(2, 3, 8, 5).mT, torch.randn(2, 1, 5, 8).expand(2, 3, 5, 8),
              torch.randn(2, 3, 5, 16)[..., ::2], torch.randn(5, 3, 8).transpose(0, 1)):
        q = q.detach().requires_grad_(gradients)
        for dropout_p in (0.0, 1e-9):
            found = attend.torch.scaled_dot_product_attention(q, q, q, dropout_p=dropout_p)
            want = F.scaled_dot_product_attention(q, q, q, dropout_p=dropout_p)
            assert found.stride() == want.stride()
            torch.testing.assert_close(found, want, atol=3e-6, rtol=0)
        assert attend.torch.scaled_dot_product_attention(q, q, q[..., :4]).is_contiguous()
    torch.testing.assert_close(attend.attention(torch.randn(1, 1, 8, 5).mT.fill_(1), torch.ones(1, 1, 7, 8), torch.ones(1, 1, 7, 4)),
                               torch.ones(1, 1, 5, 4))


def test_more_dimensions_than_the_library_has():
    q = torch.randn(1, 2, 1, 1, 2, 1, 2, 3, 4, requires_grad=True)
    mask = torch.rand(2, 1, 1, 2, 1, 2, 3, 3).lt(0.8) | torch.eye(3, dtype=torch.bool)
    for attn_mask in (None, mask, mask.float()):
        found = attend.torch.scaled_dot_product_attention(q, q, q, attn_mask)
        want = F.scaled_dot_product_attention(q, q, q, attn_mask)
        torch.testing.assert_close(found, want, atol=1e-6, rtol=0)
        torch.testing.assert_close(*(torch.autograd.grad(x.sum(), q)[0] for x in (found, want)), atol=1e-5, rtol=0)
        torch.testing.assert_close(attend.torch.scaled_dot_product_attention(q.detach(), q.detach(), q.detach(), attn_mask), want.detach(),
                                   atol=1e-6, rtol=0)


def test_torch_is_imported_while_others_compute():
    program = """
import attend, numpy, threading
x = numpy.ones((1, 2, 8, 16), "f4")
done = threading.Event()

def compute():
    while not done.is_set():
        attend.attention(x, x, x)

workers = [threading.Thread(target=compute) for _ in range(2)]
for worker in workers:
    worker.start()
import torch
done.set()
for worker in workers:
    worker.join()
attend.attention(torch.ones(1, 1, 2, 4), torch.ones(1, 1, 2, 4), torch.ones(1, 1, 2, 4))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def test_numbers_that_are_none():
    q = torch.randn(1, 1, 2, 4)
    for options, name in (({"scale": "a"}, "scale"), ({"dropout_p": None}, "dropout_p")):
        with pytest.raises(TypeError, match=rf"\[scaled_dot_product_attention\] expected {name} to be a number"):
            attend.torch.scaled_dot_product_attention(q, q, q, **options)
    with pytest.raises(TypeError):
        attend.torch.scaled_dot_product_attention(q, q, q, None, 0.0, False, 0.5)  # scale is a keyword
    q = q.reshape([1] * 8 + [2, 4])
    with pytest.raises(ValueError, match="expected query of at most 8 dimensions, found 10"):
        attend.attention(q, q, q)


def of(*shape):
    return lambda: torch.randn(shape, dtype=torch.float64, requires_grad=True)


# What PyTorch does not give its flash attention: made anew at each call, with functions of query, key and value.
BY_MATH = {"2 dimensions": (of(5, 8),) * 3, "3 dimensions": (of(2, 5, 8),) * 3, "5 dimensions": (of(2, 1, 2, 5, 8),) * 3,
           "dropout": (of(2, 4, 6, 8),) * 3, "bias": (of(2, 4, 6, 8),) * 3, "mask of 3 dimensions": (of(2, 4, 6, 8),) * 3,
           "value's size": (of(2, 4, 6, 8), of(2, 4, 6, 8), of(2, 4, 6, 5)), "batch": (of(2, 4, 6, 8), of(1, 4, 6, 8), of(1, 4, 6, 8)),
           "heads": (of(2, 4, 6, 8), of(2, 1, 6, 8), of(2, 1, 6, 8)), "columns": (lambda: of(2, 4, 8, 6)().mT, *(of(2, 4, 6, 8),) * 2),
           "no keys": (of(2, 4, 6, 8), of(2, 4, 0, 8), of(2, 4, 0, 8)), "no queries": (of(2, 4, 0, 8), of(2, 4, 6, 8), of(2, 4, 6, 8)),
           "transposed": (lambda: of(2, 6, 4, 8)().transpose(1, 2), of(2, 4, 6, 8), of(2, 4, 6, 5))}


@pytest.mark.parametrize("name", BY_MATH)
def test_query_key_and_results_may_be_written_to_before_backward(name):
    given = [make() for make in BY_MATH[name]]
    options = {"dropout": {"dropout_p": 1e-9}, "bias": {"attn_mask": torch.randn(6, 6, dtype=torch.float64, requires_grad=True)},
               "mask of 3 dimensions": {"attn_mask": torch.randn(4, 6, 6, dtype=torch.float64)}}.get(name, {})

    def gradients(function):
        q, k, v = (x.detach().requires_grad_() for x in given)
        written = [q * 1, k * 1]
        y = function(*written, v, **options)
        assert y.is_contiguous()
        with torch.no_grad():
            assert function(*written, v, **options).stride() == y.stride()
        y *= 2
        written[0] += y.sum()
        written[1].zero_()
        return torch.autograd.grad(y.sum() + written[0].sum(), (q, k, v))

    for a, b in zip(gradients(attend.torch.scaled_dot_product_attention), gradients(F.scaled_dot_product_attention)):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-11)


def test_layouts_and_copies_are_those_of_pytorchs_choice():
    """Of random shapes and strides."""
    order = lambda x: [stride for stride, size in zip(x.stride(), x.shape) if size > 1]
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        draw = lambda *of: of[int(torch.randint(len(of), (), generator=generator))]
        layouts = lambda x: draw(x, x, x.transpose(1, 2).contiguous().transpose(1, 2), x.mT.contiguous().mT, torch.cat((x, x), -1)[..., ::2])
        d, dv, lengths = draw(1, 8), draw(8, 1, 5), (draw(5, 5, 0), draw(5, 6, 0))
        q, k, v = (layouts(torch.randn(2, 4, *of)) for of in ((lengths[0], d), (lengths[1], d), (lengths[1], draw(d, d, dv))))
        mask = draw(None, None, torch.randn(1, lengths[1]), torch.randn(4, 1, lengths[1]), torch.randn(1, 4, *lengths) > 0)
        if draw(True, False) and mask is not None and mask.is_floating_point():
            mask.requires_grad_()
        flash = torch._fused_sdp_choice(q, k, v, mask) == SDPBackend.FLASH_ATTENTION.value
        for gradients in (False, True):
            x = q.detach().requires_grad_(gradients)
            found, want = (f(x, k, v, mask) for f in (attend.torch.scaled_dot_product_attention, F.scaled_dot_product_attention))
            assert found.numel() == 0 or order(found) == order(want), (seed, gradients)
        assert attend.torch._function._is_for_flash(q, k, v, mask, 0.0, False) == flash, seed


def test_strides_are_taken_as_they_are():
    qkv = torch.randn(2, 9, 3, 4, 16, requires_grad=True)
    q, k, v = (qkv[:, :, i].transpose(1, 2) for i in range(3))
    found = attend.torch.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(found, F.scaled_dot_product_attention(q, k, v, is_causal=True), atol=3e-6, rtol=0)
    found.sum().backward()
    assert qkv.grad.isfinite().all()


def test_gradients_by_finite_differences():
    q, k, v = (x[:1, :2].detach().requires_grad_() for x in inputs(torch.float64))
    bias = torch.randn(2, 6, 7, dtype=torch.float64, requires_grad=True)
    call = lambda *x: attend.torch.scaled_dot_product_attention(*x)
    assert torch.autograd.gradcheck(call, (q, k, v, bias))


def test_dropout_repeats_with_pytorchs_seed():
    q, k, v = (x.detach() for x in inputs(torch.float32, n=50, m=60))
    results = []
    for _ in range(2):
        torch.manual_seed(9)
        results.append(attend.torch.scaled_dot_product_attention(q, k, v, dropout_p=0.5))
    assert torch.equal(*results)
    assert not torch.equal(results[0], attend.torch.scaled_dot_product_attention(q, k, v, dropout_p=0.5))


def test_a_model_runs_unchanged():
    torch.manual_seed(2)

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.out = torch.nn.Linear(32, 96), torch.nn.Linear(32, 32)

        def forward(self, x):
            q, k, v = self.qkv(x).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)
            return self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))

    model, x = Layer(), torch.randn(2, 10, 32)
    want = model(x)
    original = F.scaled_dot_product_attention
    with attend.torch.replaced():
        assert F.scaled_dot_product_attention is not original
        torch.testing.assert_close(model(x), want, atol=1e-6, rtol=0)
    assert F.scaled_dot_product_attention is original


def test_what_does_not_fit_is_an_exception():
    q, k, v = inputs(torch.float32)
    sdpa = attend.torch.scaled_dot_product_attention
    for error, call in [(ValueError, lambda: sdpa(q, k, v, torch.ones(6, 7).bool(), is_causal=True)),
                        (ValueError, lambda: sdpa(q, k[:, :3], v)), (ValueError, lambda: sdpa(q[0, 0, 0], k, v)),
                        (ValueError, lambda: sdpa(q, k[..., :5], v)), (ValueError, lambda: sdpa(q, k, v[:, :, :3])),
                        (ValueError, lambda: sdpa(q, k, v, torch.ones(5, 5).bool())), (TypeError, lambda: sdpa(q.int(), k, v)),
                        (TypeError, lambda: sdpa(q, k.double(), v)), (TypeError, lambda: sdpa(q.to("meta"), k, v)),
                        (ValueError, lambda: sdpa(q, k, v, dropout_p=1.5)), (ValueError, lambda: sdpa(q, k, v, dropout_p=-0.5)),
                        (ValueError, lambda: sdpa(q, k, v, dropout_p=float("nan"))), (TypeError, lambda: sdpa(q.to_sparse(), k, v)),
                        (TypeError, lambda: sdpa(q.detach().numpy(), k, v)), (TypeError, lambda: sdpa(q, None, v)),
                        (TypeError, lambda: sdpa(q, k, v, [[True]])), (ValueError, lambda: sdpa(q, k, v, torch.ones(1, 2, 4, 6, 7))),
                        (ValueError, lambda: sdpa(q, k[:, :3], v[:, :2], enable_gqa=True)),
                        (TypeError, lambda: sdpa(q, k, v, scale=torch.tensor(0.5, requires_grad=True)))]:
        with pytest.raises(error) as caught:
            call()
        assert isinstance(caught.value, RuntimeError)  # as PyTorch's errors are
    with pytest.raises(RuntimeError, match="Explicit attn_mask should not be set when is_causal=True"):
        sdpa(q, k, v, torch.ones(6, 7).bool(), is_causal=True)


def test_a_tensor_as_scale():
    q, k, v = inputs(torch.float32)
    sdpa = attend.torch.scaled_dot_product_attention
    assert torch.equal(sdpa(q, k, v, scale=torch.tensor(0.5)), sdpa(q, k, v, scale=0.5))


def test_threads_call_at_once():
    q, k, v = (x.detach() for x in inputs(torch.float32, n=200, m=200))
    want = attend.torch.scaled_dot_product_attention(q, k, v)
    wrong = []

    def work():
        for _ in range(20):
            if not torch.equal(attend.torch.scaled_dot_product_attention(q, k, v), want):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_addresses_are_the_callers():
    qkv = torch.zeros(2, 9, 3, 4, 16, requires_grad=True)
    for dtype in BOUND:
        for x in (qkv[:, :, 1].transpose(1, 2), qkv[1:, ::2, 2, :, 3:], qkv):
            x = x.detach().to(dtype) if dtype != torch.float32 else x
            assert _core._rows_address(x) == x.data_ptr()
    assert _core._rows_address(qkv.detach()[..., ::2]) != qkv.data_ptr()


def test_pytorch_without_dlpacks_functions_in_c():
    """As before 2.10: tensors are asked by their attributes."""
    program = """
import torch
if hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
    del torch.Tensor.__dlpack_c_exchange_api__
import attend.torch
torch.manual_seed(0)
x = torch.randn(2, 3, 5, 8, dtype=torch.float16).transpose(1, 2)
want = torch.nn.functional.scaled_dot_product_attention(x.float(), x.float(), x.float())
assert (attend.torch.scaled_dot_product_attention(x, x, x) - want).abs().max() < 2e-3
x = torch.randn(2, 3, 5, 8, requires_grad=True)
got, = torch.autograd.grad(attend.torch.scaled_dot_product_attention(x, x, x).square().sum(), x)
want, = torch.autograd.grad(torch.nn.functional.scaled_dot_product_attention(x, x, x).square().sum(), x)
torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-4)
for bad in (torch.zeros(1, 1, 1, 1, device="meta"), torch.zeros(1, 1, 1, 1, dtype=torch.complex64)):
    try:
        attend.attention(bad, bad, bad)
        raise AssertionError
    except TypeError:
        pass
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_storage_smaller_than_its_tensor_is_refused():
    for size in (0, 64, 4 * 2 * 4 * 6 * 8 - 4):
        x = torch.randn(2, 4, 6, 8)
        x.untyped_storage().resize_(size)
        whole = torch.randn(2, 4, 6, 8)
        for call in (lambda: attend.attention(x, whole, whole), lambda: attend.attention(whole, whole, whole, out=x)):
            with pytest.raises(TypeError, match="storage|memory"):
                call()


def test_tensors_lose_their_memory_while_they_are_used():
    q = torch.randn(1, 4, 3000, 16)
    want = attend.torch.scaled_dot_product_attention(q, q, q)
    for _ in range(5):
        x, trash, result = q.clone(), [], []
        thread = threading.Thread(target=lambda: result.append(attend.torch.scaled_dot_product_attention(x, x, x)))
        thread.start()
        while thread.is_alive():
            x.data = q.clone()
            trash = [torch.full_like(q, float("nan")) for _ in range(3)]
        thread.join()
        del trash
        assert torch.equal(result[0], want)


@pytest.mark.parametrize("query,mask", [(torch.float32, torch.float64), (torch.float32, torch.float16), (torch.float16, torch.bfloat16),
                                        (torch.float32, torch.int32)], ids=str)
def test_types_of_masks(query, mask):
    x, mask = torch.ones(1, 2, 3, 4, dtype=query), torch.ones(3, 3, dtype=mask)
    for function in (F.scaled_dot_product_attention, attend.torch.scaled_dot_product_attention):
        with pytest.raises(RuntimeError, match="attn_mask"):
            function(x, x, x, mask)


@pytest.mark.parametrize("keywords", [{"is_causal": "x"}, {"is_causal": None}, {"is_causal": 1}, {"enable_gqa": 1}], ids=str)
def test_flags_are_true_or_false(keywords):
    x = torch.ones(1, 2, 3, 4)
    for function in (F.scaled_dot_product_attention, attend.torch.scaled_dot_product_attention):
        with pytest.raises(TypeError, match=next(iter(keywords))):
            function(x, x, x, **keywords)


# An error of a hook, a subclass or a signal handler is its own.
def test_errors_of_others_pass():
    error = ValueError("of a hook")

    def pack(x):
        raise error

    x = torch.ones(1, 2, 3, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x), pytest.raises(ValueError) as found:
        attend.torch.scaled_dot_product_attention(x, x, x)
    assert found.value is error
