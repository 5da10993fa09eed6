"""attend.torch.linear_attention and its layer against the expression in PyTorch, token by token, and what PyTorch does to it."""
import copy
import pickle

import numpy
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import attend
import attend.torch

linear = attend.torch.linear_attention
# Of the largest number: sums in float32, or what is rounded to 8 and 11 bits.
BOUND = {torch.float32: 2e-5, torch.float64: 1e-12, torch.bfloat16: 1e-2, torch.float16: 2e-3}
PHI = {"elu_plus_one": lambda x: torch.nn.functional.elu(x) + 1, "relu": torch.relu, "identity": lambda x: x}
NAMES = ("query", "key", "value", "decay", "beta", "initial_state", "initial_normaliser")


def expression(query, key, value, *, feature_map="elu_plus_one", normalise=False, causal=False, scale=1.0, decay=None,
               beta=None, key_lengths=None, initial_state=None, initial_normaliser=None):
    """Output, last state and last normaliser."""
    group = query.shape[1] // key.shape[1]
    q, k = scale * PHI[feature_map](query), PHI[feature_map](key)
    state = key.new_zeros(*key.shape[:2], key.shape[3], value.shape[3]) if initial_state is None else initial_state
    z = key.new_zeros(*key.shape[:2], key.shape[3]) if initial_normaliser is None else initial_normaliser
    kept = torch.ones_like(key) if decay is None else (
        decay[None, :, None, None] if decay.dim() == 1 else decay[..., None] if decay.dim() == 3 else decay).exp().expand_as(key)
    lengths = torch.as_tensor([key.shape[2]] * key.shape[0] if key_lengths is None else key_lengths)
    rows = []

    def read(q):
        s, n = (x.repeat_interleave(group, 1) for x in (state, z))
        output, divisor = q @ s, (q @ n[..., None])
        return output / divisor if normalise else output

    for t in range(key.shape[2]):
        inside = (t < lengths)[:, None, None]
        kept_state, kept_z = state * kept[:, :, t, :, None], z * kept[:, :, t]
        u = value[:, :, t]
        if beta is not None:
            u = beta[:, :, t, None] * (u - (k[:, :, t, None] @ kept_state)[:, :, 0])
        state = torch.where(inside[..., None], kept_state + k[:, :, t, :, None] * u[:, :, None], state)
        z = torch.where(inside, kept_z + k[:, :, t], z)
        if causal:
            rows.append(read(q[:, :, t:t + 1]))
    return torch.cat(rows, 2) if causal else read(q), state, z


def cases():
    """Options, and which of the tensors are given."""
    causal = {"causal": True, "scale": 0.5}
    yield {"feature_map": "elu_plus_one"}, {}
    yield {"feature_map": "relu", "key_lengths": [5, 13]}, {"initial_state": ()}
    yield {"normalise": True}, {"initial_state": (), "initial_normaliser": ()}
    yield {**causal, "normalise": True, "key_lengths": [7, 13]}, {"decay": (2,)}
    yield {**causal, "normalise": True}, {"decay": (2, 2, 13, 4), "initial_state": (), "initial_normaliser": ()}
    yield {**causal, "feature_map": "identity"}, {"decay": (2, 2, 13), "initial_state": ()}
    yield {**causal, "feature_map": "identity"}, {"beta": (2, 2, 13)}
    yield {**causal, "feature_map": "identity"}, {"beta": (2, 2, 13), "decay": (2, 2, 13), "initial_state": ()}


def tensors(given, dtype, n=13, grad=True):
    torch.manual_seed(5)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    made = {"query": torch.randn(2, 4, n, 4, dtype=torch.float64) / 2, "key": torch.randn(2, 2, n, 4, dtype=torch.float64) / 2,
            "value": torch.randn(2, 2, n, 3, dtype=torch.float64)}
    for name in ("query", "key"):  # away from relu's kink, where differences have no limit
        made[name] += 0.05 * made[name].sign()
    for name, shape in given.items():
        x = torch.rand(shape or {"initial_state": (2, 2, 4, 3), "initial_normaliser": (2, 2, 4)}[name], dtype=torch.float64)
        made[name] = {"decay": -x, "beta": x, "initial_state": x - 0.5, "initial_normaliser": 1 + x}[name]
    return {name: x.to(wide if name.startswith("initial") else dtype).requires_grad_(grad) for name, x in made.items()}


