"""`python -m attend` is the command."""
import array
import fcntl
import signal
import subprocess
import sys
import termios
import time

import attend


def run(*arguments, **options):
    return subprocess.run([sys.executable, "-m", "attend", *arguments], capture_output=True, text=True, check=False, **options)


def test_output_and_status(tmp_path):
    found = run("explain")
    assert (found.returncode, found.stdout, found.stderr) == (0, str(attend.explain()), "")
    assert run("--version").stdout == f"attend {attend.__version__}\n"
    assert run("explain", "Nobody").returncode == 1
    wrong = run("draw")
    assert wrong.returncode == 2 and wrong.stderr.startswith("attend: error: expected a command of")
    assert run("explain", "--heatmap", str(tmp_path / "a.svg")).returncode == 0
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")


def test_interrupt_ends_it():
    process = subprocess.Popen([sys.executable, "-m", "attend", "explain", "--dictionary", "-"], stdin=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    process.stdin.write(b"{")
    process.stdin.flush()
    unread = array.array("i", [1])
    while unread[0] > 0:  # the command waits for more when it has read that
        time.sleep(0.01)
        fcntl.ioctl(process.stdin, termios.FIONREAD, unread)
    process.send_signal(signal.SIGINT)
    assert process.wait() == -signal.SIGINT
    process.stdin.close()
    assert process.stderr.read() == b""
    process.stderr.close()
