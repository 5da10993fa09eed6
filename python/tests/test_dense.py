"""Packed matrices and products with them against NumPy's float64."""
import copy
import gc
import math
import mmap
import pickle
import threading

import numpy as np
import pytest

import attend
from ticking import others_run_during

BOUND = {"float32": 3e-6, "bfloat16": 2e-2, "int8": 3e-6}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


ACTIVATIONS = {None: lambda x: x, "none": lambda x: x, "relu": lambda x: np.maximum(x, 0), "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
               "silu": lambda x: x / (1 + np.exp(-x)), "tanh": np.tanh, "gelu": lambda x: x * (1 + np.vectorize(math.erf)(x / np.sqrt(2))) / 2,
               "gelu_tanh": lambda x: x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2}


def close(found, want, bound):
    np.testing.assert_allclose(found.astype(np.float64), want, atol=bound * np.abs(want).max(), rtol=0)


def in_bytes(x):
    """What products with int8 weights take rows of x for: multiples of a 127th of the largest number."""
    x = x.astype(np.float32)
    step = np.abs(x).max(-1, keepdims=True) / np.float32(127)
    return np.rint(x / step).astype(np.float64) * step


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", BOUND)
def test_products(dtype, transposed):
    weight, x, bias, residual = normal(70, 65), normal(2, 5, 65, seed=1), normal(70, seed=2), normal(2, 5, 70, seed=3)
    packed = attend.PackedMatrix(weight.T if transposed else weight, dtype, transposed)
    assert (packed.out_features, packed.in_features, packed.dtype) == (70, 65, dtype)
    taken = in_bytes if dtype == "int8" else lambda x: x.astype(np.float64)
    known = packed.unpack().astype(np.float64) if dtype == "int8" else weight.astype(np.float64)
    np.testing.assert_allclose(known, weight, atol=0.502 * np.abs(weight).max() / 127)
    product = taken(x) @ known.T
    close(attend.matmul(x, packed), product, BOUND[dtype])
    for name, function in ACTIVATIONS.items():
        close(attend.matmul(x, packed, bias=bias, activation=name, residual=residual), function(product + bias) + residual, BOUND[dtype])
    one = attend.matmul(x[1, 2], packed, bias=bias)
    assert one.shape == (70,)
    np.testing.assert_array_equal(one, attend.matmul(x, packed, bias=bias)[1, 2])
    half = attend.matmul(x.astype(np.float16), packed)
    assert half.dtype == np.float16 and attend.matmul(x, packed, dtype="float16").dtype == np.float16
    close(half, taken(x.astype(np.float16)) @ known.T, max(BOUND[dtype], 2e-3))
    np.testing.assert_array_equal(attend.matmul(x[:, ::-1, ::-1], attend.PackedMatrix(weight[:, ::-1], dtype)),
                                  attend.matmul(x[:, ::-1, ::-1].copy(), attend.PackedMatrix(weight[:, ::-1].copy(), dtype)))


def test_out():
    weight, x = attend.PackedMatrix(normal(6, 5)), normal(3, 5, seed=1)
    want = attend.matmul(x, weight)
    rows = np.zeros((3, 9), np.float32)
    out = rows[:, 2:8]
    assert attend.matmul(x, weight, out=out) is out
    np.testing.assert_array_equal(out, want)
    assert (rows[:, :2] == 0).all() and (rows[:, 8:] == 0).all()
    half = np.zeros((3, 6), np.float16)
    attend.matmul(x, weight, out=half)
    np.testing.assert_array_equal(half, want.astype(np.float16))
    columns = np.zeros((6, 3), np.float32).T  # of two arrays any strides
    assert attend.matmul(x, weight.unpack().T, out=columns) is columns
    close(columns, want.astype(np.float64), 1e-6)
    read_only = np.zeros((3, 6), np.float32)
    read_only.flags.writeable = False
    for wrong in (read_only, np.zeros((3, 5), np.float32), np.zeros((4, 6), np.float32), np.zeros((1, 3, 6), np.float32)):
        for b in (weight, weight.unpack().T):
            with pytest.raises(ValueError, match="out of shape"):
                attend.matmul(x, b, out=wrong)
    with pytest.raises(ValueError):
        attend.matmul(x, weight, out=columns)
    with pytest.raises(TypeError):
        attend.matmul(x, weight, out=np.zeros((3, 6)))
    with pytest.raises(ValueError):
        attend.matmul(x, weight, out=half, dtype="float32")


