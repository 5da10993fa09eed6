"""The adapters by which other people's suites reach the package."""
import cuda_is_cpu
import flash_attn
import flash_attn.bert_padding as padding
import flash_attn.flash_attn_interface as interface
import pytest
import sample
import torch
from flash_attn.layers.rotary import apply_rotary_emb

import attend.flash_attn


def test_flash_attn_is_attends():
    assert set(attend.flash_attn.__all__) == set(flash_attn.__all__)
    q, k = torch.randn(2, 4, 2, 8), torch.randn(2, 5, 2, 8)
    output, log_sum_exp, probabilities = attend.flash_attn.flash_attn_func(q, k, k, return_attn_probs=True)
    assert torch.equal(flash_attn.flash_attn_func(q, k, k), output)
    found = interface.flash_attn_func(q, k, k, return_attn_probs=True)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / 8**0.5
    torch.testing.assert_close(found[2], (scores - scores.amax(-1, keepdim=True)).exp())
    torch.testing.assert_close(found[2] * (scores.amax(-1) - log_sum_exp).exp()[..., None], probabilities)


class Case:
    """An item of pytest's, as the sample sees it."""

    def __init__(self, **parameters):
        self.callspec = self
        self.params = parameters


def test_samples_have_every_value():
    cases = [Case(seqlen=n, d=d, causal=c) for n in (8, 16, 512) for d in range(10) for c in (False, True)]
    kept = sample.sampled(cases, 20, "seed")
    assert kept == sample.sampled(cases, 20, "seed") and len(kept) == len({id(x) for x in kept}) == 20
    for name in ("seqlen", "d", "causal"):
        assert {x.params[name] for x in kept} == {x.params[name] for x in cases}
    assert sum(x.params["seqlen"] == 512 for x in kept) == 1
    assert len(sample.sampled(cases, 1, "seed")) >= 10 and len(sample.sampled(cases[:1], 5, "seed")) == 1


def test_padding_and_back():
    x = torch.randn(3, 5, 2, 4)
    mask = torch.arange(5) < torch.tensor([[5], [2], [3]])
    rows, indices, starts, longest, used = padding.unpad_input(x, mask)
    assert starts.tolist() == [0, 5, 7, 10] and starts.dtype == torch.int32 and longest == 5 and used.tolist() == [5, 2, 3]
    assert torch.equal(padding.pad_input(rows, indices, 3, 5), x * mask[:, :, None, None])
    want = attend.flash_attn.flash_attn_func(x, x, x, causal=True)
    found = flash_attn.flash_attn_varlen_func(rows, rows, rows, starts, starts, longest, longest, causal=True)
    assert torch.equal(found[:5], want[0])


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary(interleaved):
    x, angle = torch.randn(2, 4, 3, 10), torch.randn(9, 4)
    turned = apply_rotary_emb(x, angle.cos(), angle.sin(), interleaved, seqlen_offsets=torch.tensor([0, 5]))
    assert torch.equal(turned[..., 8:], x[..., 8:])
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    one = apply_rotary_emb(x[1:], angle.cos(), angle.sin(), interleaved, seqlen_offsets=5)
    torch.testing.assert_close(turned[1:], one)
    packed = apply_rotary_emb(x.flatten(0, 1), angle.cos(), angle.sin(), interleaved, cu_seqlens=torch.tensor([0, 4, 8]),
                              seqlen_offsets=torch.tensor([0, 5]), max_seqlen=4)
    torch.testing.assert_close(packed, turned.flatten(0, 1))


def test_a_gpu_is_the_cpu():
    with cuda_is_cpu.CudaIsCpu():
        x = torch.randn(1, 4, 2, 8, device="cuda", dtype=torch.bfloat16)
        assert x.device.type == x.cuda().device.type == x.to("cuda").device.type == "cpu"
        assert torch.arange(3, device=torch.device("cuda", 0)).sum() == 3
        assert flash_attn.flash_attn_func(x, x, x).shape == x.shape
