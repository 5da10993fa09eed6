#!/usr/bin/env python3
"""Makes the reference values under tests/data with PyTorch; the tests read them without it.

    python3 scripts/make_goldens.py

Needs torch and safetensors. Each file's metadata records PyTorch's version. The article's program is told again here, as
the walk that `attend explain` prints.
"""
import argparse
import json
import random
from pathlib import Path

import torch
from safetensors.torch import save_file

from compare_explain_with_pytorch import ARTICLE, walk

DATA = Path(__file__).resolve().parent.parent / "tests" / "data"
F = torch.nn.functional


def save(name, tensors, **metadata):
    tensors = {n: t.detach().contiguous().clone() for n, t in tensors.items()}
    path = DATA / name
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"torch": torch.__version__, **{k: str(v) for k, v in metadata.items()}})


def sdpa(name, query, key, value, **options):
    """PyTorch's own function and its autograd, in float64 so that the values are exact to float32."""
    tensors = {"query": query, "key": key, "value": value}
    inputs = [t.double().requires_grad_() for t in tensors.values()]
    mask = options.pop("attn_mask", None)
    if mask is not None:
        tensors["mask" if mask.dtype == torch.bool else "bias"] = mask
        if mask.dtype != torch.bool:
            mask = mask.double().requires_grad_()
    output = F.scaled_dot_product_attention(*inputs, attn_mask=mask, **options)
    grad = torch.randn(output.shape)
    wanted = inputs + ([mask] if mask is not None and mask.requires_grad else [])
    gradients = torch.autograd.grad(output, wanted, grad.double())
    tensors.update(grad_output=grad, output=output.float())
    for n, g in zip(("query", "key", "value", "bias"), gradients):
        tensors["grad_" + n] = g.float()
    save(f"attention/{name}.safetensors", tensors, **options)


def make_attention():
    torch.manual_seed(1)
    q, k, v = torch.randn(2, 4, 6, 8), torch.randn(2, 4, 9, 8), torch.randn(2, 4, 9, 5)
    sdpa("plain", q, k, v)
    sdpa("top_left", q, k, v, is_causal=True)
    sdpa("boolean", q, k, v, attn_mask=torch.rand(2, 1, 6, 9) < 0.7)
    sdpa("bias", q, k, v, attn_mask=torch.randn(1, 4, 6, 9))
    sdpa("scale", q, k, v, scale=0.7)
    sdpa("grouped", q, k[:, :2], v[:, :2], enable_gqa=True)


class TutorialAttention(torch.nn.Module):
    """Four Linear layers around scaled dot-product attention, as tutorials write multi-head attention."""

    def __init__(self, d_model, heads):
        super().__init__()
        self.heads = heads
        self.W_q, self.W_k, self.W_v, self.W_o = (torch.nn.Linear(d_model, d_model) for _ in range(4))

    def forward(self, query, key, value, mask=None):
        split = lambda x: x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)
        q, k, v = split(self.W_q(query)), split(self.W_k(key)), split(self.W_v(value))
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = torch.softmax(scores, -1)
        return self.W_o((weights @ v).transpose(1, 2).flatten(2)), weights


