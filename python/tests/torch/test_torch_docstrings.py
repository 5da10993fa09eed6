"""The examples of the modules that need PyTorch."""
import pytest

import attend.flash_attn
import attend.torch
from examples import documented, run_examples


@pytest.mark.parametrize("name,value", [*documented(attend.torch), *documented(attend.flash_attn)],
                         ids=lambda x: x if isinstance(x, str) else "")
def test_examples(name, value):
    assert run_examples(value, name) > 0
