"""PyTorch's own samples of scaled_dot_product_attention, from its OpInfo database (which needs the package expecttest), as
tests: `python -m pytest python/suites/opinfo_attention.py`."""
import pytest
import torch
from torch.testing._internal.common_methods_invocations import op_db

import attend.torch

F = torch.nn.functional
sdpa = attend.torch.scaled_dot_product_attention
OPERATOR, = (x for x in op_db if x.name == "nn.functional.scaled_dot_product_attention")


def _cases():
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        for i in range(len(list(OPERATOR.sample_inputs("cpu", dtype, requires_grad=True)))):
            yield dtype, i


def _arguments(dtype, i):
    torch.manual_seed(i)
    sample = list(OPERATOR.sample_inputs("cpu", dtype, requires_grad=True))[i]
    return (sample.input, *sample.args), sample.kwargs


def _wide(x):
    return x.detach().double().requires_grad_(x.requires_grad) if isinstance(x, torch.Tensor) and x.is_floating_point() else x


def _terms(q, k, v, grad, options):
    """The absolute terms of the output and of the gradients of query, key and value: what rounding is relative to."""
    q, k, v, grad = (x.detach().double() for x in (q, k, v, grad))
    heads = q.shape[-3] if options.get("enable_gqa") else k.shape[-3]
    k, v = (x.repeat_interleave(heads // x.shape[-3], -3) if options.get("enable_gqa") else x for x in (k, v))
    keys = k.shape[-2]
    p = F.scaled_dot_product_attention(q, k, torch.eye(keys, dtype=q.dtype).expand(*k.shape[:-1], keys),
                                       **{name: _wide(x) for name, x in options.items() if name != "enable_gqa"})
    a = grad.abs() @ v.abs().mT
    ds = p * (a + (p * a).sum(-1, keepdim=True)) * (options.get("scale") or q.shape[-1]**-0.5)
    return p @ v.abs(), ds @ k.abs(), ds.mT @ q.abs(), p.mT @ grad.abs()


@pytest.mark.parametrize("dtype,i", list(_cases()), ids=str)
def test_sample(dtype, i):
    given, options = _arguments(dtype, i)
    if options.get("dropout_p", 0.0) > 0.0:
        want = F.scaled_dot_product_attention(*given, **options)
        found = sdpa(*given, **options)
        assert found.shape == want.shape and found.dtype == want.dtype  # the pattern is another
        return
    wide = [_wide(x) for x in given]
    want = F.scaled_dot_product_attention(*wide, **{name: _wide(x) for name, x in options.items()})
    found = sdpa(*given, **options)
    assert found.shape == want.shape and found.dtype == dtype
    grad = torch.randn(want.shape).to(dtype)
    results = [found, *torch.autograd.grad(found, given[:3], grad)]
    wanted = [want, *torch.autograd.grad(want, wide[:3], grad.double())]
    # Scores of large samples carry the rounding of their own sum into the exponential.
    bound = {torch.float32: 2e-5, torch.float64: 1e-12, torch.bfloat16: 2**-7, torch.float16: 2**-10}[dtype]
    for a, b, terms in zip(results, wanted, _terms(*given[:3], grad, options)):
        assert (a.double() - b).abs().amax() <= bound * terms.amax()
    if dtype == torch.float64:
        assert torch.autograd.gradcheck(lambda *x: sdpa(*x, *given[3:], **options), given[:3])
