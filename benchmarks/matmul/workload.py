"""Dense products, y = x W^T with x [m, k] and W [n, k]: the matrix products under every Transformer. W is packed once."""

from benchmarks.attention.workload import LIMITS
from benchmarks.decode.workload import BYTES, COLD_BYTES

TITLE = "dense products, y = x W^T"

# Inputs of int8 are drawn as float32: W is quantised before anything is timed, x within each call, and y is float32.
DTYPES = ("float32", "bfloat16", "int8")

# What an output may differ from the float64 reference, relative to its row's scale. float32 has room for any order of
# summation; bfloat16 is the rounding of y; int8 that of x and W, where x has one scale for all rows.
TOLERANCE = {"float32": 1e-5, "bfloat16": 3e-2, "int8": 5e-2}


def matmul_case(dtype, m, n, k, *, cold=False, cold_bytes=COLD_BYTES):
    """One case. Where it is cold, calls go round as many copies of W as `cold_bytes` holds: a model's other layers come
    between two products with the same weights. Its limit is reading W or multiplying, whichever takes longer."""
    stored = "float32" if dtype == "int8" else dtype
    case = {
        "name": f"m{m}_n{n}_k{k}" + ("_cold" if cold else ""),
        "dtype": dtype,
        "inputs": {"x": {"shape": [m, k], "dtype": stored}, "weight": {"shape": [n, k], "dtype": stored}},
        "operations": 2 * m * n * k,
        # Without instructions for it int8 is multiplied in 16 bits, which no limit here measures.
        "limits": LIMITS.get(dtype, ["int8"]),
        "tolerance": TOLERANCE[dtype],
    }
    if cold:
        case["bytes"] = n * k * BYTES[dtype]
        case["copies"] = max(1, -(-cold_bytes // case["bytes"]))
    return case


SQUARE = (256, 512, 1024, 2048, 4096)
# A Transformer's: the projections of attention, and the two products of a feed-forward layer.
TRANSFORMER = ((512, 512, 512), (512, 2048, 512), (512, 512, 2048))
# Few rows, as in decoding: W stays in the caches, or comes from memory. The last one is an output vocabulary.
FEW_ROWS = (1, 4, 16)
WARM = ((256, 256), (512, 512))
COLD = ((1024, 1024), (4096, 1024), (32000, 512))


def cases(size):
    """The cases of "full", "quick" or "tiny" (the test's)."""
    if size == "tiny":
        # No extent is a multiple of a tile's, and int8 needs rows long enough for its errors to average out.
        return [matmul_case(dtype, *shape, cold=cold, cold_bytes=1 << 16)
                for dtype in DTYPES
                for shape, cold in (((33, 65, 129), False), ((1, 37, 70), False), ((5, 131, 67), True))]
    quick = size == "quick"
    shapes = [(extent, extent, extent) for extent in ((1024,) if quick else SQUARE)]
    # The square of 512 is a Transformer's too.
    shapes += [shape for shape in (TRANSFORMER[1:2] if quick else TRANSFORMER) if shape not in shapes]
    rows = (1, 16) if quick else FEW_ROWS
    shapes += [(m, n, k) for n, k in (WARM[1:] if quick else WARM) for m in rows]
    cold = [(m, n, k) for n, k in (COLD[1:2] if quick else COLD) for m in rows]
    return [matmul_case(dtype, *shape, cold=is_cold)
            for dtype in DTYPES
            for is_cold, some in ((False, shapes), (True, cold))
            for shape in some]
