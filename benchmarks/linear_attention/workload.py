"""Linear attention, forward and backward: feature maps, decays and the delta rule at 4k to 1M tokens."""

from benchmarks.attention.workload import LIMITS

TITLE = "linear attention"

# As attention's: the dtype's rounding of outputs and operands, with room for any order of summation; gradients are
# differences of terms.
TOLERANCE = {"forward": {"float32": 2e-4, "bfloat16": 3e-2}, "backward": {"float32": 1e-3, "bfloat16": 1e-1}}

# full: elu + 1, normalised, no order; causal: the same in order; identity: in order, without map and divisor; scalar
# and channel: identity with decays; delta: the delta rule with a decay for each token.
KINDS = ("full", "identity", "causal", "scalar", "channel", "delta")


def linear_case(dtype, kind, head_dim, length, heads, direction="forward"):
    """Nominal operations: 4 d dv a token and head forward, 10 backward (the state again, and four products)."""
    rows = {"shape": [1, heads, length, head_dim], "dtype": dtype}
    inputs = {"query": rows, "key": rows, "value": rows}
    if kind in ("scalar", "delta"):
        inputs["gate"] = {"shape": [1, heads, length], "dtype": "float32"}
    if kind == "channel":
        inputs["gate"] = {"shape": rows["shape"], "dtype": "float32"}
    if kind == "delta":
        inputs["beta"] = {"shape": [1, heads, length], "dtype": "float32"}
    if direction == "backward":
        inputs["grad_output"] = rows
    name = f"d{head_dim}_l{length}_h{heads}_{kind}" + ("_backward" if direction == "backward" else "")
    return {
        "name": name,
        "dtype": dtype,
        "kind": kind,
        "direction": direction,
        "inputs": inputs,
        "operations": (4 if direction == "forward" else 10) * heads * length * head_dim * head_dim,
        "limits": LIMITS["float32"],  # bfloat16 is multiplied as float32 here, to keep the state exact
        "tolerance": TOLERANCE[direction][dtype],
    }


def cases(size):
    """The cases of "full", "quick" or "tiny" (the test's)."""
    if size == "tiny":
        return [linear_case(dtype, kind, 16, 70, 2, direction)
                for dtype in ("float32", "bfloat16") for kind in KINDS for direction in ("forward", "backward")]
    if size == "quick":
        return [linear_case("float32", kind, 64, 4096, 4) for kind in KINDS]
    found = [linear_case(dtype, kind, head_dim, 4096, 8) for dtype in ("float32", "bfloat16")
             for head_dim in (64, 128) for kind in KINDS]
    found += [linear_case("float32", kind, 64, 65536, 2) for kind in KINDS]
    found += [linear_case("float32", kind, 64, 1 << 20, 1) for kind in ("full", "identity", "causal", "scalar", "channel")]
    found += [linear_case(dtype, kind, 64, 4096, 8, "backward") for dtype in ("float32", "bfloat16") for kind in KINDS]
    found += [linear_case("float32", kind, 64, 65536, 2, "backward") for kind in KINDS if kind != "delta"]
    return found
