"""What tests share lies in support; adapters for other people's suites in suites."""
import pathlib
import sys

FOLDER = pathlib.Path(__file__).parent
sys.path[:0] = [str(FOLDER / "support"), str(FOLDER.parent / "suites")]
