"""Imported by the programs of this folder before anything of the project.

`python tools/x.py` then works from any folder: Python itself looks beside the program only.
"""

import sys
from pathlib import Path
from types import TracebackType


def _tell(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """What Python prints of an error that nobody caught; Ctrl-C, also while it imports, is none."""
    if issubclass(kind, KeyboardInterrupt):
        print("Interrupted.", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _tell
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
