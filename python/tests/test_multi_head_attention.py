"""MultiHeadAttention on NumPy arrays."""
import pickle

import numpy as np
import pytest

import attend


def rows(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def formula(state, heads, query, key, value):
    weight, bias = state["in_proj_weight"].astype(float), state["in_proj_bias"].astype(float)
    width = weight.shape[1]
    q, k, v = (x @ weight[i * width:(i + 1) * width].T + bias[i * width:(i + 1) * width]
               for i, x in enumerate((query, key, value)))
    split = lambda x: x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)
    q, k, v = split(q), split(k), split(v)
    scores = np.exp(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]))
    weights = scores / scores.sum(-1, keepdims=True)
    out = (weights @ v).swapaxes(1, 2).reshape(query.shape)
    return out @ state["out_proj.weight"].T.astype(float) + state["out_proj.bias"], weights


def test_forward_and_weights():
    layer = attend.MultiHeadAttention(16, 4, seed=3)
    query, key = rows(2, 5, 16), rows(2, 7, 16, seed=1)
    result = layer(query, key, return_weights=True, return_log_sum_exp=True)
    want, weights = formula(layer.state_dict(), 4, query, key, key)
    np.testing.assert_allclose(result.output, want, atol=1e-5)
    np.testing.assert_allclose(result.weights, weights, atol=1e-5)
    assert result.log_sum_exp.shape == (2, 4, 5)
    np.testing.assert_array_equal(layer(query, key), result.output)
    allowed = np.arange(7) < 4
    np.testing.assert_allclose(layer(query, key, mask=allowed), layer(query, key[:, :4].copy()), atol=1e-5)
    assert (layer.d_model, layer.num_heads, layer.head_dim) == (16, 4, 4)


def test_seeds_are_integers_in_the_range_of_torch():
    drawn = lambda seed: attend.MultiHeadAttention(8, 2, seed=seed).state_dict()["in_proj_weight"]
    np.testing.assert_array_equal(drawn(-1), drawn(2**64 - 1))
    np.testing.assert_array_equal(drawn(np.int64(5)), drawn(5))
    assert not np.array_equal(drawn(-5), drawn(5))
    for seed in (2**64, -2**63 - 1):
        with pytest.raises(ValueError, match=r"expected a seed from -2\^63 to 2\^64 - 1, found -?\d+"):
            attend.MultiHeadAttention(8, 2, seed=seed)
        with pytest.raises(ValueError, match="expected a seed"):
            attend.attention(*[rows(1, 2, 3, 8)] * 3, dropout=0.5, seed=seed)
    with pytest.raises(TypeError):
        attend.MultiHeadAttention(8, 2, seed=1.5)


def test_state_dicts():
    layer = attend.MultiHeadAttention(16, 2, key_dim=6, value_dim=10)
    query, key, value = rows(1, 3, 16), rows(1, 4, 6), rows(1, 4, 10)
    for names in ("separate", "tutorial"):
        same = attend.MultiHeadAttention.from_state_dict(layer.state_dict(names=names), 2)
        np.testing.assert_array_equal(same(query, key, value), layer(query, key, value))
    half = attend.MultiHeadAttention.from_state_dict(layer.state_dict(names="separate"), 2, compute_type="bfloat16")
    np.testing.assert_allclose(half(query, key, value), layer(query, key, value), atol=3e-2)
    wide = attend.MultiHeadAttention(8, 2, key_dim=3, value_dim=5)
    assert wide.state_dict().keys() == wide.state_dict(names="separate").keys() and "k_proj_weight" in wide.state_dict()
    assert "in_proj_bias" not in attend.MultiHeadAttention(8, 2, bias=False).state_dict()


def test_next_tokens_are_those_of_the_whole():
    layer, x = attend.MultiHeadAttention(16, 4), rows(2, 6, 16)
    cache = layer.make_cache(2, capacity=2)
    found = np.concatenate([layer.forward_next(x[:, :4], cache), layer.forward_next(x[:, 4:], cache)], axis=1)
    np.testing.assert_allclose(found, layer(x, causal=True), atol=1e-5)
    assert cache.lengths == [6, 6]


def test_what_does_not_fit_is_an_exception():
    layer, x = attend.MultiHeadAttention(8, 2), rows(1, 3, 8)
    state = layer.state_dict()
    make = attend.MultiHeadAttention.from_state_dict
    for error, call in [(ValueError, lambda: attend.MultiHeadAttention(8, 3)), (ValueError, lambda: layer(x[..., :4])),
                        (ValueError, lambda: layer(x, value=x)), (TypeError, lambda: layer([1.0])), (ValueError, lambda: layer(x[0])),
                        (TypeError, lambda: make([1], 2)), (ValueError, lambda: make({}, 2)), (ValueError, lambda: make({**state, "more": x}, 2)),
                        (ValueError, lambda: make(state, 2, compute_type="int4")), (ValueError, lambda: layer.state_dict(names="keras")),
                        (TypeError, lambda: layer.forward_next(x, None))]:
        with pytest.raises(error):
            call()


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"key_dim": 5, "value_dim": 6}], ids=str)
@pytest.mark.parametrize("dtype,compute_type", [("float32", "float32"), ("float32", "int8"), ("float16", "bfloat16"), ("float64", "float32")])
def test_layers_are_pickled(options, dtype, compute_type):
    state = attend.MultiHeadAttention(8, 2, seed=1, **options).state_dict()
    layer = attend.MultiHeadAttention.from_state_dict({name: x.astype(dtype) for name, x in state.items()}, 2, compute_type=compute_type)
    other = pickle.loads(pickle.dumps(layer))
    given = rows(2, 3, 8), rows(2, 4, options.get("key_dim", 8)), rows(2, 4, options.get("value_dim", 8))
    np.testing.assert_array_equal(other(*given), layer(*given))
    assert other.state_dict().keys() == layer.state_dict().keys()
    for name, x in layer.state_dict().items():
        assert other.state_dict()[name].dtype == x.dtype
        np.testing.assert_array_equal(other.state_dict()[name], x)
