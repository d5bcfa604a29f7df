#!/usr/bin/env bash
# Brings a Debian 12 machine to where Switchyard builds: Debian packages, LibTorch (CPU part), Dear ImGui
# and ImPlot. Safe to run twice, quiet when nothing is to be done, every download checked by SHA-256.
#   packaging/setup.sh [--offline]
# Downloads and unpacked dependencies live in ${SWITCHYARD_CACHE:-${XDG_CACHE_HOME:-~/.cache}/switchyard}.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
offline=${1:-}
cache=${SWITCHYARD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/switchyard}

mapfile -t wanted < <(sed 's/#.*//' "$here/packages.debian" | tr -s ' \t' '\n' | sed '/^$/d')
missing=()
for package in "${wanted[@]}"; do
  dpkg-query -W -f='${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  line="apt-get install --no-install-recommends ${missing[*]}"
  if [ "$offline" = --offline ]; then
    echo "offline: these Debian packages are missing; as root, with a network: $line" >&2
    exit 3
  fi
  if [ "$(id -u)" = 0 ]; then as_root=(); elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as_root=(sudo); else
    echo "These Debian packages are missing. As root: $line" >&2
    exit 3
  fi
  echo "installing ${#missing[@]} Debian packages" >&2
  log=$(mktemp)
  export DEBIAN_FRONTEND=noninteractive
  { "${as_root[@]}" apt-get update && "${as_root[@]}" apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 ||
    { cat "$log" >&2; echo "apt-get failed; its output is above" >&2; exit 3; }
  rm -f "$log"
fi

venv=$cache/venv
if [ ! -x "$venv/bin/python" ]; then
  # The distribution's own interpreter: its bundled pip is the one fetch.py was written for.
  /usr/bin/python3 -m venv "$venv"
fi
"$venv/bin/python" "$here/fetch.py" "$here/downloads.lock" "$cache/downloads" "$cache/deps" $offline
