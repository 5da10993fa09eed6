"""The functions on NumPy arrays; PyTorch is not imported."""
import array
import subprocess
import sys

import numpy as np
import pytest

import attend
from attend import _core


def formula(q, k, v, mask=None, bias=0.0, scale=None):
    k, v = (np.repeat(x, q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = q @ k.swapaxes(-1, -2) * (1 / np.sqrt(q.shape[-1]) if scale is None else scale) + bias
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    with np.errstate(invalid="ignore"):
        largest = scores.max(-1, keepdims=True)
        e = np.exp(scores - np.where(np.isfinite(largest), largest, 0.0))
    total = e.sum(-1, keepdims=True)
    weights = np.divide(e, total, out=np.zeros_like(e), where=total > 0)
    return weights @ v, weights


def arrays(dtype=np.float32, n=5, m=7, heads=4, kv_heads=2, d=8):
    random = np.random.default_rng(1)
    make = lambda *shape: random.standard_normal(shape).astype(dtype)
    return make(2, heads, n, d), make(2, kv_heads, m, d), make(2, kv_heads, m, d)


BOUND = {np.float32: 2e-6, np.float64: 1e-13, np.float16: 4e-3}


@pytest.mark.parametrize("dtype", BOUND)
def test_attention(dtype):
    q, k, v = arrays(dtype)
    wide = [x.astype(np.float64) for x in (q, k, v)]
    rows, keys = np.arange(5)[:, None], np.arange(7)
    random = np.random.default_rng(2)
    boolean, bias = random.random((2, 1, 5, 7)) > 0.4, random.standard_normal((4, 5, 7)).astype(dtype)
    cases = [({}, {}), ({"causal": "top-left"}, {"mask": keys <= rows}), ({"causal": "bottom-right"}, {"mask": keys <= rows + 2}),
             ({"causal": True, "query_offset": 1}, {"mask": keys <= rows + 1}),
             ({"window": (1, 2)}, {"mask": (keys >= rows + 1) & (keys <= rows + 4)}),
             ({"mask": boolean}, {"mask": boolean}), ({"bias": bias}, {"bias": bias.astype(np.float64)}),
             ({"scale": 0.2}, {"scale": 0.2}), ({"key_lengths": [3, 7]}, {"mask": (keys < np.array([3, 7])[:, None])[:, None, None]}),
             ({"mask": attend.Mask.causal("top-left") & attend.Mask.boolean(boolean)}, {"mask": boolean & (keys <= rows)})]
    for options, same in cases:
        want, weights = formula(*wide, **same)
        found = attend.attention(q, k, v, return_weights=True, return_log_sum_exp=True, **options)
        assert type(found.output) is np.ndarray and found.output.dtype == dtype
        np.testing.assert_allclose(found.output, want, atol=BOUND[dtype], rtol=0)
        np.testing.assert_allclose(found.weights, weights, atol=BOUND[dtype], rtol=0)
        assert found.log_sum_exp.shape == (2, 4, 5)
        np.testing.assert_array_equal(attend.attention(q, k, v, **options), found.output)


def test_a_bias_has_no_gradient_where_none_is_wanted():
    q, k, v = arrays(np.float32)
    bias = np.random.default_rng(4).standard_normal((1, 1, 5, 7)).astype(np.float32)
    y = attend.attention(q, k, v, bias=bias, return_log_sum_exp=True)
    gradients = lambda **wanted: attend.attention_backward(y.output, q, k, v, y.output, y.log_sum_exp, bias=bias, **wanted)
    with_bias, without = gradients(), gradients(bias_gradient=False)
    assert with_bias.bias.shape == bias.shape and without.bias is None
    assert all((a == b).all() for a, b in zip(with_bias[:3], without[:3]))


def test_backward_by_finite_differences():
    q, k, v = arrays(np.float64)
    random = np.random.default_rng(3)
    bias, gradient = random.standard_normal((1, 4, 5, 7)), random.standard_normal(q.shape)
    given = {"query": q, "key": k, "value": v, "bias": bias}
    call = lambda: attend.attention(q, k, v, bias=bias, causal="bottom-right", return_log_sum_exp=True)
    result = call()
    found = attend.attention_backward(gradient, q, k, v, result.output, result.log_sum_exp, bias=bias, causal="bottom-right")
    for name, array in given.items():
        for index in [tuple(random.integers(0, n) for n in array.shape) for _ in range(6)]:
            at = array[index]
            array[index] = at + 1e-5
            above = (call().output * gradient).sum()
            array[index] = at - 1e-5
            below = (call().output * gradient).sum()
            array[index] = at
            assert abs(getattr(found, name)[index] - (above - below) / 2e-5) < 1e-7, name


def test_linear_attention_and_matmul():
    q, k, v = arrays(kv_heads=4)
    softmax = np.exp(k.astype(np.float64))
    softmax /= softmax.sum(-2, keepdims=True)
    np.testing.assert_allclose(attend.linear_attention(q, k, v), q @ (softmax.swapaxes(-1, -2) @ v), atol=2e-5)
    np.testing.assert_allclose(attend.matmul(q, k.swapaxes(-1, -2)), q @ k.swapaxes(-1, -2), atol=1e-5)


def test_strides_are_not_copied_and_out_is_written():
    packed = np.random.default_rng(4).standard_normal((2, 9, 3, 4, 16)).astype(np.float32)
    q, k, v = (packed[:, :, i].swapaxes(1, 2) for i in range(3))
    want = formula(*(x.astype(np.float64) for x in (q, k, v)))[0]
    np.testing.assert_allclose(attend.attention(q, k, v), want, atol=2e-6)
    out = np.full((2, 9, 4, 16), np.nan, np.float32).swapaxes(1, 2)
    assert attend.attention(q, k, v, out=out) is out
    np.testing.assert_allclose(out, want, atol=2e-6)
    columns = np.asfortranarray(q)  # not contiguous in the last dimension: copied
    np.testing.assert_array_equal(attend.attention(columns, k, v), attend.attention(q, k, v))
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        attend.attention(q, k, v, out=out)
    q = q.copy()
    q.flags.writeable = False
    np.testing.assert_allclose(attend.attention(q, k, v), want, atol=2e-6)


class OnlyDLPack:
    """An array of nobody's that speaks DLPack."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_addresses_are_the_callers():
    packed = np.zeros((2, 9, 3, 4, 16), np.float32)
    for array in (packed, packed[:, :, 1].swapaxes(1, 2), packed[1:, ::2, 2, ::-1, 3:], np.broadcast_to(packed[0, 0], (5, 3, 4, 16)),
                  packed[0, 0, 0, 0]):
        assert _core._rows_address(array) == array.__array_interface__["data"][0]
        assert _core._rows_address(OnlyDLPack(array)) == array.__array_interface__["data"][0]
    copied = packed[..., ::2]
    assert _core._rows_address(copied) != copied.__array_interface__["data"][0]


def test_results_are_of_the_querys_kind():
    q, k, v = arrays()
    found = attend.attention(OnlyDLPack(q), k, v)
    np.testing.assert_array_equal(found, attend.attention(q, k, v))
    assert isinstance(found, np.ndarray) and isinstance(attend.attention(memoryview(q), k, v), np.ndarray)
    with pytest.raises(TypeError, match="found ndarray of >f4"):
        attend.attention(q.astype(">f4"), k, v)


def test_bfloat16_of_ml_dtypes():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(7)
    q, k, v, grad = (rng.standard_normal((1, 2, 5, 8)).astype(ml_dtypes.bfloat16) for _ in range(4))
    want = attend.attention(*(x.astype(np.float32) for x in (q, k, v)))
    found, _, lse = attend.attention(q, k, v, return_log_sum_exp=True)
    assert type(found) is np.ndarray and found.dtype == ml_dtypes.bfloat16
    np.testing.assert_allclose(found.astype(np.float32), want, rtol=2e-2, atol=2e-2)
    assert {x.dtype for x in attend.attention_backward(grad, q, k, v, found, lse)[:3]} == {found.dtype}
    wide = np.zeros((1, 2, 10, 8), ml_dtypes.bfloat16)
    wide[:, :, ::2], out = q, np.empty_like(q)
    assert attend.attention(wide[:, :, ::2], k, v, out=out) is out and (out == found).all()
    k.flags.writeable = False
    assert (attend.attention(q, k, v) == found).all()
    cache = attend.KvCache(kv_heads=2, head_dim=8, dtype="bfloat16")
    cache.append(k, v)
    assert cache.attention(q[:, :, :1]).dtype == found.dtype
    product = attend.matmul(q[0, 0], attend.PackedMatrix(k[0, 0], dtype="bfloat16"))
    np.testing.assert_allclose(product.astype(np.float32), q[0, 0].astype(np.float32) @ k[0, 0].astype(np.float32).T,
                               rtol=1e-2, atol=1e-2)
    as_asked = attend.matmul(np.eye(8, dtype=np.float32), attend.PackedMatrix(np.eye(8, dtype=np.float32)), dtype="bfloat16")
    assert as_asked.dtype == ml_dtypes.bfloat16 and (as_asked == np.eye(8)).all()


def test_bytes_in_another_order_are_refused():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for dtype in (np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16)):
        x = np.ones((1, 1, 2, 4), dtype).astype(dtype.newbyteorder())
        with pytest.raises(TypeError, match="expected query to be an array"):
            attend.attention(x, x, x)


def test_types_that_are_refused_are_named():
    x = np.ones((1, 1, 2, 4), np.complex64)
    with pytest.raises(TypeError, match="found ndarray of complex64"):
        attend.attention(x, x, x)
    with pytest.raises(ValueError, match="expected query of at most 8 dimensions, found 9"):
        attend.attention(*[np.ones([1] * 9, np.float32)] * 3)


def test_bfloat16_without_ml_dtypes(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    one = np.eye(2, dtype=np.float32)
    with pytest.raises(TypeError, match="expected the package ml_dtypes"):
        attend.matmul(one, attend.PackedMatrix(one), dtype="bfloat16")


def test_huge_strides_and_dimensions_of_one():
    page = np.zeros((1 << 20, 64), np.float32)
    rows = np.lib.stride_tricks.as_strided(page, (1, 1, 16, 8), (1 << 60, -(1 << 60), 1 << 24, 4))
    page[:] = np.random.default_rng(5).standard_normal(64).astype(np.float32)
    np.testing.assert_array_equal(attend.attention(rows, rows, rows), attend.attention(*[rows.copy()] * 3))


def test_nan_reaches_the_rows_that_attend_to_it():
    q, k, v = arrays()
    k[0, :, 3], v[1, :, 6] = np.nan, np.inf
    found = attend.attention(q, k, v, causal="top-left")
    assert np.isnan(found[0, :, 3:]).all() and np.isfinite(found[0, :, :3]).all() and np.isfinite(found[1]).all()


def test_what_does_not_fit_is_an_exception():
    q, k, v = arrays()
    for error, call in [(TypeError, lambda: attend.attention([1.0], k, v)), (TypeError, lambda: attend.attention("q", k, v)),
                        (TypeError, lambda: attend.attention(q.astype(complex), k, v)), (TypeError, lambda: attend.attention(None, k, v)),
                        (TypeError, lambda: attend.attention(q.astype(np.int32), k, v)), (TypeError, lambda: attend.attention(q, k.astype(np.float64), v)),
                        (ValueError, lambda: attend.attention(q[0], k, v)), (ValueError, lambda: attend.attention(np.float32(1), k, v)),
                        (ValueError, lambda: attend.attention(q[:, :3], k, v)), (ValueError, lambda: attend.attention(q, k, v[:, :, :2])),
                        (TypeError, lambda: attend.attention(q, k, v, mask=np.ones((5, 7)))), (ValueError, lambda: attend.attention(q, k, v, causal="left")),
                        (ValueError, lambda: attend.attention(q, k, v, causal=True)), (ValueError, lambda: attend.attention(q, k, v, window=(1,))),
                        (ValueError, lambda: attend.attention(q, k, v, algorithm="fast")), (ValueError, lambda: attend.attention(q, k, v, dropout=2.0)),
                        (ValueError, lambda: attend.attention(q, k, v, key_lengths=[1])), (TypeError, lambda: attend.attention(q, k, v, key_lengths=[0.5, 1])),
                        (ValueError, lambda: attend.attention(q, k, v, out=np.empty((1,), np.float32))), (TypeError, lambda: attend.attention(q, k)),
                        (ValueError, lambda: attend.attention(q, k, v, causal="top-left", query_offset=1)),
                        (ValueError, lambda: attend.attention(q, k, v, causal=True, query_offset=2**63)), (ValueError, lambda: attend.attention(q, k, v, window=(2**63, 1))),
                        (ValueError, lambda: attend.Mask.causal(2**63)), (ValueError, lambda: attend.Mask.causal().with_query_offset(2**63)),
                        (ValueError, lambda: attend.Mask.window(2**63, 0)), (ValueError, lambda: attend.attention(q, k, v, key_lengths=[2**63, 1])),
                        (ValueError, lambda: attend.linear_attention(q, k, v, feature_map="cube")), (OSError, lambda: attend.Translator.from_pretrained("/nowhere"))]:
        with pytest.raises(error):
            call()


def test_empty_arrays():
    empty = np.empty((2, 4, 0, 8), np.float32)
    q, k, v = arrays(kv_heads=4)
    assert attend.attention(empty, k, v).shape == (2, 4, 0, 8)
    np.testing.assert_array_equal(attend.attention(q, empty, empty), np.zeros_like(q))
    # No sequences of everyday sizes, and queries of none over many heads.
    shard = np.empty((0, 32, 2048, 128), np.float32)
    assert attend.attention(shard, shard, shard).shape == attend.linear_attention(shard, shard, shard).shape == shard.shape
    key = np.zeros((512, 128, 1, 128), np.float32)
    assert attend.attention(key[:, :, :0], key, key).shape == (512, 128, 0, 128)


def test_import_does_not_bring_pytorch():
    subprocess.run([sys.executable, "-c", "import attend, sys; assert 'torch' not in sys.modules"], check=True)


def test_out_may_be_what_is_read():
    q, k, v = (np.random.default_rng(i).standard_normal((2, 3, 70, 16)).astype(np.float32) for i in range(3))
    bias = np.random.default_rng(3).standard_normal((2, 3, 70, 70)).astype(np.float32)
    want = attend.attention(q, k, v, bias=bias)
    for i in range(3):
        given = [x.copy() for x in (q, k, v)]
        assert attend.attention(*given, bias=bias, out=given[i]) is given[i]
        np.testing.assert_array_equal(given[i], want)
    memory = bias.copy()
    out = memory.reshape(-1)[5:5 + want.size].reshape(want.shape)
    np.testing.assert_array_equal(attend.attention(q, k, v, bias=memory, out=out), want)
    mask = bias > 0
    want = attend.attention(q, k, v, mask=attend.Mask.boolean(mask))
    memory = np.zeros(want.size, np.float32)
    seen = memory.view(np.bool_)[:mask[:1, :1].size].reshape(1, 1, 70, 70)
    seen[:] = mask[:1, :1]
    want = attend.attention(q, k, v, mask=mask[:1, :1])
    np.testing.assert_array_equal(attend.attention(q, k, v, mask=seen, out=memory.reshape(want.shape)), want)
    with pytest.raises(ValueError, match="of their own"):
        attend.attention(q, k, v, out=np.lib.stride_tricks.as_strided(memory, want.shape, (0, *want.strides[1:])))


def test_whole_numbers_are_of_any_kind():
    q, k, v = (np.random.default_rng(i).standard_normal((3, 2, 5, 4)).astype(np.float32) for i in range(3))
    want = attend.attention(q, k, v, key_lengths=[1, 2, 3])
    kinds = [np.array([1, 2, 3], f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)]
    for lengths in (range(1, 4), (1, 2, 3), tuple(np.array([1, 2, 3])), [np.uint8(1), 2, np.int16(3)], array.array("h", [1, 2, 3]),
                    np.array([3, 2, 1])[::-1], *kinds):
        np.testing.assert_array_equal(attend.attention(q, k, v, key_lengths=lengths), want)
    first = np.int32(2)
    np.testing.assert_array_equal(attend.attention(q, k, v, causal=True, query_offset=first), attend.attention(q, k, v, causal=True, query_offset=2))
    np.testing.assert_array_equal(attend.attention(q, k, v, mask=attend.Mask.causal(first)), attend.attention(q, k, v, mask=attend.Mask.causal(2)))
    np.testing.assert_array_equal(attend.attention(q, k, v, mask=attend.Mask.causal().with_query_offset(first)), attend.attention(q, k, v, mask=attend.Mask.causal(2)))
    packed = attend.PackedMatrix(q[0, 0])
    np.testing.assert_array_equal(packed.select(range(3)).unpack(), q[0, 0, :3])
    np.testing.assert_array_equal(packed.row(np.uint16(1)), q[0, 0, 1])
    for error, lengths in [(TypeError, "123"), (TypeError, b"\1\2\3"), (TypeError, {1, 2, 3}), (TypeError, {1: 1}), (TypeError, ["1", 2, 3]), (TypeError, [np.float32(1.5), 2, 3]),
                           (TypeError, np.array([1.0, 2.0, 3.0])), (TypeError, np.array([True, True, True])), (TypeError, np.float64(3)), (TypeError, 1.0), (TypeError, object()),
                           (ValueError, np.array([1, 2, 2**63], np.uint64)), (ValueError, np.array([[1, 2, 3]], np.uint8)), (ValueError, [1, 2, 2**64])]:
        with pytest.raises(error, match="key_lengths"):
            attend.attention(q, k, v, key_lengths=lengths)


def test_messages_name_the_operation():
    x = np.ones((1, 1, 1, 1), np.float32)
    with pytest.raises(ValueError, match=r"\[linear_attention\].*algorithm"):
        attend.linear_attention(x, x, x, algorithm="fast")


def test_options_of_any_kind_of_truth_and_bound():
    x = np.random.default_rng(1).standard_normal((1, 2, 3, 4), np.float32)
    for a, b in (({"causal": np.True_}, {"causal": True}), ({"causal": np.False_}, {}),
                 ({"window": (1, None)}, {"mask": attend.Mask.window(1, None)}), ({"window": [None, 0]}, {"mask": attend.Mask.window(None, 0)})):
        np.testing.assert_array_equal(attend.attention(x, x, x, **a), attend.attention(x, x, x, **b))
    with pytest.raises(ValueError, match=r"unbounded\), found \(1, -2\)"):
        attend.attention(x, x, x, window=(1, -2))


def test_fields_of_records_are_named():
    x = np.zeros((1, 1, 2, 4), [("p", "u1"), ("a", "<f4")])["a"]
    with pytest.raises(TypeError, match=r"strides of \(40, 40, 20, 5\) bytes, not all multiples of its elements' 4"):
        attend.attention(x, x, x)


def test_errors_of_an_objects_own_dlpack_pass():
    class Broken:
        def __dlpack__(self, **keywords):
            raise KeyError("its own")

        def __dlpack_device__(self):
            return 1, 0

    with pytest.raises(KeyError, match="its own"):
        attend.attention(Broken(), Broken(), Broken())