def targets(result, options):
    return [result.output, result.state] + ([result.normaliser] if options.get("normalise") else [])


def close(found, want, bound):
    torch.testing.assert_close(found.double(), want, atol=bound * max(1.0, want.abs().max().item()), rtol=0)


@pytest.mark.parametrize("dtype", BOUND, ids=str)
@pytest.mark.parametrize("options,given", list(cases()), ids=str)
def test_equals_the_expression(options, given, dtype):
    inputs = tensors(given, dtype)
    wide = {name: x.detach().double().requires_grad_() for name, x in inputs.items()}
    result = linear(**inputs, **options, return_state=True)
    assert isinstance(result, attend.LinearAttentionResult) and result.output.dtype == dtype
    found, want = targets(result, options), expression(**wide, **options)
    for a, b in zip(found, want):
        close(a, b, BOUND[dtype])
    assert torch.equal(linear(**inputs, **options), result.output)
    with torch.no_grad():
        assert torch.equal(linear(**inputs, **options), result.output)
    grads = [torch.randn(x.shape, dtype=torch.float64) for x in found]
    # Weights of the judge are those that the call was given, in the type of its results.
    grads = [x.to(y.dtype) for x, y in zip(grads, found)]
    gradients = torch.autograd.grad(found, list(inputs.values()), grads)
    judge = torch.autograd.grad(want[:len(found)], list(wide.values()), [x.double() for x in grads])
    for name, a, b in zip(inputs, gradients, judge):
        assert a.dtype == inputs[name].dtype and a.shape == inputs[name].shape
        close(a, b, 4 * BOUND[dtype])


@pytest.mark.parametrize("options,given", [*cases(), ({"feature_map": "softmax_keys", "key_lengths": [13, 6]}, {})], ids=str)
def test_gradients_by_differences(options, given):
    inputs = tensors(given, torch.float64, n=13)

    def call(*arrays):
        if options.get("feature_map") == "softmax_keys":
            return linear(**dict(zip(inputs, arrays)), **options)
        return tuple(targets(linear(**dict(zip(inputs, arrays)), **options, return_state=True), options))

    assert torch.autograd.gradcheck(call, list(inputs.values()), check_batched_grad=True)


def test_gradients_of_some():
    inputs = tensors({"decay": (2, 2, 13), "initial_state": ()}, torch.float64, grad=False)
    options = {"causal": True, "feature_map": "identity"}
    for name in inputs:
        x = inputs[name].clone().requires_grad_()
        result = linear(**{**inputs, name: x}, **options, return_state=True)
        want = expression(**{**inputs, name: x}, **options)
        for i, target in enumerate((result.output, result.state)):  # each alone
            found, judge = (torch.autograd.grad(y.sum(), x, retain_graph=True)[0] if y.requires_grad else torch.zeros_like(x)
                            for y in (target, want[i]))
            close(found, judge, 1e-12)
    assert not linear(**inputs, **options).requires_grad


def test_gradients_pass_through_a_state_handed_on():
    given = {"decay": (2, 2, 13)}
    inputs = tensors(given, torch.float64)
    options = {"causal": True, "normalise": True}
    whole = linear(**inputs, **options)
    part = lambda begin, end: {name: x[:, :, begin:end] for name, x in inputs.items()}
    first = linear(**part(0, 6), **options, return_state=True)
    second = linear(**part(6, 13), **options, initial_state=first.state, initial_normaliser=first.normaliser)
    joined = torch.cat([first.output, second], 2)
    close(joined, whole.detach(), 1e-12)
    assert not first.denominator.requires_grad
    grad = torch.randn_like(whole)
    for a, b in zip(*(torch.autograd.grad(y, list(inputs.values()), grad) for y in (joined, whole))):
        close(a, b, 1e-11)


