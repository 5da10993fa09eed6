"""`python -m attend` is the attend command."""
import signal
import sys

from ._core import _run_command


def main():
    # As for the command: Ctrl-C ends it, and so does a reader that has enough.
    for name in ("SIGINT", "SIGPIPE"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    sys.exit(_run_command(["attend", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
