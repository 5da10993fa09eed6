"""attend.torch.LinearAttention in the place of torch.nn.MultiheadAttention, against the expression with all its weights."""
import copy
import warnings

import pytest
import torch

import attend.torch

L = 6
LATER = torch.ones(L, L, dtype=torch.bool).triu(1)
PADDING = torch.arange(L) >= torch.tensor([6, 3, 1])[:, None]


def by_hand(layer, query, key=None, hidden=None):
    """[batch, L, width] by PyTorch, a weight for each pair. @param hidden: True = not seen, broadcast to them"""
    key = query if key is None else key
    weights, biases = layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3)
    q, k, v = (torch.nn.functional.linear(x, w, b).unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)
               for x, w, b in zip((query, key, key), weights, biases))
    scores = (torch.nn.functional.elu(q) + 1) @ (torch.nn.functional.elu(k) + 1).transpose(2, 3)
    if hidden is not None:
        scores = scores.masked_fill(hidden, 0.0)
    rows = scores / scores.sum(-1, keepdim=True) @ v
    return layer.out_proj(rows.transpose(1, 2).flatten(2))


def encoder_layer(norm_first=False, batch_first=True):
    torch.manual_seed(3)
    module = torch.nn.TransformerEncoderLayer(16, 4, 24, dropout=0.0, batch_first=batch_first, norm_first=norm_first, dtype=torch.float64)
    module.self_attn = attend.torch.LinearAttention(16, 4, batch_first=batch_first, dtype=torch.float64)
    return module


def encoder_layer_by_hand(module, x, hidden):
    def feed_forward(x):
        return module.linear2(torch.relu(module.linear1(x)))
    if module.norm_first:
        x = x + by_hand(module.self_attn, module.norm1(x), hidden=hidden)
        return x + feed_forward(module.norm2(x))
    x = module.norm1(x + by_hand(module.self_attn, x, hidden=hidden))
    return module.norm2(x + feed_forward(x))


def as_numbers(mask):
    return torch.zeros(mask.shape, dtype=torch.float64).masked_fill(mask, float("-inf"))


# Arguments of an encoder layer, and what is hidden.
MASKS = [({}, None), ({"src_mask": LATER}, LATER), ({"src_mask": as_numbers(LATER)}, LATER), ({"src_mask": LATER, "is_causal": True}, LATER),
         ({"src_key_padding_mask": PADDING}, PADDING[:, None, None]), ({"src_key_padding_mask": as_numbers(PADDING)}, PADDING[:, None, None]),
         ({"src_mask": LATER, "src_key_padding_mask": PADDING}, PADDING[:, None, None] | LATER)]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_an_encoder_layer(training, norm_first, batch_first):
    module = encoder_layer(norm_first, batch_first).train(training)
    x = torch.randn(3, L, 16, dtype=torch.float64)
    for masks, hidden in MASKS:
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                want = encoder_layer_by_hand(module, x, hidden)
                found = module(x if batch_first else x.transpose(0, 1), **masks)
                found = found if batch_first else found.transpose(0, 1)
                torch.testing.assert_close(found, want, atol=1e-12, rtol=0)
        for a, b in zip(torch.autograd.grad(found.square().sum(), module.parameters()), torch.autograd.grad(want.square().sum(), module.parameters())):
            torch.testing.assert_close(a, b, atol=1e-10, rtol=0)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("replaced", ["before", "after"])
