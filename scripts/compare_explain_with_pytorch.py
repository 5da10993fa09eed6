#!/usr/bin/env python3
"""Compares `attend explain` with PyTorch, line by line, over random sentences, seeds, sizes and dictionaries.

    python3 scripts/compare_explain_with_pytorch.py [--command build/release/bin/attend] [--cases 300] [--seed 0]

Needs torch. Prints every line that differs and how many there were; exits with 1 when more than one line in a thousand
does: PyTorch's exponential and its blocked products of larger sizes may differ in the last place, which shows where the
fourth decimal is on the edge.
"""
import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

ARTICLE = ("I Like AI And Machine Learning Data Model Code Algorithms Python Research Robots Deep Networks Compute Vision "
           "Tools Projects Neural Knowledge Automation Innovation").split()


def walk(words, dictionary, seed, rows, embedding_dim, head_dim):
    lines = []
    show = lambda *parts: lines.extend(" ".join(str(p) for p in parts).split("\n"))
    ids = torch.tensor([dictionary[w] for w in words])
    show(f"sentence as a tensor: {ids}")
    torch.manual_seed(seed)
    x = torch.nn.Embedding(rows, embedding_dim)(ids).detach()
    show("shape of embedded tensor:", x.shape)
    show("sequence length:", x.shape[0], "tokens")
    show("dimension (d) of each token:", x.shape[1])
    projections = [torch.randn(embedding_dim, head_dim) for _ in "qkv"]
    for name, w in zip("qkv", projections):
        show(f"Weight matrix W_{name}:\n", w)
    q, k, v = (torch.matmul(x, w) for w in projections)
    for name, t in zip(("Query matrix Q", "Key matrix K", "Value matrix V"), (q, k, v)):
        show(name + ":\n", t)
    scores = torch.matmul(q, k.transpose(-2, -1))
    scaled = scores / torch.sqrt(torch.tensor(head_dim, dtype=torch.float32))
    weights = torch.nn.functional.softmax(scaled, dim=-1)
    for name, t in (("Scores", scores), ("Scaled Scores", scaled), ("Attention Weights", weights),
                    ("Attention Output", torch.matmul(weights, v))):
        show(name + ":\n", t)
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--command", default="build/release/bin/attend")
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    lines = different = wrong_cases = 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "dictionary.json"
        for number in range(arguments.cases):
            command = [arguments.command, "explain"]
            if rng.random() < 0.5:
                dictionary = {w: i + 1 for i, w in enumerate(ARTICLE)}
            else:
                size = rng.choice([3, 40, 500, 5000])
                dictionary = {f"w{i}": i for i in range(size)}
                file.write_text(json.dumps(dictionary))
                command += ["--dictionary", str(file)]
            rows = len(dictionary)
            if rng.random() < 0.5:
                rows = rows + rng.choice([1, 5, 1000])
                command += ["--vocabulary-size", str(rows)]
            known = [w for w, i in dictionary.items() if i < rows]
            words = [rng.choice(known) for _ in range(rng.choice([*range(1, 21), 7, 7, 7, 12, 16, 33, 40, 120, 1200]))]
            seed = rng.choice([0, 1, 12, 12, 42, 123456789, 2**32 + 5, 2**63 - 1])
            d = rng.choice([1, 2, 4, 4, 4, 5, 8, 16, 32, 64])
            h = rng.choice([*range(1, 17), 3, 3, 17, 19, 20, 24, 32, 40, 50, 64])
            command += [" ".join(words), "--seed", str(seed), "--embedding-dim", str(d), "--head-dim", str(h)]
            run = subprocess.run(command, capture_output=True, text=True)
            want = walk(words, dictionary, seed, rows, d, h)
            found = run.stdout.rstrip("\n").split("\n")
            if run.returncode != 0 or len(found) != len(want):
                print(f"case {number}: exit {run.returncode}, {len(found)} lines for {len(want)}: {run.stderr.strip()}")
                wrong_cases += 1
                different += len(want)
            else:
                bad = [(a, b) for a, b in zip(found, want) if a != b]
                wrong_cases += bool(bad)
                different += len(bad)
                for a, b in bad:
                    print(f"case {number} ({len(words)} words, d={d}, h={h}):\n  attend  {a}\n  PyTorch {b}")
            lines += len(want)
    print(f"{arguments.cases} cases, {lines} lines; {different} lines differ, in {wrong_cases} cases; PyTorch {torch.__version__}")
    return 1 if different * 1000 > lines else 0


if __name__ == "__main__":
    sys.exit(main())
