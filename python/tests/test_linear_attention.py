"""Linear attention against its definition token by token, states handed on, gradients against finite differences."""
import copy
import gc
import pickle
import threading

import numpy as np
import pytest

import attend
from linear_formula import MAPS, linear_formula
from ticking import others_run_during

# float32 sums of some tens of products of numbers around 1; float16 rounds inputs before the formula sees them, and results.
BOUND = {np.float32: 2e-5, np.float64: 1e-12, np.float16: 2e-3}


def arrays(dtype=np.float32, n=37, m=37, heads=4, kv_heads=2, d=8, dv=6, seed=1):
    random = np.random.default_rng(seed)
    make = lambda *shape: (0.5 * random.standard_normal(shape)).astype(dtype)
    return make(2, heads, n, d), make(2, kv_heads, m, d), make(2, kv_heads, m, dv)


def decays(*shape, dtype=np.float32, seed=2):
    return -np.random.default_rng(seed).random(shape).astype(dtype)


def state_of(dtype=np.float32, seed=3):
    random = np.random.default_rng(seed)
    wide = np.float64 if dtype == np.float64 else np.float32
    return random.standard_normal((2, 2, 8, 6)).astype(wide), 1 + random.random((2, 2, 8)).astype(wide)


def cases(dtype):
    beta = np.random.default_rng(4).random((2, 2, 37)).astype(dtype)
    s, z = state_of(dtype)
    yield {"feature_map": "elu_plus_one"}
    yield {"feature_map": "relu", "scale": 0.25, "key_lengths": [20, 0]}
    yield {"feature_map": "elu_plus_one", "normalise": True, "initial_state": s, "initial_normaliser": z}
    causal = {"causal": True, "feature_map": "identity", "scale": 0.5}
    yield causal
    yield {**causal, "feature_map": "elu_plus_one", "normalise": True, "key_lengths": [37, 11]}
    yield {**causal, "decay": decays(2)}
    yield {**causal, "decay": decays(2, 2, 37), "initial_state": s}
    yield {**causal, "decay": decays(2, 2, 37, 8), "feature_map": "relu"}
    yield {**causal, "decay": decays(2, 2, 37, 8), "feature_map": "elu_plus_one", "normalise": True,
           "initial_state": s, "initial_normaliser": z}
    yield {**causal, "beta": beta}
    yield {**causal, "beta": beta, "decay": decays(2, 2, 37), "initial_state": s}


def formula(q, k, v, **options):
    names = {"initial_state": "state", "initial_normaliser": "normaliser"}
    return linear_formula(q, k, v, **{names.get(name, name): x for name, x in options.items() if name != "algorithm"})


def close(found, want, bound):
    np.testing.assert_allclose(found.astype(np.float64), want, atol=bound * max(1, np.abs(want).max()), rtol=0)


@pytest.mark.parametrize("algorithm", ["auto", "reference"])
@pytest.mark.parametrize("dtype", BOUND)
def test_equals_the_definition(dtype, algorithm):
    q, k, v = arrays(dtype)
    for options in cases(dtype):
        output, denominator, state, normaliser = formula(q, k, v, **options)
        found = attend.linear_attention(q, k, v, return_state=True, algorithm=algorithm, **options)
        assert isinstance(found, attend.LinearAttentionResult) and found.output.dtype == dtype
        close(found.output, output, BOUND[dtype])
        exact = BOUND[np.float64 if dtype == np.float64 else np.float32]
        close(found.state, state, exact)
        assert found.state.dtype == (np.float64 if dtype == np.float64 else np.float32)
        if options.get("normalise"):
            close(found.denominator, denominator, exact)
            close(found.normaliser, normaliser, exact)
        else:
            assert found.denominator is None and found.normaliser is None
        np.testing.assert_array_equal(attend.linear_attention(q, k, v, algorithm=algorithm, **options), found.output)


def test_softmax_keys_and_lengths():
    q, k, v = arrays(kv_heads=4)
    with np.errstate(all="raise"):
        shown = np.exp(np.where(np.arange(37)[:, None] < np.array([20, 37])[:, None, None, None], k.astype(np.float64), -np.inf))
    shown /= shown.sum(-2, keepdims=True)
    close(attend.linear_attention(q, k, v, key_lengths=[20, 37]), q @ (shown.swapaxes(-1, -2) @ v), BOUND[np.float32])


