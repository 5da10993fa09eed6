"""ONNX Runtime: a model of one MultiHeadAttention node, whose kernel is a flash one without a mask."""

import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper

from benchmarks.harness.tensors import Unsupported


def version():
    return "onnxruntime " + onnxruntime.__version__


def model(heads, causal):
    """Layout [batch, length, heads * d]; the extents are left open."""
    names = ("query", "key", "value")
    node = helper.make_node("MultiHeadAttention", names, ["output"], domain="com.microsoft", num_heads=heads,
                            unidirectional=int(causal))

    def tensor(name):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None, None])

    graph = helper.make_graph([node], "attention", [tensor(name) for name in names], [tensor("output")])
    versions = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_model(graph, opset_imports=versions)
    made.ir_version = 8
    return made.SerializeToString()


def prepare(case, inputs):
    if case["dtype"] != "float32":
        raise Unsupported("MultiHeadAttention takes float32 only on the CPU")
    if case["mask"] not in ("full", "causal"):
        raise Unsupported("not compared with a mask or bias")
    if case["grouped"]:
        raise Unsupported("MultiHeadAttention has no grouped heads")
    heads = inputs["query"].shape[1]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model(heads, case["mask"] == "causal"), options,
                                           providers=["CPUExecutionProvider"])
    feeds = {name: tensor.transpose(1, 2).flatten(2).contiguous().numpy() for name, tensor in inputs.items()}

    def run():
        return session.run(None, feeds)[0], heads

    return run


def outputs(result):
    output, heads = result
    return {"output": torch.from_numpy(output).unflatten(2, (heads, -1)).transpose(1, 2)}
