#!/usr/bin/env bash
# Runs a command under a fresh Xvfb with a window manager (bare Xvfb never activates a window).
#   tests/support/with_display.sh COMMAND [ARG …]
set -u
exec xvfb-run -a -s "-screen 0 ${SWITCHYARD_SCREEN:-1600x900x24} -nolisten tcp" bash -c '
  openbox >/dev/null 2>&1 &
  manager=$!
  for _ in $(seq 50); do xprop -root _NET_SUPPORTING_WM_CHECK 2>/dev/null | grep -q "window id" && break; sleep 0.1; done
  "$@"; code=$?
  kill $manager 2>/dev/null
  exit $code' _ "$@"
