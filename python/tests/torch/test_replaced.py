"""PyTorch's function replaced, and what overrides it: CausalBias, subclasses, modes, torch.fx, scripts."""
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import CausalBias, causal_lower_right, causal_upper_left
from torch.overrides import TorchFunctionMode

import attend.torch

F = torch.nn.functional
original = F.scaled_dot_product_attention
sdpa = attend.torch.scaled_dot_product_attention


def inputs():
    torch.manual_seed(4)
    return torch.randn(2, 3, 4, 8), torch.randn(2, 3, 6, 8), torch.randn(2, 3, 6, 8)


def close(a, b):
    assert type(a) is type(b)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


class Layer(torch.nn.Module):
    def forward(self, q, k, v, mask=None):
        return F.scaled_dot_product_attention(q, k, v, mask)


@pytest.fixture
def calls(monkeypatch):
    """How often attend runs within replaced()."""
    seen = []
    import attend.torch._replaced as module
    monkeypatch.setattr(module, "scaled_dot_product_attention", lambda *x, **y: seen.append(1) or sdpa(*x, **y))
    return seen


@pytest.mark.parametrize("bias", [causal_upper_left(4, 6), causal_lower_right(4, 6), causal_lower_right(6, 6), causal_lower_right(1, 6)],
                         ids=["upper left", "lower right", "square", "one row"])
def test_causal_bias(bias, calls):
    q, k, v = inputs()
    q = k if bias.seq_len_q == 6 else q
    q.requires_grad_()
    want = original(q, k, v, bias)
    gradient, = torch.autograd.grad(want.square().sum(), q)
    with attend.torch.replaced():
        functions = sdpa, F.scaled_dot_product_attention, original
    for function in functions:
        with attend.torch.replaced():
            found = function(q, k, v, attn_mask=bias)
        close(found, want)
        close(torch.autograd.grad(found.square().sum(), q)[0], gradient)
    with attend.torch.replaced():
        for backend in ("eager", "aot_eager"):
            torch._dynamo.reset()
            close(torch.compile(Layer(), backend=backend, fullgraph=True)(q, k, v, bias), want)
    assert len(calls) >= 3 and CausalBias.__torch_function__.__func__.__module__ == "torch.nn.attention.bias"


@pytest.mark.filterwarnings("ignore:Lower right causal bias")
def test_causal_bias_that_leaves_rows_without_keys():
    q, k, v = inputs()
    close(sdpa(k, q, q, causal_lower_right(6, 4)), original(k, q, q, causal_lower_right(6, 4)))


def test_causal_bias_that_does_not_fit():
    q, k, v = inputs()
    with pytest.raises(ValueError, match="CausalBias should not be used with causal=True"):
        sdpa(q, k, v, causal_lower_right(4, 6), is_causal=True)
    with pytest.raises(RuntimeError, match="broadcasts"):
        sdpa(q, k, v, causal_lower_right(3, 6))


class Named(torch.Tensor):
    """A tensor that lists what is called with it."""
    names = []

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        cls.names.append(function.__name__)
        return super().__torch_function__(function, types, args, kwargs or {})


class Mode(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        Named.names.append(function.__name__)
        return function(*args, **(kwargs or {}))


def test_overriding_sees_the_call(calls):
    q, k, v = inputs()
    want = original(q, k, v)
    with attend.torch.replaced():
        for function in (sdpa, F.scaled_dot_product_attention):
            for given in ((q.as_subclass(Named), k, v), (q, k, v.as_subclass(Named))):
                Named.names.clear()
                found = function(*given)
                assert "scaled_dot_product_attention" in Named.names and type(found) is Named
                close(found.as_subclass(torch.Tensor), want)
            with Mode():
                Named.names.clear()
                close(function(q, k, v), want)
                assert Named.names.count("scaled_dot_product_attention") == 1
    assert len(calls) == 3


def test_a_default_device_changes_nothing(calls):
    q, k, v = inputs()
    with attend.torch.replaced(), torch.device("meta"):
        close(F.scaled_dot_product_attention(q, k, v), original(q, k, v))
    assert calls == [1]


def test_graphs_of_fx(calls):
    given = inputs()
    with attend.torch.replaced():
        graph = torch.fx.symbolic_trace(Layer())
        close(graph(*given), original(*given))
    close(graph(*given), original(*given))
    assert calls == [1]  # outside it is PyTorch's
    close(torch.fx.symbolic_trace(lambda q, k, v: sdpa(q, k, v))(*given), original(*given))


def test_scripts():
    x = torch.randn(4, 2, 8)
    with attend.torch.replaced():
        layer = torch.nn.MultiheadAttention(8, 2)
        close(torch.jit.script(layer)(x, x, x)[0], layer(x, x, x)[0])
        function = id(F.scaled_dot_product_attention)
    assert function not in torch.jit._builtins._get_builtin_table()


def test_contexts_that_overlap():
    original = torch.nn.functional.scaled_dot_product_attention
    first, second = attend.torch.replaced(), attend.torch.replaced()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert torch.nn.functional.scaled_dot_product_attention is not original
    second.__exit__(None, None, None)
    assert torch.nn.functional.scaled_dot_product_attention is original


def test_what_is_no_tensor_is_a_type_error():
    for x in (None, [1.0], "query"):
        with attend.torch.replaced(), pytest.raises(TypeError, match="query"):
            F.scaled_dot_product_attention(x, x, x)


# Where PyTorch's flash attention is switched off, so is this: a reference is PyTorch's own.
def test_the_math_backend_is_pytorchs():
    q, k, v = torch.randn(3, 1, 2, 5, 8).unbind()
    layer = attend.torch.MultiheadAttention(8, 2)
    plain = torch.nn.MultiheadAttention(8, 2)
    plain.load_state_dict(layer.state_dict())
    with sdpa_kernel(SDPBackend.MATH):
        want = F.scaled_dot_product_attention(q, k, v)
        assert torch.equal(attend.torch.scaled_dot_product_attention(q, k, v), want)
        with attend.torch.replaced():
            assert torch.equal(F.scaled_dot_product_attention(q, k, v), want)
        assert torch.equal(layer(q[0], k[0], v[0], need_weights=False)[0], plain(q[0], k[0], v[0], need_weights=False)[0])
