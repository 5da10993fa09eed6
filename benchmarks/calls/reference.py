"""The equation in float64."""

from benchmarks.attention.reference import prepare, version  # noqa: F401
