"""CTranslate2 on a model that make_opus_size.py has converted for it, tokenized by SentencePiece as it asks for."""

import os
import sys
from importlib import import_module, metadata
from pathlib import Path

import sentencepiece

from benchmarks.harness.texts import Unsupported

engine = import_module("ctranslate2")  # by name: this file has the same


def version():
    return "ctranslate2 " + metadata.version("ctranslate2")


def prepare(case, _):
    if "search" not in case:
        raise Unsupported("CTranslate2 does not read models of Firefox Translations")
    folder, search = Path(case["model"]), case["search"]
    dtype = case["dtype"]
    threads = len(os.sched_getaffinity(0))
    translator = engine.Translator(str(folder / f"ctranslate2_{dtype}"), compute_type=dtype, intra_threads=threads)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "hugging_face/source.spm"))
    batch = 1 if case["way"] == "one_by_one" else search["batch"]

    def translate():
        tokens = [sentence + ["</s>"] for sentence in pieces.encode(case["sentences"], out_type=str)]
        texts = []
        for begin in range(0, len(tokens), batch):
            texts += translator.translate_batch(
                tokens[begin:begin + batch], beam_size=search["beam_size"], max_decoding_length=search["length"],
                min_decoding_length=search["length"], max_input_length=0)
        return [" ".join(text.hypotheses[0]) for text in texts]

    return translate
