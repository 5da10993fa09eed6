#!/usr/bin/env python3
"""Writes tests/data/hugging_face: small OPUS-MT folders with random weights, of several sizes, activations and layouts, and
what Transformers' generate finds.

    python3 -m venv build/hugging_face
    build/hugging_face/bin/pip install transformers==4.57.1 torch==2.13.0 sentencepiece safetensors numpy
    build/hugging_face/bin/python scripts/make_generation_goldens.py
"""
import argparse
import pathlib

import numpy as np
import torch
import transformers
from transformers import MarianMTModel, MarianTokenizer

from compare_generation import LINES, grid, make_model, theirs
from make_marian_goldens import write_safetensors

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests/data/hugging_face"
kCases = 60

# Besides "tiny": sizes, how the weights are saved, and the number of cases.
OTHERS = {
    "relu_in_parts": ({"d": 24, "ffn": 40, "layers": 1, "heads": 2, "activation": "relu"}, {"max_shard_size": "8KB"}, 20),
    "gelu_in_float16": ({"d": 32, "ffn": 24, "layers": 3, "heads": 4, "activation": "gelu", "scale": False}, {}, 20),
}


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    folder = make_model(OUT / "tiny", 3, d=16, ffn=24, layers=2, heads=2)
    lines = LINES + [">>xx<< the cat", "", "the cat \u4e2d"]
    model, tokenizer, tensors, metadata = generated(folder, lines, kCases, 5)
    with torch.no_grad():
        inputs = tokenizer([lines[0]], return_tensors="pt")
        tensors["encoder"] = model.get_encoder()(**inputs).last_hidden_state[0].numpy()
        decoder_ids = torch.tensor([[tokenizer.pad_token_id, 5, 9, 20]])
        tensors["logits"] = model(**inputs, decoder_input_ids=decoder_ids).logits[0].numpy()
        tensors |= attention(model, tokenizer, lines, metadata, tensors)
    write_safetensors(OUT / "tiny.safetensors", tensors, metadata)
    for seed, (name, (sizes, saved, cases)) in enumerate(OTHERS.items()):
        folder = make_model(OUT / name, 11 + seed, **sizes)
        model = MarianMTModel.from_pretrained(folder)
        if name.endswith("float16"):
            model = model.half()
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder, **saved)
        _, _, tensors, metadata = generated(folder, LINES, cases, 21 + seed)
        write_safetensors(OUT / f"{name}.safetensors", tensors, metadata)


def generated(folder, lines, cases, seed):
    """What generate finds with combinations of options, a line each: model, tokenizer, tensors and metadata."""
    model = MarianMTModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    tokenizer = MarianTokenizer.from_pretrained(folder)
    tensors, metadata = {}, {"transformers": transformers.__version__, "cases": str(cases)}
    for i, line in enumerate(lines):
        metadata[f"line.{i}"] = line
        tensors[f"source.{i}"] = np.asarray(tokenizer(line).input_ids)
    metadata["lines"] = str(len(lines))
    for c, options in enumerate(grid(cases, seed)):
        metadata[f"case.{c}"] = " ".join(str(v).lower() for v in options.values())
        line = c % len(LINES)
        metadata[f"case.{c}.line"] = str(line)
        ids, scores = theirs(model, tokenizer, options, lines[line])
        for n, row in enumerate(ids):
            tensors[f"{c}.{n}.ids"] = np.asarray(row)
            metadata[f"{c}.{n}.text"] = tokenizer.decode(row, skip_special_tokens=True)
        if scores is not None:
            tensors[f"{c}.scores"] = np.asarray(scores, np.float32)
    return model, tokenizer, tensors, metadata


def attention(model, tokenizer, lines, metadata, tensors):
    """Weights [layers, heads, queries, keys] along the best translation of a case with a beam."""
    case = next(c for c in range(kCases)
                if int(metadata[f"case.{c}"].split()[0]) > 2 and len(tensors[f"{c}.0.ids"]) > 5)
    ids = [int(i) for i in tensors[f"{case}.0.ids"]]
    inputs = tokenizer([lines[int(metadata[f"case.{case}.line"])]], return_tensors="pt")
    found = model(**inputs, decoder_input_ids=torch.tensor([[tokenizer.pad_token_id] + ids[:-1]]),
                  output_attentions=True)
    metadata["attention.case"] = str(case)
    return {f"attention.{name}": torch.stack([layer[0] for layer in layers]).numpy()
            for name, layers in (("encoder", found.encoder_attentions), ("decoder", found.decoder_attentions),
                                 ("cross", found.cross_attentions))}


if __name__ == "__main__":
    main()
