#!/usr/bin/env bash
# Ensure that a package of the machine's package system is installed.
#   tools/system-package.sh WHAT PACKAGE [COMMAND...]
# If one of the commands exists, there is nothing to do. Otherwise (and always without a COMMAND) install the package,
# as root on Debian and its derivatives; elsewhere, print what to do and fail.
set -euo pipefail
what=$1
package=$2
shift 2

found() {
  [ $# -eq 0 ] && return
  for command in "$@"; do
    if command -v "$command" >/dev/null; then return; fi
  done
  return 1
}

if [ $# -gt 0 ] && found "$@"; then exit 0; fi

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
  echo "==> installing $package: $what"
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  export DEBIAN_FRONTEND=noninteractive
  if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$package"; } >"$log" 2>&1 </dev/null; then
    cat "$log" >&2
    echo "error: $package could not be installed; see above." >&2
    exit 1
  fi
  if ! found "$@"; then
    echo "error: $package is installed, but none of these is on the PATH: $*" >&2
    exit 1
  fi
  exit 0
fi

{
  echo "error: this machine lacks $what."
  echo "       Install the package '$package' and try again. On Debian or Ubuntu:"
  echo "           sudo apt-get install $package"
} >&2
exit 1
