#!/usr/bin/env bash
# From a bare Debian 12 machine to the running workbench with the demo checkpoint open.
#   packaging/run.sh [--offline] [arguments of switchyard-gui; default: demo]
# With no display the same window program runs under Xvfb, generates 64 tokens of the demo, and leaves a
# screenshot and a trace in ${SWITCHYARD_OUT:-build/run}; their paths are printed.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
offline=
if [ "${1:-}" = --offline ]; then offline=--offline; shift; fi

"$root/packaging/setup.sh" $offline
cd "$root"
log=$(mktemp)
{ cmake --preset release && cmake --build --preset release --target switchyard switchyard-gui switchyard_reference; } >"$log" 2>&1 ||
  { cat "$log" >&2; echo "the build failed; its output is above" >&2; exit 1; }
rm -f "$log"

bin=$root/build/release/bin
if [ -n "${DISPLAY:-}${WAYLAND_DISPLAY:-}" ]; then
  exec "$bin/switchyard-gui" "${@:-demo}"
fi
out=${SWITCHYARD_OUT:-$root/build/run}
mkdir -p "$out"
rm -f "$out/switchyard.png" "$out/demo.moetrace.h5" "$out/demo.moetrace.h5.part"
"$root/tests/support/with_display.sh" "$bin/switchyard-gui" demo --screenshot "$out/switchyard.png" \
  --after-tokens 64 --trace "$out/demo.moetrace.h5"
echo "no display here: the window ran under Xvfb and generated 64 tokens of the demo"
echo "screenshot: $out/switchyard.png"
echo "trace:      $out/demo.moetrace.h5"
