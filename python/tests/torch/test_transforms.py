"""attend.torch under what PyTorch does to functions: compiling, tracing, transforming, autocast; a right result or an error."""
import warnings

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils._python_dispatch import TorchDispatchMode

import attend
import attend.flash_attn
import attend.torch

F = torch.nn.functional
sdpa = attend.torch.scaled_dot_product_attention


def inputs(*batch):
    torch.manual_seed(3)
    return torch.randn(*batch, 2, 3, 4, 8), torch.randn(*batch, 2, 3, 5, 8), torch.randn(*batch, 2, 3, 5, 6)


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def plain(q, k, v):
    return sdpa(q, k, v)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiles_as_one_graph(backend):
    torch._dynamo.reset()
    bias = torch.randn(4, 5, requires_grad=True)
    call = torch.compile(lambda q, k, v: sdpa(q * 2, k, v, bias).square(), backend=backend, fullgraph=True)
    given = [x.requires_grad_() for x in inputs()]
    want = F.scaled_dot_product_attention(given[0] * 2, *given[1:], bias).square()
    close(call(*given), want)
    found = torch.autograd.grad(call(*given).sum(), [*given, bias])
    for a, b in zip(found, torch.autograd.grad(want.sum(), [*given, bias])):
        close(a, b)


def test_dropout_under_a_compiler_is_drawn_anew():
    torch._dynamo.reset()
    call = torch.compile(lambda q, k, v: sdpa(q, k, v, dropout_p=0.5), backend="eager", fullgraph=True)
    given, results = inputs(), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(call(*given))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


@pytest.mark.parametrize("record", [lambda *x: torch.jit.trace(plain, x), lambda *x: make_fx(plain)(*x),
                                    lambda *x: make_fx(plain, tracing_mode="fake")(*x),
                                    lambda *x: torch.jit.trace(plain, (x[0].requires_grad_(), *x[1:]))])
def test_traces_compute(record):
    q, k, v = inputs()
    traced = record(*inputs())
    close(traced(q * 2, k, v), F.scaled_dot_product_attention(q * 2, k, v))


def test_traces_that_would_record_nothing_are_refused():
    x = torch.randn(1, 4, 2, 8)
    for record in (torch.jit.trace, lambda f, x: make_fx(f)(*x)):
        flash = lambda x: attend.flash_attn.flash_attn_func(x, x, x)
        assert torch.equal(record(flash, (x,))(2 * x), flash(2 * x))
        with pytest.raises(RuntimeError, match="not traced"):
            record(lambda x: attend.flash_attn.flash_attn_with_kvcache(x, x, x, cache_seqlens=2), (x,))


def test_tensors_without_memory():
    q, k, v = inputs()
    with FakeTensorMode() as mode:
        fake = [mode.from_tensor(x) for x in (q, k, v)]
        assert sdpa(*fake).shape == (2, 3, 4, 6)
        assert sdpa(fake[0].requires_grad_(), *fake[1:]).requires_grad
        for order in ((0, 2, 1), (1, 0, 2)):
            with pytest.raises(RuntimeError, match="expected"):
                sdpa(*(fake[i] for i in order))
        with pytest.raises(RuntimeError, match="broadcasts"):
            sdpa(*fake, mode.from_tensor(torch.ones(5, 5)))
        with pytest.raises(RuntimeError, match="one type"):
            sdpa(fake[0].double(), *fake[1:])
        layout = mode.from_tensor(torch.randn(2, 4, 3, 8).transpose(1, 2))
        assert sdpa(layout, fake[1], fake[1]).stride() == layout.stride()
        rows = [x.transpose(1, 2) for x in fake]
        assert attend.flash_attn.flash_attn_func(*rows).shape == (2, 4, 3, 6)
        with pytest.raises(ValueError, match="multiple of the keys' heads"):
            attend.flash_attn.flash_attn_func(*fake)
        with pytest.raises(TypeError, match="without memory"):
            attend.flash_attn.flash_attn_with_kvcache(*rows)
        with pytest.raises(TypeError, match="without"):
            attend.attention(q, k, v)  # the result would be fake
    with pytest.raises(TypeError, match="without memory"):
        torch.func.functionalize(lambda x: attend.attention(x, x, x))(q)
    close(torch.func.functionalize(plain)(q, k, v), F.scaled_dot_product_attention(q, k, v))


