#!/usr/bin/env python3
"""Compares `attend translate` on OPUS-MT folders with Transformers' generate, over a grid of options.

    make build
    python3 -m venv build/hugging_face
    build/hugging_face/bin/pip install transformers==4.57.1 torch==2.13.0 sentencepiece safetensors numpy
    build/hugging_face/bin/python scripts/compare_generation.py [--model FOLDER] [--cases 300] [--seed 1]

Without a folder small models of random weights are made, of several sizes, activations and layouts. Ids must be equal and
scores within 1e-4 in float32; the rest is told. A case whose two best candidates are nearer than rounding is counted as a tie.
"""
import argparse
import io
import itertools
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import sentencepiece
import torch
from transformers import MarianConfig, MarianMTModel, MarianTokenizer

from make_marian_goldens import SOURCE, TARGET

LINES = ["the cat sits on the bridge.", "rain falls on the old mill", "a boat", "nobody knows the river; the man rows.",
         "the island lies in the river and the boat is old.", "birds", "the old man and the cat sit by the mill, and rain falls."]


def train(lines, size):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, vocab_size=size,
                                             hard_vocab_limit=False, minloglevel=2, unk_id=1, eos_id=0, bos_id=-1, pad_id=-1,
                                             normalization_rule_name="identity")
    return model.getvalue()


def write_tokenizers(folder, source, target):
    """Files of MarianTokenizer for two SentencePiece models; the words of the vocabulary, <pad> last."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "source.spm").write_bytes(source)
    (folder / "target.spm").write_bytes(target)
    pieces = lambda proto: [p for p in (lambda s: [s.id_to_piece(i) for i in range(s.vocab_size())])(
        sentencepiece.SentencePieceProcessor(model_proto=proto)) if p not in ("</s>", "<unk>")]
    words = ["</s>", "<unk>"] + sorted(set(pieces(source)) | set(pieces(target))) + [">>xx<<", "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}, ensure_ascii=False))
    (folder / "tokenizer_config.json").write_text(json.dumps({"source_lang": "en", "target_lang": "xx"}))
    return words


def config_of(words, *, d, ffn, layers, heads, activation="swish", scale=True, **others):
    """Of a model with such a vocabulary, as OPUS-MT's are."""
    pad = len(words) - 1
    return MarianConfig(vocab_size=len(words), d_model=d, encoder_layers=layers, decoder_layers=layers, encoder_ffn_dim=ffn,
                        decoder_ffn_dim=ffn, encoder_attention_heads=heads, decoder_attention_heads=heads,
                        activation_function=activation, scale_embedding=scale, pad_token_id=pad, eos_token_id=0,
                        decoder_start_token_id=pad, forced_eos_token_id=0, bad_words_ids=[[pad]], max_position_embeddings=64,
                        num_beams=4, max_length=40, **others)


def make_model(folder, seed, *, d=32, ffn=48, layers=2, heads=4, activation="swish", scale=True):
    """A checkpoint of random weights with its tokenizer."""
    words = write_tokenizers(folder, train(SOURCE + LINES, 90), train(TARGET + LINES, 80))
    torch.manual_seed(seed)
    model = MarianMTModel(config_of(words, d=d, ffn=ffn, layers=layers, heads=heads, activation=activation, scale=scale,
                                    init_std=0.3)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
        model.final_logits_bias.copy_(0.5 * torch.randn_like(model.final_logits_bias))
        model.final_logits_bias[0, 0] += 2.0
    model.save_pretrained(folder)
    return folder


def grid(count, seed):
    """Combinations of options: each value of each option comes often."""
    random.seed(seed)
    choices = {"num_beams": [1, 2, 3, 4, 6], "length_penalty": [0.0, 0.6, 1.0, 2.0], "early_stopping": [False, True, "never"],
               "max_length": [6, 12, 25], "min_length": [0, 5], "no_repeat_ngram_size": [0, 1, 2, 3],
               "repetition_penalty": [1.0, 1.3, 0.8], "renormalize_logits": [False, True],
               "prefix": ["", "", "gato", "o velho"]}
    for _ in range(count):
        options = {name: random.choice(values) for name, values in choices.items()}
        options["max_length"] += 10 if options["prefix"] else 0
        yield options


def ours(attend, folder, options, lines, compute_type="float32", batch=1000):
    command = [attend, "translate", "--model", str(folder), "--no-split", "--json", "--compute-type", compute_type,
               "--batch-tokens", str(batch), "--beam-size", str(options["num_beams"]), "--length-penalty",
               str(options["length_penalty"]), "--early-stopping", str(options["early_stopping"]).lower(), "--max-length",
               str(options["max_length"]), "--min-length", str(options["min_length"]), "--no-repeat-ngram-size",
               str(options["no_repeat_ngram_size"]), "--repetition-penalty", str(options["repetition_penalty"]), "--n-best",
               str(options["num_beams"])] + (["--renormalize-logits"] if options["renormalize_logits"] else [])
    if options["prefix"]:
        command += ["--target-prefix", options["prefix"]]
    found = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True)
    if found.returncode != 0:
        sys.exit(f"{' '.join(command)}: {found.stderr}")
    return [json.loads(line) for line in found.stdout.rstrip("\n").split("\n")]