def make_modules():
    torch.manual_seed(2)
    x, memory = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    mha = torch.nn.MultiheadAttention(16, 4, batch_first=True)
    torch.nn.init.normal_(mha.in_proj_bias)
    torch.nn.init.normal_(mha.out_proj.bias)
    tensors = {"x": x, "memory": memory, **{"state." + n: p for n, p in mha.state_dict().items()}}
    mha = mha.double()
    run = lambda *a, **o: [t.float() for t in mha(*(t.double() for t in a), average_attn_weights=False, **o)]
    tensors["self.output"], tensors["self.weights"] = run(x, x, x)
    tensors["cross.output"], tensors["cross.weights"] = run(x, memory, memory)
    tensors["causal.output"], tensors["causal.weights"] = run(x, x, x, attn_mask=~causal)
    tensors["self.mean_weights"] = mha(x.double(), x.double(), x.double())[1].float()
    save("nn/multi_head_attention.safetensors", tensors)

    separate = torch.nn.MultiheadAttention(16, 2, kdim=6, vdim=10, batch_first=True)
    torch.nn.init.normal_(separate.in_proj_bias)
    keys, values = torch.randn(2, 7, 6), torch.randn(2, 7, 10)
    tensors = {"x": x, "keys": keys, "values": values,
               **{"state." + n: p for n, p in separate.state_dict().items()}}
    output, weights = separate.double()(x.double(), keys.double(), values.double(), average_attn_weights=False)
    save("nn/multi_head_attention_separate.safetensors", {**tensors, "output": output.float(), "weights": weights.float()})

    tutorial = TutorialAttention(16, 4)
    tensors = {"x": x, "memory": memory, **{"state." + n: p for n, p in tutorial.state_dict().items()}}
    tutorial = tutorial.double()
    for n, (a, b, m) in {"self": (x, x, None), "cross": (x, memory, None), "causal": (x, x, causal)}.items():
        tensors[n + ".output"], tensors[n + ".weights"] = (t.float() for t in tutorial(a.double(), b.double(), b.double(), m))
    save("nn/tutorial_attention.safetensors", tensors)

    linear = {}
    torch.manual_seed(3)
    for n, module in {"linear": torch.nn.Linear(5, 7), "linear_no_bias": torch.nn.Linear(40, 3, bias=False),
                      "embedding": torch.nn.Embedding(10, 4), "attention": torch.nn.MultiheadAttention(8, 2),
                      "attention_separate": torch.nn.MultiheadAttention(8, 2, kdim=3, vdim=5)}.items():
        linear.update({f"{n}.{p}": t for p, t in module.state_dict().items()})
    x = torch.randn(2, 3, 5)
    linear.update(x=x, y=torch.nn.functional.linear(x.double(), linear["linear.weight"].double(),
                                                     linear["linear.bias"].double()).float())
    save("nn/initialization.safetensors", linear)


def make_transformers():
    """Layers in float64 with their state dicts; norms and biases are drawn, or they would be 1 and 0."""
    torch.manual_seed(4)
    x, memory = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    causal = torch.nn.Transformer.generate_square_subsequent_mask(5)
    tensors = {"x": x, "memory": memory}
    for norm_first in (False, True):
        for activation in ("relu", "gelu"):
            name = f"{'pre' if norm_first else 'post'}_{activation}"
            options = dict(d_model=16, nhead=4, dim_feedforward=40, dropout=0.0, activation=activation, batch_first=True,
                           norm_first=norm_first)
            for kind, layer in {"encoder": torch.nn.TransformerEncoderLayer(**options),
                                "decoder": torch.nn.TransformerDecoderLayer(**options)}.items():
                for parameter in layer.parameters():
                    torch.nn.init.normal_(parameter, std=0.5)
                prefix = f"{kind}.{name}."
                tensors.update({prefix + "state." + n: p.clone() for n, p in layer.state_dict().items()})
                layer = layer.double().train()  # no fast path
                wide, wide_memory, mask = x.double(), memory.double(), causal.double()
                if kind == "encoder":
                    tensors[prefix + "output"] = layer(wide).float()
                else:
                    tensors[prefix + "output"] = layer(wide, wide_memory, tgt_mask=mask).float()
    save("nn/transformer_layers.safetensors", tensors)