def test_meta_tensors():
    q, k, v = (x.to("meta").requires_grad_() for x in inputs())
    flash = attend.flash_attn.flash_attn_func
    starts = torch.tensor([0, 1, 3], dtype=torch.int32)
    for found, want in [(sdpa(q, k, v), (2, 3, 4, 6)), (sdpa(q[0], k[0], v[0], torch.ones(4, 5, device="meta"), 0.5), (3, 4, 6)),
                        (flash(*(x.transpose(1, 2) for x in (q, k, v)), 0.5), (2, 4, 3, 6)),
                        (attend.flash_attn.flash_attn_varlen_func(*(q[0],) * 3, starts, starts, 2, 2), (3, 4, 8)),
                        (attend.torch.linear_attention(q, k, v), (2, 3, 4, 6)),
                        (attend.torch.linear_attention(q, k, v, return_state=True).state, (2, 3, 8, 6))]:
        assert found.is_meta and found.shape == want
        assert torch.autograd.grad(found.sum(), q)[0].is_meta
    with pytest.raises(ValueError, match="as many keys"):
        sdpa(q, q, v)
    for given in ((q, k, v.new_ones(v.shape, device="cpu")), (torch.ones(q.shape), k, v)):
        for function in (sdpa, attend.torch.linear_attention, lambda *x: flash(*(y.transpose(1, 2) for y in x))):
            with pytest.raises(TypeError, match="device meta"):
                function(*given)


def test_another_default_device():
    q, k, v = inputs()
    want = sdpa(q, k, v)
    layer, x = attend.torch.MultiheadAttention(8, 2, dropout=0.5), torch.randn(4, 1, 8)
    try:
        torch.set_default_device("meta")
        assert torch.equal(sdpa(q, k, v), want)
        assert sdpa(q, k, v, dropout_p=0.5).isfinite().all()
        assert layer(x, x, x, need_weights=False)[0].isfinite().all()
        assert attend.flash_attn.flash_attn_func(q, q, q, 0.5).isfinite().all()
    finally:
        torch.set_default_device(None)


def test_under_a_dispatch_mode():
    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    seen, given = [], inputs()
    want = sdpa(*given)
    with Names():
        assert torch.equal(sdpa(*given), want)
    assert "attend.attention.default" in seen


def test_vmap():
    q, k, v = inputs(3)
    close(torch.func.vmap(sdpa)(q, k, v), F.scaled_dot_product_attention(q, k, v))
    close(torch.func.vmap(sdpa, in_dims=(1, None, None), out_dims=1)(q.transpose(0, 1), k[0], v[0]),
          F.scaled_dot_product_attention(q, k[:1], v[:1]).transpose(0, 1))


def test_vmap_of_no_members():
    assert torch.func.vmap(sdpa)(*inputs(0)).shape == (0, 2, 3, 4, 6)


@pytest.mark.parametrize("transform", [
    lambda f, q, k, v, bias: torch.func.grad(lambda *x: f(*x).square().sum(), (0, 1, 2, 3))(q, k, v, bias),
    lambda f, q, k, v, bias: torch.func.grad(lambda q: f(q, k, v, is_causal=True).square().sum())(q),
    lambda f, q, k, v, bias: torch.func.vmap(torch.func.grad(lambda *x: f(*x).square().sum(), (0, 1, 2)))(q, k, v),
    lambda f, q, k, v, bias: torch.func.grad(lambda q: torch.func.vmap(f)(q, k, v).square().sum())(q),
    lambda f, q, k, v, bias: torch.func.vjp(lambda q: f(q, k, v, bias), q)[1](torch.ones(2, 3, 4, 6)),
    lambda f, q, k, v, bias: torch.func.jacrev(lambda q: f(q, k, v, bias))(q[:1, :1]),
    lambda f, q, k, v, bias: torch.func.grad(lambda p: torch.func.functional_call(Layer(f), p, (k, v)).square().sum())({"query": q}),
], ids=["grad", "causal", "vmap of grad", "grad of vmap", "vjp", "jacrev", "functional_call"])
def test_gradients_by_functions(transform):
    given = *inputs(), torch.randn(4, 5)
    found, want = (torch.utils._pytree.tree_leaves(transform(f, *given)) for f in (sdpa, F.scaled_dot_product_attention))
    assert len(found) == len(want)
    for a, b in zip(found, want):
        close(a, b)