def test_packed_and_padded_by_tensors():
    inputs = tensors({}, torch.float32)
    lengths = torch.tensor([5, 13], dtype=torch.int32)
    padded = linear(**inputs, key_lengths=lengths, causal=True)
    packed = {name: torch.cat([x[0, :, :5], x[1]], 1)[None] for name, x in inputs.items()}
    starts = torch.tensor([0, 5, 18])
    found = linear(**packed, query_starts=starts, causal=True)
    torch.testing.assert_close(found[0, :, 5:], padded[1], atol=0, rtol=0)
    torch.testing.assert_close(found[0, :, :5], padded[0, :, :5], atol=0, rtol=0)
    starts.zero_()  # was read
    grad = torch.randn_like(found)
    split = torch.zeros_like(padded)
    split[0, :, :5], split[1] = grad[0, :, :5], grad[0, :, 5:]
    for a, b in zip(*(torch.autograd.grad(y, list(inputs.values()), g) for y, g in ((found, grad), (padded, split)))):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_strides_and_layout():
    qkv = torch.randn(2, 9, 3, 4, 8, requires_grad=True)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    found = linear(q, k, v, causal=True)
    assert found.stride() == torch.empty_like(q).stride()
    want = linear(*(x.contiguous() for x in (q, k, v)), causal=True)
    assert torch.equal(found, want)
    grad = torch.randn_like(found).transpose(0, 1).contiguous().transpose(0, 1)
    torch.testing.assert_close(*(torch.autograd.grad(y, qkv, grad)[0] for y in (found, want)), atol=1e-6, rtol=1e-6)
    # The gradient of a sum is one number for all.
    torch.testing.assert_close(torch.autograd.grad(linear(q, k, v, normalise=True).sum(), qkv)[0],
                               torch.autograd.grad(expression(q, k, v, normalise=True)[0].sum(), qkv)[0], atol=1e-5, rtol=1e-5)


def test_what_is_written_to_before_backward_is_noticed():
    inputs = tensors({}, torch.float32)
    y = linear(**inputs, normalise=True)
    y.data  # no write
    y.detach().mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    y = linear(**inputs)
    y.detach().mul_(2)  # not needed
    y.sum().backward()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiles_as_one_graph(backend):
    torch._dynamo.reset()
    inputs = tensors({"decay": (2, 2, 13), "initial_state": ()}, torch.float32)
    options = {"causal": True, "feature_map": "identity"}

    def run(function, query, rest):
        y = function(query * 2, **rest, **options, return_state=True)
        return y.output.square().sum() + y.state.sum()

    rest = {name: x for name, x in inputs.items() if name != "query"}
    compiled = torch.compile(lambda query, rest: run(linear, query, rest), backend=backend, fullgraph=True)
    found, want = compiled(inputs["query"], rest), run(linear, inputs["query"], rest)
    torch.testing.assert_close(found, want)
    for a, b in zip(*(torch.autograd.grad(y, list(inputs.values())) for y in (found, want))):
        torch.testing.assert_close(a, b)
    lengths = torch.compile(lambda q, k, v: linear(q, k, v, key_lengths=[5, 13], normalise=True), backend=backend, fullgraph=True)
    given = [inputs[name] for name in ("query", "key", "value")]
    torch.testing.assert_close(lengths(*given), linear(*given, key_lengths=[5, 13], normalise=True))


@pytest.mark.parametrize("record", [lambda f, x: torch.jit.trace(f, x), lambda f, x: make_fx(f)(*x), lambda f, x: make_fx(f, tracing_mode="fake")(*x)])
def test_traces_compute(record):
    given = tuple(x.detach() for x in tensors({}, torch.float32).values())
    traced = record(lambda q, k, v: linear(q, k, v, causal=True), given)
    torch.testing.assert_close(traced(given[0] * 2, *given[1:]), linear(given[0] * 2, *given[1:], causal=True))


