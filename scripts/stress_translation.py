#!/usr/bin/env python3
"""A day of traffic in miniature: many lines of all kinds through `attend translate`.

    make build models
    python3 scripts/stress_translation.py [--lines 200000] [--threads 2] [--seed 7]

Lines are drawn from benchmarks/translate's sentences: empty ones, ordinary ones, some of 5,000 words, with odd Unicode
among the words and bytes that are no UTF-8 here and there. What is checked:

- the command ends with status 0, and there is a line out for each line in;
- resident memory is flat after the beginning: the second half of the time needs no more than the first, give or take;
- a sample of lines has the same bytes when it is translated line by line (--stream) with one thread.

Ends with status 1, and a line for each failure, where one of them does not hold.
"""
import argparse
import pathlib
import random
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Joiners, combining marks, right-to-left text, emoji with modifiers, controls, spaces of other kinds, separators of
# lines and paragraphs, markup, unassigned and private code points, the last one of all.
ODD = [text.encode() for text in (
    "\u200d", "e\u0301", "\u0301", "你好", "日本語の文。", "שלום", "مرحبا", "😀", "👩‍👩‍👧‍👦", "👍🏽", "\t", "\r", "\x07", "\x00", "\u00a0",
    "\u2028", "\u2029", "\u0085", "\ufeff", "ﬁ", "Ω", "Ａ", "½", "\"", "—", "…", "<b>", "&amp;", "{}", "\\n", "⁇", "▁", "</s>",
    "<unk>", "http://example.org/?a=b&c=d", "1.234,56", "U.S.", "Dr.", "a" * 300, "漢" * 100, "!" * 50, "\ue000", "\ufffd",
    "\U0010fffd", "\uffff")]
# A lone continuation, a sequence that is cut off, one that is longer than need be, a surrogate, beyond the last.
NOT_UTF8 = [b"\x80", b"\xe2\x82", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff\xfe"]

# Megabytes by which memory may grow in the second half: allocators keep some of what long lines needed.
SLACK_MB = 8.0
SLACK = 0.05


def lines_of(count, seed):
    """The same lines for a seed."""
    draw = random.Random(seed)
    words = (ROOT / "benchmarks/translate/sentences.en.txt").read_bytes().split()
    for _ in range(count):
        kind = draw.random()
        length = (0 if kind < 0.05 else draw.randint(1, 30) if kind < 0.97 else draw.randint(30, 300) if kind < 0.9995
                  else draw.randint(1000, 5000))
        line = []
        for _ in range(length):
            odd = draw.random()
            line.append(draw.choice(NOT_UTF8) if odd < 0.0002 else draw.choice(ODD) if odd < 0.02 else draw.choice(words))
        yield b" ".join(line)


def resident_mb(pid):
    """Resident memory of a process, or None when it has ended."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS")), None)


def watched(command, log):
    """Runs a command. @return its status, seconds, and samples of its resident memory at equal distances"""
    begin, samples = time.monotonic(), []
    with open(log, "wb") as errors, subprocess.Popen(command, stderr=errors) as process:
        while process.poll() is None:
            megabytes = resident_mb(process.pid)
            if megabytes is not None:
                samples.append(megabytes)
            time.sleep(0.1)
    return process.returncode, time.monotonic() - begin, samples


def main():
    parser = argparse.ArgumentParser(description="translates many lines of all kinds and checks what comes of it")
    parser.add_argument("--lines", type=int, default=200000, help="200000 unless given")
    parser.add_argument("--sample", type=int, default=2000, help="lines that are translated again; 2000 unless given")
    parser.add_argument("--threads", type=int, default=2, help="2 unless given")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--attend", default=str(ROOT / "build/release/bin/attend"), help="the command")
    parser.add_argument("--model", default=str(ROOT / "models/en-pt"))
    options = parser.parse_args()
    failures = []
    with tempfile.TemporaryDirectory(prefix="attend-stress-") as name:
        folder = pathlib.Path(name)
        lines = list(lines_of(options.lines, options.seed))
        words = sum(len(line.split()) for line in lines)
        (folder / "in").write_bytes(b"".join(line + b"\n" for line in lines))
        size = (folder / "in").stat().st_size
        print(f"{len(lines)} lines, {words} words, {size / 2**20:.1f} MB, seed {options.seed}", flush=True)
        translate = [options.attend, "translate", "--model", options.model]
        status, seconds, samples = watched(
            [*translate, "--threads", str(options.threads), "--input", folder / "in", "--output", folder / "out"],
            folder / "log")
        print(f"{options.threads} threads: {seconds:.1f} s, {words / seconds:.0f} words/s")
        if status != 0:
            last = (folder / "log").read_bytes().decode(errors="replace").splitlines()[-1:]
            sys.exit(f"stress_translation.py: error: expected status 0, found {status}: {' '.join(last)}")
        parts = [samples[len(samples) * part // 10:len(samples) * (part + 1) // 10] for part in range(10)]
        print("resident MB, most in each tenth of the time:", *(f"{max(part):.0f}" for part in parts if part))
        first, second = (max(half, default=0.0) for half in (samples[:len(samples) // 2], samples[len(samples) // 2:]))
        if second > first * (1 + SLACK) + SLACK_MB:
            failures.append(f"expected at most {first:.0f} MB, as in the first half of the time, found {second:.0f}")
        found = (folder / "out").read_bytes().split(b"\n")
        if found.pop() != b"" or len(found) != len(lines):
            failures.append(f"expected {len(lines)} lines, found {len(found)}")
        else:
            chosen = sorted(random.Random(options.seed + 1).sample(range(len(lines)), min(options.sample, len(lines))))
            again = subprocess.run([*translate, "--threads", "1", "--stream"], capture_output=True, check=True,
                                   input=b"".join(lines[i] + b"\n" for i in chosen)).stdout.split(b"\n")[:-1]
            different = [i for i, line in zip(chosen, again) if line != found[i]]
            print(f"{len(chosen)} lines again, one by one with 1 thread: {len(chosen) - len(different)} the same")
            if len(again) != len(chosen) or different:
                failures.append(f"expected the same bytes, found others in line {[i + 1 for i in different][:5]}")
    for failure in failures:
        print(f"FAIL: {failure}")
    if failures:
        return 1
    print("pass")
    return 0


if __name__ == "__main__":
    sys.exit(main())
