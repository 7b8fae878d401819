#!/usr/bin/env bash
# Run the tests with the oldest and with the newest versions of all run-time dependencies that pyproject.toml allows.
#   tools/test-versions.sh [ARGUMENT OF PYTEST...]
# Run it with `make test-versions`. The test tools have their locked versions, where these are compatible.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$PWD/.venv/bin/uv
export UV_NO_CONFIG=1 UV_NO_PROGRESS=1
tests=(
  tests/protocol tests/auth tests/keys tests/revocation tests/server tests/gate tests/conformance tests/http tests/cli
  tests/client tests/testing tests/e2e/test_asgi_servers.py
)

failed=
for which in oldest newest; do
  folder=.venv/$which
  python=$folder/bin/python
  resolution=highest
  warnings=()
  if [ $which = oldest ]; then
    resolution=lowest-direct
    # Old releases use APIs that Python or other packages have deprecated since. `make test` checks iogate's own code.
    warnings=(-W default::DeprecationWarning -W default::PendingDeprecationWarning)
  fi
  echo "==> installing the $which versions of the run-time dependencies"
  "$uv" venv --quiet --clear --python .venv/bin/python $folder
  "$uv" pip compile --quiet --python $python --resolution $resolution --all-extras --no-annotate --no-header \
    --output-file $folder/run-time.txt pyproject.toml
  # uv keeps the versions that the output file has, as far as the constraints allow.
  cp requirements.txt $folder/all.txt
  "$uv" pip compile --quiet --python $python --all-extras --group build --group dev --generate-hashes \
    --constraint $folder/run-time.txt --output-file $folder/all.txt pyproject.toml
  "$uv" pip sync --quiet --python $python --require-hashes $folder/all.txt
  "$uv" pip install --quiet --python $python --no-deps --no-build-isolation --editable .
  cat $folder/run-time.txt
  echo "==> testing with the $which versions"
  $python -m pytest "${warnings[@]}" "${tests[@]}" "$@" || failed="$failed $which"
done
if [ -n "$failed" ]; then
  echo "error: the tests fail with these versions of the run-time dependencies:$failed" >&2
  exit 1
fi
