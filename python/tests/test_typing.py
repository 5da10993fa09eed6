"""The types that tools see: those of the extension's own signatures, and enough for a program to be checked."""
import ast
import importlib
import inspect
import pathlib
import re
import subprocess
import sys

import pytest

import attend
from attend import _core

STUB = pathlib.Path(attend.__file__).with_name("_core.pyi")

PROGRAM = """
import numpy as np
from numpy.typing import NDArray
import attend

x: NDArray[np.float32] = np.ones((1, 2, 3, 4), np.float32)
y: NDArray[np.float32] = attend.attention(x, x, x, causal="top-left", mask=attend.Mask.window(2, 0) & attend.Mask())
result: attend.AttentionResult = attend.attention(x, x, x, return_weights=True)
cache = attend.KvCache(kv_heads=2, head_dim=4, dtype="int8")
cache.append(x, x)
lengths: list[int] = cache.lengths
layer = attend.MultiHeadAttention.from_state_dict(attend.MultiHeadAttention(8, 2).state_dict(), 2)
linear: NDArray[np.float32] = attend.linear_attention(x, x, x, causal=True, feature_map="relu", query_starts=[0, 3])
handed: attend.LinearAttentionResult = attend.linear_attention(x, x, x, feature_map="relu", return_state=True)
states: NDArray[np.float32] = attend.LinearAttentionState.from_result(handed).step(x, x, x, feature_map="relu", scale=0.5)
of_beta: attend.LinearAttentionGradients = attend.linear_attention_backward(x, x, x, x, feature_map="identity", beta=x[0])
packed = attend.PackedMatrix(x[0, 0], "int8", scale=0.1).select([0, 1])
product: NDArray[np.float32] = attend.matmul(x, packed, activation="gelu", input_scale=0.5, bias=packed.row(0))
weights: attend.MatmulGradients = attend.matmul_backward(x, x, attend.PackedMatrix.from_image(packed.image()))
rows: NDArray[np.float32] = layer(np.ones((1, 3, 8), np.float32))
model = attend.Translator.from_pretrained("models/en-pt")
found: attend.Translation = model.translate("Hello.", early_stopping="never", sampling=True, top_k=5, alignment=True)
several: list[attend.Translation] = model.translate(["Hello."], early_stopping=True, seed=1, attention=True)
cross: NDArray[np.float32] = several[0].attention[0].cross
first: tuple[int, int] = found.words.source[0]
source, target, weight = found.alignment[0]
attend.convert("opus-mt", "smaller", compute_type="bfloat16")
attend.heatmap(attend.explain().weights, query_tokens=attend.explain().words).save("weights.svg")
"""
WRONG = """
import attend
attend.attention(1, 2, 3, causal="left")
attend.KvCache(kv_heads=2)
attend.explain(seed="12")
attend.convert("opus-mt", "smaller", compute_type="auto")
attend.linear_attention(1, 2, 3, feature_map=abs)
attend.LinearAttentionState(1, 2, 3, 4).step(1, 2, 3)
attend.matmul(1, 2, activation="cube")
"""

OF_PYTORCH = """
import torch
from torch import Tensor
import attend
import attend.flash_attn
import attend.torch

x = torch.ones(1, 2, 3, 4)
y: Tensor = attend.torch.scaled_dot_product_attention(x, x, x, is_causal=True, scale=0.5)
rows: Tensor = attend.torch.linear_attention(x, x, x, feature_map="relu", causal=True, key_lengths=[3])
handed: attend.LinearAttentionResult = attend.torch.linear_attention(x, x, x, return_state=True)
layer: torch.nn.MultiheadAttention = attend.torch.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
linear = attend.torch.LinearAttention(8, 2, causal=True)
token: Tensor = linear.step(x[0], linear.make_state(batch=1))
with attend.torch.replaced():
    z: Tensor = attend.flash_attn.flash_attn_func(x, x, x, 0.0, causal=True, window_size=(3, 0))
output, log_sum_exp, weights = attend.flash_attn.flash_attn_varlen_func(x[0], x[0], x[0], x, x, 3, 3, return_attn_probs=True)
step: Tensor = attend.flash_attn.flash_attn_with_kvcache(x, x, x, cache_seqlens=3)
"""
WRONG_OF_PYTORCH = """
import torch
import attend.flash_attn
import attend.torch
x = torch.ones(1, 2, 3, 4)
attend.torch.scaled_dot_product_attention(x, x, 3)
attend.torch.linear_attention(x, x, x, feature_map="cube")
attend.torch.LinearAttention(8, heads=2)
attend.flash_attn.flash_attn_func(x, x, x, window_size=3)
"""