def test_transforms_of_flash_attention():
    starts, x = torch.tensor([0, 1, 4], dtype=torch.int32), torch.randn(2, 1, 4, 2, 8)
    flash = lambda x: attend.flash_attn.flash_attn_func(x, x, x, causal=True).square()
    want = lambda x: F.scaled_dot_product_attention(*(x.transpose(-3, -2),) * 3, is_causal=True).transpose(-3, -2).square()
    packed = lambda x: attend.flash_attn.flash_attn_varlen_func(*(x[0],) * 3, starts, starts, 3, 3).square()
    parts = lambda x: torch.cat([attend.flash_attn.flash_attn_func(*(y,) * 3).square() for y in x.split((1, 3), 1)], 1)[0]
    for f, g in ((flash, want), (packed, parts)):
        close(torch.func.vmap(f)(x), torch.stack([g(y) for y in x]))
        gradient = lambda f: torch.func.grad(lambda x: f(x).sum())
        close(gradient(f)(x[0]), gradient(g)(x[0]))
        close(torch.func.vmap(gradient(f))(x), torch.stack([gradient(g)(y) for y in x]))
        close(torch.func.jacrev(f)(x[0]), torch.func.jacrev(g)(x[0]))
    with pytest.raises(RuntimeError, match="gradients of gradients"):
        torch.func.jacrev(gradient(flash))(x[0])
    dropped = lambda x: attend.flash_attn.flash_attn_func(x, x, x, 0.5)
    for randomness in ("same", "different"):
        found = torch.func.vmap(dropped, randomness=randomness)(x[:1].expand(2, 1, 4, 2, 8))
        assert torch.equal(found[0], found[1]) == (randomness == "same")


class Layer(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function, self.query = function, torch.nn.Parameter(torch.zeros(2, 3, 4, 8))

    def forward(self, k, v):
        return self.function(self.query, k, v)


TWICE = {"plain": {}, "causal": {"is_causal": True}, "scale": {"scale": 0.3}, "mask": {"attn_mask": torch.ones(4, 5).tril(-1) > 0},
         "bias": {"attn_mask": torch.randn(3, 1, 5)}, "dropout": {"dropout_p": 0.4}, "groups": {"enable_gqa": True}}


@pytest.mark.parametrize("name", TWICE)
def test_gradients_of_gradients(name):
    given = [x.double().requires_grad_() for x in inputs()]
    options = dict(TWICE[name])
    if name == "groups":
        given[1:] = [x[:, :1].detach().requires_grad_() for x in given[1:]]
    if name == "bias":
        given.append(options.pop("attn_mask").double().requires_grad_())

    def call(*given):
        torch.manual_seed(5)
        return sdpa(*given, **options)

    assert torch.autograd.gradgradcheck(call, given, fast_mode=True)
    if name != "dropout":
        with sdpa_kernel(SDPBackend.MATH):
            want = torch.func.hessian(lambda x: F.scaled_dot_product_attention(x, *given[1:], **options).sum())(given[0])
        close(torch.func.hessian(lambda x: call(x, *given[1:]).sum())(given[0]), want)
    third = lambda x: torch.autograd.grad(call(x, *given[1:]).square().sum(), x, create_graph=True)[0]
    assert torch.autograd.gradcheck(third, given[0], fast_mode=True)


def test_gradients_of_gradients_of_layers():
    torch.manual_seed(0)
    layer = attend.torch.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    plain = torch.nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    plain.load_state_dict(layer.state_dict())
    x, direction = torch.randn(2, 2, 5, 8, dtype=torch.float64)
    for need_weights in (False, True):
        loss = lambda each, x: each(x, x, x, need_weights=need_weights)[0].square().sum()
        found = torch.autograd.functional.hvp(lambda x: loss(layer, x), x, direction)[1]
        with sdpa_kernel(SDPBackend.MATH):
            close(found, torch.autograd.functional.hvp(lambda x: loss(plain, x), x, direction)[1])


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"attn_mask": torch.ones(4, 5).tril(1) > 0}, {"attn_mask": torch.ones(4, 5)}],
                         ids=["plain", "causal", "mask", "bias"])