def make_stacks():
    """torch.nn.Transformer in float64 under masks of every kind; masks are stored as true = attend."""
    torch.manual_seed(5)
    source, target = torch.randn(3, 6, 8), torch.randn(3, 5, 8)
    # Every query keeps a key: its own, or the first of the memory.
    masks = {"source_mask": torch.rand(6, 6).lt(0.6) | torch.eye(6, dtype=torch.bool),
             "target_mask": torch.rand(5, 5).lt(0.6) | torch.eye(5, dtype=torch.bool),
             "memory_mask": torch.rand(5, 6).lt(0.6)}
    masks["memory_mask"][:, 0] = True
    lengths = {"source": torch.tensor([6, 2, 4]), "target": torch.tensor([5, 5, 3])}
    source_padding = torch.arange(6) < lengths["source"][:, None]
    target_padding = torch.arange(5) < lengths["target"][:, None]
    holes = torch.rand(3, 6) < 0.5
    holes[:, 2] = True
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    tensors = {"source": source, "target": target, "holes": holes, "source_lengths": lengths["source"],
               "target_lengths": lengths["target"], **masks}
    calls = {"plain": {}, "causal": {"tgt_mask": ~causal},
             "masks": {"src_mask": ~masks["source_mask"], "tgt_mask": ~masks["target_mask"],
                       "memory_mask": ~masks["memory_mask"]},
             "padding": {"tgt_mask": ~causal, "src_key_padding_mask": ~source_padding,
                         "tgt_key_padding_mask": ~target_padding, "memory_key_padding_mask": ~source_padding},
             "holes": {"tgt_mask": ~causal, "src_mask": ~masks["source_mask"] & ~torch.eye(6, dtype=torch.bool),
                       "memory_key_padding_mask": ~holes}}
    for norm_first, activation, bias in ((False, "relu", True), (True, "relu", False), (False, "gelu", False),
                                         (True, "gelu", True)):
        network = torch.nn.Transformer(d_model=8, nhead=2, num_encoder_layers=2, num_decoder_layers=2, dim_feedforward=12,
                                       dropout=0.0, activation=activation, batch_first=True, norm_first=norm_first,
                                       bias=bias)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        prefix = f"{'pre' if norm_first else 'post'}_{activation}."
        tensors.update({prefix + "state." + n: p.clone() for n, p in network.state_dict().items()})
        network = network.double().train()  # no fast path
        for n, masked in calls.items():
            tensors[prefix + n] = network(source.double(), target.double(), **masked).float()
        tensors[prefix + "encoded"] = network.encoder(source.double()).float()
    save("nn/transformer.safetensors", tensors)


