"""The product in float64: what every contestant's output is compared with."""

from benchmarks.attention.reference import version  # noqa: F401


def prepare(_, inputs):
    x, weight = inputs["x"].double(), inputs["weight"].double()

    def run():
        return {"output": x @ weight.T}

    return run
