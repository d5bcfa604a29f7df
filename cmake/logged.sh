#!/bin/sh
# logged.sh LOG COMMAND …: runs the command and keeps what it says in LOG; where it fails, shows it.
log=$1
shift
"$@" >"$log" 2>&1 || { status=$?; cat "$log" >&2; exit $status; }
