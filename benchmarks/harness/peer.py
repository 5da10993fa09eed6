"""The worker of a contestant in Python: one JSON object a line in, one out (README.md has the protocol).

    peer.py WORKLOAD CONTESTANT THREADS

A contestant is benchmarks/WORKLOAD/CONTESTANT.py: `version()`, and `prepare(case, inputs)`, which returns a function
without arguments: what is timed. It returns tensors by name, or what the contestant's `outputs(result)` makes them of.
Where the workload's FILES are not tensors, it returns what harness/FILES.py saves.
"""

import gc
import importlib
import json
import os
import sys
import time

sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Worker:
    """Cases in memory, one at a time."""

    def __init__(self, contestant, files):
        self.contestant = contestant
        self.files = files
        self.calls = []
        self.turn = 0
        self.kept = None

    def next(self):
        """Copies take turns; a result is kept until the next call, as a program would that goes on to use it."""
        self.turn = (self.turn + 1) % len(self.calls)
        self.kept = self.calls[self.turn]()

    def prepare(self, request):
        self.release(request)
        for _ in range(request.get("copies", 1)):
            self.calls.append(self.contestant.prepare(request["case"], self.files.load(request["inputs"])))

    def output(self, request):
        self.next()
        as_named = getattr(self.contestant, "outputs", lambda result: result)
        self.files.save(request["path"], as_named(self.kept))

    def time(self, request):
        for _ in range(request.get("warm_up", 0)):
            self.next()
        repeat = request["repeat"]
        begin = time.perf_counter()
        for _ in range(repeat):
            self.next()
        answer = {"seconds": (time.perf_counter() - begin) / repeat}
        if hasattr(self.calls[0], "peak_mb"):  # of a process that the call starts
            answer["peak_mb"] = self.calls[0].peak_mb
        return answer

    def release(self, _):
        self.calls, self.turn, self.kept = [], 0, None
        gc.collect()


def main(workload, name, threads):
    # Libraries print what they like: to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value):
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    try:
        cases = importlib.import_module(f"benchmarks.{workload}.workload")
        files = importlib.import_module(f"benchmarks.harness.{getattr(cases, 'FILES', 'tensors')}")
        contestant = importlib.import_module(f"benchmarks.{workload}.{name}")
    except (ImportError, OSError) as error:
        answer({"missing": str(error).splitlines()[0]})
        return
    files.set_num_threads(threads)
    worker = Worker(contestant, files)
    gc.disable()  # no collection while something is timed
    answer({"version": contestant.version()})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer(getattr(worker, request["do"])(request) or {})
        except files.Unsupported as error:
            answer({"unsupported": str(error)})
        except Exception as error:  # whatever a library throws is this contestant's result
            answer({"failed": f"{type(error).__name__}: {error}".splitlines()[0]})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