def tokens(options, begin, end):
    return {name: x[:, :, begin:end] if name in ("decay", "beta") and x.ndim > 1 else x for name, x in options.items()}


def test_a_state_handed_on_equals_one_call():
    q, k, v = arrays()
    for options in cases(np.float32):
        if not options.get("causal") or "key_lengths" in options:
            continue
        whole = attend.linear_attention(q, k, v, return_state=True, **options)
        given, outputs = dict(options), []
        for begin, end in ((0, 1), (1, 1), (1, 20), (20, 37)):
            part = attend.linear_attention(*(x[:, :, begin:end] for x in (q, k, v)), return_state=True, **tokens(given, begin, end))
            outputs.append(part.output)
            given["initial_state"] = part.state
            if options.get("normalise"):
                given["initial_normaliser"] = part.normaliser
        close(np.concatenate(outputs, 2), whole.output.astype(np.float64), 2e-6)
        close(part.state, whole.state.astype(np.float64), 2e-6)


@pytest.mark.parametrize("dtype", BOUND)
def test_steps_equal_the_whole(dtype):
    q, k, v = arrays(dtype)
    names = {np.float32: "float32", np.float64: "float64", np.float16: "float16"}
    for options in cases(dtype):
        if not options.get("causal") or "key_lengths" in options or "initial_state" in options:
            continue
        whole = attend.linear_attention(q, k, v, return_state=True, **options)
        steps = {name: x for name, x in options.items() if name != "causal"}
        for state, begin in ((attend.LinearAttentionState(2, 2, 8, 6, names[dtype]), 0),
                             (attend.LinearAttentionState.from_result(attend.linear_attention(
                                 q[:, :, :9], k[:, :, :9], v[:, :, :9], return_state=True, **tokens(options, 0, 9))), 9)):
            for t in range(begin, 37):
                found = state.step(*(x[:, :, t:t + 1] for x in (q, k, v)), **tokens(steps, t, t + 1))
                assert found.dtype == dtype
                close(found, whole.output[:, :, t:t + 1].astype(np.float64), BOUND[dtype])
            close(state.state, whole.state.astype(np.float64), BOUND[dtype])
            if options.get("normalise"):
                close(state.normaliser, whole.normaliser.astype(np.float64), BOUND[dtype])


def test_packed_equals_padded():
    q, k, v = arrays(n=20, m=20)
    lengths, starts = [13, 20], [0, 13, 33]
    packed = [np.concatenate([x[0, :, :13], x[1]], 1)[None] for x in (q, k, v)]
    for options in ({"feature_map": "elu_plus_one", "normalise": True}, {"causal": True, "feature_map": "relu"}, {"feature_map": "softmax_keys"}):
        state = options["feature_map"] != "softmax_keys"
        padded = attend.linear_attention(q, k, v, key_lengths=lengths, **options)
        found = attend.linear_attention(*packed, query_starts=starts, return_state=state, **options)
        output = found.output if state else found
        np.testing.assert_array_equal(output[0, :, :13], padded[0, :, :13])
        np.testing.assert_array_equal(output[0, :, 13:], padded[1])
        if state:
            assert found.state.shape == (2, 2, 8, 6)
        np.testing.assert_array_equal(attend.linear_attention(*packed, query_starts=np.array(starts), key_starts=starts, **options), output)
    none = attend.linear_attention(*packed, query_starts=[0], feature_map="relu", return_state=True)  # all padding
    assert (none.output == 0).all() and none.state.shape == (0, 2, 8, 6)
    # Queries and keys of other lengths.
    other = attend.linear_attention(packed[0], *packed[1:], query_starts=[0, 3, 33], key_starts=starts, feature_map="identity")
    close(other[0, :, :3], formula(packed[0][:, :, :3], packed[1][:, :, :13], packed[2][:, :, :13])[0][0], 2e-5)


def test_the_copies_of_a_state_do_not_change():
    state = attend.LinearAttentionState(2, 2, 8, 6)
    q, k, v = arrays(n=1, m=1)
    before = state.state
    assert (before == 0).all() and before.dtype == np.float32
    state.step(q, k, v, feature_map="identity")
    assert (before == 0).all() and (state.state != 0).all()
    kept = state.state
    state.state[:] = 5
    np.testing.assert_array_equal(state.state, kept)
    with pytest.raises(ValueError):
        state.step(q, k, v[..., :5], feature_map="identity")
    np.testing.assert_array_equal(state.state, kept)
    del state
    gc.collect()
    assert np.isfinite(kept).all()


