# Sourced by the other scripts; works from any folder and goes to the repository's root.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The environment of this repository where there is one, else the python that is active.
PYTHON="$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)"

# install_into_venv FILE...: makes .venv if needed and installs requirement files into it.
# Costs nothing when they have not changed since the last time.
install_into_venv() {
    local python="${PYTHON_FOR_VENV:-python3}" stamp=.venv/installed-requirements
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
            echo "error: Python 3.10 or newer is needed; '$python' is older or missing." >&2
            echo "Name another one: PYTHON_FOR_VENV=python3.12 bash $0" >&2
            return 1
        fi
        echo "Making .venv with $("$python" --version)"
        if ! "$python" -m venv .venv; then
            echo "error: python -m venv failed (on Debian and Ubuntu: apt install python3-venv)." >&2
            return 1
        fi
    fi
    PYTHON=.venv/bin/python
    local wanted
    wanted="$("$PYTHON" --version; cat "$@")"
    if [ "$wanted" != "$(cat "$stamp" 2>/dev/null)" ]; then
        echo "Installing $* into .venv"
        local arguments=() file
        for file in "$@"; do arguments+=(-r "$file"); done
        "$PYTHON" -m pip install --quiet "${arguments[@]}"
        echo "$wanted" >"$stamp"
    fi
}
