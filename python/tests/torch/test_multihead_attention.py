"""attend.torch.MultiheadAttention and attend.MultiHeadAttention beside torch.nn.MultiheadAttention."""
import numpy as np
import pytest
import torch

import attend
import attend.torch


def pair(dtype=torch.float32, **options):
    torch.manual_seed(4)
    theirs = torch.nn.MultiheadAttention(16, 4, dtype=dtype, **options)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours = attend.torch.MultiheadAttention(16, 4, dtype=dtype, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def masks():
    allowed = torch.rand(5, 7) < 0.6
    allowed[:, :2] = True
    padding = torch.zeros(3, 7, dtype=torch.bool)
    padding[1, 5:] = padding[2, 2:] = True
    yield {}
    yield {"attn_mask": ~allowed}
    yield {"attn_mask": torch.randn(5, 7)}
    yield {"attn_mask": torch.randn(12, 5, 7)}
    yield {"key_padding_mask": padding}
    yield {"key_padding_mask": padding, "attn_mask": ~allowed}
    yield {"key_padding_mask": padding.float() * -3, "attn_mask": torch.randn(5, 7)}


@pytest.mark.parametrize("options", [{}, {"batch_first": True}, {"bias": False}, {"kdim": 6, "vdim": 10}, {"add_bias_kv": True},
                                     {"add_zero_attn": True}], ids=str)
@pytest.mark.parametrize("need_weights", [False, True])
def test_equals_pytorch(options, need_weights):
    theirs, ours = pair(**options)
    torch.manual_seed(5)
    query, key = torch.randn(5, 3, 16, requires_grad=True), torch.randn(7, 3, options.get("kdim", 16), requires_grad=True)
    value = torch.randn(7, 3, options.get("vdim", 16))
    if options.get("batch_first"):
        query, key, value = (x.detach().transpose(0, 1).requires_grad_() for x in (query, key, value))
    for mask in masks():
        for average in (True, False):
            given = dict(need_weights=need_weights, average_attn_weights=average, **mask)
            want, want_weights = theirs(query, key, value, **given)
            found, weights = ours(query, key, value, **given)
            torch.testing.assert_close(found, want, atol=1e-5, rtol=1e-5)
            with torch.no_grad():
                torch.testing.assert_close(ours(query, key, value, **given)[0], want, atol=1e-5, rtol=1e-5)
            loss, want_loss = found.square().sum(), want.square().sum()
            if need_weights:
                torch.testing.assert_close(weights, want_weights, atol=1e-5, rtol=1e-5)
                loss, want_loss = loss + weights.square().sum(), want_loss + want_weights.square().sum()
            else:
                assert weights is None and want_weights is None
            wrt = [query, key, *ours.parameters()]
            gradients = torch.autograd.grad(loss, wrt, allow_unused=True)
            for a, b in zip(gradients, torch.autograd.grad(want_loss, [query, key, *theirs.parameters()], allow_unused=True)):
                torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-4)


def test_self_attention_causal_without_a_batch():
    theirs, ours = pair()
    x = torch.randn(6, 16)
    causal = torch.nn.Transformer.generate_square_subsequent_mask(6)
    for need_weights in (True, False):
        want = theirs(x, x, x, attn_mask=causal, is_causal=True, need_weights=need_weights)
        found = ours(x, x, x, attn_mask=causal, is_causal=True, need_weights=need_weights)
        torch.testing.assert_close(found, want, atol=1e-5, rtol=1e-5)
    raises_alike(theirs, ours, x, x, x, is_causal=True)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_causal_hints_of_other_masks(padded, need_weights, bias):
    """PyTorch takes the mask's word where it needs it: with weights or padding."""
    theirs, ours = pair()
    query, key = torch.randn(3, 2, 16), torch.randn(6, 2, 16)
    mask = torch.ones(3, 6, dtype=torch.bool).triu(4)
    if bias:
        mask = torch.randn(3, 6).masked_fill(mask, float("-inf"))
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[1, 3:] = True
    given = dict(attn_mask=mask, is_causal=True, need_weights=need_weights, key_padding_mask=padding if padded else None)
    torch.testing.assert_close(ours(query, key, key, **given), theirs(query, key, key, **given), atol=1e-5, rtol=1e-5)