def test_backward_by_finite_differences():
    q, k, v = arrays(np.float64, n=9, m=9, d=4, dv=3)
    q, k = q + 0.05 * np.sign(q), k + 0.05 * np.sign(k)  # away from relu's kink
    random = np.random.default_rng(5)
    s, z = random.standard_normal((2, 2, 4, 3)), 1 + random.random((2, 2, 4))
    beta = random.random((2, 2, 9))
    causal = {"causal": True, "scale": 0.7}
    for options, given in [({"feature_map": "softmax_keys"}, {}), ({"feature_map": "relu", "key_lengths": [4, 9]}, {"initial_state": s}),
                           ({"feature_map": "elu_plus_one", "normalise": True, **causal}, {"initial_state": s, "initial_normaliser": z, "decay": decays(2, dtype=np.float64)}),
                           ({"feature_map": "identity", **causal}, {"initial_state": s, "decay": decays(2, 2, 9, 4, dtype=np.float64)}),
                           ({"feature_map": "identity", **causal}, {"initial_state": s, "beta": beta, "decay": decays(2, 2, 9, dtype=np.float64)})]:
        inputs = {"query": q, "key": k, "value": v, **given}
        has_state = options["feature_map"] != "softmax_keys"
        call = lambda: attend.linear_attention(**inputs, **options, return_state=has_state)
        result = call()
        targets = list(result) if has_state else [result]
        weights = [None if x is None or i == 1 else random.standard_normal(x.shape) for i, x in enumerate(targets)]

        def loss():
            values = call()
            return sum((x * w).sum() for x, w in zip(values if has_state else [values], weights) if w is not None)

        saved = {"output": result.output, "denominator": result.denominator, "grad_state": weights[2], "grad_normaliser": weights[3]} if has_state else {}
        found = attend.linear_attention_backward(weights[0], **inputs, **options, **saved)
        assert isinstance(found, attend.LinearAttentionGradients)
        for name in found._fields:
            if name not in inputs:
                assert getattr(found, name) is None
                continue
            array, gradient = inputs[name], getattr(found, name)
            assert gradient.shape == array.shape
            for index in [tuple(random.integers(0, n) for n in array.shape) for _ in range(5)]:
                at = array[index]
                array[index] = at + 1e-5
                above = loss()
                array[index] = at - 1e-5
                below = loss()
                array[index] = at
                assert abs(gradient[index] - (above - below) / 2e-5) < 1e-6 * max(1, abs(gradient[index])), (name, options)


def test_strides_and_read_only_arrays():
    packed = np.random.default_rng(6).standard_normal((2, 9, 3, 4, 8)).astype(np.float32)
    q, k, v = (packed[:, :, i].swapaxes(1, 2) for i in range(3))
    options = {"feature_map": "elu_plus_one", "normalise": True, "causal": True}
    want = attend.linear_attention(*(x.copy() for x in (q, k, v)), **options)
    np.testing.assert_array_equal(attend.linear_attention(q, k, v, **options), want)
    np.testing.assert_array_equal(attend.linear_attention(*map(np.asfortranarray, (q, k, v)), **options), want)
    np.testing.assert_array_equal(attend.linear_attention(*(x[:, :, ::-1].copy()[:, :, ::-1] for x in (q, k, v)), **options), want)
    decay = np.broadcast_to(np.float32(-0.5), (2, 4, 9, 8))  # strides of 0, read-only
    close(attend.linear_attention(q, k, v, decay=decay, **options),
          formula(q, k, v, decay=np.full(4, -0.5), **options)[0], 2e-5)
    state = np.asfortranarray(np.random.default_rng(7).standard_normal((2, 4, 8, 8)).astype(np.float32))
    state.flags.writeable = False
    given = {"feature_map": "identity", "initial_state": state}
    close(attend.linear_attention(q, k, v, **given), formula(q, k, v, **given)[0], 2e-5)


def test_nan_reaches_later_rows_alone():
    q, k, v = arrays()
    k[0, 0, 20] = np.nan
    found = attend.linear_attention(q, k, v, causal=True, feature_map="elu_plus_one", return_state=True)
    assert np.isnan(found.output[0, :2, 20:]).all() and np.isfinite(found.output[0, :, :20]).all() and np.isfinite(found.output[1]).all()
    assert np.isnan(found.state[0, 0]).all() and np.isfinite(found.state[:, 1]).all()
    assert np.isfinite(attend.linear_attention(q, k, v, key_lengths=[20, 37], feature_map="relu")).all()


