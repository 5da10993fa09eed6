"""Translation with Firefox's models: words a second, the wait for one short sentence, the start of a program, memory.
And with a model of OPUS-MT's size: beams in batches, and greedily one by one, to a fixed length.

Each case is a model at hand (a folder in models/, $ATTEND_MODELS; make_opus_size.py's) and a way to use it."""

import os
from pathlib import Path

TITLE = "translation"
FILES = "texts"  # what peers write: harness/texts.py
REFERENCE = "translate"  # the environment of reference.py
# New contestants for each case: their memory is measured, and allocators keep what models before have left. A small
# process also starts others without lending them its size: Linux counts that as theirs until their program begins.
RENEW = True

ROOT = Path(__file__).resolve().parents[2]

# The share of sentences that may differ from the float engine's. In float all should be equal; products in int8 change
# a tenth of them without making them worse (docs/performance.md), while a wrong engine gives other text throughout.
TOLERANCE = {"float32": 0.1, "int8": 0.3}

# With weights at random the next word is near at hand, and a rounded product takes it: in int8 nothing is compared.
RANDOM_TOLERANCE = {"float32": 0.1, "int8": 1.0}
OPUS_SIZE = Path("build/benchmark/opus_mt_size")
OPUS_LENGTH = 24  # tokens of each translation: weights at random would never end one

# A file is all sentences so many times: its end, where threads run out of batches, is a small part of it.
FILE_TIMES = 4

# Words of a sentence that a user waits for.
SHORT = 3

# Of the tests' model with random weights.
TINY = ("boat", "cat", "the old man", "mill", "rain falls")


def models():
    """Folders with a model, by name, each with the language of its sources: in $ATTEND_MODELS, or else in models/."""
    found = {}
    for path in sorted(Path(os.environ.get("ATTEND_MODELS") or ROOT / "models").glob("*/model.*.bin")):
        pair = path.name.split(".")[1]
        if len(pair) == 4:
            found[path.parent.name] = (str(path.parent.resolve()), pair[:2])
    if not found:
        raise FileNotFoundError("expected folders with a model in $ATTEND_MODELS or models/ (make models), found none")
    return found


def translate_case(name, dtype, model, way, sentences):
    """`way`: "one_by_one" (a call for each), "file" (all in one call, where the contestant has such a call) or
    "cold_start" (a new process that loads the model and translates one sentence)."""
    return {
        "name": name,
        "dtype": dtype,
        "inputs": {},  # no tensors
        "limits": [],  # no limit of the machine binds: a sentence is many small products, and text
        "tolerance": TOLERANCE[dtype],
        "model": model,
        "way": way,
        "sentences": sentences,
    }


def opus_cases(size):
    """Cases of the model of OPUS-MT's size, if setup.sh has made it."""
    if size == "tiny" or not (ROOT / OPUS_SIZE).is_dir():
        return []
    texts = (Path(__file__).parent / "sentences.en.txt").read_text().splitlines()
    long = [text for text in texts if len(text.split()) > SHORT]
    result = []
    for name, way, beam_size, count in (("opus_mt_beam4_batch32", "batches", 4, 64), ("opus_mt_greedy", "one_by_one", 1, 16)):
        for dtype, tolerance in RANDOM_TOLERANCE.items():
            sentences = long[:count if size == "full" else count // 2]
            result.append({**translate_case(name, dtype, str(ROOT / OPUS_SIZE), way, sentences), "tolerance": tolerance,
                           "search": {"beam_size": beam_size, "batch": 32, "length": OPUS_LENGTH},
                           "words": sum(len(text.split()) for text in sentences)})
    return result


def cases(size):
    """The cases of "full", "quick" or "tiny" (the test's). @raises FileNotFoundError without models"""
    if size == "tiny":
        at_hand, texts = {"tiny": (str(ROOT / "tests/data/marian/tiny"), "xx")}, {"xx": TINY}
    else:
        at_hand = models()
        texts = {path.name.split(".")[1]: path.read_text().splitlines() for path in Path(__file__).parent.glob("*.txt")}
    result = []
    for name, (model, language) in at_hand.items():
        if language not in texts:
            continue
        long = [text for text in texts[language] if len(text.split()) > SHORT] or texts[language]
        short = [text for text in texts[language] if len(text.split()) <= SHORT]
        for dtype in TOLERANCE:
            def case(way, sentences, called=None):
                return translate_case(f"{name}_{called or way}", dtype, model, way, sentences)

            one_by_one = case("one_by_one", long[:100 if size == "full" else 25])
            file = case("file", long * FILE_TIMES if size == "full" else long[:100])
            for many in (one_by_one, file):
                many["words"] = sum(len(text.split()) for text in many["sentences"])
            first_word = case("one_by_one", short, called="first_word")
            first_word["parts"] = len(short)  # seconds are those of one
            result += [first_word, one_by_one, file, case("cold_start", long[:1])]
    if not result:
        raise FileNotFoundError(f"expected a model that translates from {' or '.join(sorted(texts))} in "
                                f"$ATTEND_MODELS or models/, found {', '.join(at_hand)}")
    return result + opus_cases(size)
