"""Errors under Python's names and PyTorch's at once, since PyTorch raises RuntimeError for shapes and types."""
import functools


class TorchValueError(ValueError, RuntimeError):
    pass


class TorchTypeError(TypeError, RuntimeError):
    pass


def as_torch(error):
    """A ValueError or TypeError of this package as one that is a RuntimeError too; others as they are."""
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
