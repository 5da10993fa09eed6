"""What Python contestants share: tensors from and to files, and the word for "I do not do that"."""

import json
import struct

import torch

DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "BOOL": torch.bool}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Unsupported(Exception):
    """A contestant does not do what a case asks for."""


def set_num_threads(count):
    """Threads of PyTorch, for contestants that compute with it."""
    torch.set_num_threads(count)


def load(path):
    """The tensors of a safetensors file, each in memory of its own."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        begin = 8 + length
        tensors = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            first, last = entry["data_offsets"]
            file.seek(begin + first)
            tensor = torch.empty(entry["shape"], dtype=DTYPES[entry["dtype"]])
            file.readinto(tensor.view(-1).view(torch.uint8).numpy())
            assert tensor.numel() * tensor.element_size() == last - first
            tensors[name] = tensor
        return tensors


def save(path, tensors):
    """Writes a safetensors file."""
    header, offset, parts = {}, 0, []
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [offset, offset + size]}
        parts.append(tensor)
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in parts:
            file.write(tensor.view(-1).view(torch.uint8).numpy())
