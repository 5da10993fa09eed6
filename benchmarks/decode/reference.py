"""As in attention forward."""

from benchmarks.attention.reference import prepare, version  # noqa: F401
