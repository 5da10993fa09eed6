"""benchmarks/run.py with attend alone, on cases of no size: what it writes, and what it refuses. Nothing is timed here.

    run_test.py PROGRAM    PROGRAM is attend_benchmark
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
sys.dont_write_bytecode = True

from benchmarks.harness import measure, report, texts  # noqa: E402
from benchmarks.harness.workers import Refused, Worker  # noqa: E402

PROGRAM = sys.argv.pop(1)


def run(workload, *arguments):
    """Output and rows of a run without peers."""
    with tempfile.TemporaryDirectory() as folder:
        rows, chart = Path(folder) / "rows.json", Path(folder) / "rows.svg"
        command = [sys.executable, "-B", ROOT / "benchmarks/run.py", workload, "--tiny", "--program", PROGRAM,
                   "--environments", folder, "--json", rows, "--chart", chart, *arguments]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return output, json.loads(rows.read_text()), chart.read_text()


class Runs(unittest.TestCase):
    """The whole way, each workload."""

    def check(self, rows):
        for row in rows:
            self.assertEqual(row["status"], "timed", row)  # "wrong" where the error is beyond the workload's tolerance
            self.assertGreater(row["seconds"], 0)
            self.assertGreater(row["gflops"], 0)
            if row["dtype"] == "float32":
                self.assertLess(row["error"], 1e-5)
            self.assertEqual(row["ratio_to"], {})

    def test_attention(self):
        _, rows, chart = run("attention", "--contestants", "attend", "--cases", "d16_l33_bh4_")
        self.check(rows)
        names = {row["case"] for row in rows}
        self.assertLessEqual({"d16_l33_bh4_causal", "d16_l33_bh4_boolean", "d16_l33_bh4_kv2_bias"}, names)
        self.assertEqual({row["dtype"] for row in rows}, {"float32", "bfloat16", "float16"})
        self.assertIn(">attend</text>", chart)

    def test_attention_backward(self):
        self.check(run("attention_backward", "--contestants", "attend")[1])

    def test_calls(self):
        output, rows, _ = run("calls", "--contestants", "attend")
        self.check(rows)
        self.assertIn("us a call", output)

    def test_decode(self):
        _, rows, _ = run("decode", "--contestants", "attend")
        self.check([row for row in rows if row["dtype"] != "int8"])
        self.assertGreater(rows[0]["gb_per_s"], 0)

    def test_matmul(self):
        output, rows, _ = run("matmul", "--contestants", "attend")
        self.check(rows)
        self.assertEqual({row["dtype"] for row in rows}, {"float32", "bfloat16", "int8"})
        for row in rows:  # cold cases are held against memory, the others against arithmetic, in one table
            self.assertEqual("gb_per_s" in row, row["case"].endswith("_cold"))
        self.assertIn(" GB/s ", output)
        self.assertIn(" GFLOP/s ", output)

    def test_linear_attention(self):
        _, rows, _ = run("linear_attention", "--contestants", "attend")
        self.check(rows)
        names = {row["case"] for row in rows}
        self.assertLessEqual({"d16_l70_h2_channel", "d16_l70_h2_delta_backward", "d16_l70_h2_full"}, names)

    def test_translate(self):
        output, rows, chart = run("translate", "--contestants", "attend,fxtranslate")
        ours = [row for row in rows if row["contestant"] == "attend"]
        self.assertEqual({(row["case"], row["dtype"]) for row in ours},
                         {(f"tiny_{way}", dtype) for way in ("cold_start", "first_word", "one_by_one", "file")
                          for dtype in ("float32", "int8")})
        for row in ours:
            self.assertEqual(row["status"], "timed", row)
            self.assertGreater(row["seconds"], 0)
            self.assertGreater(row["peak_mb"], 1)
            self.assertIsNone(row["percent_of_limit"])
            self.assertEqual("words_per_second" in row, row["case"] in ("tiny_one_by_one", "tiny_file"))
        self.assertIn("missing: fxtranslate: ", output)
        self.assertIn(" words/s ", output)
        self.assertIn(">words per second</text>", chart)

    def test_translate_without_models_says_so(self):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-B", ROOT / "benchmarks/run.py", "translate", "--program", PROGRAM,
                       "--environments", folder, "--json", Path(folder) / "rows.json"]
            # A model from a language of which there are no sentences is none.
            (Path(folder) / "xx-yy").mkdir()
            (Path(folder) / "xx-yy/model.xxyy.bin").touch()
            found = subprocess.run(command, check=True, capture_output=True, text=True,
                                   env={**os.environ, "ATTEND_MODELS": folder})
            self.assertIn("missing: translate: expected a model that translates from en or pt", found.stdout)

    def test_a_contestant_that_is_not_installed_is_named(self):
        output, rows, _ = run("attention", "--contestants", "attend,torch", "--cases", "bh4_causal float32")
        self.assertIn("missing: torch: ", output)
        self.assertEqual([row["status"] for row in rows], ["timed", "missing"])
        self.assertIsNone(rows[1]["seconds"])


    def test_attend_from_python_needs_its_extension_and_an_environment(self):
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / "bin/attend_benchmark"
            program.parent.mkdir()
            program.symlink_to(PROGRAM)
            for workload in ("attention", "attention_backward"):
                chosen = (workload, "--contestants", "attend,attend_python", "--cases", "bh4_causal float32", "--program",
                          program)
                output, rows, _ = run(*chosen)
                self.assertIn(f"missing: attend_python: {folder}/python/attend has no extension: run make python", output)
                self.assertEqual([(row["contestant"], row["status"]) for row in rows],
                                 [("attend", "timed"), ("attend_python", "missing")])
                extension = Path(folder) / "python/attend/_core.cpython-311-x86_64-linux-gnu.so"
                extension.parent.mkdir(parents=True, exist_ok=True)
                extension.touch()
                self.assertIn("run benchmarks/setup.sh", run(*chosen)[0])
                extension.unlink()


class Stub:
    """A worker that answers from a table."""

    def __init__(self, **answers):
        self.answers = answers
        self.asked = []

    def ask(self, what, **_):
        self.asked.append(what)
        return self.answers.get(what, {})

    def forget_peak(self):
        self.asked.append("forget_peak")

    def peak_mb(self):
        return 12.5


class Measuring(unittest.TestCase):
    """Who is timed."""

    def results(self, error):
        contestant = Stub(time={"seconds": 0.05})
        machine = Stub(compare={"errors": {"output": error}}, limit={"billions": 100.0})
        team = SimpleNamespace(names=["torch", "attend"], threads=1, machine=machine,
                               missing={"torch": "not there"}, workers={"attend": contestant})
        case = {"inputs": {}, "tolerance": 1e-3, "limits": ["float32"]}
        the_case = measure.Case(case, Path("/nowhere"), Stub(), Stub(), 1)
        options = SimpleNamespace(rounds=1, seconds=1.0, isa=None, limit_bytes=1)
        return *measure.measure(the_case, team, options), contestant

    def test_a_right_output_is_timed(self):
        results, limit, contestant = self.results(1e-4)
        self.assertEqual(results["attend"], {"status": "timed", "error": 1e-4, "seconds": 0.05, "rounds": 1, "peak_mb": 12.5})
        self.assertEqual(contestant.asked[0], "forget_peak")
        self.assertEqual(results["torch"], {"status": "missing", "reason": "not there"})
        self.assertEqual(limit, ("float32", 100.0))

    def test_a_wrong_output_is_not_timed(self):
        for error in (2e-3, None):  # None: not a number somewhere
            results, _, contestant = self.results(error)
            self.assertEqual(results["attend"]["status"], "wrong")
            self.assertNotIn("time", contestant.asked)


class Rows(unittest.TestCase):
    """The arithmetic."""

    def test_ratios_and_shares(self):
        case = {"name": "c", "dtype": "float32", "operations": 50e9}
        results = {"attend": {"status": "timed", "error": 0.0, "seconds": 0.5},
                   "torch": {"status": "timed", "error": 0.0, "seconds": 2.0}}
        rows = report.rows_of("attention", case, 1, results, ("float32", 200.0), {}, None)
        self.assertEqual(rows[0]["ratio_to"], {"torch": 4.0})
        self.assertEqual(rows[1]["ratio_to"], {"attend": 0.25})
        self.assertEqual(rows[0]["gflops"], 100.0)
        self.assertEqual(rows[0]["percent_of_limit"], 50.0)
        self.assertEqual(report.geometric_means(rows),
                         ["attend / torch, float32, 1 thread: 4.00x (geometric mean of 1 case)"])


    def test_equal_parts(self):
        case = {"name": "c", "dtype": "int8", "parts": 4, "words": 10}
        results = {"attend": {"status": "timed", "error": 0.0, "seconds": 2.0}}
        row = report.rows_of("translate", case, 1, results, None, {}, None)[0]
        self.assertEqual((row["seconds"], row["words_per_second"], row["gflops"]), (0.5, 20.0, None))


class Texts(unittest.TestCase):
    """Comparison of texts."""

    def test_the_share_that_differs(self):
        with tempfile.TemporaryDirectory() as folder:
            a, b = f"{folder}/a", f"{folder}/b"
            texts.save(a, ["one", "two", "", "four\u2028"])
            texts.save(b, ["one", "2", "", "four\u2028"])
            self.assertEqual(texts.difference(a, b), 0.25)
            texts.save(b, ["one"])
            with self.assertRaises(Refused):
                texts.difference(a, b)


class Comparing(unittest.TestCase):
    """attend_benchmark's judgement."""

    def test_errors_are_relative_to_rows(self):
        inputs = {"x": {"shape": [3, 5], "dtype": "float32"}}
        worker = Worker("attend", [PROGRAM, "worker", "attention", "attend"], 1, {})
        with tempfile.TemporaryDirectory() as folder:
            a, b = f"{folder}/a", f"{folder}/b"
            worker.ask("inputs", path=a, inputs=inputs, seed=1)
            worker.ask("inputs", path=b, inputs=inputs, seed=1)
            self.assertEqual(worker.ask("compare", output=a, reference=b)["errors"], {"x": 0.0})
            worker.ask("inputs", path=b, inputs=inputs, seed=2)
            self.assertGreater(worker.ask("compare", output=a, reference=b)["errors"]["x"], 0.3)
        worker.close()


class Limits(unittest.TestCase):
    def test_what_takes_longer_binds(self):
        machine = SimpleNamespace(ask=lambda _, name, **__: {"billions": {"memory": 30.0, "float32": 120.0}.get(name)})
        options = SimpleNamespace(isa=None, limit_bytes=1)
        chosen = lambda **case: measure.chosen_limit(case, machine, options)
        # 4 bytes take 0.13 ns; 8 operations take 0.07 ns and 32 take 0.27.
        self.assertEqual(chosen(limits=["float32"], bytes=4, operations=8), "memory")
        self.assertEqual(chosen(limits=["float32"], bytes=4, operations=32), "float32")
        self.assertEqual(chosen(limits=["int8"], bytes=4, operations=32), "memory")
        self.assertEqual(chosen(limits=["int8", "float32"], operations=8), "float32")
        self.assertEqual(chosen(limits=["memory"], bytes=4), "memory")
        self.assertIsNone(chosen(limits=[]))


if __name__ == "__main__":
    unittest.main()
