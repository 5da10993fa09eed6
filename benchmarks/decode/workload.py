"""Decoding: one query against a cache of keys and values. What counts is how fast the cache is read."""

from benchmarks.attention.workload import attention_case

TITLE = "decoding, one query against a cache"

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}

# A model's layers take turns, so a layer's cache has left the processor's caches when its turn comes again: calls go
# round as many copies as this holds.
COLD_BYTES = 256 << 20


def decode_case(dtype, keys, heads, kv_heads, head_dim=128, cold_bytes=COLD_BYTES):
    """A batch of one."""
    case = attention_case(f"d{head_dim}_l{keys}_h{heads}_kv{kv_heads}", dtype, batch=1, heads=heads,
                          kv_heads=kv_heads, queries=1, keys=keys, head_dim=head_dim, mask="full")
    case["bytes"] = 2 * kv_heads * keys * head_dim * BYTES[dtype]
    case["copies"] = max(1, -(-cold_bytes // case["bytes"]))
    case["limits"] = ["memory"]
    return case


def cases(size):
    """The cases of "full", "quick" or "tiny" (the test's)."""
    if size == "tiny":
        return [decode_case(dtype, 65, heads, 2, 16, cold_bytes=1 << 17)
                for dtype in ("float32", "bfloat16", "float16", "int8") for heads in (2, 8)]
    quick = size == "quick"
    return [decode_case(dtype, keys, heads, 8)
            for dtype in (("float32", "bfloat16") if quick else BYTES)
            for keys in ((4096,) if quick else (4096, 16384, 65536))
            for heads in (8, 32)]
