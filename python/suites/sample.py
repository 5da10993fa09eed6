"""A plugin of pytest for suites with more cases than anybody runs: `--sample N` keeps about N cases of each function, drawn
with `--sample-seed`, so that every value of every parameter is among them, and long sequences seldom.
"""
import random
from collections import defaultdict


def pytest_addoption(parser):
    parser.addoption("--sample", type=int, default=0, metavar="N", help="about N cases of each function")
    parser.addoption("--sample-seed", type=int, default=0, metavar="SEED", help="which cases")


def _values(item):
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return {(name, repr(value)) for name, value in parameters.items()}


def _length(item):
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return max((x for name, x in parameters.items() if name.startswith("seqlen") and isinstance(x, int)), default=0)


def sampled(items, count, seed):
    """`count` of a function's cases, or as many as it takes to have every value once."""
    draw = random.Random(seed)
    items = sorted(items, key=lambda item: (_length(item), draw.random()))
    kept, rest, seen = [], [], set()
    for item in items:
        values = _values(item)
        (rest if values <= seen else kept).append(item)
        seen |= values
    short = rest[:len(rest) // 2 + 1]
    return kept + draw.sample(short, min(len(short), max(0, count - len(kept))))


def pytest_collection_modifyitems(config, items):
    count = config.getoption("--sample")
    if count <= 0:
        return
    functions = defaultdict(list)
    for item in items:
        functions[item.nodeid.split("[")[0]].append(item)
    items[:] = [item for name, cases in functions.items()
                for item in sampled(cases, count, f"{config.getoption('--sample-seed')} {name}")]
