"""The module in which flash-attn defines its functions."""
import attend.flash_attn as _attend
from attend.flash_attn import flash_attn_with_kvcache  # noqa: F401

from ._probabilities import unnormalised as _unnormalised

flash_attn_func = _unnormalised(_attend.flash_attn_func)
flash_attn_kvpacked_func = _unnormalised(_attend.flash_attn_kvpacked_func)
flash_attn_qkvpacked_func = _unnormalised(_attend.flash_attn_qkvpacked_func)
flash_attn_varlen_func = _unnormalised(_attend.flash_attn_varlen_func)
flash_attn_varlen_kvpacked_func = _unnormalised(_attend.flash_attn_varlen_kvpacked_func)
flash_attn_varlen_qkvpacked_func = _unnormalised(_attend.flash_attn_varlen_qkvpacked_func)


def _get_block_size_n(device, head_dim, is_dropout, causal):
    """Keys of a block, each of which has probabilities of a scaling of its own: all are in one."""
    return 1 << 30
