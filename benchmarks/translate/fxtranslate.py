"""fxtranslate, Mozilla's engine in Rust: int8, one sentence after the other on one thread, whatever the case."""

from importlib import metadata
from pathlib import Path

import fxtranslate

from benchmarks.harness.texts import NewProcess, Unsupported

COLD_START = """
import sys
from fxtranslate import Translator
print(Translator(*(open(path, "rb").read() for path in sys.argv[2:])).translate(sys.argv[1]))
"""


def version():
    return "fxtranslate " + metadata.version("fxtranslate")


def files_of(folder):
    """Model, vocabularies of both languages, shortlist."""
    def only(*patterns):
        return next(path for pattern in patterns for path in folder.glob(pattern))

    return [only("model.*.bin"), only("vocab.*.spm", "srcvocab.*.spm"), only("vocab.*.spm", "trgvocab.*.spm"),
            only("lex.*.bin")]


def prepare(case, _):
    if "search" in case:
        raise Unsupported("fxtranslate reads models of Firefox Translations only")
    if case["dtype"] != "int8":
        raise Unsupported("fxtranslate multiplies in int8 only")
    files, sentences = files_of(Path(case["model"])), case["sentences"]
    if case["way"] == "cold_start":
        return NewProcess(COLD_START, *sentences, *files)
    translate = fxtranslate.Translator(*(path.read_bytes() for path in files)).translate
    return lambda: [translate(sentence) for sentence in sentences]