def test_tensors_without_memory():
    inputs = tensors({"decay": (2, 2, 13)}, torch.bfloat16)
    with FakeTensorMode() as mode:
        fake = {name: mode.from_tensor(x) for name, x in inputs.items()}
        result = linear(**fake, causal=True, normalise=True, return_state=True)
        assert [tuple(x.shape) for x in result] == [(2, 4, 13, 3), (2, 4, 13), (2, 2, 4, 3), (2, 2, 4)]
        assert result.output.dtype == torch.bfloat16 and result.state.dtype == torch.float32
        with pytest.raises(RuntimeError, match="linear_attention. expected"):
            linear(fake["query"], fake["value"], fake["value"])
    real = linear(**inputs, causal=True, normalise=True, return_state=True)
    assert [(x.shape, x.dtype, x.stride()) for x in real] == [(x.shape, x.dtype, x.stride()) for x in result]


@pytest.mark.parametrize("transform", [
    lambda f, x: torch.func.vmap(lambda q, k, v: f(q, k, v, causal=True))(*x),
    lambda f, x: torch.func.vmap(lambda q: f(q, x[1][0], x[2][0]))(x[0]),
    lambda f, x: torch.func.grad(lambda q, k, v: f(q, k, v, normalise=True).square().sum(), (0, 1, 2))(*(y[0] for y in x)),
    lambda f, x: torch.func.vmap(torch.func.grad(lambda q, k, v: f(q, k, v, causal=True).square().sum(), (0, 1, 2)))(*x),
    lambda f, x: torch.func.jacrev(lambda q: f(q, x[1][0, :1], x[2][0, :1]))(x[0][0, :1]),
    lambda f, x: torch.func.functionalize(lambda q, k, v: f(q, k, v))(*(y[0] for y in x)),
], ids=["vmap", "vmap of one", "grad", "vmap of grad", "jacrev", "functionalize"])
def test_transforms(transform):
    torch.manual_seed(6)
    given = torch.randn(3, 2, 4, 5, 4), torch.randn(3, 2, 2, 5, 4), torch.randn(3, 2, 2, 5, 3)
    found, want = (torch.utils._pytree.tree_leaves(transform(f, given)) for f in (linear, lambda *x, **o: expression(*x, **o)[0]))
    assert len(found) == len(want)
    for a, b in zip(found, want):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=2e-5)


def test_batches_of_gradients():
    inputs = tensors({"decay": (2,)}, torch.float32)
    grads = torch.randn(3, 2, 4, 13, 3)
    y, want = linear(**inputs, causal=True, key_lengths=[13, 9]), expression(**inputs, causal=True, key_lengths=[13, 9])[0]
    for a, b in zip(*(torch.autograd.grad(x, list(inputs.values()), grads, is_grads_batched=True) for x in (y, want))):
        torch.testing.assert_close(a, b, atol=5e-5, rtol=5e-5)


def test_what_is_refused_of_pytorch():
    inputs = tensors({}, torch.float32)
    for loss in (lambda y: y.sum(), lambda y: y.square().sum()):
        gradient, = torch.autograd.grad(loss(linear(**inputs)), inputs["query"], create_graph=True)
        with pytest.raises(RuntimeError, match="gradients of gradients"):
            torch.autograd.grad((gradient * inputs["query"]).sum(), inputs["query"])
    q = inputs["query"].detach()
    with pytest.raises(NotImplementedError, match="forward mode"):
        torch.func.jvp(lambda q: linear(q, inputs["key"], inputs["value"]), (q,), (q,))


