#!/usr/bin/env bash
# From a bare Debian 12 machine to all tests passed.
#   packaging/test.sh [--offline] [--quick | --full]
# --quick leaves out tests labelled slow. --full runs the full counts (SWITCHYARD_FULL=1), and then, with the usual
# counts, the engine under ThreadSanitizer (without kills and damaged files: they have no threads to race) and everything
# under Address- and UndefinedBehaviorSanitizer.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
offline= mode=
for argument in "$@"; do
  case $argument in
    --offline) offline=--offline ;;
    --quick | --full) mode=$argument ;;
    *) echo "usage: packaging/test.sh [--offline] [--quick | --full]" >&2; exit 2 ;;
  esac
done

"$root/packaging/setup.sh" $offline
cd "$root"
started=$SECONDS
build() { # PRESET [cmake option …]
  local preset=$1
  shift
  cmake --preset "$preset" "$@" >/dev/null
  cmake --build --preset "$preset"
  echo "built $preset after $((SECONDS - started)) s"
}
check() { # PRESET [ctest option …]
  local preset=$1
  shift
  ctest --test-dir "build/$preset" --output-on-failure --no-tests=error -j 2 "$@"
  echo "tested $preset after $((SECONDS - started)) s"
}

build dev
case $mode in
  --quick) check dev -LE slow ;;
  --full)
    SWITCHYARD_FULL=1 check dev
    build tsan
    check tsan -LE slow
    build asan
    check asan
    ;;
  *) check dev ;;
esac