def test_out_may_be_what_is_read():
    weight, x, bias = normal(70, 70), normal(40, 70, seed=1), normal(70, seed=2)
    packed = attend.PackedMatrix(weight)
    want = attend.matmul(x, packed, bias=bias, residual=x)
    out = x.copy()
    assert attend.matmul(out, packed, bias=bias, residual=out, out=out) is out
    np.testing.assert_array_equal(out, want)
    both = np.concatenate([x, x])  # row r of the result over row r + 1 of what is read
    np.testing.assert_array_equal(attend.matmul(both[:40], packed, bias=bias, residual=both[:40], out=both[1:41]), want)
    reversed_rows = x[::-1].copy()
    np.testing.assert_array_equal(attend.matmul(reversed_rows[::-1], packed, bias=bias, residual=x, out=reversed_rows), want)
    memory = np.concatenate([bias, np.zeros(40 * 70 - 70, np.float32)])
    np.testing.assert_array_equal(attend.matmul(x, packed, bias=memory[:70], residual=x, out=memory.reshape(40, 70)), want)
    square = weight.copy()
    np.testing.assert_array_equal(attend.matmul(square, square, out=square), attend.matmul(weight, weight))


def test_elements_of_out_are_apart():
    weight, x = normal(6, 5), normal(4, 5, seed=1)
    memory = np.zeros(100, np.float32)
    strided = np.lib.stride_tricks.as_strided
    for strides in ((0, 4), (20, 4), (4, 4), (0, 0), (8, 12)):
        for b in (attend.PackedMatrix(weight), weight.T):
            with pytest.raises(ValueError, match="of their own"):
                attend.matmul(x, b, out=strided(memory, (4, 6), strides))
    assert (memory == 0).all()
    # These are, though neither dimension steps over all of the other.
    one = np.ones((2, 1), np.float32)
    apart = strided(memory, (2, 3), (12, 8))
    attend.matmul(one, one[:1].repeat(3, 1), out=apart)
    assert (apart == 1).all() and memory.sum() == 6


def test_int8_is_exact():
    random = np.random.default_rng(3)
    numbers, scales = random.integers(-127, 128, (40, 33)).astype(np.int8), (0.01 + random.random(40)).astype(np.float32)
    packed = attend.PackedMatrix.quantized(numbers, scales)
    integers, worth = packed.integers()
    np.testing.assert_array_equal(integers, numbers)
    np.testing.assert_array_equal(worth, scales)
    np.testing.assert_array_equal(attend.PackedMatrix.quantized(numbers.T, scales, transposed=True).image(), packed.image())
    np.testing.assert_array_equal(attend.PackedMatrix.quantized(numbers, scales[:1]).integers()[1], np.full(40, scales[0]))
    np.testing.assert_array_equal(packed.unpack(), numbers * scales[:, None])
    x = random.integers(-127, 128, (4, 33)).astype(np.float32)
    found = attend.matmul(x * 0.5, packed, input_scale=0.5)
    want = (x.astype(int) @ numbers.T.astype(int)) * 0.5 * scales.astype(np.float64)
    np.testing.assert_allclose(found, want, rtol=2e-7)  # one rounding of the exact sum, one of the product
    coarse = attend.PackedMatrix(numbers.astype(np.float32) * 0.25, "int8", scale=0.25)
    np.testing.assert_array_equal(coarse.integers()[0], numbers)
    x[1, 3] = np.nan
    found = attend.matmul(x, packed)
    assert np.isnan(found[1]).all() and np.isfinite(found[[0, 2, 3]]).all()


@pytest.mark.parametrize("dtype", BOUND)
def test_rows_columns_and_images(dtype):
    weight, x = normal(70, 33), normal(3, 33, seed=1)
    packed = attend.PackedMatrix(weight, dtype)
    whole = packed.unpack()
    close(whole, weight.astype(np.float64), {"float32": 0, "bfloat16": 4e-3, "int8": 8e-3}[dtype])
    np.testing.assert_array_equal(packed.row(69), whole[69])
    some = packed.select([69, 0, 5, 5])
    np.testing.assert_array_equal(attend.matmul(x, some), attend.matmul(x, packed)[:, [69, 0, 5, 5]])
    assert packed.select([]).out_features == 0 and packed.select(np.arange(3)).out_features == 3
    image = packed.image()
    assert image.dtype == np.uint8 and not image.flags.writeable and image.ctypes.data == packed.image().ctypes.data
    assert attend.PackedMatrix.from_image(image).image().ctypes.data == image.ctypes.data
    want = attend.matmul(x, packed)
    del packed
    gc.collect()
    np.testing.assert_array_equal(attend.matmul(x, attend.PackedMatrix.from_image(memoryview(image))), want)


