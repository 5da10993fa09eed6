"""ONNX's operator Attention (opsets 23 and later) by attend, as a backend of onnx.backend: for ONNX's own node tests, or for
any model of this one operator.

    import onnx_attention as backend
    outputs = backend.prepare(model).run([query, key, value])
"""
import math

import numpy as np
from onnx import helper
from onnx.backend.base import Backend, BackendRep

import attend

_INPUTS = ("Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen")


def _heads(x, count):
    """[batch, length, heads * dim] as [batch, heads, length, dim]."""
    return x if x.ndim == 4 else x.reshape(*x.shape[:2], count, -1).swapaxes(1, 2)


def _allowed(mask, causal, left, right, lengths, offsets, queries, keys):
    """Which keys each query attends to: bool, broadcast to [batch, heads, queries, keys], or None for all of them."""
    position = np.arange(queries)[:, None] + offsets[:, None, None, None]
    key = np.arange(keys)
    conditions = []
    if causal:
        conditions.append(key <= position)
    if left is not None and left >= 0:
        conditions.append(key >= position - left)
    if right is not None and right >= 0:
        conditions.append(key <= position + right)
    if lengths is not None:
        conditions.append(key < lengths[:, None, None, None])
    if mask is not None:
        conditions.append(mask)
    allowed = None
    for condition in conditions:
        allowed = condition if allowed is None else allowed & condition
    return allowed


def _padded(mask, keys):
    """A mask for fewer keys hides the others."""
    missing = keys - mask.shape[-1]
    if missing <= 0 or mask.shape[-1] == 1:
        return mask
    filler = False if mask.dtype == bool else -np.inf
    return np.concatenate([mask, np.full((*mask.shape[:-1], missing), filler, mask.dtype)], -1)


def attention(inputs, attributes):
    """The operator: (Y, present_key, present_value, qk_matmul_output) of NumPy arrays by the names of its inputs."""
    query, key, value = (inputs[name] for name in "QKV")
    kind = query.dtype
    half = kind if kind in (np.float16, np.float32, np.float64) else np.dtype(np.float32)  # NumPy has no bfloat16
    heads, kv_heads = attributes.get("q_num_heads"), attributes.get("kv_num_heads")
    flat = query.ndim == 3
    q, k, v = _heads(query, heads), _heads(key, kv_heads), _heads(value, kv_heads)
    past = 0
    if inputs.get("past_key") is not None:
        past = inputs["past_key"].shape[2]
        k, v = np.concatenate([inputs["past_key"], k], 2), np.concatenate([inputs["past_value"], v], 2)
    present = k, v
    q, k, v = (x.astype(half) for x in (q, k, v))
    queries, keys = q.shape[2], k.shape[2]
    lengths = inputs.get("nonpad_kv_seqlen")
    offsets = np.full(q.shape[0], past) if lengths is None else lengths.astype(int) - queries
    mask = inputs.get("attn_mask")
    bias = boolean = None
    if mask is not None:
        mask = _padded(mask, keys)
        boolean, bias = (mask, None) if mask.dtype == bool else (None, mask.astype(half))
    if bias is not None:
        # Arithmetic minus infinity reads what it hides; a mask does not.
        boolean, bias = ~np.isneginf(bias), np.where(np.isneginf(bias), half.type(0), bias)
    allowed = _allowed(boolean, attributes.get("is_causal", 0), attributes.get("left_window_size"),
                       attributes.get("right_window_size"), lengths, offsets, queries, keys)
    scale = attributes.get("scale", 1 / math.sqrt(q.shape[-1]))
    softcap = attributes.get("softcap") or None
    found = attend.attention(q, k, v, mask=allowed, bias=bias, scale=scale, softcap=softcap, return_weights=True)
    output = found.output.swapaxes(1, 2).reshape(*query.shape[:2], -1) if flat else found.output
    scores = _scores(q, k, allowed, bias, scale, softcap, found.weights, attributes.get("qk_matmul_output_mode", 0))
    return output.astype(kind), *present, scores.astype(kind)


def _scores(q, k, allowed, bias, scale, softcap, weights, mode):
    """qk_matmul_output: 0 scaled scores, 1 capped, 2 biased and masked, 3 the weights."""
    if mode == 3:
        return weights
    scores = attend.matmul(q * q.dtype.type(scale), np.repeat(k, q.shape[1] // k.shape[1], 1).swapaxes(-1, -2))
    if mode >= 1 and softcap:
        scores = softcap * np.tanh(scores / softcap)
    if mode == 2:
        scores = scores if bias is None else scores + bias
        scores = scores if allowed is None else np.where(allowed, scores, -np.inf)
    return scores


class AttentionRep(BackendRep):
    """A model of one Attention node."""

    def __init__(self, model):
        self._graph = model.graph
        self._node, = model.graph.node
        self._attributes = {a.name: helper.get_attribute_value(a) for a in self._node.attribute}

    def run(self, inputs, **_):
        given = dict(zip((x.name for x in self._graph.input), inputs))
        named = {name: given.get(wire) for name, wire in zip(_INPUTS, self._node.input)}
        outputs = dict(zip(self._node.output, attention(named, self._attributes)))
        return tuple(outputs[x.name] for x in self._graph.output)


class AttentionBackend(Backend):
    """Runs models that are one Attention node of ONNX's own domain."""

    @classmethod
    def is_compatible(cls, model, device="CPU", **_):
        nodes = model.graph.node
        return cls.supports_device(device) and len(nodes) == 1 and nodes[0].op_type == "Attention" and not nodes[0].domain

    @classmethod
    def prepare(cls, model, device="CPU", **_):
        if not cls.is_compatible(model, device):
            raise NotImplementedError("[onnx_attention] expected a model of one Attention node on the CPU, found another")
        return AttentionRep(model)

    @classmethod
    def supports_device(cls, device):
        return device == "CPU"


is_compatible = AttentionBackend.is_compatible
prepare = AttentionBackend.prepare
run_model = AttentionBackend.run_model
supports_device = AttentionBackend.supports_device
