"""PyTorch's function replaced by this package's."""
import contextlib
import functools
import threading

import torch
from torch.nn import functional
from torch.nn.attention.bias import CausalBias
from torch.overrides import handle_torch_function, has_torch_function

from ._function import scaled_dot_product_attention


def _either(original):
    """This package's function for CPU tensors that are not nested, and the original for others."""

    @functools.wraps(original)
    def either(query, *arguments, **keywords):
        if has_torch_function((query, *arguments, *keywords.values())):
            return overridden(query, *arguments, **keywords)
        ours = not isinstance(query, torch.Tensor) or (query.device.type == "cpu" and not query.is_nested)
        return (scaled_dot_product_attention if ours else original)(query, *arguments, **keywords)

    def overridden(query, *arguments, **keywords):
        if isinstance(query, torch.Tensor) and (query.device.type != "cpu" or query.is_nested):
            return original(query, *arguments, **keywords)
        # Masks of CausalBias would take part as tensors without numbers; this package's function knows them.
        given = [x for x in (query, *arguments, *keywords.values()) if not isinstance(x, CausalBias)]
        if has_torch_function(given):
            return handle_torch_function(either, given, query, *arguments, **keywords)
        return scaled_dot_product_attention(query, *arguments, **keywords)

    either.__module__ = functional.__name__  # where the code of torch.fx's graphs looks it up
    return either


@contextlib.contextmanager
def _known_to_scripts(function):
    """torch.jit.script takes the function for PyTorch's."""
    table = torch.jit._builtins._get_builtin_table()
    table[id(function)] = "aten::scaled_dot_product_attention"
    try:
        yield
    finally:
        del table[id(function)]


@contextlib.contextmanager
def _known_to_causal_bias(original):
    """CausalBias, which compares with torch.nn.functional's, knows the original still: who imported it before calls it."""
    known = CausalBias.__dict__["__torch_function__"]

    def torch_function(cls, function, types, args=(), kwargs=None):
        current = functional.scaled_dot_product_attention
        return known.__func__(cls, current if function is original else function, types, args, kwargs)

    CausalBias.__torch_function__ = classmethod(torch_function)
    try:
        yield
    finally:
        CausalBias.__torch_function__ = known


@contextlib.contextmanager
def _replacement():
    original = functional.scaled_dot_product_attention
    either = _either(original)
    with _known_to_scripts(either), _known_to_causal_bias(original):
        functional.scaled_dot_product_attention = either
        try:
            yield
        finally:
            functional.scaled_dot_product_attention = original


class _Counted:
    """The replacement, from the first of some contexts that overlap, of any threads, to the end of the last."""

    def __init__(self):
        self._lock = threading.Lock()
        self._contexts = 0

    def __enter__(self):
        with self._lock:
            if self._contexts == 0:
                self._made = _replacement()
                self._made.__enter__()
            self._contexts += 1

    def __exit__(self, *_):
        with self._lock:
            self._contexts -= 1
            if self._contexts == 0:
                self._made.__exit__(None, None, None)


_counted = _Counted()


@contextlib.contextmanager
def replaced():
    """Within it torch.nn.functional.scaled_dot_product_attention is this module's, for CPU tensors that are not nested: a
    model that calls it runs on attend, unchanged, in every thread. What torch.jit.script compiles runs on PyTorch's.

    >>> import torch, attend.torch
    >>> x = torch.ones(1, 2, 3, 4)
    >>> with attend.torch.replaced():
    ...     y = torch.nn.functional.scaled_dot_product_attention(x, x, x)
    >>> y.shape
    torch.Size([1, 2, 3, 4])
    """
    with _counted:
        yield