@pytest.mark.parametrize("shapes", [((0, 2, 3, 4), (0, 2, 3, 4), (0, 2, 3, 5)), ((2, 0, 3, 4), (2, 0, 3, 4), (2, 0, 3, 5)),
                                    ((2, 2, 0, 4), (2, 2, 3, 4), (2, 2, 3, 5)), ((2, 2, 3, 4), (2, 2, 0, 4), (2, 2, 0, 5)),
                                    ((2, 2, 3, 0), (2, 2, 3, 0), (2, 2, 3, 5)), ((2, 2, 3, 4), (2, 2, 3, 4), (2, 2, 3, 0))], ids=str)
def test_empty_arrays(shapes):
    q, k, v = (np.ones(shape, np.float32) for shape in shapes)
    for options in ({"feature_map": "identity"}, {"feature_map": "elu_plus_one", "normalise": True}, {"feature_map": "softmax_keys"}):
        if options["feature_map"] == "softmax_keys":
            assert attend.linear_attention(q, k, v, **options).shape == (*q.shape[:3], v.shape[3])
            continue
        for causal in {False, q.shape[2] == k.shape[2]}:
            found = attend.linear_attention(q, k, v, causal=causal, return_state=True, **options)
            want = formula(q, k, v, causal=causal, **options)
            np.testing.assert_allclose(found.output, want[0], rtol=1e-6)
            np.testing.assert_allclose(found.state, want[2])
            gradients = attend.linear_attention_backward(found.output, q, k, v, output=found.output, denominator=found.denominator,
                                                         causal=causal, grad_state=found.state, **options)
            assert [x.shape for x in gradients[:3]] == [x.shape for x in (q, k, v)] and all(np.isfinite(x).all() for x in gradients[:3])


