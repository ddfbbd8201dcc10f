# Sourced by scripts/demo, scripts/test and .ci/run: find Python and keep a virtual environment up to date.
#
#   VENV    folder of the environment (default: .venv in the checkout)
#   PYTHON  interpreter to create it with (default: the first of python3.12, python3, … that is 3.12 or newer)

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${VENV:-$ROOT/.venv}
case $VENV in /*) ;; *) VENV=$PWD/$VENV ;; esac # the callers change the working folder

say() { printf '== %s\n' "$*" >&2; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# executable_of INTERPRETER: print its real path if it is new enough, else fail.
executable_of() {
    "$1" -c 'import sys; sys.version_info < (3, 12) and sys.exit(1); print(sys.executable)' 2>/dev/null
}

# Print the interpreter to use.
find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        executable_of "$PYTHON" || fail "PYTHON=$PYTHON is not Python 3.12 or newer; set another interpreter or unset it."
        return
    fi
    cd "$ROOT" # version managers read .python-version from the working folder
    for candidate in python3.12 python3 python3.13 python3.14 python; do
        if executable_of "$candidate"; then
            return
        fi
    done
    fail 'Python 3.12 or newer is required (tried python3.12, python3, python3.13, python3.14, python);' \
        'install it or set PYTHON to its path.'
}

# fingerprint INTERPRETER [WORD …]: print a hash of pyproject.toml, the Python version and the words.
fingerprint() {
    local python=$1
    shift
    "$python" - "$ROOT/pyproject.toml" "$@" <<'PY'
import hashlib, pathlib, sys
parts = [pathlib.Path(sys.argv[1]).read_bytes(), sys.version.encode(), *(word.encode() for word in sys.argv[2:])]
print(hashlib.sha256(b'\0'.join(parts)).hexdigest()[:16])
PY
}

make_environment() {
    local python
    if executable_of "$VENV/bin/python" >/dev/null && "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
        return
    fi
    # Clear only an environment or an empty folder: VENV may point anywhere.
    if [ -e "$VENV" ] && [ ! -e "$VENV/pyvenv.cfg" ] && [ -n "$(ls -A "$VENV")" ]; then
        fail "VENV=$VENV exists and is not a virtual environment; remove it or set VENV to another folder."
    fi
    python=$(find_python)
    say "creating $VENV with $python"
    "$python" -m venv --clear "$VENV" ||
        fail "$python cannot create $VENV; on Debian and Ubuntu install its venv package (python3.12-venv) first."
}

# install_package EXTRAS: '' or 'tests'. A stamp is written last, so that an installation is repeated if it was
# interrupted, or belongs to another pyproject.toml or another checkout.
install_package() {
    local extras=$1 stamp="$VENV/.torchgeo_msssl${1:+-$1}" wanted
    wanted=$(fingerprint "$VENV/bin/python" "$ROOT")
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    say "installing the package${extras:+ with the extra $extras} into $VENV (minutes the first time)"
    rm -f "$stamp"
    "$VENV/bin/python" -m pip install --disable-pip-version-check --editable "$ROOT${extras:+[$extras]}" >&2 ||
        fail 'the installation failed, see above; fix the cause and run the same command again.'
    printf '%s\n' "$wanted" >"$VENV/.torchgeo_msssl"
    printf '%s\n' "$wanted" >"$stamp"
}

# set_up [EXTRAS]: install the package for $VENV/bin/python. Simultaneous calls wait for each other if flock exists.
set_up() {
    mkdir -p "$(dirname "$VENV")"
    (
        if command -v flock >/dev/null; then
            exec 9>"${VENV%/}.lock"
            flock 9
        fi
        make_environment
        install_package "${1:-}"
    )
}