def test_rows_that_numbers_mask_have_no_weights():
    _, ours = pair(batch_first=True)
    x = torch.randn(2, 3, 16, requires_grad=True)
    padding = torch.zeros(2, 3)
    padding[1, 1:] = float("-inf")
    mask = torch.zeros(3, 3, dtype=torch.bool)
    mask[2, 0] = True
    output, weights = ours(x, x, x, key_padding_mask=padding, attn_mask=mask)
    assert (weights[1, 2] == 0).all() and torch.equal(weights[1, 0], torch.tensor([1.0, 0, 0]))
    (output.sum() + weights.square().sum()).backward()
    assert x.grad.isfinite().all() and all(p.grad.isfinite().all() for p in ours.parameters())
    with torch.no_grad():
        torch.testing.assert_close(ours(x, x, x, key_padding_mask=padding, attn_mask=mask), (output, weights))


def test_another_default_device():
    _, ours = pair(batch_first=True)
    x, causal = torch.randn(2, 3, 16), torch.ones(3, 3, dtype=torch.bool).triu(1)
    want = ours(x, x, x, attn_mask=causal, is_causal=True)
    with torch.device("meta"):
        torch.testing.assert_close(ours(x, x, x, attn_mask=causal, is_causal=True), want)


def test_rows_without_keys_are_zero_before_the_projection():
    _, ours = pair(batch_first=True)
    x = torch.randn(1, 3, 16, requires_grad=True)
    hidden = torch.tensor([[True, True, True]])
    found, weights = ours(x, x, x, key_padding_mask=hidden)
    torch.testing.assert_close(found, ours.out_proj.bias.expand(1, 3, 16))
    assert (weights == 0).all()
    found.sum().backward()
    assert x.grad.isfinite().all()


def test_dropout_and_types():
    theirs, ours = pair(dropout=0.5)
    x = torch.randn(6, 2, 16)
    torch.manual_seed(1)
    first = ours(x, x, x, need_weights=False)[0]
    torch.manual_seed(1)
    assert torch.equal(first, ours(x, x, x, need_weights=False)[0])
    assert not torch.equal(first, ours(x, x, x, need_weights=False)[0])
    ours.eval()
    theirs.eval()
    torch.testing.assert_close(ours(x, x, x)[0], theirs(x, x, x)[0], atol=1e-5, rtol=1e-5)
    for dtype, bound in ((torch.bfloat16, 5e-2), (torch.float64, 1e-12)):
        theirs, ours = pair(dtype)
        y = x.to(dtype)
        torch.testing.assert_close(ours(y, y, y), theirs(y, y, y), atol=bound, rtol=bound)


SHAPES = {"ranks": lambda f, x: f(x[0, 0], x, x), "no batch": lambda f, x: f(x[0], x, x), "four": lambda f, x: f(x[None], x[None], x[None]),
          "dimensions": lambda f, x: f(x[..., :8], x, x), "of keys": lambda f, x: f(x, x[..., :8], x), "values": lambda f, x: f(x, x, x[:3]),
          "batches": lambda f, x: f(x, x[:, :2], x[:, :2]), "dtypes": lambda f, x: f(x, x.double(), x.double()), "of ints": lambda f, x: f(x.int(), x, x),
          "padding": lambda f, x: f(x, x, x, key_padding_mask=torch.zeros(3, 4).bool()),
          "ranks of padding": lambda f, x: f(x, x, x, key_padding_mask=torch.zeros(5).bool()),
          "padding of ints": lambda f, x: f(x, x, x, key_padding_mask=torch.zeros(3, 5).int()),
          "mask of heads": lambda f, x: f(x, x, x, attn_mask=torch.zeros(4, 5, 5)), "mask of ints": lambda f, x: f(x, x, x, attn_mask=torch.zeros(5, 5).int()),
          "hint": lambda f, x: f(x, x, x, attn_mask=torch.ones(3, 3).bool().triu(1), is_causal=True),
          "mask of bytes": lambda f, x: f(x, x, x, attn_mask=torch.zeros(5, 5).byte())}
