"""Packed matrices and products with them on PyTorch's tensors."""
import pytest
import torch

import attend

BOUND = {torch.float32: 3e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}


@pytest.mark.parametrize("dtype", BOUND, ids=str)
def test_a_linear_layer(dtype):
    torch.manual_seed(1)
    layer, x = torch.nn.Linear(33, 70, dtype=dtype), torch.randn(4, 5, 33, dtype=dtype)
    packed = attend.PackedMatrix(layer.weight, "bfloat16" if dtype == torch.bfloat16 else "float32")
    residual = torch.randn(4, 5, 70, dtype=dtype)
    found = attend.matmul(x, packed, bias=layer.bias, activation="gelu", residual=residual)
    want = torch.nn.functional.gelu(layer.double()(x.double())) + residual.double()
    assert isinstance(found, torch.Tensor) and found.dtype == dtype
    torch.testing.assert_close(found.double(), want, atol=BOUND[dtype] * want.abs().max().item(), rtol=0)
    out = torch.empty(4, 5, 70, dtype=torch.bfloat16)
    assert attend.matmul(x, packed, bias=layer.bias, out=out) is out
    assert torch.equal(out, attend.matmul(x, packed, bias=layer.bias, dtype="bfloat16"))
    assert torch.equal(attend.matmul(x.numpy() if dtype != torch.bfloat16 else x, packed, out=out), out)  # another library's


def test_gradients():
    torch.manual_seed(2)
    layer, x = torch.nn.Linear(5, 7), torch.randn(3, 5, requires_grad=True)
    grad = torch.randn(3, 7)
    want = torch.autograd.grad(layer(x), [x, layer.weight, layer.bias], grad)
    for a, b in zip(attend.matmul_backward(grad, x, attend.PackedMatrix(layer.weight, transposed=True)), want):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("call", [lambda x, out: attend.matmul(x[0, 0], attend.PackedMatrix(torch.eye(4)), out=out), lambda x, out: attend.matmul(x[0, 0], torch.eye(4), out=out),
                                  lambda x, out: attend.attention(x, x, x, out=out[None, None])])
def test_autograd_knows_what_out_was_written(call):
    x, y = torch.randn(1, 1, 3, 4), torch.randn(3, 4, requires_grad=True)
    out = torch.zeros(3, 4)
    loss = (y * out).sum()
    call(x, out)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    leaf = torch.zeros(3, 4, requires_grad=True)
    with pytest.raises(ValueError, match="requires no gradients"):
        call(x, leaf)
    assert (leaf == 0).all()
    with torch.no_grad():
        call(x, leaf)
    torch.testing.assert_close(leaf, out)
    with pytest.raises(ValueError, match="of their own"):
        call(x, torch.zeros(1, 4).expand(3, 4))
    with torch.inference_mode():
        call(x, torch.zeros(3, 4))


def test_what_does_not_fit_is_an_exception():
    x, packed = torch.ones(2, 3), attend.PackedMatrix(torch.ones(4, 3))
    for error, call in [(TypeError, lambda: attend.matmul(x.to("meta"), packed)), (TypeError, lambda: attend.matmul(x, packed, out=torch.empty(2, 4, device="meta"))),
                        (TypeError, lambda: attend.matmul(x, packed, bias=torch.ones(4).to("meta"))), (TypeError, lambda: attend.matmul(x.to(torch.complex64), packed)),
                        (ValueError, lambda: attend.matmul(x, packed, out=torch._neg_view(torch.empty(2, 4)))), (TypeError, lambda: attend.PackedMatrix.from_image(x)),
                        (TypeError, lambda: attend.PackedMatrix(x.to_sparse()))]:
        with pytest.raises(error):
            call()