def turn(x, positions, base, dims, interleaved):
    """Rotary positions as a product of complex numbers: pair i of a head times exp(sqrt(-1) position base^(-2 i / dims))."""
    angles = positions[:, None].double() * base ** (-torch.arange(0, dims, 2).double() / dims)
    pairs = x[..., :dims].unflatten(-1, (dims // 2, 2) if interleaved else (2, dims // 2))
    first, second = pairs.unbind(-1 if interleaved else -2)
    product = torch.complex(first, second) * torch.polar(torch.ones_like(angles), angles)
    turned = torch.stack((product.real, product.imag), -1 if interleaved else -2).flatten(-2)
    return torch.cat((turned, x[..., dims:]), -1)


def bucket(distance, buckets, bidirectional, reach):
    """T5's bucket of a distance key - query, for a tensor of them: logarithms in float32, as the models were trained."""
    side = torch.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        side = (distance > 0) * buckets
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    exact = buckets // 2
    share = torch.log(distance.clamp(min=1).float() / exact) / torch.log(torch.tensor(reach / exact, dtype=torch.float64)).item()
    grown = exact + (share * (buckets - exact)).long()
    return side + torch.where(distance < exact, distance, grown.clamp(max=buckets - 1))


def t5(state, x, heads, memory=None, causal=False):
    """A stack of T5's layers: RMSNorm in front, scores without a scale, one relative bias, a gate of tanh GELU."""
    def rms(rows, name):
        return rows * torch.rsqrt(rows.square().mean(-1, keepdim=True) + 1e-6) * state[name + ".weight"]

    def attend(rows, keys, name, bias):
        q, k, v = (F.linear(r, state[f"{name}.W_{n}.weight"]).unflatten(-1, (heads, -1)).transpose(1, 2)
                   for r, n in ((rows, "q"), (keys, "k"), (keys, "v")))
        mixed = (q @ k.transpose(-2, -1) + bias).softmax(-1) @ v
        return F.linear(mixed.transpose(1, 2).flatten(2), state[name + ".W_o.weight"])

    place = torch.arange(x.shape[1])
    distance = place[None, :] - place[:, None]
    bias = state["relative_attention_bias.weight"][bucket(distance, 32, memory is None, 128)].permute(2, 0, 1)
    if causal:
        bias = bias.masked_fill(distance > 0, float("-inf"))
    layers = 1 + max(int(n.split(".")[1]) for n in state if n.startswith("layers."))
    for i in range(layers):
        at = f"layers.{i}."
        rows = rms(x, at + "norm1")
        x = x + attend(rows, rows, at + "self_attn", bias)
        if memory is not None:
            x = x + attend(rms(x, at + "norm2"), memory, at + "multihead_attn", 0.0)
        rows = rms(x, at + ("norm2" if memory is None else "norm3"))
        gate = F.gelu(F.linear(rows, state[at + "linear_gate.weight"]), approximate="tanh")
        hidden = gate * F.linear(rows, state[at + "linear1.weight"])
        x = x + F.linear(hidden, state[at + "linear2.weight"])
    return rms(x, "norm")


def make_positions():
    torch.manual_seed(6)
    heads, positions = torch.randn(2, 3, 5, 8), torch.tensor([0, 1, 7, 300, 4000])
    tensors = {"heads": heads, "positions": positions}
    for n, (base, dims, interleaved) in {"interleaved": (10000.0, 8, True), "halves": (10000.0, 8, False),
                                         "partial": (500000.0, 4, True), "partial_halves": (100.0, 6, False)}.items():
        tensors["rotary." + n] = turn(heads.double(), positions, base, dims, interleaved).float()
    distance = torch.arange(-300, 301)
    tensors["distance"] = distance.int()
    for n, bidirectional in {"bidirectional": True, "unidirectional": False}.items():
        tensors["bucket." + n] = bucket(distance, 32, bidirectional, 128).to(torch.int8)
        tensors["bucket.few." + n] = bucket(distance, 12, bidirectional, 50).to(torch.int8)
    save("nn/positions.safetensors", tensors)

    x, y = torch.randn(2, 40, 8), torch.randn(2, 6, 8)
    tensors = {"x": x, "y": y}
    states = {}
    for kind in ("encoder", "decoder"):
        shapes = {"relative_attention_bias.weight": (32, 2), "norm.weight": (8,)}
        for i in range(2):
            for n in ("self_attn",) + (("multihead_attn",) if kind == "decoder" else ()):
                shapes.update({f"layers.{i}.{n}.W_{p}.weight": (8, 6) if p == "o" else (6, 8) for p in "qkvo"})
            shapes.update({f"layers.{i}.{n}.weight": s for n, s in {
                "linear1": (12, 8), "linear_gate": (12, 8), "linear2": (8, 12), "norm1": (8,), "norm2": (8,)}.items()})
            if kind == "decoder":
                shapes[f"layers.{i}.norm3.weight"] = (8,)
        states[kind] = {n: torch.randn(s) * 0.5 for n, s in shapes.items()}
        tensors.update({f"{kind}.state.{n}": p for n, p in states[kind].items()})
    wide = {kind: {n: p.double() for n, p in state.items()} for kind, state in states.items()}
    memory = t5(wide["encoder"], x.double(), 2)
    tensors["encoded"] = memory.float()
    tensors["decoded"] = t5(wide["decoder"], y.double(), 2, memory=memory, causal=True).float()
    save("nn/t5.safetensors", tensors)


def make_random():
    torch.manual_seed(12)
    tensors = {}
    for number, (kind, size, dtype) in enumerate([
            ("randn", 3, "float32"), ("randn", 16, "float32"), ("randn", 3, "float32"), ("randn", 17, "float32"),
            ("randn", 1, "float32"), ("rand", 5, "float32"), ("uniform", 7, "float32"), ("randn", 5, "float64"),
            ("randn", 33, "float64"), ("rand", 3, "float64"), ("uniform", 4, "float64"), ("randn", 15, "float32"),
            ("randn", 32, "float32"), ("randn", 1000, "float32"), ("randn", 0, "float32"), ("rand", 700, "float32")]):
        dtype = getattr(torch, dtype)
        x = torch.empty(size, dtype=dtype)
        x = {"randn": lambda: torch.randn(size, dtype=dtype), "rand": lambda: torch.rand(size, dtype=dtype),
             "uniform": lambda: x.uniform_(-0.5, 0.3)}[kind]()
        tensors[f"{number:02}.{kind}"] = x
    for seed in (0, 1, 2**32 + 1, 2**63):
        torch.manual_seed(seed)
        tensors[f"seed.{seed}"] = torch.rand(3)
    save("core/torch_random.safetensors", tensors)


def make_print():
    nan, inf = float("nan"), float("inf")
    torch.manual_seed(4)
    tensors = [
        torch.tensor(1.5), torch.tensor(3.0), torch.tensor(7), torch.tensor(True), torch.tensor([]), torch.empty(0, 3),
        torch.empty(2, 0, 4), torch.empty(0, dtype=torch.int64), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, nan, inf, -inf]),
        torch.tensor([1.5, nan, inf, -inf]), torch.tensor([0.0, -0.0]), torch.tensor([nan]), torch.tensor([1e-5, 1.0]),
        torch.tensor([1e9]), torch.tensor([100000000.0, 5.0]), torch.tensor([0.00012, 0.1]), torch.tensor([99999.5, 100.0]),
        torch.tensor([1e-30, 1e30, -4.0]), torch.tensor([2e8, 3e8, 0.0]), torch.tensor([12345678.0]), torch.arange(30), torch.arange(1000),
        torch.arange(1001), torch.arange(7) - 3, torch.tensor([-100, 5, 2**62]), torch.tensor([True, False, True]), torch.randn(7),
        torch.randn(40), torch.randn(3, 4), torch.randn(2, 12), torch.randn(2, 3, 4), torch.randn(2, 2, 2, 2), torch.randn(50, 30),
        torch.randn(10, 12, 11), torch.randn(2000), torch.randn(6, 500), torch.randn(1, 1, 5, 300), torch.softmax(5 * torch.randn(3, 9), -1),
        torch.arange(2000).reshape(40, 50), torch.randn(3).double(), torch.randn(20).double(), torch.randn(5).half(), torch.randn(5).bfloat16(),
        torch.arange(5, dtype=torch.int32), torch.arange(-3, 3, dtype=torch.int8), torch.arange(3.0).double(), torch.randn(2, 3).t(),
        torch.ones(3, 3), torch.full((2, 2), 1e-7), torch.tensor([[1.0, 1000.5]]), torch.tensor([[1.0, 1000.0]]),
        torch.rand(1001) < 0.5, torch.empty(0, dtype=torch.float64), torch.empty(3, 0, dtype=torch.bool)]
    save("core/print.safetensors", {f"{i:03}": t for i, t in enumerate(tensors)},
         texts=json.dumps({f"{i:03}": str(t) for i, t in enumerate(tensors)}))


