"""Attention on the CPU: fast, exact, the same bits for any batch and number of threads.

Functions take NumPy arrays, PyTorch CPU tensors and whatever else speaks DLPack, without copying them, and return the
same kind. attend.torch has PyTorch's functions with autograd, attend.flash_attn those of the flash-attn package; neither
is imported unless asked for. Calls may be made by any threads at once; Ctrl-C ends them, after which arrays that they
were to write hold anything.
"""
import copyreg as _copyreg

from ._core import (Explanation, Heatmap, KvCache, LinearAttentionState, Mask, MultiHeadAttention, PackedMatrix,
                    Translation, Translator, __version__, attention, attention_backward, convert, explain,
                    get_num_threads, heatmap, linear_attention, linear_attention_backward, matmul, matmul_backward,
                    set_num_threads)
from ._methods import bind_methods as _bind_methods
from ._results import (AttentionGradients, AttentionResult, LinearAttentionGradients, LinearAttentionResult,
                       MatmulGradients, TranslationAttention, WordAlignment)

__all__ = ["AttentionGradients", "AttentionResult", "Explanation", "Heatmap", "KvCache", "LinearAttentionGradients",
           "LinearAttentionResult", "LinearAttentionState", "Mask", "MatmulGradients", "MultiHeadAttention",
           "PackedMatrix", "Translation", "TranslationAttention", "Translator", "WordAlignment", "__version__",
           "attention", "attention_backward", "convert", "explain", "get_num_threads", "heatmap", "linear_attention",
           "linear_attention_backward", "matmul", "matmul_backward", "set_num_threads"]

# Functions are copied and pickled by their names, as Python's own are.
_copyreg.pickle(type(attention), lambda function: function.__name__)

_bind_methods(KvCache, LinearAttentionState, MultiHeadAttention)
