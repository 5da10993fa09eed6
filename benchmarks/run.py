#!/usr/bin/env python3
"""Times attend and its peers side by side: benchmarks/README.md says how.

    python3 benchmarks/run.py attention --threads 1,2 --json attention.json --chart attention.svg
"""

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not benchmarks/: its folders must not stand in the way of packages

from benchmarks.harness import report  # noqa: E402
from benchmarks.harness.measure import Case, measure  # noqa: E402
from benchmarks.harness.workers import Refused, Team, contestants_of, start  # noqa: E402

WORKLOADS = sorted(path.parent.name for path in (ROOT / "benchmarks").glob("*/workload.py"))


def parsed(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("--threads", default="1", metavar="N,...", help="numbers of threads, 1 unless given")
    parser.add_argument("--contestants", metavar="NAME,...", help="only these")
    parser.add_argument("--cases", default="", metavar="SUBSTRING", help="only cases whose name, or dtype, contains it")
    parser.add_argument("--quick", dest="size", action="store_const", const="quick", default="full", help="a few cases")
    parser.add_argument("--tiny", dest="size", action="store_const", const="tiny",
                        help="cases of no size: shows that everything runs, measures nothing")
    parser.add_argument("--json", metavar="FILE", help="write the rows")
    parser.add_argument("--chart", metavar="FILE.svg", help="draw the rows")
    parser.add_argument("--isa", choices=("avx2",), help="hold all contestants to these instructions")
    parser.add_argument("--rounds", type=int, metavar="N", help="turns of each contestant, at most")
    parser.add_argument("--seconds", type=float, default=30.0, metavar="S",
                        help="after 3 rounds, no more begin in a case that has taken this long")
    parser.add_argument("--seed", type=int, help="of the inputs; a new one each time unless given")
    parser.add_argument("--program", default=str(ROOT / "build/release/bin/attend_benchmark"), metavar="FILE",
                        help="attend_benchmark, build/release/bin's unless given")
    parser.add_argument("--environments", default=str(ROOT / "build/benchmark"), metavar="FOLDER",
                        help="where setup.sh made the peers' virtual environments")
    options = parser.parse_args(arguments)
    names = contestants_of(options.workload)
    wanted = options.contestants.split(",") if options.contestants else names
    for name in wanted:
        if name not in names:
            parser.error(f"expected contestants among {', '.join(names)}, found '{name}'")
    options.contestants = [name for name in names if name in wanted]
    try:
        options.threads = [int(count) for count in options.threads.split(",")]
        if min(options.threads) < 1:
            raise ValueError
    except ValueError:
        parser.error(f"expected numbers of threads, found '{options.threads}'")
    options.rounds = options.rounds or {"full": 9, "quick": 5, "tiny": 2}[options.size]
    options.limit_bytes = (1 << 20) if options.size == "tiny" else (256 << 20)
    if options.seed is None:
        options.seed = int.from_bytes(os.urandom(6), "little")
    return options


def reference_of(options, machine, workload):
    """The workload's reference.py (PyTorch in float64) where that is installed, otherwise attend's own: its scalar
    oracle in double, or what the workload's attend.cc takes for it."""
    try:
        any_isa = argparse.Namespace(**{**vars(options), "isa": None})
        return start("reference", options.workload, machine.threads, any_isa, getattr(workload, "REFERENCE", None))
    except Refused:
        return machine


def run(options, cases, folder, teams, reference, workload):
    """The rows of all cases, printed and written as they come."""
    machine = teams[-1].machine
    print(f"inputs of seed {options.seed}; compared with {reference.version}", file=sys.stderr)
    files = getattr(workload, "FILES", None)
    difference = importlib.import_module(f"benchmarks.harness.{files}").difference if files else None
    table = report.Table(options.contestants)
    rows = []
    for number, case in enumerate(cases):
        print(f"[{number + 1}/{len(cases)}] {case['name']} {case['dtype']}", file=sys.stderr)
        the_case = Case(case, folder, machine, reference, options.seed + 16 * number, difference)
        for team in teams:
            if getattr(workload, "RENEW", False):
                team.renew()
            results, limit = measure(the_case, team, options)
            versions = {name: worker.version for name, worker in team.workers.items()}
            for row in report.rows_of(options.workload, case, team.threads, results, limit, versions, options.isa):
                table.add(row)
                rows.append(row)
        if options.json:
            report.write(options.json, rows)
    print(*report.geometric_means(rows), sep="\n")
    return rows


def main(arguments):
    options = parsed(arguments)
    workload = importlib.import_module(f"benchmarks.{options.workload}.workload")
    try:
        cases = workload.cases(options.size)
    except FileNotFoundError as reason:  # what a workload is made of, not a contestant: there is nothing to time
        print(f"missing: {options.workload}: {reason}")
        return
    cases = [case for case in cases if options.cases in f"{case['name']} {case['dtype']}"]
    if not cases:
        raise SystemExit(f"run.py: error: expected a case that contains '{options.cases}', found none")
    teams, reference = [], None
    with tempfile.TemporaryDirectory(prefix="attend-benchmark-") as name:
        try:
            for threads in sorted(set(options.threads)):
                teams.append(Team(options.contestants, options.workload, threads, options))
            reference = reference_of(options, teams[-1].machine, workload)
            rows = run(options, cases, Path(name), teams, reference, workload)
        except Refused as reason:
            raise SystemExit(f"run.py: error: {reason}") from reason
        finally:
            for process in (*teams, reference):
                if process and process is not teams[-1].machine:
                    process.close()
        if options.chart:
            path = options.json or str(Path(name) / "rows.json")
            report.write(path, rows)
            if subprocess.run([options.program, "chart", path, options.chart]).returncode != 0:
                raise SystemExit("run.py: error: expected a chart, found the errors above")


if __name__ == "__main__":
    main(sys.argv[1:])