def test_an_encoder(training, replaced):
    """PyTorch's encoder nests what is padded where its layers were its own when it was made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of nested tensors
        if replaced == "before":
            encoder = torch.nn.TransformerEncoder(encoder_layer(), 2)
        else:
            encoder = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(16, 4, 24, dropout=0.0, batch_first=True, dtype=torch.float64), 2)
            assert encoder.use_nested_tensor
            for i in range(2):
                encoder.layers[i] = copy.deepcopy(encoder_layer())
                torch.nn.init.normal_(encoder.layers[i].linear1.weight, std=0.3)
        encoder.train(training)
        x = torch.randn(3, L, 16, dtype=torch.float64)
        for masks, hidden in MASKS:
            masks = {{"src_mask": "mask"}.get(name, name): x for name, x in masks.items()}
            for grad in (False, True):
                with torch.set_grad_enabled(grad):
                    want = x
                    for module in encoder.layers:
                        want = encoder_layer_by_hand(module, want, hidden)
                    found = encoder(x, **masks)
                # Rows of padding are zeros where tensors were nested.
                seen = ~PADDING if "src_key_padding_mask" in masks else torch.ones(3, L, dtype=torch.bool)
                torch.testing.assert_close(found[seen], want[seen], atol=1e-12, rtol=0)


def test_a_decoder_layer():
    torch.manual_seed(5)
    module = torch.nn.TransformerDecoderLayer(16, 4, 24, batch_first=True, dtype=torch.float64).eval()
    module.self_attn, module.multihead_attn = (attend.torch.LinearAttention(16, 4, dtype=torch.float64) for _ in range(2))
    x, memory = (torch.randn(3, n, 16, dtype=torch.float64) for n in (4, L))
    found = module(x, memory, tgt_mask=LATER[:4, :4], memory_key_padding_mask=PADDING)
    want = module.norm1(x + by_hand(module.self_attn, x, hidden=LATER[:4, :4]))
    want = module.norm2(want + by_hand(module.multihead_attn, want, memory, PADDING[:, None, None]))
    want = module.norm3(want + module.linear2(torch.relu(module.linear1(want))))
    torch.testing.assert_close(found, want, atol=1e-12, rtol=0)


def test_shapes_of_inputs_are_those_of_multihead_attention():
    torch.manual_seed(6)
    first = attend.torch.LinearAttention(16, 4, causal=True)
    second = attend.torch.LinearAttention(16, 4, causal=True, batch_first=False)
    second.load_state_dict(first.state_dict())
    x = torch.randn(3, L, 16)
    want, none = first(x, key_padding_mask=PADDING)
    assert none is None
    torch.testing.assert_close(second(x.transpose(0, 1), key_padding_mask=PADDING)[0].transpose(0, 1), want)
    torch.testing.assert_close(first(x[1], key_padding_mask=PADDING[1])[0], want[1])
    torch.testing.assert_close(second(x[1], key_lengths=[3], return_state=True).output, want[1])
    torch.testing.assert_close(first(x, attn_mask=LATER.expand(12, L, L))[0], first(x)[0])
    state = second.make_state(3)
    rows = [second.step(x[:, t:t + 2].transpose(0, 1), state) for t in range(0, L, 2)]
    torch.testing.assert_close(torch.cat(rows).transpose(0, 1), first(x)[0], atol=1e-5, rtol=1e-5)
    # Its initialization is PyTorch's.
    for options in ({}, {"kdim": 6}, {"bias": False}):
        torch.manual_seed(7)
        theirs = torch.nn.MultiheadAttention(16, 4, **options).state_dict()
        torch.manual_seed(7)
        ours = attend.torch.LinearAttention(16, 4, **options).state_dict()
        assert all(torch.equal(ours[name], x) for name, x in theirs.items()) and len(ours) == len(theirs)
    assert "feature_map='elu_plus_one'" in repr(first) and "causal=True" in repr(first)


def test_what_linear_attention_cannot_do_is_refused():
    layer, x = attend.torch.LinearAttention(16, 4), torch.randn(3, L, 16)
    make = attend.torch.LinearAttention
    ahead = torch.arange(L) < torch.tensor([0, 3, 1])[:, None]
    nested = torch.nested.as_nested_tensor([x[0], x[1, :2]])
    for error, text, call in [(ValueError, "other pairs", lambda: layer(x, attn_mask=~LATER)), (ValueError, "other numbers", lambda: layer(x, attn_mask=torch.randn(L, L))),
                              (ValueError, "attn_mask", lambda: layer(x, attn_mask=LATER[1:])), (TypeError, "attn_mask", lambda: layer(x, attn_mask=LATER.int())),
                              (TypeError, "attn_mask", lambda: layer(x, attn_mask="causal")), (ValueError, "end of sequences", lambda: layer(x, key_padding_mask=ahead)),
                              (ValueError, "other numbers", lambda: layer(x, key_padding_mask=torch.randn(3, L))), (ValueError, "key_padding_mask", lambda: layer(x, key_padding_mask=PADDING[1:])),
                              (TypeError, "key_padding_mask", lambda: layer(x, key_padding_mask=[[True]])), (ValueError, "both", lambda: layer(x, key_padding_mask=PADDING, key_lengths=[1, 1, 1])),
                              (ValueError, "no weights", lambda: layer(x, x, x, None, True)), (TypeError, "query", lambda: layer(x.numpy())), (TypeError, "key", lambda: layer(x, 1)),
                              (ValueError, "nested", lambda: layer(nested, x)), (ValueError, "causal=False", lambda: layer.step(x, layer.make_state(3))),
                              (TypeError, "to be a torch.Tensor", lambda: make(16, 4, causal=True).step(None, layer.make_state(3))),
                              (ValueError, "dropout", lambda: make(16, 4, dropout=0.1)), (ValueError, "feature_map", lambda: make(16, 4, feature_map="cube")), (TypeError, "feature_map", lambda: make(16, 4, feature_map=None)),
                              (ValueError, "softmax_keys", lambda: make(16, 4, feature_map="softmax_keys")), (ValueError, "softmax_keys", lambda: make(16, 4, feature_map="softmax_keys", normalise=False, causal=True))]:
        with pytest.raises(error, match=text):
            call()
    assert make(16, 4, feature_map="softmax_keys", normalise=False)(x)[0].shape == x.shape