def test_batches_of_gradients(options):
    q, k, v = (x.requires_grad_() for x in inputs())
    grads = torch.randn(3, 2, 3, 4, 6)
    found, want = (torch.autograd.grad(f(q, k, v, **options), (q, k, v), grads, is_grads_batched=True)
                   for f in (sdpa, F.scaled_dot_product_attention))
    for a, b in zip(found, want):
        close(a, b)
    y = sdpa(q, k, v, **options)
    close(torch.func.vmap(lambda grad: torch.autograd.grad(y, q, grad, retain_graph=True)[0])(grads), want[0])


def test_batches_of_gradients_elsewhere():
    q, k, v = (x[:1, :1].double() for x in inputs())
    close(torch.autograd.functional.jacobian(lambda q: sdpa(q, k, v), q, vectorize=True),
          torch.autograd.functional.jacobian(lambda q: sdpa(q, k, v), q))
    assert torch.autograd.gradcheck(sdpa, [x.requires_grad_() for x in (q, k, v)], check_batched_grad=True)
    x = torch.randn(1, 4, 2, 8, requires_grad=True)
    y = attend.flash_attn.flash_attn_func(x, x, x, window_size=(1, 1))
    with pytest.raises(NotImplementedError, match="one gradient at a time"):
        torch.autograd.grad(y, x, torch.ones(2, *y.shape), is_grads_batched=True)


def test_forward_mode():
    q, k, v = inputs()
    for options in ({}, {"is_causal": True}, {"attn_mask": torch.ones(4, 5).tril(1) > 0}, {"attn_mask": torch.randn(4, 5)}):
        call = lambda q, k, v: sdpa(q, k, v, **options)
        with sdpa_kernel(SDPBackend.MATH):
            want = torch.func.jvp(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **options), (q, k, v), (q, v[..., :1] * k, -v))
        for a, b in zip(torch.func.jvp(call, (q, k, v), (q, v[..., :1] * k, -v)), want):
            close(a, b)
        with torch.autograd.forward_ad.dual_level():
            duals = [torch.autograd.forward_ad.make_dual(x, t) for x, t in zip((q, k, v), (q, v[..., :1] * k, -v))]
            close(torch.autograd.forward_ad.unpack_dual(call(*duals)).tangent, want[1])
            close(call(q, k, v), want[0])  # no tangents are asked for


LAYER = attend.torch.MultiheadAttention(2, 1, batch_first=True, dtype=torch.float64)
LINEAR_IN_GRADIENTS = {
    "attention": lambda x: sdpa(x, x, x), "bias": lambda x: sdpa(x, x, x, x[0, 0] @ x[0, 0].mT),
    "dropout": lambda x: sdpa(x, x, x, dropout_p=0.3), "MultiheadAttention": lambda x: LAYER(x[0], x[0], x[0])[0],
    "flash_attn": lambda x: attend.flash_attn.flash_attn_func(x, x, x, window_size=(1, 0)),
    "linear_attention": lambda x: attend.torch.linear_attention(x, x, x, causal=True),
    "state": lambda x: sum(y.sum() for y in attend.torch.linear_attention(x, x, x, normalise=True, return_state=True)[2:]) * x}


