#!/usr/bin/env bash
# check_device.sh SOURCE: compiles the routing stages as device code; 77 (skipped) where there is no CUDA compiler.
set -euo pipefail
command -v nvcc >/dev/null || { echo "skipped: no nvcc on this machine" >&2; exit 77; }
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
nvcc -std=c++20 --expt-relaxed-constexpr -arch=sm_80 -Werror all-warnings -I"$1" -c "$1/tests/routing/stages_on_device.cu" -o "$out/stages.o"
