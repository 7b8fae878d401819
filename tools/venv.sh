#!/usr/bin/env bash
# Create the virtual environment: tools/venv.sh PYTHON FOLDER
set -euo pipefail
python=$1
folder=$2

if ! command -v "$python" >/dev/null; then
  echo "error: '$python' was not found. Install Python 3.11 or newer, or name it: make PYTHON=python3.12" >&2
  exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  echo "error: iogate needs Python 3.11 or newer, and '$python' is $("$python" --version 2>&1)." >&2
  echo "       Name a newer one: make PYTHON=python3.12" >&2
  exit 1
fi
# Debian has this part of the standard library in a separate package.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  "$(dirname "$0")/system-package.sh" "the venv module of Python $version" "python$version-venv"
fi

echo "==> making $folder with $("$python" --version)"
"$python" -m venv --clear "$folder"
