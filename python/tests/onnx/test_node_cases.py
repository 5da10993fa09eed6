"""ONNX's own node tests of the operator Attention, by the backend of python/suites."""
import warnings

import numpy as np
import pytest

pytest.importorskip("onnx")
import onnx_attention  # noqa: E402
from onnx.backend.test.case.node import collect_testcases  # noqa: E402

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    CASES = [case for case in collect_testcases("Attention") if onnx_attention.is_compatible(case.model)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case):
    for inputs, outputs in case.data_sets:
        found = onnx_attention.prepare(case.model).run(inputs)
        assert len(found) == len(outputs)
        for a, b in zip(found, outputs):
            assert a.dtype == b.dtype and a.shape == b.shape
            half = b.dtype.itemsize == 2
            np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=case.rtol, atol=1e-2 if half else 1e-5)


def test_all_are_here():
    assert len(CASES) >= 40
