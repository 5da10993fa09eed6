#!/usr/bin/env python3
"""Compares `attend compute` with PyTorch on random cases over all options, forward and backward.

    python3 scripts/compare_compute_with_pytorch.py [--command build/release/bin/attend] [--cases 300] [--seed 0]

Needs torch and safetensors. The expected numbers come from the equations written with PyTorch's operators in float64,
gradients from its autograd; dropout is drawn here by a second implementation of Philox. Prints the largest error of each
output, relative to the largest element of its row, and exits with 1 when one is out of bounds. Bounds: float32 1e-5,
float64 1e-12; bfloat16 and float16 twice (gradients: three times) the error of the same equations in that precision.
"""
import argparse
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}
LENGTHS = [(1, 1), (7, 7), (0, 5), (5, 0), (33, 65), (64, 64), (96, 128), (129, 70), (40, 1), (1, 103), (17, 200)]


def philox(counter, seed):
    """Philox4x32-10 on four uint64 arrays that hold 32-bit counters."""
    c = [np.asarray(x, dtype=np.uint64) for x in counter]
    mask = np.uint64(0xFFFFFFFF)
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p0 = c[0] * np.uint64(0xD2511F53)
        p1 = c[2] * np.uint64(0xCD9E8D57)
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k0), p1 & mask,
             (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k1), p0 & mask]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def dropout_factors(shape, probability, seed):
    b, h, i, j = np.meshgrid(*[np.arange(n, dtype=np.uint64) for n in shape], indexing="ij")
    words = philox((j // np.uint64(4), i, h, b), seed)
    draw = np.choose((j % np.uint64(4)).astype(np.int64), words)
    keep = draw >= np.uint64(round(probability * 2**32))
    return torch.from_numpy(keep.astype(np.float64)) / (1 - probability if probability < 1 else 1)


def make_case(rng):
    case = {"dtype": rng.choice(["float32"] * 4 + ["float64"] * 2 + ["bfloat16", "float16"])}
    dtype = DTYPES[case["dtype"]]
    batch, kv_heads, group = rng.choice([1, 2, 3]), rng.choice([1, 2]), rng.choice([1, 1, 2, 3])
    heads = kv_heads * group
    lq, lk = rng.choice(LENGTHS)
    d, dv = rng.choice([1, 8, 32, 40, 59, 64, 111, 128]), rng.choice([1, 16, 64, 72])
    if rng.random() < 0.5:
        dv = d
    full = (batch, heads, lq, lk)
    spread = rng.choice([1.0, 1.0, 3.0])
    t = {"query": torch.randn(batch, heads, lq, d) * spread, "key": torch.randn(batch, kv_heads, lk, d),
         "value": torch.randn(batch, kv_heads, lk, dv), "grad_output": torch.randn(batch, heads, lq, dv)}
    t = {name: x.to(dtype) for name, x in t.items()}
    pick = lambda: [n if rng.random() < 0.6 else 1 for n in full][rng.choice([0, 0, 2]):]
    if rng.random() < 0.3:
        t["mask"] = torch.rand(pick()) < rng.choice([0.2, 0.8])
    if rng.random() < 0.4:
        t["bias"] = torch.randn(pick()).to(rng.choice([dtype, torch.float32]))
        if rng.random() < 0.2:
            t["bias"][torch.rand_like(t["bias"].float()) < 0.2] = -torch.inf
    if rng.random() < 0.3:
        t["key_lengths"] = torch.tensor([rng.randint(0, lk) for _ in range(batch)])
    if rng.random() < 0.2:
        t["alibi_slopes"] = torch.rand(heads)
    case["tensors"] = t
    options = []
    if rng.random() < 0.4:
        options += ["--causal", rng.choice(["top-left", "bottom-right", "3", "-2"])]
    if rng.random() < 0.3:
        options += ["--window", rng.choice(["5,0", "-1,3", "16,16", "0,0", "-1,-1", "70,-1"])]
    if rng.random() < 0.3:
        options += ["--scale", rng.choice(["0", "0.3", "-0.1", "0.05"])]
    if rng.random() < 0.2:
        options += ["--softcap", rng.choice(["2", "30.5"])]
    if rng.random() < 0.3:
        options += ["--dropout", rng.choice(["0.1", "0.5", "1"]), "--seed", rng.choice(["7", "18446744073709551615"])]
    options += ["--algorithm", rng.choice(["auto", "flash", "reference"])]
    case["options"] = options
    return case


def option(case, name, default=None):
    options = case["options"]
    return options[options.index(name) + 1] if name in options else default


def expected(case, dtype):
    """The equations in `dtype`; gradients by autograd. Returns float64 tensors."""
    t = case["tensors"]
    q, k, v = [t[n].to(dtype).requires_grad_() for n in ("query", "key", "value")]
    batch, heads, lq, d = q.shape
    lk = k.shape[2]
    bias = t["bias"].to(dtype).requires_grad_() if "bias" in t else None
    wide = bias.expand(batch, heads, lq, lk) if bias is not None else None
    group = heads // k.shape[1]
    kk, vv = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scale = float(option(case, "--scale", d ** -0.5))
    x = (q @ kk.transpose(-1, -2)) * scale
    if (cap := option(case, "--softcap")) is not None:
        x = float(cap) * torch.tanh(x / float(cap))
    if bias is not None:
        x = x + wide
    lengths = t.get("key_lengths", torch.full((batch,), lk))
    causal = option(case, "--causal")
    if causal == "top-left":
        offset = torch.zeros(batch, dtype=torch.int64)
    elif causal in (None, "bottom-right"):
        offset = lengths - lq
    else:
        offset = torch.full((batch,), int(causal))
    position = (torch.arange(lq)[None, :] + offset[:, None])[:, None, :, None]
    j = torch.arange(lk)[None, None, None, :]
    if "alibi_slopes" in t:
        x = x - t["alibi_slopes"].to(dtype)[None, :, None, None] * (position - j).abs()
    allowed = (j < lengths[:, None, None, None]) & torch.ones(batch, heads, lq, lk, dtype=torch.bool)
    if causal is not None:
        allowed = allowed & (j <= position)
    if (window := option(case, "--window")) is not None:
        left, right = map(int, window.split(","))
        if left >= 0:
            allowed = allowed & (j >= position - left)
        if right >= 0:
            allowed = allowed & (j <= position + right)
    if "mask" in t:
        allowed = allowed & t["mask"]
    x = x.masked_fill(~allowed, -torch.inf)
    lse = torch.logsumexp(x, -1)
    dead = torch.isinf(lse)
    p = torch.softmax(x.masked_fill(dead[..., None], 0.0), -1).masked_fill(dead[..., None], 0.0)
    probability = float(option(case, "--dropout", 0))
    if probability > 0:
        p = p * dropout_factors((batch, heads, lq, lk), probability, int(option(case, "--seed", 0))).to(dtype)
    output = p @ vv
    inputs = [q, k, v] + ([bias, wide] if bias is not None else [])
    grads = torch.autograd.grad(output, inputs, t["grad_output"].to(dtype), allow_unused=True)
    result = {"output": output, "weights": p, "log_sum_exp": lse}
    for name, x, g in zip(("grad_query", "grad_key", "grad_value", "grad_bias", "summands"), inputs, grads):
        result[name] = torch.zeros_like(x) if g is None else torch.nan_to_num(g)
    if bias is not None:  # the size of a sum that may cancel is that of what is summed
        result["summands"] = result["summands"].abs().sum_to_size(bias.shape)
    return {name: x.detach().double() for name, x in result.items()}


def row_error(found, want, size=None):
    """Largest error relative to the largest element of the row (of the tensor, for rows that nearly vanish)."""
    if want.numel() == 0:
        return 0.0
    found = found.double()
    if not torch.equal(torch.isfinite(found), torch.isfinite(want)):
        return float("inf")
    keep = torch.isfinite(want)
    error = (found - want).abs().masked_fill(~keep, 0.0)
    size = (want if size is None else size).abs().masked_fill(~keep, 0.0)
    if want.dim() < 4:
        size, error = size[..., None], error[..., None]
    rows = size.amax(-1, keepdim=True).clamp_min(1e-2 * size.max().item() + 1e-30)
    return (error / rows).max().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--command", default="build/release/bin/attend")
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    torch.manual_seed(arguments.seed)
    worst, failures = {}, 0
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.safetensors", Path(folder) / "out.safetensors"
        for number in range(arguments.cases):
            case = make_case(rng)
            save_file({n: x.contiguous() for n, x in case["tensors"].items()}, source)
            command = [arguments.command, "compute", str(source), "--output", str(target), "--weights",
                       "--log-sum-exp", "--backward"] + case["options"]
            run = subprocess.run(command, capture_output=True, text=True)
            if run.returncode != 0 or run.stderr:
                print(f"case {number}: exit {run.returncode}: {run.stderr.strip()} {case['options']}")
                failures += 1
                continue
            found, want = load_file(target), expected(case, torch.float64)
            summands = want.pop("summands", None)
            if set(found) != set(want):
                print(f"case {number}: expected tensors {sorted(want)}, found {sorted(found)}")
                failures += 1
                continue
            low = case["dtype"] in ("bfloat16", "float16")
            naive = expected(case, DTYPES[case["dtype"]]) if low else None
            for name, x in want.items():
                size = summands if name == "grad_bias" else None
                error = row_error(found[name], x, size)
                if low:
                    factor = 3 if name.startswith("grad") else 2
                    last = torch.finfo(DTYPES[case["dtype"]]).eps
                    bound = max(factor * row_error(naive[name], x, size), last)
                    error, bound = error / bound, 1.0
                else:
                    bound = {"float32": 1e-5, "float64": 1e-12}[case["dtype"]]
                    if name == "log_sum_exp":
                        bound = max(bound, 1e-6)  # written as float32
                key = (case["dtype"], name)
                worst[key] = max(worst.get(key, 0.0), error)
                if not error <= bound:
                    shapes = {n: tuple(t.shape) for n, t in case["tensors"].items()}
                    print(f"case {number}: {case['dtype']} {name}: error {error:.2e} above {bound:.0e} {case['options']} {shapes}")
                    failures += 1
    for (dtype, name), error in sorted(worst.items()):
        unit = "of the bound" if dtype in ("bfloat16", "float16") else "of the row"
        print(f"{dtype:9} {name:12} largest error {error:.2e} {unit}")
    print(f"{arguments.cases} cases, {failures} failures, PyTorch {torch.__version__}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
