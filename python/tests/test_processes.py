"""Threads, forks, interrupts, and arrays that die while they are used."""
import contextlib
import copy
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import attend


def rows(n, *, d=16, dtype=np.float32):
    return np.random.default_rng(n).standard_normal((1, 2, n, d)).astype(dtype)


@pytest.fixture
def threads():
    yield attend.set_num_threads
    attend.set_num_threads(0)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("name,call", [
    ("float32", lambda: attend.attention(*[rows(1_000_000)] * 3)),
    ("float64", lambda: attend.attention(*[rows(200_000, dtype=np.float64)] * 3)),
    ("linear", lambda: attend.linear_attention(*[np.ones((16, 16, 2000, 32), np.float32)] * 3, feature_map="relu",
                                               causal=True, algorithm="reference")),
    ("matmul", lambda: attend.matmul(*[np.ones((12_000, 12_000), np.float32)] * 2)),
    ("layer", lambda: attend.MultiHeadAttention(16, 1)(np.ones((1, 1_000_000, 16), np.float32))),
], ids=lambda x: x if isinstance(x, str) else "")
def test_interrupt_ends_a_long_call(threads, name, call, count):
    # What shells start in the background ignores interrupts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threads(count)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            call()
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    x = rows(64)
    np.testing.assert_array_equal(attend.attention(x, x, x), attend.attention(x, x, x))


def test_handlers_run_during_a_call():
    seen = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        x = rows(20_000)
        begin = time.monotonic()
        while not seen and time.monotonic() < begin + 60:
            attend.attention(x, x, x)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert seen


@contextlib.contextmanager
def alarms(handler):
    """Calls handler during what the block computes, again and again."""

    def handle(*_):
        handler()
        signal.setitimer(signal.ITIMER_REAL, 0.01)

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("count", [1, 2])
def test_handlers_may_compute(threads, count):
    threads(count)
    x, y = np.repeat(rows(4096, d=64), 8, 1), rows(300, d=64)
    want, of_handler = attend.attention(x, x, x), attend.attention(y, y, y)
    seen = []
    # At most two run before and behind a call.
    for _ in range(100):
        seen.clear()
        with alarms(lambda: seen.append(attend.attention(y, y, y))):
            found = attend.attention(x, x, x)
        np.testing.assert_array_equal(found, want)
        if len(seen) > 2:
            break
    assert len(seen) > 2
    for found in seen:
        np.testing.assert_array_equal(found, of_handler)


def test_handlers_are_refused_what_their_call_uses():
    cache = attend.KvCache(kv_heads=1, head_dim=16)
    cache.append(*[np.ones((1, 1, 200_000, 16), np.float32)] * 2)
    refused = []

    def append():
        try:
            cache.append(*[np.ones((1, 1, 0, 16), np.float32)] * 2)
        except RuntimeError as error:
            refused.append(str(error))

    # Handlers are looked for every 50 ms: the calls grow until one takes as long.
    for queries in [400 * 2**i for i in range(8)]:
        with alarms(append):
            cache.attention(np.ones((1, 1, queries, 16), np.float32))
        if refused:
            break
    assert refused and "the interrupted call uses" in refused[0]
    assert cache.lengths == [200_000]


def run_alone(program):
    """Runs a program that might hang."""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_another_thread_sets_the_number_during_a_call():
    run_alone("""
import attend, numpy, threading
attend.set_num_threads(1)
x = numpy.zeros((1, 4, 4096, 64), "f4")
timer = threading.Timer(0.1, attend.set_num_threads, [2])
timer.start()
while timer.is_alive():
    attend.attention(x, x, x)
assert attend.get_num_threads() == 2
""")


@pytest.mark.parametrize("torch", ["None", "types.ModuleType('torch')"])
def test_numpy_needs_nothing_of_torch(torch):
    run_alone(f"""
import sys, types
sys.modules["torch"] = {torch}
import attend, numpy
x = numpy.ones((1, 1, 2, 4), "f4")
assert (attend.attention(x, x, x) == 1).all()
""")


def test_other_threads_run_during_a_call():
    x, count, done = rows(30_000), [0], threading.Event()

    def tick():
        while not done.is_set():
            count[0] += 1
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    while count[0] == 0:
        time.sleep(0.001)
    before = count[0]
    attend.attention(x, x, x)
    assert count[0] > before
    done.set()
    thread.join()


def test_many_threads_have_the_same_bits():
    inputs = [rows(n) for n in (1, 3, 100, 257)]
    want = [attend.attention(x, x, x, causal=True) for x in inputs]
    wrong = []

    def work():
        for _ in range(20):
            for x, y in zip(inputs, want):
                if not np.array_equal(attend.attention(x, x, x, causal=True), y):
                    wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_children_compute(threads):
    threads(2)
    x = rows(500)
    want = attend.attention(x, x, x)  # the pool has begun
    done = threading.Event()

    def busy():
        while not done.is_set():
            attend.attention(x, x, x)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                os._exit(0 if np.array_equal(attend.attention(x, x, x), want) else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("call", [attend.attention, lambda *x: attend.linear_attention(*x, feature_map="relu", algorithm="reference"),
                                  lambda x, *_: attend.matmul(x, attend.PackedMatrix(x[0, 0]))], ids=["attention", "linear", "packed"])
def test_arrays_die_while_they_are_used(call):
    holder = [rows(3000)]
    want = call(*holder * 3)
    for _ in range(5):
        holder = [rows(3000)]
        result = []
        # The call alone keeps its arrays.
        thread = threading.Thread(target=lambda: result.append(call(*[holder.pop()] * 3)))
        thread.start()
        while holder:
            time.sleep(0)
        gc.collect()
        trash = [np.full((1, 2, 3000, 16), np.nan, np.float32) for _ in range(20)]
        thread.join()
        del trash
        np.testing.assert_array_equal(result[0], want)


def test_results_live_without_their_inputs():
    count = sys.getrefcount(None)
    for _ in range(200):
        result = attend.attention(rows(8), rows(8), rows(8), return_weights=True)
        mask = attend.Mask.boolean(np.ones((8, 8), bool))
        gc.collect(0)
        attend.attention(rows(8), rows(8), rows(8), mask=mask)
    assert np.isfinite(result.weights).all() and sys.getrefcount(None) < count + 100


def test_functions_and_layers_are_copied():
    for function in (attend.attention, attend.matmul, attend.linear_attention, attend.explain):
        assert pickle.loads(pickle.dumps(function)) is function
        assert copy.deepcopy(function) is function
    layer = attend.MultiHeadAttention(8, 2, seed=3)
    x = np.ones((1, 3, 8), np.float32)
    for copied in (copy.copy(layer), copy.deepcopy(layer)):
        np.testing.assert_array_equal(copied(x), layer(x))


def test_paths_with_a_zero_byte(tmp_path):
    kept = tmp_path / "keep"
    kept.write_text("precious")
    for call in (attend.heatmap(np.eye(2)).save, attend.Translator.from_pretrained, lambda path: attend.convert(path, "x"),
                 lambda path: attend.convert(tmp_path, path)):
        with pytest.raises(ValueError, match="embedded null byte"):
            call(f"{kept}\0x.svg")
    assert kept.read_text() == "precious"
