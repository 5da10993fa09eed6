"""Caches of keys and values against attention over all of them."""
import copy
import pickle
import threading

import numpy as np
import pytest

import attend

BOUND = {"float32": 2e-6, "float16": 4e-3, "bfloat16": 4e-2, "int8": 4e-2}


def rows(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("dtype", BOUND)
def test_token_by_token(dtype):
    q, k, v = rows(2, 4, 9, 8), rows(2, 2, 9, 8, seed=1), rows(2, 2, 9, 6, seed=2)
    cache = attend.KvCache(batch=2, kv_heads=2, head_dim=8, value_dim=6, capacity=4, dtype=dtype)
    want = attend.attention(q, k, v, causal=True)
    for t in range(9):
        cache.append(k[:, :, t:t + 1], v[:, :, t:t + 1])
        found = cache.attention(q[:, :, t:t + 1], causal="bottom-right")
        np.testing.assert_allclose(found, want[:, :, t:t + 1], atol=BOUND[dtype], rtol=0)
    assert cache.lengths == [9, 9] and cache.left_padding == [0, 0] and cache.nbytes > 0
    result = cache.attention(q, causal="bottom-right", return_weights=True, return_log_sum_exp=True)
    np.testing.assert_allclose(result.output, want, atol=BOUND[dtype], rtol=0)
    np.testing.assert_allclose(result.weights.sum(-1), 1, atol=1e-5)
    assert result.log_sum_exp.shape == (2, 4, 9)


def test_lengths_padding_and_order():
    k, v, q = rows(3, 2, 5, 8, seed=1), rows(3, 2, 5, 8, seed=2), rows(3, 2, 1, 8)
    cache = attend.KvCache(batch=3, kv_heads=2, head_dim=8)
    cache.append(k, v, counts=[5, 2, 0])
    cache.append(k[:1, :, :1], v[:1, :, :1], sequences=[2])
    assert cache.lengths == [5, 2, 1]
    np.testing.assert_allclose(cache.attention(q)[1], attend.attention(q, k, v, key_lengths=[5, 2, 1])[1], atol=2e-6)
    cache.set_left_padding(0, 3)
    np.testing.assert_allclose(cache.attention(q)[0], attend.attention(q[:1], k[:1, :, 3:], v[:1, :, 3:])[0], atol=2e-6)
    before = cache.attention(q)
    cache.reorder([2, 0, 1])
    np.testing.assert_array_equal(cache.attention(q[[2, 0, 1]]), before[[2, 0, 1]])
    cache.truncate(1, 4)
    assert cache.lengths == [1, 4, 2]
    cache.clear()
    assert cache.lengths == [0, 0, 0]
    np.testing.assert_array_equal(cache.attention(q), np.zeros_like(q))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_copies_go_on_apart(dtype):
    x = np.random.default_rng(4).standard_normal((1, 2, 3, 8)).astype(np.float32)
    cache = attend.KvCache(kv_heads=2, head_dim=8, dtype=dtype)
    cache.append(x, x)
    want = cache.attention(x)
    for other in (copy.copy(cache), copy.deepcopy(cache)):
        other.append(x, -x)
        assert (other.lengths, cache.lengths) == ([6], [3])
        np.testing.assert_array_equal(cache.attention(x), want)
        other.truncate(0, 3)
        np.testing.assert_array_equal(other.attention(x), want)


def test_masks_are_copied():
    allowed = np.array([[True, False], [True, True]])
    mask = attend.Mask.boolean(allowed) & attend.Mask.causal(1)
    shared, own = copy.copy(mask), copy.deepcopy(mask)
    allowed[1, 0] = False
    x = np.eye(2, dtype=np.float32)[None, None]
    for copied, want in ((shared, [[True, False], [False, True]]), (own, [[True, False], [True, True]])):
        found = attend.attention(x, x, x, mask=copied, return_weights=True).weights[0, 0] > 0
        np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8"])
def test_caches_are_pickled(dtype):
    cache = attend.KvCache(batch=2, kv_heads=2, head_dim=8, value_dim=5, dtype=dtype, capacity=4)
    x, y = rows(2, 2, 3, 8), rows(2, 2, 3, 5, seed=1)
    cache.append(x, y, counts=[3, 2])
    cache.set_left_padding(0, 1)
    other = pickle.loads(pickle.dumps(cache))
    for _ in range(2):
        assert (other.lengths, other.left_padding, other.nbytes) == (cache.lengths, cache.left_padding, cache.nbytes)
        np.testing.assert_array_equal(other.attention(x), cache.attention(x))
        for each in (cache, other):
            each.append(x, y)
    cache.clear()
    assert pickle.loads(pickle.dumps(cache)).lengths == [0, 0]


CAUSAL, WINDOW, BOOLEAN = attend.Mask.causal(), attend.Mask.window(1, None), attend.Mask.boolean(np.tri(3, dtype=bool)[::-1])


@pytest.mark.parametrize("mask,text", [
    (attend.Mask(), "Mask()"), (CAUSAL, "Mask.causal()"), (attend.Mask.causal("top-left"), "Mask.causal('top-left')"),
    (attend.Mask.causal([1]), "Mask.causal([1])"), (attend.Mask() & WINDOW, "Mask.window(1, None)"), (BOOLEAN, "Mask.boolean(<bool [3, 3]>)"),
    (attend.Mask.key_lengths([2]) & BOOLEAN, "Mask.key_lengths([2]) & Mask.boolean(<bool [3, 3]>)"),
    (attend.Mask.packed([0, 1, 3]), "Mask.packed([0, 1, 3])"), (attend.Mask.packed([0, 3], [0, 2]), "Mask.packed([0, 3], [0, 2])"),
    ((CAUSAL & WINDOW).with_query_offset(1) & BOOLEAN, "(Mask.causal() & Mask.window(1, None)).with_query_offset(1) & Mask.boolean(<bool [3, 3]>)"),
], ids=str)
def test_masks_are_pickled_and_say_what_they_are(mask, text):
    assert repr(mask) == text
    x, other = rows(1, 2, 3, 8), pickle.loads(pickle.dumps(mask))
    assert repr(other) == text
    np.testing.assert_array_equal(attend.attention(x, x, x, mask=other), attend.attention(x, x, x, mask=mask))


def test_pickles_have_arrays_of_their_own():
    allowed = np.ones((1, 1, 2, 1), bool)
    mask = attend.Mask.boolean(np.broadcast_to(allowed, (1, 2, 2, 1 << 20)))
    state = pickle.dumps(mask)
    assert len(state) < 1 << 12  # without what is broadcast
    allowed[...] = False
    x = np.ones((1, 2, 2, 4), np.float32)
    assert attend.attention(x, x, x, mask=pickle.loads(state)).all()


def test_what_does_not_fit_is_an_exception():
    cache = attend.KvCache(kv_heads=2, head_dim=8)
    one = rows(1, 2, 1, 8)
    for error, call in [(ValueError, lambda: attend.KvCache(kv_heads=-1, head_dim=8)), (ValueError, lambda: attend.KvCache(kv_heads=1, head_dim=8, dtype="int4")),
                        (TypeError, lambda: attend.KvCache(kv_heads=1)), (ValueError, lambda: cache.append(one, one[..., :4])),
                        (TypeError, lambda: cache.append(one.astype(int), one)), (ValueError, lambda: cache.append(one, one, sequences=[1])),
                        (ValueError, lambda: cache.append(one, one, counts=[2])), (ValueError, lambda: cache.append(one, one, sequences=[0], counts=[1])),
                        (ValueError, lambda: cache.attention(one[..., :3])), (ValueError, lambda: cache.attention(one, mask=attend.Mask.packed([0, 1]))),
                        (ValueError, lambda: cache.truncate(0, 9)), (ValueError, lambda: cache.reorder([4])), (TypeError, lambda: cache.append("k", "v")),
                        (ValueError, lambda: cache.truncate(7, 0)), (ValueError, lambda: cache.set_left_padding(-1, 0))]:
        with pytest.raises(error):
            call()
    assert cache.lengths == [0]


def test_threads_append_and_attend_at_once():
    cache = attend.KvCache(kv_heads=2, head_dim=8, capacity=1)
    one = np.ones((1, 2, 1, 8), np.float32)
    cache.append(one, one)
    wrong = []

    def append():
        for _ in range(300):
            cache.append(one, one)

    def attend_to():
        for _ in range(300):
            if not np.allclose(cache.attention(one), 1, atol=1e-5):
                wrong.append(1)

    threads = [threading.Thread(target=f) for f in (append, attend_to, append, attend_to)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and cache.lengths == [601]
