"""Attention of tensors so small that what is timed is the call: microseconds, in C++, from Python and in PyTorch."""

from benchmarks.attention.workload import TOLERANCE, visible_pairs

TITLE = "calls of attention with small tensors"


def call_case(name, dtype, *, heads=1, queries=1, keys=4, head_dim=8, mask="full"):
    """One case, whose operations take less than a call."""
    inputs = {
        "query": {"shape": [1, heads, queries, head_dim], "dtype": dtype},
        "key": {"shape": [1, heads, keys, head_dim], "dtype": dtype},
        "value": {"shape": [1, heads, keys, head_dim], "dtype": dtype},
    }
    if mask == "boolean":
        inputs["mask"] = {"shape": [1, 1, queries, keys], "dtype": "bool", "probability": 0.9}
    return {
        "name": name,
        "dtype": dtype,
        "mask": mask,
        "grouped": False,
        "inputs": inputs,
        "operations": 4 * heads * visible_pairs(mask, queries, keys) * head_dim,
        "calls": 1,
        "limits": [],  # no limit of the machine binds
        "tolerance": TOLERANCE[dtype],
    }


def cases(size):
    """The cases of "full", "quick" or "tiny" (the test's)."""
    found = [call_case("one_query", "float32"), call_case("one_query", "bfloat16")]
    if size == "tiny":
        return found
    return [*found, call_case("causal", "float32", queries=4, mask="causal"),
            call_case("boolean", "float32", queries=4, mask="boolean"),
            call_case("eight_heads", "float32", heads=8, keys=16, head_dim=64)]