@pytest.mark.filterwarnings("ignore:nanobind:RuntimeWarning")
def test_what_does_not_fit_is_an_exception():
    q, k, v = arrays()
    one = [x[:, :, :1] for x in (q, k, v)]
    s, z = state_of()
    state = attend.LinearAttentionState(2, 2, 8, 6)
    call, back = attend.linear_attention, attend.linear_attention_backward
    causal = {"causal": True, "feature_map": "identity"}
    grad = np.ones((2, 4, 37, 6), np.float32)
    y = call(q, k, v, normalise=True, feature_map="relu", return_state=True)
    Result = attend.LinearAttentionResult
    for error, run in [
            (TypeError, lambda: call([1.0], k, v)), (TypeError, lambda: call(q.astype(int), k, v)), (TypeError, lambda: call(q, k.astype(np.float64), v)),
            (ValueError, lambda: call(q[0], k, v)), (ValueError, lambda: call(np.float32(1), k, v)), (ValueError, lambda: call(q[:, :3], k, v)),
            (ValueError, lambda: call(q, k, v[:, :, :5])), (ValueError, lambda: call(q[..., :4], k, v)), (TypeError, lambda: call(q, k)),
            (ValueError, lambda: call(q, k, v, feature_map="cube")), (TypeError, lambda: call(q, k, v, feature_map=3)), (TypeError, lambda: call(q, k, v, feature_map=None)),
            (TypeError, lambda: call(q, k, v, feature_map=np.tanh)), (ValueError, lambda: call(q, k, v, causal=True)), (ValueError, lambda: call(q, k, v, normalise=True)),
            (ValueError, lambda: call(q, k, v, return_state=True)), (ValueError, lambda: call(q, k, v, scale=np.nan)), (TypeError, lambda: call(q, k, v, scale="1")),
            (ValueError, lambda: call(q, k[:, :, :5], v[:, :, :5], **causal)), (ValueError, lambda: call(q, k, v, decay=decays(2), feature_map="identity")),
            (ValueError, lambda: call(q, k, v, decay=decays(3), **causal)), (ValueError, lambda: call(q, k, v, decay=np.float32(-1), **causal)),
            (TypeError, lambda: call(q, k, v, decay=np.zeros(2, int), **causal)), (TypeError, lambda: call(q, k, v, decay=-0.5, **causal)),
            (ValueError, lambda: call(q, k, v, beta=decays(2, 2, 36), **causal)), (ValueError, lambda: call(q, k, v, beta=decays(2, 2, 37), normalise=True, **causal)),
            (ValueError, lambda: call(q, k, v, key_lengths=[1])), (ValueError, lambda: call(q, k, v, key_lengths=[])), (ValueError, lambda: call(q, k, v, key_lengths=[-1, 3])),
            (ValueError, lambda: call(q, k, v, key_lengths=[38, 3])), (ValueError, lambda: call(q, k, v, key_lengths=[2**63 - 1, 3])), (ValueError, lambda: call(q, k, v, key_lengths=[2**63, 3])),
            (TypeError, lambda: call(q, k, v, key_lengths=[0.5, 3])), (ValueError, lambda: call(q, k, v, query_starts=[0, 37])),
            (ValueError, lambda: call(q[:1], k[:1], v[:1], query_starts=[])), (ValueError, lambda: call(q[:1], k[:1], v[:1], query_starts=[0, 37], key_starts=[0])),
            (ValueError, lambda: call(q[:1], k[:1], v[:1], query_starts=[0, -3, 37])), (ValueError, lambda: call(q[:1], k[:1], v[:1], query_starts=[0, 2**62])),
            (ValueError, lambda: call(q[:1], k[:1], v[:1], query_starts=[-2**63, 37])), (ValueError, lambda: call(q[:1], k[:1], v[:1], key_starts=[0, 37])),
            (ValueError, lambda: call(q, k, v, feature_map="relu", initial_state=s[:1])), (TypeError, lambda: call(q, k, v, feature_map="relu", initial_state=s.astype(np.float64))),
            (ValueError, lambda: call(q, k, v, feature_map="relu", normalise=True, initial_state=s)), (ValueError, lambda: call(q, k, v, feature_map="relu", initial_normaliser=z)),
            (ValueError, lambda: call(q, k, v, algorithm="fast")), (ValueError, lambda: back(grad[..., :5], q, k, v, **causal)), (TypeError, lambda: back(grad.astype(np.float64), q, k, v)),
            (ValueError, lambda: back(grad, q, k, v, normalise=True, feature_map="relu")), (ValueError, lambda: back(grad, q, k, v, output=y.output, normalise=True, feature_map="relu")),
            (ValueError, lambda: back(grad, q, k, v, output=y.output[..., :2], denominator=y.denominator, normalise=True, feature_map="relu")),
            (ValueError, lambda: back(grad, q, k, v, output=y.output, denominator=y.denominator[0], normalise=True, feature_map="relu")),
            (ValueError, lambda: back(grad, q, k, v, grad_state=s)), (ValueError, lambda: back(grad, q, k, v, grad_state=s[0], **causal)), (ValueError, lambda: back(grad, q, k, v, grad_normaliser=z, **causal)),
            (ValueError, lambda: attend.LinearAttentionState(1, -1, 2, 3)), (ValueError, lambda: attend.LinearAttentionState(1, 2**40, 2**40, 3)), (TypeError, lambda: attend.LinearAttentionState(1, 2, 3)),
            (ValueError, lambda: attend.LinearAttentionState(1, 2, 3, 4, "int8")), (TypeError, lambda: attend.LinearAttentionState.from_result(s)), (TypeError, lambda: attend.LinearAttentionState.from_result(None)),
            (ValueError, lambda: attend.LinearAttentionState.from_result(Result(None, None, s[0], None))), (TypeError, lambda: attend.LinearAttentionState.from_result(Result(None, None, s.astype(np.float16), None))),
            (ValueError, lambda: attend.LinearAttentionState.from_result(Result(None, None, s, z[:1]))), (TypeError, lambda: attend.LinearAttentionState.from_result(Result(None, None, None, None))),
            (TypeError, lambda: state.step(*one)), (ValueError, lambda: state.step(*one, feature_map="softmax_keys")), (ValueError, lambda: state.step(q, *one[1:], feature_map="relu")),
            (ValueError, lambda: state.step(*(x[:1] for x in one), feature_map="relu")), (TypeError, lambda: state.step(*(x.astype(np.float64) for x in one), feature_map="relu")),
            (TypeError, lambda: state.step(*one, feature_map=lambda x: x)), (TypeError, lambda: attend.LinearAttentionState.__new__(attend.LinearAttentionState).step(*one, feature_map="relu"))]:
        with pytest.raises(error):
            run()
    assert (state.state == 0).all()


