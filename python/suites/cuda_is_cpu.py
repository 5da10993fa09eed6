"""A plugin of pytest for suites that ask for a GPU: within them device "cuda" is the CPU."""
import pytest
import torch
from torch.overrides import TorchFunctionMode


def _on_cpu(device):
    return torch.device("cpu") if torch.device(device).type == "cuda" else device


class CudaIsCpu(TorchFunctionMode):
    """Whatever PyTorch is asked to put on a GPU stays on the CPU."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if kwargs.get("device") is not None:
            kwargs["device"] = _on_cpu(kwargs["device"])
        if func is torch.Tensor.cuda:
            return args[0]
        if func is torch.Tensor.to:
            args = tuple(_on_cpu(x) if isinstance(x, (str, torch.device)) else x for x in args)
        return func(*args, **kwargs)


class _Properties:
    name, major, minor, total_memory, multi_processor_count = "the CPU", 9, 0, 64 << 30, 1


def pytest_configure(config):
    torch.cuda.is_available = lambda: True
    torch.cuda.get_device_capability = lambda *_: (9, 0)
    torch.cuda.get_device_properties = lambda *_: _Properties
    torch.cuda.synchronize = torch.cuda.empty_cache = lambda *_: None


@pytest.fixture(autouse=True)
def cuda_is_cpu():
    with CudaIsCpu():
        yield
