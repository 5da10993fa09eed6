"""attend_python, a contestant of the benchmarks: its outputs are the equation's in every case of no size."""
import importlib
import pathlib
import sys

import pytest
import torch

sys.path.append(str(pathlib.Path(__file__).parents[3]))


def inputs_of(case):
    torch.manual_seed(5)
    made = {}
    for name, what in case["inputs"].items():
        if what["dtype"] == "bool":
            made[name] = torch.rand(what["shape"]) < what["probability"]
        else:
            made[name] = torch.randn(what["shape"]).to(getattr(torch, what["dtype"]))
    return made


@pytest.mark.parametrize("workload", ["attention", "attention_backward"])
def test_outputs_of_the_contestant(workload):
    cases, contestant, reference = (importlib.import_module(f"benchmarks.{workload}.{name}")
                                    for name in ("workload", "attend_python", "reference"))
    assert contestant.version().startswith("attend ")
    for case in cases.cases("tiny"):
        found = contestant.outputs(contestant.prepare(case, inputs_of(case))())
        expected = reference.prepare(case, inputs_of(case))()
        assert found.keys() == expected.keys()
        for name, tensor in found.items():
            assert tensor.dtype == getattr(torch, case["dtype"])
            scale = expected[name].abs().amax(-1, keepdim=True).clamp(min=expected[name].square().mean().sqrt())
            error = ((tensor - expected[name]).abs() / scale).max().item()
            assert error <= case["tolerance"], (case["name"], case["dtype"], name)