def theirs(model, tokenizer, options, line):
    inputs = tokenizer([line], return_tensors="pt")
    beams = options["num_beams"]
    options = dict(options)
    if prefix := options.pop("prefix"):
        given = tokenizer(text_target=prefix).input_ids[:-1]
        inputs["decoder_input_ids"] = torch.tensor([[model.config.decoder_start_token_id] + given])
    found = model.generate(**inputs, **options, num_return_sequences=beams, return_dict_in_generate=True, output_scores=True)
    ids = [[i for i in row.tolist()[1:]] for row in found.sequences]
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    cut = lambda row: row[:row.index(end) + 1] if end in row else [i for i in row if i != pad]
    return [cut(row) for row in ids], (found.sequences_scores.tolist() if beams > 1 else None)


def main():
    parser = argparse.ArgumentParser(description="compares attend translate with Transformers' generate")
    parser.add_argument("--model", type=pathlib.Path, action="append")
    parser.add_argument("--attend", default="build/release/bin/attend")
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folders = arguments.model or [
            make_model(pathlib.Path(temporary) / str(i), i, **sizes) for i, sizes in enumerate([
                {}, {"activation": "relu", "d": 24, "heads": 2}, {"activation": "gelu", "layers": 1, "scale": False},
                {"d": 64, "ffn": 100, "layers": 3, "heads": 8}])]
        loaded = [(folder, MarianMTModel.from_pretrained(folder).eval(), MarianTokenizer.from_pretrained(folder))
                  for folder in folders]
        equal = ties = different = 0
        worst = 0.0
        for number, (options, (folder, model, tokenizer)) in enumerate(
                zip(grid(arguments.cases, arguments.seed), itertools.cycle(loaded))):
            lines = random.sample(LINES, 3)
            for line, found in zip(lines, ours(arguments.attend, folder, options, lines, batch=random.choice([1, 20, 1000]))):
                ids, scores = theirs(model, tokenizer, options, line)
                outputs = found["outputs"]
                same = [output["ids"] for output in outputs] == ids[:len(outputs)] and len(outputs) == len(ids)
                if scores is not None and same:
                    worst = max([worst] + [abs(o["score"] - s) for o, s in zip(outputs, scores)])
                # Hypotheses whose scores differ by less than float32 sums can tell may change places.
                tie = not same and scores is not None and len(outputs) == len(scores) and all(
                    abs(o["score"] - s) < 1e-6 for o, s in zip(outputs, scores))
                equal, ties, different = equal + same, ties + tie, different + (not same and not tie)
                if not same and not tie and different <= 5:
                    print(f"{folder.name} {options} '{line}'\n    attend       {[o['ids'] for o in outputs]} "
                          f"{[o['score'] for o in outputs]}\n    transformers {ids} {scores}")
        print(f"{equal + ties + different} translations of {arguments.cases} combinations: {equal} equal, {ties} ties, "
              f"{different} different; "
              f"largest difference of a score {worst:.1e}")
        return 1 if different or worst > 1e-4 else 0


if __name__ == "__main__":
    sys.exit(main())
