"""The attention of a long text, drawn: NumPy alone. Cells of a notebook, or a script."""
# %%
import numpy as np

import attend

TEXT = ("Attention lets every word of a text look at every other word and take from it what it needs . A word asks with its "
        "query , the others answer with their keys , and what is taken is a mixture of their values . ") * 10
words = TEXT.split()

# %% A vector for each word, the same wherever the word stands, and where it stands.
rng = np.random.default_rng(0)
vectors = {word: rng.standard_normal(64) for word in dict.fromkeys(words)}
places = np.arange(len(words))[:, None] / 10000 ** (np.arange(0, 64, 2) / 64)
x = np.stack([vectors[word] for word in words]) + np.concatenate([np.sin(places), np.cos(places)], axis=1)
x = x[None, None].astype(np.float32)

# %% Causal attention in a window of 200 words.
result = attend.attention(x, x, x, causal=True, window=(200, 0), scale=0.05, return_weights=True)
print("words:", len(words), "weights:", result.weights.shape)

# %% All of it: more cells than pixels are pooled, so that no strong weight is lost. A notebook shows the last value.
picture = attend.heatmap(result.weights[0, 0], title="Attention of a long text")
picture.save("long_text.svg")
picture

# %% The first sentence, with its words.
some = 22
detail = attend.heatmap(result.weights[0, 0, :some, :some], query_tokens=words[:some], key_tokens=words[:some],
                        mask=np.tril(np.ones((some, some), bool)), size=(8, 7), title="Its first sentence")
detail.save("first_sentence.svg")
print(detail.terminal(columns=100))