for shape in (1, 5), (5, 1), (5,), (2, 2, 5, 5), (4, 1, 5), (3, 5, 5):
    SHAPES[f"mask {shape}"] = lambda f, x, shape=shape: f(x, x, x, attn_mask=torch.zeros(shape))


def raises_alike(theirs, ours, *arguments, **keywords):
    with pytest.raises((AssertionError, RuntimeError)) as want:
        theirs(*arguments, **keywords)
    with pytest.raises(want.type) as found:
        ours(*arguments, **keywords)
    assert str(found.value) == str(want.value)


@pytest.mark.parametrize("name", SHAPES)
def test_what_does_not_fit_is_pytorchs_exception(name):
    theirs, ours = pair()
    raises_alike(*((lambda x, each=each: SHAPES[name](each, x)) for each in (theirs, ours)), torch.randn(5, 3, 16))


# PyTorch's inference adds a bias of another type.
def test_other_types_are_pytorchs():
    theirs, ours = pair(torch.float64, batch_first=True)
    x = torch.randn(4, 2, 16, dtype=torch.float64)
    for each in (theirs, ours):
        each.in_proj_bias = torch.nn.Parameter(each.in_proj_bias.half(), requires_grad=False)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x, x, x), theirs.eval()(x, x, x))


@pytest.mark.parametrize("need_weights", [False, True])
def test_results_lie_as_pytorchs(need_weights):
    for keywords, x in ((dict(), torch.randn(5, 3, 16)), (dict(), torch.randn(5, 16)), (dict(batch_first=True), torch.randn(3, 5, 16))):
        for grad in (False, True):
            theirs, ours = pair(**keywords)
            with torch.set_grad_enabled(grad):
                want, found = (each(x, x, x, need_weights=need_weights)[0] for each in (theirs, ours))
            torch.testing.assert_close(found, want, atol=1e-5, rtol=1e-5)
            assert found.is_contiguous() and (found.stride() == want.stride() or not want.is_contiguous())
            found.view(-1, 16)


@pytest.mark.parametrize("kind", [attend.torch.MultiheadAttention, attend.torch.LinearAttention])
def test_a_residual_in_place(kind):
    layer = kind(16, 2, batch_first=True)
    x = torch.randn(3, 5, 16, requires_grad=True)
    (x + layer(x, x, x, need_weights=False)[0]).square().sum().backward()
    want, x.grad = x.grad, None
    y = x * 1.0
    y += layer(y, y, y, need_weights=False)[0]
    y.square().sum().backward()
    assert torch.equal(x.grad, want)


def test_numpys_module_takes_pytorchs_state():
    theirs, _ = pair(batch_first=True)
    ours = attend.MultiHeadAttention.from_state_dict(theirs.state_dict(), 4)
    x = torch.randn(2, 5, 16)
    want, weights = theirs(x, x, x, average_attn_weights=False)
    found = ours(x, return_weights=True)
    assert isinstance(found.output, torch.Tensor)
    torch.testing.assert_close(found.output, want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.weights, weights, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.from_numpy(ours(x.numpy())), want, atol=1e-5, rtol=1e-5)
    for seed in (7, -7):
        torch.manual_seed(seed)
        drawn = torch.nn.MultiheadAttention(16, 4).state_dict()
        for name, array in attend.MultiHeadAttention(16, 4, seed=seed).state_dict().items():
            np.testing.assert_array_equal(array, drawn[name].numpy())