def test_mapped_images_live_as_long_as_they_are_used(tmp_path):
    weight, x = normal(64, 256), normal(2, 256, seed=1)
    packed = attend.PackedMatrix(weight)
    path = tmp_path / "weight.bin"
    path.write_bytes(packed.image())
    want = attend.matmul(x, packed)
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    for buffer in (np.memmap(path, mode="r"), mapped):
        over = attend.PackedMatrix.from_image(buffer)
        assert over.image().ctypes.data == np.frombuffer(buffer, np.uint8).ctypes.data
        if buffer is mapped:
            with pytest.raises(BufferError):
                mapped.close()
        del buffer
        gc.collect()
        np.testing.assert_array_equal(attend.matmul(x, over), want)
    del over
    gc.collect()
    mapped.close()  # nobody looks into it any more


def aligned(data, offset=0):
    memory = np.zeros(len(data) + 128, np.uint8)
    begin = -memory.ctypes.data % 64 + offset
    memory[begin:begin + len(data)] = np.frombuffer(data, np.uint8)
    memory.flags.writeable = False
    return memory[begin:begin + len(data)]


def test_images_that_are_none():
    good = bytes(attend.PackedMatrix(normal(5, 4), "int8").image())
    attend.PackedMatrix.from_image(aligned(good))
    attend.PackedMatrix.from_image(aligned(good + b"more"))
    for data, message in [(b"", "at least"), (good[:100], "at least"), (good[:-1], "bytes for a matrix"), (b"x" + good[1:], "other bytes"),
                          (good[:12] + b"\x09" + good[13:], "format"), (good[:16] + b"\xff" * 8 + good[24:], "memory can hold"),
                          (good[:24] + b"\xff" * 7 + b"\x7f" + good[32:], "memory can hold")]:
        with pytest.raises(ValueError, match=message):
            attend.PackedMatrix.from_image(aligned(data))
    with pytest.raises(ValueError, match="multiple of 64"):
        attend.PackedMatrix.from_image(aligned(good, 4))
    with pytest.raises(ValueError, match="only read"):
        attend.PackedMatrix.from_image(bytearray(good))
    with pytest.raises(ValueError):
        attend.PackedMatrix.from_image(np.frombuffer(good, np.uint8)[::2])
    for wrong in (None, "image", 3, [1]):
        with pytest.raises(TypeError):
            attend.PackedMatrix.from_image(wrong)
    random = np.random.default_rng(4)
    for _ in range(300):  # headers that are almost right
        data = bytearray(good)
        for _ in range(2):
            data[random.integers(8, 40)] = random.choice([0, 1, 2, 0x7f, 0xff])
        try:
            found = attend.PackedMatrix.from_image(aligned(bytes(data)))
        except ValueError:
            continue
        assert found.out_features >= 0 and found.in_features >= 0 and found.select([]).out_features == 0


def test_backward():
    for dtype, bound in ((np.float32, 3e-6), (np.float16, 2e-3)):
        weight, x, grad = normal(7, 5), normal(2, 3, 5, seed=1).astype(dtype), normal(2, 3, 7, seed=2).astype(dtype)
        found = attend.matmul_backward(grad, x, attend.PackedMatrix(weight, transposed=True))
        assert isinstance(found, attend.MatmulGradients) and found.x.dtype == dtype
        rows, wide = grad.reshape(-1, 7).astype(np.float64), x.reshape(-1, 5).astype(np.float64)
        close(found.x, grad.astype(np.float64) @ weight, bound)
        close(found.weight, rows.T @ wide, 3e-6)
        close(found.bias, rows.sum(0), 3e-6)
    with pytest.raises(TypeError):
        attend.matmul_backward(grad, x, attend.PackedMatrix(weight, "int8", transposed=True))
    with pytest.raises(ValueError):
        attend.matmul_backward(grad, x, attend.PackedMatrix(weight))
    with pytest.raises(TypeError):
        attend.matmul_backward(grad, x, weight)


def test_empty_matrices():
    for out, depth in ((0, 3), (3, 0), (0, 0)):
        packed = attend.PackedMatrix(np.zeros((out, depth), np.float32))
        assert packed.unpack().shape == (out, depth)
        bias = np.ones(out, np.float32)
        np.testing.assert_array_equal(attend.matmul(np.ones((2, depth), np.float32), packed, bias=bias), np.ones((2, out)))
        assert attend.PackedMatrix.from_image(packed.image()).out_features == out
    assert attend.matmul(np.zeros((0, 3), np.float32), attend.PackedMatrix(normal(4, 3))).shape == (0, 4)


