"""attend from Python: its scaled_dot_product_attention for tensors of PyTorch."""

from benchmarks.attention.attend_python import forward, outputs, prepare, version  # noqa: F401
