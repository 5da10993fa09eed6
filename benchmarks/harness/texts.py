"""What contestants share whose outputs are texts: one a line, and no tensors."""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.harness.workers import Refused


class Unsupported(Exception):
    """A contestant does not do what a case asks for."""


def set_num_threads(_):
    """Those who have threads take as many as processors that they may run on."""


def load(_):
    """There are no inputs beside the case."""
    return {}


def save(path, texts):
    """Writes a text a line."""
    with open(path, "w") as file:
        file.writelines(text.replace("\n", " ") + "\n" for text in texts)


def difference(path, reference):
    """The share of lines that differ."""
    found, expected = (Path(name).read_bytes().split(b"\n")[:-1] for name in (path, reference))
    if len(found) != len(expected):
        raise Refused("failed", f"expected {len(expected)} texts, found {len(found)}")
    return sum(a != b for a, b in zip(found, expected)) / max(1, len(expected))


class NewProcess:
    """A function that runs a Python program in a new process and returns the lines that it prints. `peak_mb`: the most
    memory that one has had."""

    def __init__(self, program, *arguments):
        self.command = [sys.executable, "-I", "-c", program, *map(str, arguments)]
        self.peak_mb = 0.0

    def __call__(self):
        with subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True) as process:
            output = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise RuntimeError(f"the new process ended with status {process.returncode}")
        self.peak_mb = max(self.peak_mb, usage.ru_maxrss / 1024)
        return output.splitlines()
