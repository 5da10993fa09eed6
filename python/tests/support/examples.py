"""Docstrings as tests."""
import doctest
import inspect


def documented(module):
    """The public functions and classes of a module, with the methods that have an example."""
    for name in module.__all__:
        value = getattr(module, name)
        if not callable(value):
            continue
        yield name, value
        if inspect.isclass(value):
            for method, member in vars(value).items():
                if not method.startswith("_") and ">>>" in (inspect.getdoc(member) or ""):
                    yield f"{name}.{method}", member


def run_examples(value, name):
    """How many examples a docstring has; all of them give what they say."""
    test = doctest.DocTestParser().get_doctest(inspect.getdoc(value) or "", {}, name, None, 0)
    found = []
    doctest.DocTestRunner(verbose=False).run(test, out=found.append)
    assert not found, "".join(found)
    return len(test.examples)