def test_a_function_is_applied_before():
    q, k, v = arrays(np.float64)
    with pytest.raises(TypeError, match="call it on query and key"):
        attend.linear_attention(q, k, v, feature_map=MAPS["elu_plus_one"])
    phi = MAPS["elu_plus_one"]
    np.testing.assert_allclose(attend.linear_attention(phi(q), phi(k), v, feature_map="identity", causal=True),
                               attend.linear_attention(q, k, v, feature_map="elu_plus_one", causal=True), rtol=1e-12)


def test_threads_step_one_state_at_once():
    state = attend.LinearAttentionState(1, 2, 8, 6)
    one = np.ones((1, 2, 1, 8), np.float32), np.ones((1, 2, 1, 8), np.float32), np.ones((1, 2, 1, 6), np.float32)
    wrong = []

    def work():
        for _ in range(300):
            state.step(*one, feature_map="identity")
            seen = state.state
            if not (seen == seen[0, 0, 0, 0]).all():
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and (state.state == 1200).all()


@pytest.mark.parametrize("call", [
    lambda x: attend.linear_attention(x, x, x, causal=True, feature_map="identity", algorithm="reference"),
    lambda x: attend.linear_attention_backward(x, x, x, x, causal=True, feature_map="identity", algorithm="reference"),
    lambda x: attend.LinearAttentionState(1, 2, 16, 16).step(x, x, x, feature_map="identity", algorithm="reference"),
], ids=["forward", "backward", "step"])
def test_other_threads_run_during_a_call(call):
    x = np.ones((1, 2, 3000, 16), np.float32)
    assert others_run_during(lambda: call(x))


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_state_is_copied_and_reordered(again):
    options = {"feature_map": "elu_plus_one", "normalise": True}
    for dtype in (np.float32, np.float64):
        x = np.random.default_rng(1).standard_normal((3, 2, 4, 5)).astype(dtype)
        state = attend.LinearAttentionState(3, 2, 5, 5, np.dtype(dtype).name)
        state.step(x, x, x, **options)
        other = again(state)
        np.testing.assert_array_equal(other.state, state.state)
        np.testing.assert_array_equal(other.normaliser, state.normaliser)
        np.testing.assert_array_equal(other.step(x, x, x, **options), again(state).step(x, x, x, **options))
        assert (other.state != state.state).any()
        state.reorder(np.array([2, 0, 2, 1], np.uint8))
        for name in ("state", "normaliser"):
            np.testing.assert_array_equal(getattr(state, name)[[1, 3, 0]], getattr(again(state), name)[[1, 3, 2]])
        assert state.state.shape[0] == 4
    for error, sources in ((ValueError, [4]), (ValueError, [-1]), (TypeError, "0"), (TypeError, None)):
        with pytest.raises(error):
            state.reorder(sources)
    for error, parts in ((ValueError, ()), (TypeError, (1, 2, None)),
                         (ValueError, (np.zeros(3, np.float32), None, True))):
        with pytest.raises(error):
            attend.LinearAttentionState.__new__(attend.LinearAttentionState).__setstate__(parts)


# Tokens are all normalised or none, which a copy knows, too.
@pytest.mark.parametrize("again", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)),
                                   attend.LinearAttentionState.from_result])
def test_steps_of_a_state_are_normalised_alike(again):
    x = np.ones((1, 1, 1, 4), np.float32)
    for normalise in (False, True):
        state = attend.LinearAttentionState(1, 1, 4, 4)
        for fresh in (True, False):
            again(state).step(x, x, x, feature_map="identity", normalise=normalise)
            if fresh:
                again(state).step(x, x, x, feature_map="identity", normalise=not normalise)
                state.step(x, x, x, feature_map="identity", normalise=normalise)
        with pytest.raises(ValueError, match="expected normalise as in the tokens before"):
            again(state).step(x, x, x, feature_map="identity", normalise=not normalise)


def test_arrays_may_die_after_the_call():
    for _ in range(50):
        result = attend.linear_attention(*arrays(), feature_map="relu", return_state=True)
        state = attend.LinearAttentionState.from_result(result)
        kept = result.state
        del result
        gc.collect(0)
        np.testing.assert_array_equal(state.state, kept)
