#!/usr/bin/env bash
# Style checks and tests, on a fresh machine too: makes .venv if needed, installs, runs.
#   bash scripts/test.sh [pytest arguments]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install_into_venv requirements.txt requirements-test.txt

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
# One thread per process: some tests start several.
OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" "$PYTHON" -m pytest -q --durations=10 "$@"