def make_explain():
    """The walk for other sentences, seeds and sizes: arguments and output side by side, those of this processor."""
    rng = random.Random(5)
    article = {w: i + 1 for i, w in enumerate(ARTICLE)}
    cases = []
    for words, seed, size, d, h in [
            (["Deep"], 0, None, 4, 3), (["Machine", "Learning"], 1, None, 4, 3), (["Innovation"] * 3, 12, 24, 4, 3),
            ([rng.choice(ARTICLE[:-1]) for _ in range(12)], 42, None, 4, 3), ([rng.choice(ARTICLE[:-1]) for _ in range(33)], 7, None, 4, 3),
            ([rng.choice(ARTICLE[:-1]) for _ in range(5)], 2**32 + 5, None, 2, 1), ([rng.choice(ARTICLE[:-1]) for _ in range(7)], 3, 1000, 8, 3),
            ([rng.choice(ARTICLE[:-1]) for _ in range(6)], 9, None, 16, 2),
            # Head dimensions whose products and roots PyTorch rounds in ways of their own.
            (["Networks", "Projects"], 5495, None, 8, 11), (["Robots", "Code", "Data"], 12, None, 64, 1),
            *(([rng.choice(ARTICLE[:-1]) for _ in range(5 + h % 4)], h, None, 8, h) for h in (5, 6, 7, 9, 10, 13, 19, 37))]:
        arguments = [" ".join(words), "--seed", str(seed), "--embedding-dim", str(d), "--head-dim", str(h)]
        if size is not None:
            arguments += ["--vocabulary-size", str(size)]
        output = "\n".join(walk(words, article, seed, size or len(article), d, h)) + "\n"
        cases.append({"arguments": arguments, "output": output})
    (DATA / "explain").mkdir(exist_ok=True)
    text = json.dumps({"torch": torch.__version__, "cases": cases}, indent=1, ensure_ascii=False)
    intel = "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    (DATA / "explain" / ("walks_intel.json" if intel else "walks_other.json")).write_text(text + "\n")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    make_attention()
    make_modules()
    make_transformers()
    make_stacks()
    make_positions()
    make_random()
    make_print()
    make_explain()