# Gradients are linear in grad_output: their derivative is the gradients of its tangent.
@pytest.mark.parametrize("name", LINEAR_IN_GRADIENTS)
def test_forward_mode_of_gradients(name):
    x = torch.randn(1, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    y = LINEAR_IN_GRADIENTS[name](x)
    pull = lambda w: torch.autograd.grad(y, x, w, retain_graph=True)[0]
    w, tangents = torch.randn_like(y), torch.randn(2, *y.shape, dtype=torch.float64)
    want = [pull(tangent) for tangent in tangents]
    close(torch.func.jvp(pull, (w,), (tangents[0],))[1], want[0])
    close(torch.func.vmap(lambda tangent: torch.func.jvp(pull, (w,), (tangent,))[1])(tangents), torch.stack(want))
    close(torch.func.jvp(torch.func.vmap(pull), (tangents,), (tangents,))[1], torch.stack(want))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(w, tangents[0])
        close(torch.autograd.forward_ad.unpack_dual(pull(dual)).tangent, want[0])
        assert torch.autograd.forward_ad.unpack_dual(pull(w)).tangent is None


@pytest.mark.parametrize("name", [x for x in LINEAR_IN_GRADIENTS if x != "dropout"])
def test_forward_mode_of_gradients_by_functions(name):
    x = torch.randn(1, 2, 3, 2, dtype=torch.float64)
    y, pull = torch.func.vjp(LINEAR_IN_GRADIENTS[name], x)
    w, tangent = torch.randn(2, *y.shape, dtype=torch.float64)
    close(torch.func.jvp(pull, (w,), (tangent,))[1][0], pull(tangent)[0])


def test_forward_mode_of_no_dimensions():
    x, v = torch.zeros(2, 3, 4, 0), torch.randn(2, 3, 4, 5)
    with sdpa_kernel(SDPBackend.MATH):
        want = torch.func.jvp(lambda v: F.scaled_dot_product_attention(x, x, v), (v,), (v,))
    for a, b in zip(torch.func.jvp(lambda v: sdpa(x, x, v), (v,), (v,)), want):
        close(a, b)


def test_forward_mode_of_flash_attention_is_refused():
    q = inputs()[0]
    call = lambda q: attend.flash_attn.flash_attn_func(q, q, q)
    with pytest.raises(NotImplementedError, match="forward mode"):
        torch.func.jvp(call, (q,), (q,))
    with pytest.raises(NotImplementedError, match="forward mode"), torch.autograd.forward_ad.dual_level():
        call(torch.autograd.forward_ad.make_dual(q, q))
    want = call(q)
    with torch.autograd.forward_ad.dual_level():
        assert torch.equal(call(q), want)  # no tangents are asked for


# The part of a tensor that stands in the loss besides would be a wrong gradient alone.
def test_gradients_of_gradients_are_refused_elsewhere():
    q = inputs()[0].requires_grad_()
    gradient, = torch.autograd.grad(attend.flash_attn.flash_attn_func(q, q, q, window_size=(1, 1)).sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="gradients of gradients"):
        torch.autograd.grad((gradient * q).sum(), q)


def test_masks_written_to_before_backward():
    q, k, v = inputs()
    q.requires_grad_()
    mask = torch.ones(4, 5).tril(1) > 0
    want, = torch.autograd.grad(sdpa(q, k, v, mask).square().sum(), q)
    for given in (mask.clone(), mask.clone().expand(2, 3, 4, 5)):
        y = sdpa(q, k, v, given)
        (given if given.is_contiguous() else given[0, 0]).fill_(True)  # PyTorch does not look at it again
        assert torch.equal(torch.autograd.grad(y.square().sum(), q)[0], want)
    bias = torch.zeros(4, 5)
    y = sdpa(q, k, v, bias)
    bias[0] = 1.0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_gradients_of_other_kinds_of_tensors():
    q, k, v = (x.requires_grad_() for x in inputs())
    mask = torch.ones(4, 5).tril(1) > 0
    y = sdpa(q, k, v, mask)
    grad = torch.randn_like(y)
    want = torch.autograd.grad(y, (q, k, v), grad, retain_graph=True)
    for a, b in zip(torch.autograd.grad(y, (q, k, v), TwoTensor(grad, 2 * grad), retain_graph=True), want):
        assert type(a) is TwoTensor
        close(a.a, b)
        close(a.b, 2 * b)
    seen = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    with Recorder():
        for a, b in zip(torch.autograd.grad(y, (q, k, v), grad), want):
            close(a, b)
    assert seen


def test_negative_views():
    q, k, v = inputs()
    close(sdpa(torch._neg_view(q), k, v), F.scaled_dot_product_attention(-q, k, v))
    with pytest.raises(ValueError, match="read-only"):
        attend.attention(q, k, v, out=torch._neg_view(torch.empty(2, 3, 4, 6)))


@pytest.mark.parametrize("kinds", [(torch.float32,) * 3, (torch.bfloat16, torch.float32, torch.float32), (torch.float64,) * 3], ids=str)
def test_autocast(kinds):
    q, k, v = (x.to(kind) for x, kind in zip(inputs(), kinds))
    mask = torch.randn(4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        mask = mask.to(kinds[0]) if kinds[0] == torch.float64 else mask
        found, want = sdpa(q, k, v, mask), F.scaled_dot_product_attention(q, k, v, mask)
    assert found.dtype == want.dtype
    torch.testing.assert_close(found, want, atol=3e-2, rtol=3e-2)


def test_autocast_reaches_the_parameters_gradients():
    layer = torch.nn.Linear(8, 8)
    q, k, v = inputs()
    with torch.autocast("cpu", torch.bfloat16):
        sdpa(layer(q), k, v).sum().backward()
    assert layer.weight.grad.dtype == torch.float32 and layer.weight.grad.isfinite().all()


def test_nested_tensors():
    x = torch.nested.nested_tensor([torch.randn(4, 3, 8), torch.randn(6, 3, 8)], layout=torch.jagged).transpose(1, 2)
    with pytest.raises(TypeError, match="nested"):
        sdpa(x, x, x)
    with attend.torch.replaced():
        assert F.scaled_dot_product_attention(x, x, x).is_nested


def test_the_layer_runs_pytorchs_code():
    layer, x = attend.torch.MultiheadAttention(8, 2), torch.randn(4, 3, 8)
    want = layer(x, x, x)
    torch._dynamo.reset()
    for found in (torch.compile(layer, backend="aot_eager")(x, x, x), torch.jit.trace(layer, (x, x, x))(x, x, x)):
        close(found, want)
    tangent = torch.func.jvp(lambda x: layer(x, x, x)[0], (x,), (x,))[1]
    assert tangent.abs().max() > 0


CORE = {"attention": lambda x: attend.attention(x, x, x), "matmul": lambda x: attend.matmul(x[0, 0], PACKED),
        "linear_attention": lambda x: attend.linear_attention(x, x, x),
        "kv_cache": lambda x: attend.KvCache(batch=1, kv_heads=2, head_dim=8).append(x, x)}
PACKED = attend.PackedMatrix(torch.ones(3, 8))


BACKWARD = {"attention_backward": lambda x: attend.attention_backward(x, x, x, x, x, torch.ones(1, 2, 3)),
            "linear_attention_backward": lambda x: attend.linear_attention_backward(x, x, x, x),
            "matmul_backward": lambda x: attend.matmul_backward(x[0, 0, :, :3], x[0, 0], PACKED)}


@pytest.mark.parametrize("name", [*CORE, *BACKWARD])
def test_functions_of_numbers_are_not_traced(name):
    x, function = torch.ones(1, 2, 3, 8), {**CORE, **BACKWARD}[name]
    for trace in (lambda: make_fx(function)(x), lambda: torch.jit.trace(function, x, check_trace=False)):
        with pytest.raises(RuntimeError, match="expected a call that is not traced"):
            trace()


@pytest.mark.parametrize("name", CORE)
def test_functions_of_numbers_warn_of_gradients(name):
    x = torch.ones(1, 2, 3, 8, requires_grad=True)
    with pytest.warns(UserWarning, match="no gradients flow"):
        CORE[name](x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with torch.no_grad():
            CORE[name](x)
        CORE[name](x.detach())
        attend.torch.scaled_dot_product_attention(x, x, x).sum().backward()


def test_decays_that_require_gradients_are_warned_of():
    x = torch.ones(1, 2, 3, 8)
    with pytest.warns(UserWarning, match="no gradients flow"):
        attend.linear_attention(x, x, x, feature_map="relu", causal=True, decay=torch.zeros(1, 2, 3, requires_grad=True))


# torch.compile calls methods of other extensions' classes without the object whose they are.
def test_methods_break_a_graph():
    torch._dynamo.reset()
    q, k, v = inputs()
    caches = [attend.KvCache(batch=2, kv_heads=3, head_dim=8, value_dim=6) for _ in range(2)]

    def step(cache, q, k, v):
        cache.append(k, v)
        return cache.attention(q * 2) + 1

    want = step(caches[0], q, k, v)
    close(torch.compile(step, backend="aot_eager")(caches[1], q, k, v), want)

    def recur(state, q, k, v):
        return state.step(q * 2, k, v, feature_map="identity") + 1

    states = [attend.LinearAttentionState(batch=2, kv_heads=3, dim=8, value_dim=6) for _ in range(2)]
    token = [x[:, :, :1] for x in (q, k, v)]
    close(torch.compile(recur, backend="aot_eager")(states[0], *token), recur(states[1], *token))
