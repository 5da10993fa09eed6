"""As in attention forward."""

from benchmarks.attention.torch import outputs, prepare, version  # noqa: F401
