"""Imported by the programs of this folder before anything of the project.

`python tools/x.py` then works from any folder: Python itself looks beside the program only.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
