"""Padded batches as packed sequences and back, with the names and signatures of flash_attn.bert_padding."""
import torch
import torch.nn.functional as F


def index_first_axis(x, indices):
    """Rows of x [all, ...] at indices."""
    return x[indices]


def index_put_first_axis(values, indices, first_axis_dim):
    """Rows of values [n, ...] at indices of a tensor [first_axis_dim, ...] of zeros."""
    return values.new_zeros(first_axis_dim, *values.shape[1:]).index_copy(0, indices, values)


def unpad_input(hidden_states, attention_mask, unused_mask=None):
    """hidden_states [batch, length, ...] where attention_mask [batch, length] (or unused_mask) is not 0: (rows [n, ...],
    their indices, int32 starts [batch + 1], the longest length, the lengths of attention_mask alone)."""
    kept = attention_mask if unused_mask is None else attention_mask + unused_mask
    lengths = kept.sum(-1, dtype=torch.int32)
    indices = kept.flatten().nonzero().flatten()
    starts = F.pad(lengths.cumsum(0).int(), (1, 0))
    return (index_first_axis(hidden_states.flatten(0, 1), indices), indices, starts, int(lengths.max()),
            attention_mask.sum(-1).int())


def pad_input(hidden_states, indices, batch, seqlen):
    """The rows [n, ...] at their places in [batch, seqlen, ...], zeros elsewhere."""
    return index_put_first_axis(hidden_states, indices, batch * seqlen).unflatten(0, (batch, seqlen))