def test_autocast():
    inputs = tensors({"initial_state": ()}, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = linear(**inputs, return_state=True)
    assert found.output.dtype == torch.bfloat16 and found.state.dtype == torch.float32
    found.output.sum().backward()
    assert all(x.grad is not None and x.grad.dtype == torch.float32 for x in inputs.values())


class Named(torch.Tensor):
    pass


def test_subclasses_and_negative_views():
    q, k, v = (x.detach() for x in tensors({}, torch.float32).values())
    assert isinstance(linear(q.as_subclass(Named), k, v), Named)
    torch.testing.assert_close(linear(torch._neg_view(q), k, v, feature_map="identity"), linear(-q, k, v, feature_map="identity"))


def test_what_does_not_fit_is_an_exception():
    inputs = tensors({}, torch.float32, grad=False)
    q, k, v = inputs.values()
    scale = torch.tensor(1.0, requires_grad=True)
    for grad in (False, True):
        q = q.clone().requires_grad_(grad)
        for error, call in [(TypeError, lambda: linear(q, k, None)), (TypeError, lambda: linear(q.numpy() if not grad else 1, k, v)), (TypeError, lambda: linear(q, k.double(), v)),
                            (TypeError, lambda: linear(q.int(), k, v)), (TypeError, lambda: linear(q, k, v, feature_map=torch.relu)), (TypeError, lambda: linear(q, k, v, feature_map=None)),
                            (ValueError, lambda: linear(q, k, v, feature_map="cube")), (ValueError, lambda: linear(q[0], k, v)), (ValueError, lambda: linear(q[:, :3], k, v)),
                            (TypeError, lambda: linear(q, k, v, scale=scale)), (TypeError, lambda: linear(q, k, v, scale=None)), (TypeError, lambda: linear(q, k, v, scale="1")),
                            (TypeError, lambda: linear(q, k, v, causal=1)), (TypeError, lambda: linear(q, k, v, causal="no")), (TypeError, lambda: linear(q, k, v, normalise=None)), (ValueError, lambda: linear(q, k[:1], v)),
                            (TypeError, lambda: linear(q, k, v, decay=-0.5, causal=True)),
                            (ValueError, lambda: linear(q, k, v, decay=torch.zeros(2))), (ValueError, lambda: linear(q, k, v, decay=torch.zeros(3), causal=True)),
                            (ValueError, lambda: linear(q, k, v, key_lengths=[14, 2])), (ValueError, lambda: linear(q, k, v, key_lengths=torch.tensor([-1, 2]))), (TypeError, lambda: linear(q, k, v, key_lengths=torch.tensor([1.5, 2.0]))),
                            (ValueError, lambda: linear(q, k, v, query_starts=[0, 13])), (TypeError, lambda: linear(q, k, v, initial_state=torch.zeros(2, 2, 4, 3).double())),
                            (ValueError, lambda: linear(q, k, v, feature_map="softmax_keys", return_state=True)), (TypeError, lambda: linear(q.to("meta"), k, v)), (TypeError, lambda: linear(q.to_sparse(), k, v))]:
            with pytest.raises(error) as found:
                call()
            assert not isinstance(found.value, AssertionError)


def test_fake_tensors_and_their_like_are_refused_alike():
    inputs = tensors({}, torch.float32, grad=False)
    with FakeTensorMode() as mode:
        fake = [mode.from_tensor(x) for x in inputs.values()]
    for given in (inputs.values(), fake):
        q, k, v = given
        for call in (lambda: linear(q[0], k[0], v[0]), lambda: linear(q, k[0], v), lambda: linear(q, k[:1], v), lambda: linear(q[:1], k, v)):
            with pytest.raises(ValueError):
                call()


def test_whole_numbers_are_of_any_kind():
    q, k, v = tensors({}, torch.float32, grad=False).values()
    want = linear(q, k, v, key_lengths=[3, 4])
    for dtype in (torch.int8, torch.int16, torch.int32, torch.uint8, torch.uint16, torch.uint32, torch.uint64):
        torch.testing.assert_close(linear(q, k, v, key_lengths=torch.tensor([3, 4], dtype=dtype)), want)
        torch.testing.assert_close(torch.from_numpy(attend.linear_attention(q.numpy(), k.numpy(), v.numpy(), feature_map="elu_plus_one", key_lengths=torch.tensor([3, 4], dtype=dtype))), want)
    for lengths in (range(3, 5), tuple(numpy.array([3, 4])), numpy.array([3, 4], numpy.uint16)):
        torch.testing.assert_close(linear(q, k, v, key_lengths=lengths), want)
        torch.testing.assert_close(torch.func.vmap(lambda x: linear(x, k, v, key_lengths=lengths))(q[None])[0], want)


def pair(dtype=torch.float32, **options):
    torch.manual_seed(8)
    theirs = torch.nn.MultiheadAttention(16, 4, dtype=dtype, batch_first=True, **options)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return theirs


def layer_of(theirs, **options):
    layer = attend.torch.LinearAttention(16, 4, dtype=theirs.out_proj.weight.dtype, **options)
    layer.load_state_dict(theirs.state_dict())
    return layer


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 6, "vdim": 10}], ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_the_layer(options, causal):
    theirs = pair(torch.float64, **options)
    layer = layer_of(theirs, causal=causal, **options)
    x = torch.randn(3, 5, 16, dtype=torch.float64, requires_grad=True)
    key, value = (torch.randn(3, 5, options.get(name, 16), dtype=torch.float64) for name in ("kdim", "vdim"))
    state = dict(theirs.named_parameters())
    weights = state["in_proj_weight"].chunk(3) if "in_proj_weight" in state else [state[f"{n}_proj_weight"] for n in "qkv"]
    biases = state["in_proj_bias"].chunk(3) if "in_proj_bias" in state else [None] * 3
    heads = [torch.nn.functional.linear(y, w, b).unflatten(-1, (4, 4)).transpose(1, 2) for y, w, b in zip((x, key, value), weights, biases)]
    rows = expression(*heads, normalise=True, causal=causal, key_lengths=[5, 2, 4])[0].transpose(1, 2).flatten(2)
    want = torch.nn.functional.linear(rows, theirs.out_proj.weight, theirs.out_proj.bias)
    found = layer(x, key, value, key_lengths=[5, 2, 4])[0]
    close(found, want.detach(), 1e-12)
    names = [name for name, _ in layer.named_parameters()]
    for a, b in zip(torch.autograd.grad(found.square().sum(), [x, *layer.parameters()]),
                    torch.autograd.grad(want.square().sum(), [x, *(state[name] for name in names)])):
        close(a, b, 1e-11)