@pytest.mark.filterwarnings("ignore:nanobind:RuntimeWarning")
def test_what_does_not_fit_is_an_exception():
    weight, x = normal(6, 5), normal(3, 5)
    packed, small = attend.PackedMatrix(weight), attend.PackedMatrix(weight, "int8")
    Packed, matmul = attend.PackedMatrix, attend.matmul
    for error, call in [(TypeError, lambda: Packed()), (TypeError, lambda: Packed([[1.0]])), (ValueError, lambda: Packed(weight[0])), (TypeError, lambda: Packed(weight.astype(int))),
                        (ValueError, lambda: Packed(weight, "float16")), (ValueError, lambda: Packed(weight, scale=1.0)), (ValueError, lambda: Packed(weight, "int8", scale=0.0)),
                        (ValueError, lambda: Packed(weight, "int8", scale=float("nan"))), (ValueError, lambda: Packed(weight, "int8", scale=1e300)), (TypeError, lambda: Packed(weight, "int8", scale="1")),
                        (ValueError, lambda: Packed(np.zeros((1, 2**17 + 1), np.float32), "int8")), (TypeError, lambda: Packed.quantized(weight, weight[0])),
                        (ValueError, lambda: Packed.quantized(weight.astype(np.int8), normal(5))), (ValueError, lambda: Packed.quantized(weight.astype(np.int8), np.ones(6, int))),
                        (ValueError, lambda: packed.select([6])), (ValueError, lambda: packed.select([-1])), (ValueError, lambda: packed.select([2**63])), (TypeError, lambda: packed.select([0.5])),
                        (ValueError, lambda: packed.row(6)), (ValueError, lambda: packed.row(-1)), (ValueError, lambda: packed.row(2**64)), (TypeError, lambda: packed.row("0")), (TypeError, lambda: packed.integers()),
                        (ValueError, lambda: matmul(x[:, :4], packed)), (ValueError, lambda: matmul(np.float32(1), packed)), (TypeError, lambda: matmul(x.astype(np.float64), packed)),
                        (TypeError, lambda: matmul(x.astype(np.int8), packed)), (TypeError, lambda: matmul(packed, x)), (TypeError, lambda: matmul(x, None)),
                        (ValueError, lambda: matmul(x, packed, bias=normal(5))), (ValueError, lambda: matmul(x, packed, bias=normal(0))), (ValueError, lambda: matmul(x, packed, bias=np.zeros(6, int))),
                        (ValueError, lambda: matmul(x, packed, residual=normal(3, 5))), (ValueError, lambda: matmul(x, packed, residual=normal(0, 6))), (ValueError, lambda: matmul(x, packed, activation="cube")),
                        (TypeError, lambda: matmul(x, packed, activation=np.tanh)), (ValueError, lambda: matmul(x, packed, dtype="int8")), (TypeError, lambda: matmul(x, packed, dtype=np.float32)),
                        (ValueError, lambda: matmul(x, packed, input_scale=1.0)), (ValueError, lambda: matmul(x, small, input_scale=-1.0)),
                        (ValueError, lambda: matmul(x, small, input_scale=float("nan"))), (TypeError, lambda: matmul(x, small, input_scale="1")), (TypeError, lambda: matmul(x, Packed.__new__(Packed)))]:
        with pytest.raises(error):
            call()
    for name, value in {"bias": normal(6), "activation": "relu", "residual": normal(3, 6), "dtype": "float32", "input_scale": 1.0}.items():
        with pytest.raises(ValueError, match=f"{name} with a PackedMatrix alone"):
            matmul(x, weight.T, **{name: value})


def test_many_threads_share_a_matrix():
    packed, x = attend.PackedMatrix(normal(70, 65)), normal(9, 65, seed=1)
    want, wrong = attend.matmul(x, packed), []

    def work():
        for _ in range(50):
            if not np.array_equal(attend.matmul(x, attend.PackedMatrix.from_image(packed.image())), want):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("what", ["pack", "product", "unpack"])
def test_other_threads_run_during_a_call(what):
    weight, x = np.ones((4000, 4000), np.float32), np.ones((300, 4000), np.float32)
    packed = attend.PackedMatrix(weight)
    assert others_run_during({"pack": lambda: attend.PackedMatrix(weight), "product": lambda: attend.matmul(x, packed),
                              "unpack": packed.unpack}[what])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_copies_and_pickles(dtype):
    packed, x = attend.PackedMatrix(normal(70, 33), dtype), normal(3, 33, seed=1)
    want = attend.matmul(x, packed)
    for again in (copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)), lambda x: pickle.loads(pickle.dumps(x, 2))):
        other = again(packed)
        assert other is not packed
        np.testing.assert_array_equal(attend.matmul(x, other), want)
        np.testing.assert_array_equal(other.image(), packed.image())
    assert copy.deepcopy({"weight": packed})["weight"].image().ctypes.data == packed.image().ctypes.data
    kept, packed, other = bytes(packed.image()), None, None
    gc.collect()
    for wrong in (kept[:-1], b"", bytes(100), kept[:8] + bytes(len(kept) - 8)):
        with pytest.raises(ValueError):
            attend.PackedMatrix.__new__(attend.PackedMatrix).__setstate__(wrong)
    with pytest.raises(TypeError):
        attend.PackedMatrix.__new__(attend.PackedMatrix).__setstate__(None)
