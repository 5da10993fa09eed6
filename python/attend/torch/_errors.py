"""Errors under Python's names and PyTorch's at once, since PyTorch raises RuntimeError for shapes and types."""
import functools
import os

import torch

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class TorchValueError(ValueError, RuntimeError):
    pass


class TorchTypeError(TypeError, RuntimeError):
    pass


def check_number(function, name, x):
    """That x is a number through which no gradients would have to flow."""
    # NumPy's numbers are arrays to compilers.
    if not (isinstance(x, (float, int, torch.SymFloat, torch.SymInt)) or hasattr(x, "__float__")):
        raise TorchTypeError(f"[{function}] expected {name} to be a number, found {type(x).__name__}")
    if isinstance(x, torch.Tensor) and x.requires_grad:
        raise TorchTypeError(f"[{function}] expected {name} to be a number, found a tensor that requires gradients")


def _is_of_this_package(error):
    """Or of somebody's hook, subclass or signal handler. What PyTorch raises for this package begins as all its errors."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename.startswith(_PACKAGE) or str(error).startswith("[")


def as_torch(error):
    """A ValueError or TypeError of this package as one that is a RuntimeError too; others as they are."""
    if not _is_of_this_package(error):
        return error
    kind = {ValueError: TorchValueError, TypeError: TorchTypeError}.get(type(error))
    return error if kind is None else kind(*error.args).with_traceback(error.__traceback__)


def raising_as_torch(function):
    """The function with its errors so."""

    @functools.wraps(function)
    def raising(*arguments, **keywords):
        try:
            return function(*arguments, **keywords)
        except (TypeError, ValueError) as error:
            raise as_torch(error) from None

    return raising
