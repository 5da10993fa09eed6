"""attend from Python: the gradient of its scaled_dot_product_attention by PyTorch's autograd. Forward runs once, before
anything is timed."""

from benchmarks.attention.attend_python import forward, version  # noqa: F401
from benchmarks.attention_backward.torch import outputs, prepare as prepare_gradient  # noqa: F401


def prepare(case, inputs):
    return prepare_gradient(case, inputs, forward)
