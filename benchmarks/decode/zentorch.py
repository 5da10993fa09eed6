"""As in attention forward."""

from benchmarks.attention.zentorch import outputs, prepare, version  # noqa: F401
