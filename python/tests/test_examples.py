"""The examples run as they stand."""
import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

import attend

FOLDER = pathlib.Path(__file__).parents[2] / "examples" / "python"


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.py")))
def test_example(name, tmp_path):
    text = (FOLDER / name).read_text()
    assert len(text.splitlines()) < 60
    for needed in ("torch", "transformers"):
        if f"import {needed}" in text or f"from {needed} " in text:
            if importlib.util.find_spec(needed) is None:
                pytest.skip(f"needs {needed}")
    packages = str(pathlib.Path(attend.__file__).parents[1])
    found = subprocess.run([sys.executable, str(FOLDER / name)], cwd=tmp_path, capture_output=True, text=True, check=False,
                           env={**os.environ, "PYTHONPATH": packages, "PYTHONWARNINGS": "error::RuntimeWarning"})
    assert found.returncode == 0, found.stderr
    assert "False" not in found.stdout and found.stdout
