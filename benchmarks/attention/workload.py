"""Attention forward: softmax(Q K^T / sqrt(d)) V."""

TITLE = "attention forward"

# What an output may differ from the float64 reference, relative to its row's scale: the dtype's rounding, of the output
# and of the weights, with room for any order of summation. A wrong mask or scale is off by more than a tenth.
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2, "float16": 5e-3, "int8": 5e-2}

# The limit that a dtype is held against; where the processor has none of the first, the next. No processor that is
# measured here multiplies float16 faster than float32.
LIMITS = {"float32": ["float32"], "bfloat16": ["bfloat16", "float32"], "float16": ["float32"]}


def visible_pairs(mask, queries, keys):
    """How many (query, key) pairs of a head must be computed. Boolean masks and biases leave all of them."""
    if mask == "causal":
        return sum(min(query + 1, keys) for query in range(queries))
    return queries * keys


def attention_case(name, dtype, *, batch, heads, kv_heads, queries, keys, head_dim, mask, operations=4):
    """One case. `operations` for each visible pair and dimension: 4 forward (two products), 10 backward (five)."""
    stored = "float32" if dtype == "int8" else dtype
    inputs = {
        "query": {"shape": [batch, heads, queries, head_dim], "dtype": stored},
        "key": {"shape": [batch, kv_heads, keys, head_dim], "dtype": stored},
        "value": {"shape": [batch, kv_heads, keys, head_dim], "dtype": stored},
    }
    if mask == "boolean":
        inputs["mask"] = {"shape": [1, 1, queries, keys], "dtype": "bool", "probability": 0.9}
    if mask == "bias":
        inputs["bias"] = {"shape": [1, 1, queries, keys], "dtype": stored}
    return {
        "name": name,
        "dtype": dtype,
        "mask": mask,
        "grouped": heads != kv_heads,
        "inputs": inputs,
        "operations": operations * batch * heads * visible_pairs(mask, queries, keys) * head_dim,
        "limits": LIMITS.get(dtype, []),
        "tolerance": TOLERANCE[dtype],
    }


def square_case(dtype, head_dim, length, sequences, mask, *, kv_heads=None, operations=4):
    """As many queries as keys. `sequences` is batch times heads, of which at most 8 are heads."""
    heads = sequences if kv_heads else min(sequences, 8)
    name = f"d{head_dim}_l{length}_bh{sequences}"
    if kv_heads:
        name += f"_kv{kv_heads}"
    if mask != "full":
        name += f"_{mask}"
    return attention_case(name, dtype, batch=sequences // heads, heads=heads, kv_heads=kv_heads or heads,
                          queries=length, keys=length, head_dim=head_dim, mask=mask, operations=operations)


# Length to batch times heads: about the same work for each, and one that fills two cores.
SEQUENCES = {128: 64, 512: 16, 2048: 4, 8192: 2}


def cases(size):
    """The cases of "full", "quick" or "tiny" (the test's)."""
    if size == "tiny":
        return [square_case(dtype, 16, 33, 4, mask, kv_heads=kv_heads)
                for dtype in ("float32", "bfloat16", "float16")
                for mask in ("full", "causal", "boolean", "bias")
                for kv_heads in (None, 2)]
    quick = size == "quick"
    lengths = (512, 2048) if quick else SEQUENCES
    found = []
    for dtype in ("float32", "bfloat16") if quick else ("float32", "bfloat16", "float16"):
        for head_dim in (64,) if quick else (64, 128):
            found += [square_case(dtype, head_dim, length, SEQUENCES[length], mask)
                      for length in lengths for mask in ("full", "causal")]
            if not quick:
                found += [square_case(dtype, head_dim, 2048, 4, mask) for mask in ("boolean", "bias")]
                found += [square_case(dtype, head_dim, 2048, 32, mask, kv_heads=8) for mask in ("full", "causal")]
    return found
