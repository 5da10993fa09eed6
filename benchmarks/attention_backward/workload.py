"""Attention backward alone: the gradients of query, key and value, forward's result given."""

from benchmarks.attention.workload import SEQUENCES, square_case

TITLE = "attention backward"

# As forward's, but gradients are differences of terms that are rounded to the dtype: in bfloat16 their error can be
# a multiple of its rounding (PyTorch's is up to 0.06 of a row's scale). A wrong gradient is off by more than this.
TOLERANCE = {"float32": 2e-4, "bfloat16": 1e-1}


def backward_case(dtype, head_dim, length, sequences, mask):
    """Five products: the scores again, and those of dV, dP, dQ and dK."""
    case = square_case(dtype, head_dim, length, sequences, mask, operations=10)
    case["tolerance"] = TOLERANCE[dtype]
    case["inputs"]["grad_output"] = dict(case["inputs"]["query"])
    return case


def cases(size):
    """The cases of "full", "quick" or "tiny" (the test's)."""
    if size == "tiny":
        return [backward_case(dtype, 16, 33, 4, mask)
                for dtype in ("float32", "bfloat16") for mask in ("full", "causal")]
    quick = size == "quick"
    return [backward_case(dtype, head_dim, length, SEQUENCES[length], mask)
            for dtype in ("float32", "bfloat16")
            for head_dim in ((64,) if quick else (64, 128))
            for length in ((512, 2048) if quick else SEQUENCES)
            for mask in ("full", "causal")]
