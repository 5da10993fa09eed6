"""Rows of results, and how they are printed."""

import json
import math
import os


def rows_of(workload, case, threads, results, limit, versions, isa):
    """A row for each contestant, timed or not. Seconds are those of a part, where a case consists of equal ones."""
    parts = case.get("parts", 1)
    results = {name: {**result, "seconds": result["seconds"] / parts} if "seconds" in result else result
               for name, result in results.items()}
    seconds = {name: result["seconds"] for name, result in results.items() if "seconds" in result}
    rows = []
    for name, result in results.items():
        row = {"workload": workload, "case": case["name"], "dtype": case["dtype"], "threads": threads,
               "contestant": name, "seconds": None, "gflops": None, "percent_of_limit": None, "ratio_to": {}, **result}
        if name in versions:
            row["version"] = versions[name]
        if isa:
            row["isa"] = isa
        if isinstance(row.get("error"), float) and not math.isfinite(row["error"]):
            row["error"] = None  # JSON has no infinity; the status says that it is wrong
        if name in seconds:
            own = seconds[name]
            if "operations" in case:
                row["gflops"] = reached = case["operations"] / own / 1e9
            if "words" in case:
                row["words_per_second"] = case["words"] / own
            if "calls" in case:
                row["us_per_call"] = 1e6 * own / case["calls"]
            if "bytes" in case:
                row["gb_per_s"] = case["bytes"] / own / 1e9
                reached = row["gb_per_s"] if not limit or limit[0] == "memory" else reached
            if limit:
                row["limit"], row["limit_of"] = limit[1], limit[0]
                row["percent_of_limit"] = 100.0 * reached / limit[1]
            row["ratio_to"] = {other: theirs / own for other, theirs in seconds.items() if other != name}
        rows.append(row)
    return rows


def write(path, rows):
    """A JSON array, a row a line, by way of a temporary file: what stands there is whole at any time."""
    temporary = f"{path}.part"
    with open(temporary, "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    os.replace(temporary, path)


class Table:
    """A line a row, printed as they come. Why a contestant does not take part is said once."""

    def __init__(self, names):
        self.names = names
        self.said = set()
        heads = ["case".ljust(28), "dtype".ljust(9), "threads", "contestant ", "  ms".rjust(10),
                 "rate".rjust(15), "% limit", "MB".rjust(6)]
        print(*heads, *[f"/ {name}".rjust(13) for name in names], "error".rjust(8), flush=True)

    def add(self, row):
        """Prints a row."""
        excuse = (row["contestant"], row["status"], row.get("reason"))
        if row["status"] in ("missing", "unsupported"):
            if excuse not in self.said:
                self.said.add(excuse)
                print(f"{row['status']}: {row['contestant']}: {row['reason']}", flush=True)
            return
        cells = [row["case"].ljust(28), row["dtype"].ljust(9), str(row["threads"]).rjust(7),
                 row["contestant"].ljust(11)]
        if row["seconds"] is None:
            cells.append(f"{row['status']}: " + (row["reason"] if "reason" in row else f"its error is {error_of(row)}"))
        else:
            percent = row["percent_of_limit"]
            cells += [f"{row['seconds'] * 1e3:10.3f}", rate_of(row).ljust(15)]
            cells.append("      -" if percent is None else f"{percent:7.1f}")
            cells.append(f"{row['peak_mb']:6.0f}")
            cells += [f"{row['ratio_to'][name]:12.2f}x" if name in row["ratio_to"] else " " * 13 for name in self.names]
            cells.append(error_of(row).rjust(8))
        print(*cells, flush=True)


def rate_of(row):
    """What is done in a second, in the unit that the case is about; of calls, how long one takes."""
    units = (("us_per_call", "us a call"), ("gb_per_s", "GB/s"), ("gflops", "GFLOP/s"), ("words_per_second", "words/s"))
    for name, unit in units:
        if row.get(name) is not None:
            return f"{row[name]:7.1f} {unit}"
    return "      -"


def error_of(row):
    """The largest error relative to its row's scale; of texts, the share that differs."""
    return "infinite" if row["error"] is None else f"{row['error']:.1e}"


def geometric_means(rows):
    """Lines that say how many times as fast the first contestant is as each other, over the cases that both did."""
    ratios = {}
    for row in rows:
        if row["contestant"] != rows[0]["contestant"]:
            continue
        for other, ratio in row["ratio_to"].items():
            key = (row["contestant"], other, row["dtype"], row["threads"])
            ratios.setdefault(key, []).append(ratio)
    lines = []
    for (name, other, dtype, threads), values in ratios.items():
        mean = math.exp(sum(map(math.log, values)) / len(values))
        cases = "1 case" if len(values) == 1 else f"{len(values)} cases"
        threads = "1 thread" if threads == 1 else f"{threads} threads"
        lines.append(f"{name} / {other}, {dtype}, {threads}: {mean:.2f}x (geometric mean of {cases})")
    return lines
