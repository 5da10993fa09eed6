"""Every public function has an example, and all examples give what they say."""
import inspect
import pathlib

import pytest

import attend
from examples import documented, run_examples

# What calls return, and what stands in the examples of others.
WITHOUT_EXAMPLE = {"AttentionGradients", "AttentionResult", "Explanation", "Heatmap", "LinearAttentionGradients",
                   "LinearAttentionResult", "MatmulGradients", "Translation", "TranslationAttention", "Translator",
                   "WordAlignment", "get_num_threads"}


@pytest.mark.parametrize("name,value", list(documented(attend)), ids=lambda x: x if isinstance(x, str) else "")
def test_examples(name, value, monkeypatch):
    monkeypatch.chdir(pathlib.Path(__file__).parents[2])  # examples read tests/data
    assert inspect.getdoc(value)
    assert run_examples(value, name) > 0 or name in WITHOUT_EXAMPLE
