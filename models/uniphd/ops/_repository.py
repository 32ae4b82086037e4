"""Imported by the programs of this folder before anything of the project; as tools/_repository.py.

`pip install ./models/uniphd/ops` and the kernels need none of it.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
