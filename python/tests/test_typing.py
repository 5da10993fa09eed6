"""The types that tools see: those of the extension's own signatures, and enough for a program to be checked."""
import ast
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


def test_programs_are_checked(tmp_path):
    pytest.importorskip("mypy")
    for name, text, errors in (("program", PROGRAM, 0), ("wrong", WRONG, 7)):
        file = tmp_path / f"{name}.py"
        file.write_text(text)
        found = subprocess.run([sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(file)],
                               capture_output=True, text=True, check=False,
                               env={"MYPYPATH": str(pathlib.Path(attend.__file__).parent.parent), "PATH": "/usr/bin:/bin"})
        assert found.stdout.count(": error: ") == errors, found.stdout + found.stderr
