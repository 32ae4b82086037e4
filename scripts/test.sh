#!/usr/bin/env bash
# Style checks and tests, on a fresh machine too: makes .venv if needed, installs, runs.
#   bash scripts/test.sh [pytest arguments]      -m slow: the long tests, -m gpu: on a GPU
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
install_into_venv requirements.txt requirements-test.txt

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
# One thread per process: some tests start several.  A compiled operator that cannot be built is an
# error here, not a reason to fall back.
export UNIPHD_MS_DEFORM_ATTN="${UNIPHD_MS_DEFORM_ATTN:-compiled}"
OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" "$PYTHON" -m pytest -q --durations=10 -m "not slow" "$@"
