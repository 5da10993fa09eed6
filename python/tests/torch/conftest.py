"""Random tensors are the same in every run: what a test finds once it finds again."""
import pytest
import torch


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
