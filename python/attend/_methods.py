"""Methods of the extension's classes as functions of Python: torch.compile forgets whose methods the extension's are."""
import functools
from typing import Any, Callable


def _of_python(method: Callable[..., Any]) -> Callable[..., Any]:

    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **keywords: Any) -> Any:
        return method(self, *arguments, **keywords)

    return call


def bind_methods(*classes: type) -> None:
    """In place."""
    for kind in classes:
        for name, method in list(vars(kind).items()):
            if type(method).__name__ == "nb_method" and not name.startswith("__"):
                setattr(kind, name, _of_python(method))
