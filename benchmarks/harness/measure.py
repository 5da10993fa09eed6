"""One case: outputs are compared first, then contestants are timed in turn."""

import math
import statistics
import time

from benchmarks.harness.workers import Refused

# A sample is one call or as many as take this long.
SAMPLE_SECONDS = 0.02
# Between contestants of several threads, which spin for a while when they are done: PyTorch's OpenMP for 8 ms, ONNX
# Runtime for 37. Telling them to sleep at once would slow them down.
SETTLE_SECONDS = 0.06
LEAST_ROUNDS = 3


class Case:
    """A case on disk: inputs, and the reference's outputs. `difference` compares two files of outputs; without it the
    judge does, as tensors."""

    def __init__(self, case, folder, maker, reference, seed, difference=None):
        self.case = case
        self.difference = difference
        self.folder = folder
        self.inputs = str(folder / "inputs.safetensors")
        self.expected = str(folder / "reference")
        maker.ask("inputs", path=self.inputs, inputs=case["inputs"], seed=seed)
        reference.ask("prepare", case=case, inputs=self.inputs, reference=True)
        reference.ask("output", path=self.expected)
        reference.ask("release")

    def verified(self, worker, judge):
        """Prepares a contestant and compares its output: its largest error and whether that is within tolerance."""
        output = str(self.folder / "output")
        worker.ask("prepare", case=self.case, inputs=self.inputs, copies=self.case.get("copies", 1))
        worker.ask("output", path=output)
        if self.difference:
            error = self.difference(output, self.expected)
        else:
            errors = judge.ask("compare", output=output, reference=self.expected)["errors"].values()
            error = math.inf if None in errors else max(errors)
        return error, error <= self.case["tolerance"]


def measure(the_case, team, options):
    """Results by contestant, {"status", "error", "seconds"} or {"status", "reason"}; and the limit that was measured
    beside them, (name, billions a second), or None."""
    results, ready = {}, {}
    settle = SETTLE_SECONDS if team.threads > 1 else 0.0
    for name in team.names:
        if name in team.missing:
            results[name] = {"status": "missing", "reason": team.missing[name]}
            continue
        worker = team.workers[name]
        try:
            worker.forget_peak()
            error, right = the_case.verified(worker, team.machine)
            results[name] = {"status": "timed" if right else "wrong", "error": error}
            if right:
                ready[name] = repeats(worker)
                time.sleep(settle)
            else:
                worker.ask("release")
        except Refused as reason:
            results[name] = {"status": reason.status, "reason": str(reason)}
    limit = chosen_limit(the_case.case, team.machine, options)
    answers = {name: [] for name in ready}
    limits = []
    begin = time.monotonic()
    for turn in range(options.rounds):
        if turn >= LEAST_ROUNDS and time.monotonic() - begin > options.seconds:
            break
        if limit:
            time.sleep(settle)
            limits.append(limit_of(limit, team.machine, options))
        for name, request in ready.items():
            time.sleep(settle)
            answers[name].append(team.workers[name].ask("time", **request))
    for name in ready:
        results[name]["seconds"] = statistics.median(answer["seconds"] for answer in answers[name])
        results[name]["rounds"] = len(answers[name])
        results[name]["peak_mb"] = answers[name][-1].get("peak_mb") or team.workers[name].peak_mb()
        team.workers[name].ask("release")
    return results, (limit, statistics.median(limits)) if limits else None


def repeats(worker):
    """How to ask for a sample. Short calls are warmed up: the contestant before has filled the caches."""
    once = worker.ask("time", repeat=1)["seconds"]
    if once < SAMPLE_SECONDS:
        once = worker.ask("time", repeat=max(1, round(0.25 * SAMPLE_SECONDS / max(once, 1e-7))))["seconds"]
    return {"repeat": max(1, math.ceil(SAMPLE_SECONDS / max(once, 1e-7))), "warm_up": int(once < 0.1)}


def limit_of(name, machine, options):
    """Billions a second, or None where the processor has nothing of that name."""
    return machine.ask("limit", name=name, isa=options.isa or "best", bytes=options.limit_bytes)["billions"]


def chosen_limit(case, machine, options):
    """The first of a case's limits that the processor has, or None. A case that counts both bytes and operations is held
    to reading, where that takes longer."""
    limits = {name: limit_of(name, machine, options) for name in case["limits"]}
    chosen = next((name for name, billions in limits.items() if billions is not None), None)
    if "bytes" in case and "operations" in case and chosen != "memory":
        memory = limit_of("memory", machine, options)
        if memory and (chosen is None or case["bytes"] / memory > case["operations"] / limits[chosen]):
            return "memory"
    return chosen