def parameters(node):
    return [a.arg for a in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs] if a.arg != "self"]


def runtime_parameters(function):
    signature = function.__nb_signature__[0][0].split(" -> ")[0]
    names = re.findall(r"(?:^def \w+\(|, |\()(\w+)(?=:|,|\)| =)", signature)
    return [name for name in names if name != "self"]


def stub_functions():
    for node in ast.parse(STUB.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, getattr(_core, node.name), parameters(node)
        if isinstance(node, ast.ClassDef):
            for member in node.body:
                if isinstance(member, ast.FunctionDef) and not member.decorator_list[:1]:
                    function = vars(getattr(_core, node.name))[member.name]
                    yield f"{node.name}.{member.name}", function, parameters(member)


@pytest.mark.parametrize("name,function,names", list(stub_functions()), ids=lambda x: x if isinstance(x, str) else "")
def test_stub_has_the_parameters_of_the_extension(name, function, names):
    if hasattr(function, "__nb_signature__") and not name.endswith(("__and__", "__init__")):
        assert runtime_parameters(function) == names


def test_stub_has_every_name():
    known = {node.name for node in ast.parse(STUB.read_text()).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    assert {name for name in dir(_core) if not name.startswith("__")} == known
    assert pathlib.Path(attend.__file__).with_name("py.typed").exists()


def test_the_package_is_checked(tmp_path):
    pytest.importorskip("mypy")
    found = subprocess.run([sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path), str(pathlib.Path(attend.__file__).parent)],
                           capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr


def described(node):
    """Name, default and whether by name alone, of each parameter of a function in a stub; ... is no default."""
    positional = [*node.args.posonlyargs, *node.args.args]
    defaults = [None] * (len(positional) - len(node.args.defaults)) + node.args.defaults
    found = [(arg.arg, default, False) for arg, default in zip(positional, defaults)]
    found += [(arg.arg, default, True) for arg, default in zip(node.args.kwonlyargs, node.args.kw_defaults)]
    return [(name, ... if default is None else ast.literal_eval(default), alone) for name, default, alone in found]


def described_at_run_time(function):
    found = inspect.signature(function).parameters.values()
    return [(x.name, ... if x.default is x.empty else x.default, x.kind is x.KEYWORD_ONLY) for x in found]


@pytest.mark.parametrize("module,stub", [("attend.torch", "torch/__init__.pyi"), ("attend.flash_attn", "flash_attn.pyi")])
def test_stubs_of_python_have_its_signatures(module, stub):
    pytest.importorskip("torch")
    known, of_classes = {}, {}
    for node in ast.parse((STUB.parent / stub).read_text()).body:
        if isinstance(node, ast.FunctionDef):
            known[node.name] = [*known.get(node.name, []), described(node)]
        if isinstance(node, ast.ClassDef):
            of_classes[node.name] = {x.name: [described(x)] for x in node.body if isinstance(x, ast.FunctionDef)}
    module = importlib.import_module(module)
    assert {*known, *of_classes} == set(module.__all__)
    pairs = [(getattr(module, name), forms) for name, forms in known.items()]
    for name, methods in of_classes.items():
        members = {x: member for x, member in vars(getattr(module, name)).items()
                   if inspect.isfunction(member) and (x == "__init__" or not x.startswith("_"))}
        assert members.keys() == methods.keys()
        pairs += [(members[x], forms) for x, forms in methods.items()]
    for function, forms in pairs:
        want = described_at_run_time(function)
        assert forms[-1] == want, function
        # Where a flag says what is returned the others have it alone otherwise.
        assert all([x[0] for x in form] == [x[0] for x in want] for form in forms)


def check(tmp_path, programs):
    for name, text, errors in programs:
        file = tmp_path / f"{name}.py"
        file.write_text(text)
        found = subprocess.run([sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(file)],
                               capture_output=True, text=True, check=False,
                               env={"MYPYPATH": str(pathlib.Path(attend.__file__).parent.parent), "PATH": "/usr/bin:/bin"})
        assert found.stdout.count(": error: ") == errors, found.stdout + found.stderr


def test_programs_are_checked(tmp_path):
    pytest.importorskip("mypy")
    check(tmp_path, [("program", PROGRAM, 0), ("wrong", WRONG, 7)])


def test_programs_of_pytorch_are_checked(tmp_path):
    pytest.importorskip("mypy")
    pytest.importorskip("torch")
    check(tmp_path, [("program", OF_PYTORCH, 0), ("wrong", WRONG_OF_PYTORCH, 4)])