def test_the_layer_step_by_step():
    layer = layer_of(pair(), causal=True)
    x = torch.randn(2, 9, 16)
    want = layer(x, return_state=True)
    state = layer.make_state(2)
    rows = [layer.step(x[:, begin:end], state) for begin, end in ((0, 1), (1, 5), (5, 9))]
    torch.testing.assert_close(torch.cat(rows, 1), want.output, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.from_numpy(state.state), want.state, atol=1e-5, rtol=1e-5)
    later, _ = layer(x, initial_state=want.state, initial_normaliser=want.normaliser)
    torch.testing.assert_close(layer.step(x, attend.LinearAttentionState.from_result(want)), later, atol=1e-5, rtol=1e-5)
    # Retention, and a delta rule, which takes no divisor.
    layer.normalise, options = False, {"decay": -torch.rand(2, 4, 9), "beta": torch.rand(2, 4, 9) / 4}
    for names in (["decay"], ["decay", "beta"]):
        state = layer.make_state(2)
        rows = [layer.step(x[:, begin:end], state, **{name: options[name][:, :, begin:end] for name in names})
                for begin, end in ((0, 4), (4, 9))]
        torch.testing.assert_close(torch.cat(rows, 1), layer(x, **{name: options[name] for name in names})[0], atol=1e-5, rtol=1e-5)
    half = layer.to(torch.bfloat16)
    assert half.step(x[:, :1].bfloat16(), half.make_state(2)).dtype == torch.bfloat16


def test_the_layer_is_a_module():
    layer, x = layer_of(pair(), causal=True), torch.randn(2, 5, 16)
    want = layer(x)[0]
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x)[0], want) and torch.equal(copy.deepcopy(layer)(x)[0], want)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(layer, backend="aot_eager", fullgraph=True)(x)[0], want)
    for error, call in [(ValueError, lambda: layer(x[None])), (RuntimeError, lambda: layer(x[..., :3])), (ValueError, lambda: layer.step(x[0], layer.make_state(2))),
                        (ValueError, lambda: layer.step(x, layer.make_state(3))), (ValueError, lambda: attend.torch.LinearAttention(16, 4, feature_map="cube")),
                        (TypeError, lambda: layer.step(x, None))]:
        with pytest.raises(error):
            call()
