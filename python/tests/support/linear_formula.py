"""Linear attention token by token, as the library's header defines it, in NumPy's float64."""
import numpy as np

MAPS = {"elu_plus_one": lambda x: np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))), "relu": lambda x: np.maximum(x, 0),
        "identity": lambda x: x}


def linear_formula(q, k, v, *, feature_map="identity", normalise=False, causal=False, scale=1.0, decay=None, beta=None,
                   key_lengths=None, state=None, normaliser=None):
    """Output, denominator, last state and last normaliser; key and value have the state's heads."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    phi = MAPS[feature_map]
    batch, kv_heads, length, d = k.shape
    group = q.shape[1] // kv_heads if kv_heads else 1
    s = np.zeros((batch, kv_heads, d, v.shape[3])) if state is None else np.array(state, np.float64)
    z = np.zeros((batch, kv_heads, d)) if normaliser is None else np.array(normaliser, np.float64)
    g = np.zeros(k.shape)
    if decay is not None:
        decay = np.asarray(decay, np.float64)
        g += decay[None, :, None, None] if decay.ndim == 1 else decay[..., None] if decay.ndim == 3 else decay
    lengths = [length] * batch if key_lengths is None else key_lengths
    output, denominator = np.zeros((*q.shape[:3], v.shape[3])), np.zeros(q.shape[:3])

    def read(b, h, i):
        x = scale * phi(q[b, h * group:(h + 1) * group, i])
        output[b, h * group:(h + 1) * group, i] = x @ s[b, h]
        denominator[b, h * group:(h + 1) * group, i] = x @ z[b, h]

    for b in range(batch):
        for h in range(kv_heads):
            for t in range(length):
                if t < lengths[b]:
                    s[b, h] *= np.exp(g[b, h, t])[:, None]
                    z[b, h] *= np.exp(g[b, h, t])
                    x = phi(k[b, h, t])
                    u = v[b, h, t] if beta is None else np.float64(beta[b, h, t]) * (v[b, h, t] - x @ s[b, h])
                    s[b, h] += np.outer(x, u)
                    z[b, h] += x
                if causal:
                    read(b, h, t)
            if not causal:
                for i in range(q.shape[2]):
                    read(b, h, i)
    if normalise:
        divisor = denominator[..., None]
        output = np.divide(output, divisor, out=np.zeros_like(output), where=divisor != 0)
    return output, denominator, s, z
