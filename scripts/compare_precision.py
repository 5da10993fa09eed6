#!/usr/bin/env python3
"""What int8 and bfloat16 cost in quality, on a model in the layout of OPUS-MT that was trained: random weights tell nothing.

    build/hugging_face/bin/python scripts/compare_precision.py PAIRS.txt [--minutes 10] [--sentences 500] [--folder FOLDER]

(See compare_generation.py for the environment.) PAIRS: a line for each pair, source and target with a tab between them, as
Tatoeba has them. A small model is trained on all but the last of them, unless FOLDER holds one already; `attend translate`
translates the rest in float32, bfloat16 and int8, and Transformers' float32 model says how likely each token of it is.
"""
import argparse
import json
import math
import pathlib
import random
import subprocess
import time

import torch
from transformers import MarianMTModel, MarianTokenizer

from compare_generation import config_of, train, write_tokenizers

ATTEND = pathlib.Path(__file__).resolve().parent.parent / "build/release/bin/attend"


def read_pairs(path, longest=80):
    rows = [line.split("\t")[:2] for line in path.read_text().splitlines()]
    pairs = [(s, t) for s, t in rows if len(s) <= longest and len(t) <= longest]
    random.Random(1).shuffle(pairs)
    return pairs


def padded(rows, filling):
    width = max(map(len, rows))
    return torch.tensor([row + [filling] * (width - len(row)) for row in rows])


def train_model(folder, pairs, minutes):
    """Batches of similar lengths for some minutes, the rate falling to 0."""
    words = write_tokenizers(folder, train([s for s, _ in pairs], 4000), train([t for _, t in pairs], 4000))
    tokenizer = MarianTokenizer.from_pretrained(folder)
    torch.manual_seed(1)
    model = MarianMTModel(config_of(words, d=128, ffn=512, layers=2, heads=4))
    pad = model.config.pad_token_id
    sources = tokenizer([s for s, _ in pairs]).input_ids
    targets = tokenizer(text_target=[t for _, t in pairs]).input_ids
    order = sorted(range(len(pairs)), key=lambda i: (len(targets[i]), len(sources[i])))
    batches = [order[i:i + 128] for i in range(0, len(order), 128)]
    random.seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98))
    begin, step, mean = time.time(), 0, None
    model.train()
    while (done := (time.time() - begin) / (60 * minutes)) < 1:
        batch = random.choice(batches)
        labels = padded([targets[i] for i in batch], -100)
        inputs = padded([sources[i] for i in batch], pad)
        before = padded([[pad] + targets[i][:-1] for i in batch], pad)
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 300) * (1 - done)
        logits = model(inputs, attention_mask=inputs != pad, decoder_input_ids=before).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=0.1)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        mean = loss.item() if mean is None else 0.99 * mean + 0.01 * loss.item()
        if step % 200 == 0:
            print(f"step {step}, {100 * done:.0f}%, loss {mean:.2f}", flush=True)
        step += 1
    model.eval().save_pretrained(folder)


def translations(folder, lines, compute_type, attend):
    """Ids of each line's translation."""
    found = subprocess.run([attend, "translate", "--model", folder, "--compute-type", compute_type, "--no-split", "--json"],
                           input="\n".join(lines) + "\n", capture_output=True, text=True, check=True).stdout
    return [json.loads(line)["outputs"][0]["ids"] for line in found.rstrip("\n").split("\n")]


@torch.no_grad()
def log_probability(model, source, target):
    """Sum over a translation's tokens."""
    before = torch.tensor([[model.config.decoder_start_token_id] + target[:-1]])
    logits = model(torch.tensor([source]), decoder_input_ids=before).logits[0]
    return logits.log_softmax(-1).gather(1, torch.tensor(target)[:, None]).sum().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=pathlib.Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--sentences", type=int, default=500)
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("build/trained_marian"))
    parser.add_argument("--attend", type=pathlib.Path, default=ATTEND)
    arguments = parser.parse_args()
    pairs = read_pairs(arguments.pairs)
    if not (arguments.folder / "model.safetensors").exists():
        train_model(arguments.folder, pairs[:-arguments.sentences], arguments.minutes)
    model = MarianMTModel.from_pretrained(arguments.folder).eval()
    tokenizer = MarianTokenizer.from_pretrained(arguments.folder)
    lines = [source for source, _ in pairs[-arguments.sentences:]]
    sources = tokenizer(lines).input_ids
    print("lines:", lines[0], lines[1], sep="\n  ")
    reference, means = None, None
    for compute_type in ("float32", "bfloat16", "int8"):
        found = translations(arguments.folder, lines, compute_type, arguments.attend)
        own = [log_probability(model, s, t) / len(t) for s, t in zip(sources, found)]
        if reference is None:
            reference, means = found, own
            print("  ", tokenizer.decode(found[0], skip_special_tokens=True))
        differences = [a - b for a, b in zip(own, means)]
        mean = sum(differences) / len(differences)
        error = math.sqrt(sum((x - mean)**2 for x in differences)) / len(differences)
        equal = sum(a == b for a, b in zip(found, reference))
        print(f"{compute_type}: mean log-probability of a token {sum(own) / len(own):.5f}, over float32 {mean:+.5f} "
              f"+- {error:.5f}; {equal} of {len(lines)} translations equal")


if __name__ == "__main__":
    main()
