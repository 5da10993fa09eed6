"""Rotary embeddings with the signature of flash_attn.layers.rotary."""
import torch

from attend.flash_attn import _rotated


def apply_rotary_emb(x, cos, sin, interleaved=False, inplace=False, seqlen_offsets=0, cu_seqlens=None, max_seqlen=None):
    """x [batch, L, heads, d] (or [all, heads, d] with cu_seqlens) turned by cos and sin [positions, rotary dim / 2];
    positions begin at seqlen_offsets, an int or [batch]."""
    if cu_seqlens is None:
        offsets = torch.as_tensor(seqlen_offsets).long().reshape(-1, 1).expand(x.shape[0], 1)
        turned = _rotated(x, cos, sin, offsets + torch.arange(x.shape[1]), interleaved)
    else:
        lengths = cu_seqlens.diff().long()
        offsets = torch.as_tensor(seqlen_offsets).long().expand(len(lengths))
        positions = torch.cat([torch.arange(int(n)) + o for n, o in zip(lengths, offsets)])
        turned = _rotated(x[None], cos, sin, positions[None], interleaved)[0]
    return x.copy_(turned) if inplace else turned
