"""ONNX Runtime: a model of one MatMul node, or for int8 DynamicQuantizeMatMul. W is a constant of the model, so the session
packs it."""

import functools

import numpy
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from benchmarks.attention.onnxruntime import version  # noqa: F401
from benchmarks.harness.tensors import Unsupported


def model(node, constants):
    """Of x and the node's constants; the number of rows is left open."""
    def matrix(name):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None])

    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph([node], "matmul", [matrix("x")], [matrix("output")], stored)
    versions = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_model(graph, opset_imports=versions)
    made.ir_version = 8
    return made.SerializeToString()


def model_of(case, weight):
    if case["dtype"] == "float32":
        return model(helper.make_node("MatMul", ["x", "weight"], ["output"]),
                     {"weight": numpy.ascontiguousarray(weight.T)})
    if case["dtype"] == "int8":
        scales = numpy.maximum(numpy.abs(weight).max(1), 1e-30) / numpy.float32(127)
        steps = numpy.rint(weight / scales[:, None]).clip(-127, 127).astype(numpy.int8)
        return model(helper.make_node("DynamicQuantizeMatMul", ["x", "weight", "scales"], ["output"],
                                      domain="com.microsoft"),
                     {"weight": numpy.ascontiguousarray(steps.T), "scales": scales.astype(numpy.float32)})
    raise Unsupported("MatMul takes no bfloat16 on the CPU")


@functools.cache
def start_threads():
    """Once, before the first session."""
    onnxruntime.set_global_thread_pool_sizes(torch.get_num_threads(), 1)


def prepare(case, inputs):
    start_threads()
    options = onnxruntime.SessionOptions()
    # Copies of a case are sessions that run in turn: threads of their own would spin while the next one computes.
    options.use_per_session_threads = False
    session = onnxruntime.InferenceSession(model_of(case, inputs["weight"].float().numpy()), options,
                                           providers=["CPUExecutionProvider"])
    feeds = {"x": inputs["x"].float().numpy()}

    def run():
        return session.run(None, feeds)[0]

    return run


def outputs(result):
    return {"output": torch.from_numpy(result)}
