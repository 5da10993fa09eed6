"""Models of Hugging Face's Transformers, with random weights, run on attend unchanged."""
import os

import pytest
import torch

import attend.torch

os.environ["HF_HUB_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers")


def llama():
    config = transformers.LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                      num_attention_heads=4, num_key_value_heads=2, attn_implementation="sdpa")
    return transformers.LlamaForCausalLM(config)


def bert():
    config = transformers.BertConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                     num_attention_heads=4, attn_implementation="sdpa")
    return transformers.BertModel(config)


@pytest.mark.parametrize("make", [llama, bert])
def test_equal_outputs(make):
    torch.manual_seed(0)
    model = make().eval()
    ids = torch.randint(0, 64, (2, 11))
    seen = torch.ones_like(ids)
    seen[1, :4] = 0
    calls = []
    ours = attend.torch.scaled_dot_product_attention
    with torch.no_grad():
        want = model(ids, attention_mask=seen)[0]
        with attend.torch.replaced():
            either = torch.nn.functional.scaled_dot_product_attention
            torch.nn.functional.scaled_dot_product_attention = lambda *x, **y: calls.append(1) or either(*x, **y)
            found = model(ids, attention_mask=seen)[0]
    assert len(calls) == 2 and ours is attend.torch.scaled_dot_product_attention
    torch.testing.assert_close(found[0], want[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[1, 4:], want[1, 4:], atol=1e-5, rtol=1e-5)


def test_equal_gradients_and_texts():
    torch.manual_seed(1)
    model = llama()
    ids = torch.randint(0, 64, (1, 9))
    gradients = []
    for context in (torch.enable_grad, attend.torch.replaced):
        with context():
            model.zero_grad()
            model(ids, labels=ids).loss.backward()
            gradients.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    model.eval()
    options = dict(max_new_tokens=12, do_sample=False, pad_token_id=0)
    want = model.generate(ids, **options)
    with attend.torch.replaced():
        assert torch.equal(model.generate(ids, **options), want)
