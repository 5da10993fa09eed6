"""A plugin of pytest: torch.nn.functional.scaled_dot_product_attention is attend's in every test."""
import pytest

import attend.torch


@pytest.fixture(autouse=True)
def sdpa_is_attend():
    with attend.torch.replaced():
        yield
